//! Processes that are killed while a burst runs: nothing is lost, nothing finishes twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::http;
use crate::scene::{Scene, Server, Worker, until};

const CONTAINERS: u32 = 1_000;
const WORKERS: usize = 4;
const SERVER_KILLS: u64 = 3;

/// A small generator (xorshift): the seed is printed, so that the same moments can be tried again.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let given = std::env::var("VOLLEY_E2E_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
        let seed: u64 = given.unwrap_or(clock).max(1);
        eprintln!("seed {seed}; again with VOLLEY_E2E_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Some moment within the next tenth of a second: where in its work the victim is hit.
    fn pass(&mut self) {
        std::thread::sleep(Duration::from_micros(self.below(100_000)));
    }
}

fn until_finished_at_least(server: &Server, count: u64) {
    until("so many have finished", || {
        let reply = http::request(server.address(), "GET", "/v1/audit", &[], b"").ok()?;
        (reply.json()["finished"].as_u64()? >= count).then_some(())
    });
}

/// Each attempt notes itself once: no attempt may run twice.
fn attempts(scene: &Scene) -> BTreeMap<String, BTreeSet<u64>> {
    let text = std::fs::read_to_string(scene.path("attempts")).expect("something ran");
    let mut attempts: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for line in text.lines() {
        let (id, attempt) = line.split_once(' ').expect("id and attempt");
        let new = attempts.entry(id.to_owned()).or_default().insert(attempt.parse().expect("a number"));
        assert!(new, "attempt {attempt} of {id} ran twice");
    }
    attempts
}

#[test]
fn a_thousand_finish_once_each_though_the_server_dies_thrice_and_a_worker_once() {
    let scene = Scene::new();
    let flags = ["--worker-lease", "3s"];
    let mut server = scene.server(&flags);
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|number| scene.worker(&server, &format!("w{number}"), &["--cpu", "2", "--memory", "1Gi", "--slots", "16"]))
        .collect();
    let mut moments = Moments::new();
    let script = format!("echo $VOLLEY_CONTAINER_ID $VOLLEY_ATTEMPT >> {}", scene.path("attempts").display());
    let resources = json!({ "resources": { "cpu": "100m", "memory": "8Mi" } });
    let group = server.submit(CONTAINERS, &script, resources);

    let victim = moments.below(WORKERS as u64) as usize;
    let worker_dies_after = moments.below(SERVER_KILLS);
    for kill in 0..SERVER_KILLS {
        let part = u64::from(CONTAINERS) / (SERVER_KILLS + 1);
        until_finished_at_least(&server, part * kill + moments.below(part));
        moments.pass();
        server.kill_and_restart(&scene, &flags);
        if kill == worker_dies_after {
            moments.pass();
            workers[victim].process.kill();
        }
    }
    let containers = server.until_finished(&group);
    // Its next life sees to what the killed one left on the machine.
    workers.remove(victim);
    let flags = ["--cpu", "2", "--memory", "1Gi"];
    let _again = scene.worker(&server, &format!("w{victim}"), &flags);
    let audit = server.audit();
    assert_eq!((&audit["accepted"], &audit["finished"]), (&CONTAINERS.into(), &CONTAINERS.into()));

    let attempts = attempts(&scene);
    assert_eq!(containers.len(), CONTAINERS as usize);
    for container in &containers {
        assert_eq!(container["success"], true, "{container}");
        let id = container["id"].as_str().expect("an id");
        let attempt = container["attempt"].as_u64().expect("an attempt");
        assert!(attempts[id].contains(&attempt), "{container}: {:?}", attempts[id]);
    }
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for event in server.events() {
        if event["state"] == "finished" {
            *ends.entry(event["container"].as_str().expect("an id").to_owned()).or_default() += 1;
        }
    }
    assert_eq!(ends.len(), CONTAINERS as usize);
    assert!(ends.values().all(|count| *count == 1), "{ends:?}");
}

#[test]
fn a_client_waits_for_a_server_that_comes_back() {
    let scene = Scene::new();
    let mut server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi"]);
    let go = scene.path("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; echo done", go.display());
    let client = server.command(&["run", "-n", "4", "--", "sh", "-c", &script]);
    let mut client = { client }.stdout(std::process::Stdio::piped()).spawn().expect("the binary was built");
    until("all run", || (server.get("/v1/audit")["running"] == 4).then_some(()));
    server.kill_and_restart(&scene, &[]);
    std::fs::write(&go, "").expect("the folder is ours");
    let status = until("the client ends", || client.try_wait().expect("it is ours"));
    assert!(status.success(), "{status}");
    let audit: Value = server.audit();
    assert_eq!((&audit["finished"], &audit["accepted"]), (&4.into(), &4.into()));
    let first: Vec<Value> = server.get("/v1/containers")["containers"].as_array().expect("a list").clone();
    assert!(
        first.iter().all(|container| container["attempt"] == 1),
        "an outage of the server kills nothing: {first:?}"
    );
}
