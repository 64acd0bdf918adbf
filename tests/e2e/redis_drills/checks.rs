//! What must hold after a drill: what was accepted has finished, once each, and ran.

use std::collections::{BTreeMap, BTreeSet};

use crate::scene::{Scene, Server};

/// A script whose attempts note themselves.
pub fn noting(scene: &Scene) -> String {
    format!("echo $VOLLEY_CONTAINER_ID $VOLLEY_ATTEMPT >> {}", scene.path("attempts").display())
}

/// Each attempt that ran, none twice.
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

/// So many were accepted, and each has finished well, once, by an attempt that ran.
pub fn check_ends(scene: &Scene, server: &Server, containers: u64) {
    let audit = server.audit();
    assert_eq!((&audit["accepted"], &audit["finished"]), (&containers.into(), &containers.into()), "{audit}");
    let attempts = attempts(scene);
    let (mut after, mut seen) = (String::new(), 0);
    loop {
        let page = server.get(&format!("/v1/containers?max=1000{after}"));
        for container in page["containers"].as_array().expect("a list") {
            assert_eq!(container["success"], true, "{container}");
            let id = container["id"].as_str().expect("an id");
            let attempt = container["attempt"].as_u64().expect("an attempt");
            assert!(attempts[id].contains(&attempt), "{container}: {:?}", attempts[id]);
            seen += 1;
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, containers);
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for event in server.events() {
        if event["state"] == "finished" {
            *ends.entry(event["container"].as_str().expect("an id").to_owned()).or_default() += 1;
        }
    }
    assert_eq!(ends.len() as u64, containers);
    assert!(ends.values().all(|count| *count == 1), "{ends:?}");
}
