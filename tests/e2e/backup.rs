//! A copy of the store, made while it is written to, is a store that a server starts on.

use serde_json::json;

use crate::scene::{Scene, out};

#[test]
fn a_server_starts_on_a_copy() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi", "--slots", "8"]);
    let small = json!({ "resources": { "cpu": "10m", "memory": "8Mi" } });
    let done = server.submit(5, "true", small.clone());
    server.until_finished(&done);
    let busy = server.submit(60, "sleep 0.02", small);
    std::fs::create_dir(scene.path("copy")).expect("the folder is ours");
    let file = scene.path("copy/volley.db");
    let ran = server.volley(&["backup", file.to_str().expect("a plain name")]);
    assert!(ran.status.success(), "{}", out(&ran));
    let again = server.volley(&["backup", file.to_str().expect("a plain name")]);
    assert_eq!(again.status.code(), Some(2), "a copy never replaces a file: {}", out(&again));
    assert_eq!(out(&again).lines().count(), 1, "{}", out(&again));
    server.until_finished(&busy);
    drop(worker);
    drop(server);
    let copy = scene.server_on("copy", "127.0.0.1:0", &["--worker-lease", "1s"]);
    assert_eq!(copy.audit()["accepted"], 65);
    assert_eq!(copy.containers(&done).iter().filter(|container| container["success"] == true).count(), 5);
    // What the copy knew as running was lost with its worker's lease; what waited waits: all run again or to their end.
    let _worker = scene.worker(&copy, "other", &["--cpu", "1", "--memory", "1Gi", "--slots", "8"]);
    for container in copy.until_finished(&busy) {
        assert_eq!(container["success"], true, "{container}");
    }
    assert_eq!(copy.audit()["finished"], 65);
}
