//! What must hold after a round: what clients were told against what the server has, what ran,
//! and what the machine runs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::cast::Cast;
use crate::scene::{Scene, until};

/// Containers that run while capacity is compared with the machine: more than one worker has room for.
const SLEEPERS: u32 = 25;

/// Container and number.
type Attempts = BTreeSet<(String, u64)>;

/// Every attempt that began, once each, and those that came to their end.
fn attempts(scene: &Scene) -> (Attempts, Attempts) {
    let text = std::fs::read_to_string(scene.path("attempts")).expect("something ran");
    let (mut began, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let attempt = (words[1].to_owned(), words[2].parse().expect("a number"));
        let new = if words[0] == "begin" { began.insert(attempt) } else { ended.insert(attempt) };
        assert!(new, "it ran twice: {line}");
    }
    (began, ended)
}

/// Everything that clients were told has ended well, once, and ran.
pub fn check_ends(scene: &Scene, cast: &Cast<'_>, containers: u64) {
    let server = cast.server();
    let audit = server.audit();
    assert_eq!((&audit["accepted"], &audit["finished"]), (&containers.into(), &containers.into()), "{audit}");
    let page = server.get("/v1/containers?max=1000");
    let listed = page["containers"].as_array().expect("a list");
    assert_eq!(listed.len() as u64, containers);
    let (began, ended) = attempts(scene);
    for container in listed {
        assert_eq!(container["success"], true, "{container}");
        let id = container["id"].as_str().expect("an id").to_owned();
        let attempt = (id, container["attempt"].as_u64().expect("an attempt"));
        assert!(began.contains(&attempt) && ended.contains(&attempt), "it did not run to its end: {container}");
    }
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for event in server.events().iter().filter(|event| event["state"] == "finished") {
        *ends.entry(event["container"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    assert_eq!(ends.len() as u64, containers);
    assert!(ends.values().all(|count| *count == 1), "{ends:?}");
}

/// Ids of containers that have processes on this machine, by worker.
fn running() -> BTreeMap<String, BTreeSet<String>> {
    let mut running: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").expect("Linux").flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        let value = |name: &str| environment.split('\0').find_map(|pair| pair.strip_prefix(name)).map(str::to_owned);
        if let (Some(worker), Some(id)) = (value("VOLLEY_WORKER="), value("VOLLEY_CONTAINER_ID=")) {
            running.entry(worker).or_default().insert(id);
        }
    }
    running
}

/// The capacity that is taken is what runs, while much runs and when nothing does.
pub fn check_capacity(scene: &Scene, cast: &Cast<'_>) {
    let server = cast.server();
    let go = scene.path("go");
    let small = json!({ "resources": { "cpu": "100m", "memory": "8Mi" } });
    let group = server.submit(SLEEPERS, &format!("while [ ! -e {} ]; do sleep 0.1; done", go.display()), small);
    until("all run, and nothing else", || {
        let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for container in server.containers(&group) {
            let (worker, id) = (container["worker"].as_str()?.to_owned(), container["id"].as_str()?.to_owned());
            (container["state"] == "running").then(|| listed.entry(worker).or_default().insert(id))?;
        }
        let mut here = running();
        here.retain(|name, _| cast.workers().any(|worker| worker.name == *name));
        (here == listed).then_some(())?;
        workers_have(&server.get("/v1/workers"), &listed)
    });
    assert_eq!(server.audit()["running"], SLEEPERS);
    std::fs::write(go, "").expect("the folder is ours");
    server.until_finished(&group);
    until("all is free", || workers_have(&server.get("/v1/workers"), &BTreeMap::new()));
    server.audit();
}

/// Whether each worker's numbers are those of so many containers.
fn workers_have(workers: &Value, running: &BTreeMap<String, BTreeSet<String>>) -> Option<()> {
    for worker in workers["workers"].as_array()? {
        let count = running.get(worker["id"].as_str()?).map_or(0, |ids| ids.len() as u64);
        let taken = |name: &str| Some(worker["capacity"][name].as_u64()? - worker["free"][name].as_u64()?);
        let right = worker["status"] == "ready"
            && worker["containers"] == count
            && taken("cpu")? == 100 * count
            && taken("memory")? == (8 << 20) * count
            && taken("slots")? == count;
        right.then_some(())?;
    }
    Some(())
}
