//! Stop, at every state that can be held open from outside. `claimed` lasts as long as one turn and
//! cannot; the ledger's own tests stop there.

use serde_json::{Value, json};

use crate::scene::{Scene, Server, out, until};

const FLAGS: [&str; 4] = ["--cpu", "4", "--memory", "1Gi"];

fn stop(server: &Server, args: &[&str]) -> Value {
    server.json(&[&["stop"], args].concat())["stopped"][0].clone()
}

fn assert_stopped(container: &Value) {
    assert_eq!(container["outcome_words"], "stopped", "{container}");
}

#[test]
fn what_waits_ends_at_once() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let group = server.submit(3, "true", json!({}));
    let one = stop(&server, &[&format!("{group}-1")]);
    assert_eq!((&one["finished"], &one["stopping"]), (&1.into(), &0.into()));
    assert_stopped(&server.container(&format!("{group}-1")));
    assert_eq!(server.container(&format!("{group}-0"))["state"], "queued");
    // The whole group, by the beginning of its id.
    let rest = stop(&server, &[&group[..6]]);
    assert_eq!((&rest["finished"], &rest["already_finished"]), (&2.into(), &1.into()));
    let again = stop(&server, &[&group]);
    assert_eq!((&again["finished"], &again["already_finished"]), (&0.into(), &3.into()));
    assert_eq!(server.audit()["finished"], 3);
}

#[test]
fn what_is_assigned_never_starts() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let worker = scene.worker(&server, "w", &FLAGS);
    worker.process.signal("STOP");
    let ran = scene.path("ran");
    let group = server.submit(1, &format!("touch {}", ran.display()), json!({}));
    let id = format!("{group}-0");
    server.until_state(&id, "assigned");
    assert_eq!(stop(&server, &[&id])["stopping"], 1);
    worker.process.signal("CONT");
    assert_stopped(&server.until_state(&id, "finished"));
    let states = server.states(&id);
    // The start may have been on its way to the frozen worker; then it is ended there.
    assert_eq!(states.first().map(String::as_str), Some("assigned"), "{states:?}");
    assert_eq!(server.audit()["finished"], 1);
}

#[test]
fn what_starts_is_ended() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &["--cpu", "64", "--memory", "64Gi", "--slots", "300"]);
    let spec = json!({ "resources": { "cpu": "10m", "memory": "8Mi" } });
    let group = server.submit(200, "exec sleep 1000", spec);
    until("some are starting", || server.get("/v1/audit")["starting"].as_u64().filter(|count| *count > 0));
    stop(&server, &[&group]);
    for container in server.until_finished(&group) {
        assert_stopped(&container);
    }
    let mut last: std::collections::BTreeMap<String, String> = Default::default();
    let mut from_starting = 0;
    for event in server.events().iter().filter(|event| event["kind"] == "container") {
        let (id, state) = (event["container"].to_string(), event["state"].as_str().expect("a state").to_owned());
        if state == "stopping" && last.get(&id).is_some_and(|last| last == "starting") {
            from_starting += 1;
        }
        last.insert(id, state);
    }
    assert!(from_starting > 0, "none of 200 was stopped while it started");
    assert_eq!(server.audit()["finished"], 200);
}

#[test]
fn what_runs_is_asked_then_killed() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &FLAGS);
    let folder = scene.path("").display().to_string();
    // One that says goodbye, one that does not hear.
    let polite =
        format!("trap 'echo bye > {folder}/bye; exit 0' TERM; touch {folder}/polite; while :; do sleep 0.05; done");
    let deaf = format!("trap '' TERM; touch {folder}/deaf; while :; do sleep 0.05; done");
    let polite = format!("{}-0", server.submit(1, &polite, json!({ "stop_grace": "1h" })));
    let deaf = format!("{}-0", server.submit(1, &deaf, json!({ "stop_grace": "1h" })));
    for name in ["polite", "deaf"] {
        until("its trap is set", || scene.path(name).exists().then_some(()));
    }
    assert_eq!(stop(&server, &[&polite])["stopping"], 1);
    assert_stopped(&server.until_state(&polite, "finished"));
    assert_eq!(std::fs::read_to_string(scene.path("bye")).expect("it said so"), "bye\n");
    assert_eq!(stop(&server, &[&deaf])["stopping"], 1);
    assert_eq!(server.container(&deaf)["state"], "stopping");
    // Again while it is stopping: the grace goes on.
    assert_eq!(stop(&server, &[&deaf])["stopping"], 1);
    assert_eq!(server.container(&deaf)["state"], "stopping");
    stop(&server, &["--force", &deaf]);
    assert_stopped(&server.until_state(&deaf, "finished"));
    assert_eq!(stop(&server, &[&deaf])["already_finished"], 1);
    assert_eq!(server.audit()["finished"], 2);
}

#[test]
fn a_short_grace_ends_what_does_not_hear() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &FLAGS);
    let deaf = format!("trap '' TERM; touch {}; while :; do sleep 0.05; done", scene.path("deaf").display());
    let id = format!("{}-0", server.submit(1, &deaf, json!({ "stop_grace": "200ms" })));
    until("its trap is set", || scene.path("deaf").exists().then_some(()));
    stop(&server, &[&id]);
    assert_stopped(&server.until_state(&id, "finished"));
}

#[test]
fn several_are_stopped_and_the_one_that_is_not_there_is_told() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let group = server.submit(2, "true", json!({}));
    let ran = server.volley(&["stop", &format!("{group}-0"), "zzzz", &format!("{group}-1")]);
    assert_eq!(ran.status.code(), Some(4), "{}", out(&ran));
    assert_eq!(server.audit()["finished"], 2);
}
