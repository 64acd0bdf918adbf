//! The processes of a round: a server, its workers behind a proxy, clients that repeat the same
//! submission until it has ended, and what is done to all of them.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::proxy::Proxy;
use super::script::{Event, Group, Kind, Script, Side, WORKERS};
use crate::scene::{Process, Scene, Server, VOLLEY, Worker, until};

/// Short leases: what is lost is noticed within the round.
const SERVER_FLAGS: [&str; 4] = ["--worker-lease", "3s", "--session-lease", "2s"];
const WORKER_FLAGS: [&str; 6] = ["--cpu", "2", "--memory", "1Gi", "--slots", "16"];
/// The server keeps 64 MiB free; this much is left of a disk that is nearly full.
const LEFT_BYTES: u64 = 32 << 20;
/// A client's commands, all with the same key; after so many that failed something is wrong.
const CLIENT_TRIES: u32 = 30;
const CLIENT_PAUSE: Duration = Duration::from_millis(100);
const FAKE_TIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

pub struct Cast<'s> {
    scene: &'s Scene,
    kind: Kind,
    // They leave by way of the proxy and the server, which end after them.
    workers: Vec<Option<Worker>>,
    clients: Vec<Client>,
    server: Option<Server>,
    address: String,
    to_workers: Proxy,
    to_clients: Proxy,
    disk: Option<Process>,
}

impl<'s> Cast<'s> {
    pub fn new(scene: &'s Scene, kind: Kind, script: &Script) -> Self {
        std::fs::create_dir(scene.path("disk")).expect("the folder is ours");
        let disk = matches!(kind, Kind::Disk | Kind::All).then(|| small_disk(scene));
        std::fs::write(scene.path("clock"), "+0").expect("the folder is ours");
        let server = serve(scene, kind, disk.as_ref(), "127.0.0.1:0");
        let address = server.address().to_owned();
        let (to_workers, to_clients) = (Proxy::of(&address), Proxy::of(&address));
        let workers = (0..WORKERS).map(|number| Some(work(scene, &to_workers, number as usize))).collect();
        let clients = script.groups.iter().enumerate();
        let clients = clients.map(|(number, group)| Client::start(scene, &to_clients, number, group)).collect();
        Self { scene, kind, server: Some(server), address, workers, clients, to_workers, to_clients, disk }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it is there between events")
    }

    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().flatten()
    }

    fn kill_server(&mut self) {
        self.server.take().expect("it is there between events").process.kill();
    }

    fn restart_server(&mut self) {
        let listening = || std::net::TcpListener::bind(&self.address).ok();
        // Another process may have got the port for a connection of its own.
        drop(until("the port is free again", listening));
        self.server = Some(serve(self.scene, self.kind, self.disk.as_ref(), &self.address));
    }

    fn kill_worker(&mut self, worker: usize) {
        self.workers[worker].take().expect("it is there between events").process.kill();
    }

    fn restart_worker(&mut self, worker: usize) {
        self.workers[worker] = Some(work(self.scene, &self.to_workers, worker));
    }

    fn side(&self, side: Side) -> &Proxy {
        match side {
            Side::Workers => &self.to_workers,
            Side::Clients => &self.to_clients,
        }
    }

    /// Does it, and mends it when its time is over.
    pub fn play(&mut self, event: &Event) {
        let sleep = std::thread::sleep;
        match *event {
            Event::KillServer { away } => {
                self.kill_server();
                sleep(away);
                self.restart_server();
            }
            Event::KillWorker { worker, away } => {
                self.kill_worker(worker);
                sleep(away);
                self.restart_worker(worker);
            }
            Event::KillBoth { worker, away } => {
                self.kill_server();
                self.kill_worker(worker);
                sleep(away);
                self.restart_server();
                self.restart_worker(worker);
            }
            Event::KillClient { client } => self.clients[client].kill(),
            Event::FreezeServer { away } => frozen(&self.server().process, away),
            Event::FreezeWorker { worker, away } => {
                frozen(&self.workers[worker].as_ref().expect("it is there between events").process, away);
            }
            Event::Cut { side } => self.side(side).cut(),
            Event::Delay { side, by, away } => {
                self.side(side).delay(by);
                sleep(away);
                self.side(side).delay(Duration::ZERO);
            }
            Event::Stall { side, away } => {
                self.side(side).stall(true);
                sleep(away);
                self.side(side).stall(false);
            }
            Event::FillDisk { to_the_last_byte, away } => self.fill_disk(to_the_last_byte, away),
            Event::FailSyncs { each, away } => self.fail_syncs(each, away),
            Event::SetClock { ahead_s } => self.set_clock(ahead_s),
        }
    }

    /// Somebody else's file takes the disk.
    fn fill_disk(&self, to_the_last_byte: bool, away: Duration) {
        let disk = self.disk.as_ref().expect("this kind of drill has one");
        let root = PathBuf::from(format!("/proc/{}/root", disk.pid()));
        let folder = self.scene.path("disk");
        let filler = root.join(folder.strip_prefix("/").expect("absolute")).join("filler");
        let mut file = File::create(&filler).expect("an empty file needs no room");
        let block = vec![1; 1 << 20];
        while file.write_all(&block).is_ok() {}
        if !to_the_last_byte {
            let length = file.metadata().expect("it is open").len();
            file.set_len(length.saturating_sub(LEFT_BYTES)).expect("smaller always goes");
        }
        std::thread::sleep(away);
        std::fs::remove_file(filler).expect("it is ours");
    }

    /// The kernel says "input/output error" to each n-th sync of the server.
    fn fail_syncs(&self, each: u64, away: Duration) {
        let pid = self.server().process.pid().to_string();
        let inject = format!("inject=fsync,fdatasync:error=EIO:when=1+{each}");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-p", &pid, "-e", "trace=fsync,fdatasync", "-e", &inject, "-o", "/dev/null"]);
        let mut strace = strace.stderr(Stdio::null()).spawn().expect("strace is installed");
        std::thread::sleep(away);
        crate::scene::signal(strace.id().cast_signed(), "TERM");
        until("strace lets go", || strace.try_wait().expect("it is ours"));
    }

    fn set_clock(&self, ahead_s: i64) {
        let new = self.scene.path("clock.new");
        std::fs::write(&new, format!("{ahead_s:+}")).expect("the folder is ours");
        std::fs::rename(new, self.scene.path("clock")).expect("the folder is ours");
    }

    /// Waits for all clients to have been told that all of theirs went well.
    pub fn join_clients(&mut self) {
        for client in self.clients.drain(..) {
            until("a client has its end", || client.thread.is_finished().then_some(()));
            client.thread.join().expect("its client had an end");
        }
    }
}

