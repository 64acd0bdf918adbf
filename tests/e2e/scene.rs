//! A scene: a folder, processes of the binary in it, waits on conditions, and the check that
//! nothing is left when it ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{self, Reply};

/// The binary of this very source.
pub const VOLLEY: &str = env!("CARGO_BIN_EXE_volley");
/// No condition takes so long on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Wait between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks at a condition until it gives something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What a process printed, for messages.
pub fn out(ran: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
}

/// A folder and what runs in it.
pub struct Scene {
    dir: Option<TempDir>,
    path: PathBuf,
    /// Part of each worker's name, so that its control groups are known from those of other scenes.
    tag: String,
    processes: AtomicU32,
}

impl Scene {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("volley-e2e-").tempdir().expect("a temporary folder");
        let path = dir.path().canonicalize().expect("it was made");
        let tag = path.file_name().and_then(|name| name.to_str()).expect("a plain name").to_ascii_lowercase();
        let tag = tag.trim_start_matches("volley-e2e-").trim_matches('.').to_owned();
        std::fs::create_dir(path.join("tmp")).expect("the folder is ours");
        Self { dir: Some(dir), path, tag: format!("e2e{tag}"), processes: AtomicU32::new(0) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The binary, with temporary files in the scene.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(VOLLEY);
        self.dress(&mut command);
        command.args(args);
        command
    }

    /// Gives a command the scene's environment.
    pub fn dress(&self, command: &mut Command) {
        command.env("TMPDIR", self.path("tmp")).env_remove("VOLLEY_SERVER").env_remove("VOLLEY_OUTPUT");
        command.env_remove("VOLLEY_LOG").current_dir(&self.path).stdin(Stdio::null());
    }

    /// Runs the binary to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary was built")
    }

    /// Starts a process that tells by a line of JSON that it is there.
    pub fn start(&self, mut command: Command) -> (Process, Value) {
        let number = self.processes.fetch_add(1, Ordering::SeqCst);
        let (stdout, stderr) = (self.path(&format!("{number}.out")), self.path(&format!("{number}.err")));
        command.stdout(File::create(&stdout).expect("the folder is ours"));
        command.stderr(File::create(&stderr).expect("the folder is ours"));
        let child = command.spawn().expect("the binary was built");
        let mut process = Process { child, stderr };
        let told = until("a process says that it is there", || {
            if let Ok(Some(status)) = process.child.try_wait() {
                panic!("{command:?} ended with {status}: {}", process.log());
            }
            let text = std::fs::read_to_string(&stdout).unwrap_or_default();
            text.split_once('\n').map(|(line, _)| serde_json::from_str(line).expect("a line of JSON"))
        });
        (process, told)
    }

    /// Starts a process that tells nothing.
    pub fn start_unheard(&self, mut command: Command) -> Process {
        let number = self.processes.fetch_add(1, Ordering::SeqCst);
        let stderr = self.path(&format!("{number}.err"));
        command.stdout(Stdio::null()).stderr(File::create(&stderr).expect("the folder is ours"));
        Process { child: command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")), stderr }
    }

    /// A server on a free port, with the scene's data folder.
    pub fn server(&self, flags: &[&str]) -> Server {
        self.server_on("data", "127.0.0.1:0", flags)
    }

    /// A server on an address with a data folder of the scene.
    pub fn server_on(&self, data: &str, listen: &str, flags: &[&str]) -> Server {
        let mut command = self.command(&["serve", "-o", "json", "--listen", listen, "--data", data]);
        // Each turn is a line of the log: the tests count them.
        command.args(flags).env("VOLLEY_LOG", "warn,volley_control=debug");
        let (process, told) = self.start(command);
        Server::of(process, &told)
    }

    /// A worker that is attached.
    pub fn worker(&self, server: &Server, name: &str, flags: &[&str]) -> Worker {
        self.worker_at(&server.url, name, flags)
    }

    /// A worker that is attached by way of an address.
    pub fn worker_at(&self, url: &str, name: &str, flags: &[&str]) -> Worker {
        let name = format!("{name}-{}", self.tag);
        let mut command = self.command(&["worker", "-o", "json", "--server", url, "--name", &name, "--state"]);
        command.arg(self.path(&name)).args(flags).env("VOLLEY_LOG", "info");
        let (process, _) = self.start(command);
        Worker { process, name }
    }

    /// Processes whose command line or working directory is in this scene.
    fn left(&self) -> Vec<(i32, String)> {
        let mut left = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("Linux").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            if pid == std::process::id().cast_signed() {
                continue;
            }
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            if cwd.starts_with(&self.path) || words.contains(&*self.path.to_string_lossy()) {
                left.push((pid, words));
            }
        }
        left
    }

    /// Control groups of this scene's workers.
    fn groups(&self) -> Vec<PathBuf> {
        fn look(dir: &Path, tag: &str, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if entry.file_name().to_string_lossy().contains(tag) {
                        found.push(entry.path());
                    }
                    look(&entry.path(), tag, found);
                }
            }
        }
        let mut found = Vec::new();
        look(Path::new("/sys/fs/cgroup"), &self.tag, &mut found);
        found
    }
}

impl Drop for Scene {
    /// What was started has been ended by its owner before (they borrow nothing, but are declared after the scene).
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (pid, _) in self.left() {
                signal(pid, "KILL");
            }
            for group in self.groups() {
                // Its processes may take a moment to go; what stays is only litter.
                let _ = std::fs::remove_dir(group);
            }
            // The folder stays for who looks after it.
            let kept = self.dir.take().map(TempDir::keep);
            eprintln!("the scene's folder is kept: {kept:?}");
            return;
        }
        let mut left = self.left();
        let start = Instant::now();
        while !left.is_empty() {
            assert!(start.elapsed() < PATIENCE, "processes are left: {left:?}");
            std::thread::sleep(LOOK_EVERY);
            left = self.left();
        }
        until("no control group of the scene is left", || self.groups().is_empty().then_some(()));
        let temporary: Vec<_> = std::fs::read_dir(self.path("tmp")).expect("ours").flatten().collect();
        assert!(temporary.is_empty(), "temporary files are left: {temporary:?}");
    }
}

