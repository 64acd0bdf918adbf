//! What no worker can ever serve: it waits and says why, or fails and says why.

use serde_json::json;

use crate::scene::{Scene, out, until};

#[test]
fn it_waits_for_a_worker_that_can_or_fails_as_its_spec_says() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _small = scene.worker(&server, "small", &["--cpu", "1", "--memory", "1Gi"]);
    let large = json!({ "cpu": "3", "memory": "8Mi" });
    let waits = format!("{}-0", server.submit(1, "true", json!({ "resources": large })));
    let fails = server.submit(20, "true", json!({ "resources": large, "on_unplaceable": "fail" }));
    for container in server.until_finished(&fails) {
        assert_eq!(container["outcome"]["outcome"], "unplaceable", "{container}");
        assert!(container["outcome_words"].as_str().is_some_and(|words| words.contains("CPU")), "{container}");
    }
    let words = until("it says why it waits", || {
        let words = server.container(&waits)["waiting"]["words"].as_str()?.to_owned();
        words.contains("can never serve it").then_some(words)
    });
    assert!(words.contains("pool default") && words.contains("CPU"), "{words}");
    let ps = out(&server.volley(&["ps"]));
    assert!(ps.contains(&words), "{ps}");
    let _large = scene.worker(&server, "large", &["--cpu", "4", "--memory", "1Gi"]);
    assert_eq!(server.until_state(&waits, "finished")["success"], true);
    server.audit();
}

#[test]
fn labels_pools_and_gpus_are_named() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi", "--pool", "plain"]);
    let cases = [
        (json!({ "require_labels": { "disk": "fast" } }), "disk"),
        (json!({ "pool": { "required": "other" } }), "pool"),
        (json!({ "resources": { "gpu": "H100:1" } }), "GPU"),
        (json!({ "resources": { "memory": "64Gi" } }), "memory"),
    ];
    for (spec, named) in cases {
        let id = format!("{}-0", server.submit(1, "true", spec.clone()));
        until(&format!("{spec} says why it waits"), || {
            server.container(&id)["waiting"]["words"].as_str()?.contains(named).then_some(())
        });
    }
    let flags = ["--cpu", "1", "--memory", "1Gi", "--pool", "other", "--label", "disk=fast"];
    let _other = scene.worker(&server, "o", &flags);
    let _gpus = scene.worker(&server, "g", &["--cpu", "1", "--memory", "1Gi", "--gpu", "H100:1"]);
    until("all but the largest run", || (server.get("/v1/audit")["finished"] == 3).then_some(()));
}

#[test]
fn what_waited_for_a_worker_that_goes_fails_as_its_spec_says() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _small = scene.worker(&server, "small", &["--cpu", "1", "--memory", "1Gi"]);
    let large = scene.worker(&server, "large", &["--cpu", "4", "--memory", "1Gi"]);
    let spec = json!({ "resources": { "cpu": "3", "memory": "8Mi" }, "on_unplaceable": "fail" });
    let runs = format!("{}-0", server.submit(1, "sleep 600", spec.clone()));
    server.until_state(&runs, "running");
    let waits = format!("{}-0", server.submit(1, "true", spec));
    until("it waits for the busy worker", || {
        server.container(&waits)["waiting"]["words"].as_str()?.contains("CPU short").then_some(())
    });
    assert!(server.volley(&["drain", &large.name, "--deadline", "0s"]).status.success());
    server.until_state(&runs, "finished");
    drop(large);
    let ended = server.until_state(&waits, "finished");
    assert_eq!(ended["outcome"]["outcome"], "unplaceable", "{ended}");
    server.audit();
}