fn frozen(process: &Process, away: Duration) {
    process.signal("STOP");
    std::thread::sleep(away);
    process.signal("CONT");
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

/// A tmpfs in a mount namespace of its own, which lives as long as the process: nothing is left behind.
fn small_disk(scene: &Scene) -> Process {
    let mut command = Command::new("unshare");
    scene.dress(&mut command);
    command.args(if is_root() { &["--mount"][..] } else { &["--map-root-user", "--mount"] });
    let script = "mount -t tmpfs -o size=160m tmpfs \"$0\" && echo '{}' && exec sleep 1000000";
    command.args(["sh", "-c", script]).arg(scene.path("disk"));
    scene.start(command).0
}

fn serve(scene: &Scene, kind: Kind, disk: Option<&Process>, listen: &str) -> Server {
    let mut command = match disk {
        None => Command::new(VOLLEY),
        Some(disk) => {
            let mut command = Command::new("nsenter");
            command.args(["--target", &disk.pid().to_string(), "--mount"]);
            if !is_root() {
                command.args(["--user", "--preserve-credentials"]);
            }
            command.args(["--", VOLLEY]);
            command
        }
    };
    scene.dress(&mut command);
    command.args(["serve", "-o", "json", "--listen", listen, "--data"]).arg(scene.path("disk/data")).args(SERVER_FLAGS);
    if matches!(kind, Kind::Clock | Kind::All) {
        // The wall clock only: the kernel's other clock is nobody's to set.
        command.env("LD_PRELOAD", FAKE_TIME).env("FAKETIME_TIMESTAMP_FILE", scene.path("clock"));
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
    }
    let (process, told) = scene.start(command);
    Server::of(process, &told)
}

fn work(scene: &Scene, proxy: &Proxy, number: usize) -> Worker {
    scene.worker_at(&proxy.url(), &format!("w{number}"), &WORKER_FLAGS)
}

/// A client that is killed now and then, and repeats the same command until it ends well.
struct Client {
    running: Arc<Mutex<Option<Child>>>,
    thread: JoinHandle<()>,
}

impl Client {
    fn start(scene: &Scene, proxy: &Proxy, number: usize, group: &Group) -> Self {
        let running = Arc::new(Mutex::new(None));
        let lines = scene.path("attempts").display().to_string();
        let me = "$VOLLEY_CONTAINER_ID $VOLLEY_ATTEMPT";
        let work = group.work.as_secs_f64();
        let script = format!("echo begin {me} >> {lines}; sleep {work:.3}; echo end {me} >> {lines}");
        let (key, count) = (format!("client {number}"), group.containers.to_string());
        let url = proxy.url();
        let output = scene.path(&format!("client.{number}"));
        let mut command = scene.command(&["--server", &url, "-o", "quiet", "run", "--key", &key, "-n", &count]);
        command.args(["--cpu", "100m", "--memory", "8Mi", "--", "sh", "-c", &script]);
        let (pause, shared) = (group.pause, Arc::clone(&running));
        let thread = std::thread::spawn(move || {
            std::thread::sleep(pause);
            for _ in 0..CLIENT_TRIES {
                let file = File::create(&output).expect("the folder is ours");
                command.stderr(file.try_clone().expect("it is open")).stdout(file);
                *shared.lock().expect("nobody panics with it") = Some(command.spawn().expect("the binary was built"));
                let status = until("a client's command ends", || {
                    let mut running = shared.lock().expect("nobody panics with it");
                    running.as_mut().expect("set above").try_wait().expect("it is ours")
                });
                if status.success() {
                    return;
                }
                std::thread::sleep(CLIENT_PAUSE);
            }
            let mut said = String::new();
            File::open(&output).and_then(|mut file| file.read_to_string(&mut said)).expect("written above");
            panic!("{CLIENT_TRIES} commands failed; the last said: {said}");
        });
        Self { running, thread }
    }

    fn kill(&self) {
        if let Some(child) = self.running.lock().expect("nobody panics with it").as_mut() {
            // It may have ended already.
            let _ = child.kill();
        }
    }
}