/// Sends a signal by name.
pub fn signal(pid: i32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status();
    sent.expect("there is a shell");
}

/// A process of the scene; killed when dropped.
pub struct Process {
    child: Child,
    stderr: PathBuf,
}

impl Process {
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// As by `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it was killed");
    }

    pub fn wait(&mut self) -> ExitStatus {
        until("a process ends", || self.child.try_wait().expect("it is ours"))
    }

    /// Asks it to end and waits.
    pub fn end(&mut self) -> ExitStatus {
        if let Ok(Some(status)) = self.child.try_wait() {
            return status;
        }
        self.signal("CONT");
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}", self.stderr.display(), self.log());
            let _ = self.child.kill();
            let _ = self.child.wait();
        } else {
            self.end();
        }
    }
}

/// An attached worker; asked to leave when dropped.
pub struct Worker {
    pub process: Process,
    pub name: String,
}

/// A server that answers.
pub struct Server {
    pub process: Process,
    pub url: String,
}

impl Server {
    pub fn of(process: Process, told: &Value) -> Self {
        assert_eq!(told["version"], 1);
        Self { process, url: told["address"].as_str().expect("an address").to_owned() }
    }

    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Killed as by `kill -9`, and started anew on the same port and data.
    pub fn kill_and_restart(&mut self, scene: &Scene, flags: &[&str]) {
        self.process.kill();
        let address = self.address().to_owned();
        let listening = || std::net::TcpListener::bind(&address).ok();
        // Another process may have got the port for a connection of its own.
        drop(until("the port is free again", listening));
        *self = scene.server_on("data", &address, flags);
    }

    /// Runs a command against this server.
    pub fn volley(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary was built")
    }

    /// A command against this server, to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(VOLLEY);
        command.args(["--server", &self.url]).args(args).env_remove("VOLLEY_OUTPUT").stdin(Stdio::null());
        command
    }

    /// Runs a command that must go well; its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let ran = self.volley(&[&["-o", "json"], args].concat());
        assert!(ran.status.success(), "{args:?}: {}", out(&ran));
        let value: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{args:?}: {ran:?}"));
        assert_eq!(value["version"], 1, "{args:?}: {value}");
        value
    }

    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Reply {
        http::request(self.address(), method, path, headers, body).expect("the server answers")
    }

    pub fn get(&self, path: &str) -> Value {
        let reply = self.request("GET", path, &[], b"");
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }

    pub fn post(&self, body: &Value) -> Reply {
        self.request("POST", "/v1/containers", &[], body.to_string().as_bytes())
    }

    /// Submits `count` of a shell script with more of a spec; the group's id.
    pub fn submit(&self, count: u32, script: &str, more: Value) -> String {
        let mut spec = json!({ "command": "sh", "args": ["-c", script] });
        for (name, value) in more.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        let reply = self.post(&json!({ "spec": spec, "count": count }));
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.json()["group"].as_str().expect("a group").to_owned()
    }

    pub fn container(&self, id: &str) -> Value {
        self.get(&format!("/v1/containers/{id}"))
    }

    /// Waits until a container is in a state; its record.
    pub fn until_state(&self, id: &str, state: &str) -> Value {
        until(&format!("{id} is {state}"), || Some(self.container(id)).filter(|found| found["state"] == state))
    }

    /// Waits until a group has finished; its containers.
    pub fn until_finished(&self, group: &str) -> Vec<Value> {
        until(&format!("group {group} has finished"), || {
            // A server that was killed may not be there yet.
            let reply = http::request(self.address(), "GET", &format!("/v1/groups/{group}"), &[], b"").ok()?;
            let found = reply.json();
            (found["finished"] == found["count"]).then_some(())
        });
        self.containers(group)
    }

    /// All containers of a group.
    pub fn containers(&self, group: &str) -> Vec<Value> {
        let (mut containers, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/containers?group={group}{after}"));
            containers.extend(page["containers"].as_array().expect("a list").iter().cloned());
            let Some(next) = page["next"].as_str() else { return containers };
            after = format!("&after={next}");
        }
    }

    /// All events.
    pub fn events(&self) -> Vec<Value> {
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let page = self.get(&format!("/v1/events?after={after}"));
            let found = page["events"].as_array().expect("a list");
            let Some(last) = found.last() else { return events };
            after = last["number"].as_u64().expect("a number");
            events.extend(found.iter().cloned());
        }
    }

    /// The states that a container went through, in order.
    pub fn states(&self, id: &str) -> Vec<String> {
        let of_it = self.events().into_iter().filter(|event| event["container"] == id);
        of_it.map(|event| event["state"].as_str().expect("a state").to_owned()).collect()
    }

    /// The audit, which must find every law kept.
    pub fn audit(&self) -> Value {
        let audit = self.get("/v1/audit");
        assert_eq!(audit["ok"], true, "{audit}");
        audit
    }

    /// How many containers each turn placed so far.
    pub fn turns(&self) -> Vec<u64> {
        let log = self.process.log();
        let turn = |line: &str| line.split_once("a turn ")?.1.split_once("placed=")?.1.trim().parse().ok();
        log.lines().filter_map(turn).collect()
    }
}
