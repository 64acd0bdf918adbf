//! A storm: clients that submit to whichever server answers while servers, workers and Redis are
//! hurt by a script, and then calm, in which all must come to its end.

use std::time::{Duration, Instant};

use serde_json::json;

use super::script::{self, Event, Size, Step};
use super::{at_full_size, checks, small};
use crate::cell::Cell;
use crate::http;
use crate::scene::{Scene, Server, Worker};

/// Containers of one submission.
const GROUP: u64 = 50;
/// No progress for so long is a failure, on the slowest machine.
const STUCK: Duration = Duration::from_secs(120);
/// Wait between two tries of a client, and between two looks.
const AGAIN: Duration = Duration::from_millis(100);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

pub fn rounds() {
    let (first, rounds) = (number("VOLLEY_SEED").unwrap_or(1), number("VOLLEY_REDIS_DRILLS").unwrap_or(1));
    let mut size = match at_full_size() {
        true => Size { servers: 3, workers: 8, containers: 20_000, steps: 40 },
        false => Size { servers: 3, workers: 4, containers: 600, steps: 9 },
    };
    size.containers = number("VOLLEY_DRILL_CONTAINERS").unwrap_or(size.containers).next_multiple_of(GROUP);
    for seed in first..first + rounds {
        let steps = script::of(seed, size);
        println!("seed {seed}: {size:?} {steps:?}");
        println!("  again: VOLLEY_SEED={seed} cargo test -p volley-cli --test e2e redis_drills::a_storm");
        round(size, &steps);
    }
}

struct Cast<'s> {
    cell: Cell<'s>,
    // They leave by way of the servers, which end after them.
    workers: Vec<Option<Worker>>,
    servers: Vec<Server>,
}

fn round(size: Size, steps: &[Step]) {
    let scene = Scene::new();
    let cell = Cell::new(&scene, &["--worker-lease", "6s", "--session-lease", "4s"]);
    let servers: Vec<Server> = (0..size.servers).map(|_| cell.server(&[])).collect();
    let addresses: Vec<String> = servers.iter().map(|server| server.address().to_owned()).collect();
    let workers = (0..size.workers).map(|n| Some(cell.worker(&servers[n % size.servers], &format!("w{n}"), &[])));
    let workers = workers.collect();
    let mut cast = Cast { cell, workers, servers };
    let script = checks::noting(&scene);
    std::thread::scope(|threads| {
        let (script, addresses) = (&script, &addresses);
        let submitting = threads.spawn(move || submit_all(script, addresses, size.containers));
        for step in steps {
            std::thread::sleep(step.pause);
            println!("  {:?}", step.event);
            cast.play(step.event);
        }
        submitting.join().expect("all are accepted");
    });
    cast.cell.proxy.cut_replies(0);
    until_all_finished(&cast.servers[0], size.containers);
    checks::check_ends(&scene, &cast.servers[0], size.containers);
    for server in &cast.servers {
        server.audit();
    }
}

/// Submits groups one after another, each with its key, to one server after another until it is accepted.
fn submit_all(script: &str, addresses: &[String], containers: u64) {
    let spec = json!({ "command": "sh", "args": ["-c", script], "resources": small()["resources"] });
    let body = json!({ "spec": spec, "count": GROUP }).to_string();
    for group in 0..containers / GROUP {
        let key = format!("Idempotency-Key: storm-{group}");
        let started = Instant::now();
        for address in addresses.iter().cycle().skip(group as usize % addresses.len()) {
            let reply = http::request(address, "POST", "/v1/containers", &[&key], body.as_bytes());
            match reply {
                Ok(reply) if matches!(reply.status, 200 | 201) => break,
                Ok(reply) => assert!(matches!(reply.status, 429 | 503), "{reply:?}"),
                // It is not there, or died meanwhile.
                Err(_) => {}
            }
            assert!(started.elapsed() < STUCK, "no server accepts group {group}");
            std::thread::sleep(AGAIN);
        }
    }
}

fn until_all_finished(server: &Server, containers: u64) {
    let (mut last, mut since) = (0, Instant::now());
    while last < containers {
        let reply = http::request(server.address(), "GET", "/v1/audit", &[], b"").ok();
        let finished = reply.filter(|reply| reply.status == 200).and_then(|reply| reply.json()["finished"].as_u64());
        if finished.is_some_and(|finished| finished > last) {
            (last, since) = (finished.unwrap_or(last), Instant::now());
        }
        assert!(since.elapsed() < STUCK, "it does not drain: {last} of {containers} have finished");
        std::thread::sleep(AGAIN);
    }
}

impl Cast<'_> {
    fn play(&mut self, event: Event) {
        let sleep = std::thread::sleep;
        match event {
            Event::KillServer { server } => self.cell.kill_and_restart(&mut self.servers[server]),
            Event::KillWorker { worker, away } => {
                self.kill_worker(worker);
                sleep(away);
                self.restart_worker(worker);
            }
            Event::KillServerAndWorker { server, worker } => {
                self.kill_worker(worker);
                self.cell.kill_and_restart(&mut self.servers[server]);
                self.restart_worker(worker);
            }
            Event::KillRedis { away } => {
                self.cell.redis.kill();
                sleep(away);
                self.cell.redis.start_again();
            }
            Event::FreezeRedis { away } => {
                self.cell.redis.signal("STOP");
                sleep(away);
                self.cell.redis.signal("CONT");
            }
            Event::FreezeServer { server, away } => {
                self.servers[server].process.signal("STOP");
                sleep(away);
                self.servers[server].process.signal("CONT");
            }
            Event::CutReplies { count } => self.cell.proxy.cut_replies(count),
            Event::FlushScripts => drop(self.cell.redis.cli(&["SCRIPT", "FLUSH"])),
            Event::BreakConnections => self.cell.proxy.lead_to(&self.cell.redis.socket()),
        }
    }

    fn kill_worker(&mut self, worker: usize) {
        self.workers[worker].take().expect("it is there between events").process.kill();
    }

    fn restart_worker(&mut self, worker: usize) {
        // It starts at the first that answers: any will do.
        let server = &self.servers[worker % self.servers.len()];
        self.workers[worker] = Some(self.cell.worker(server, &format!("w{worker}"), &[]));
    }
}
