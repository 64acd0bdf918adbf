//! Retry with backoff, and waits that end.

use serde_json::json;

use crate::scene::{Scene, out, until};

const FLAGS: [&str; 4] = ["--cpu", "1", "--memory", "1Gi"];

#[test]
fn each_wait_is_longer_and_the_last_attempt_counts() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &FLAGS);
    let retry =
        json!({ "retry": { "attempts_max": 3, "backoff": "300ms", "backoff_max": "1s", "on": ["exit_nonzero"] } });
    let id = format!("{}-0", server.submit(1, "exit $((4 + VOLLEY_ATTEMPT))", retry));
    until("ps says that it waits for its retry", || {
        out(&server.volley(&["ps"])).contains("its retry is due in").then_some(())
    });
    let end = server.until_state(&id, "finished");
    assert_eq!((&end["attempt"], &end["outcome"]["code"]), (&3.into(), &7.into()), "{end}");
    let events: Vec<_> = server.events().into_iter().filter(|event| event["container"] == id.as_str()).collect();
    let at = |state: &str, attempt: u64| {
        let found = events.iter().find(|event| event["state"] == state && event["attempt"] == attempt);
        found.and_then(|event| event["at_ms"].as_u64()).unwrap_or_else(|| panic!("no {state} {attempt}: {events:?}"))
    };
    for (attempt, backoff) in [(1, 300), (2, 600)] {
        assert!(at("assigned", attempt + 1) >= at("queued", attempt) + backoff, "{events:?}");
    }
    server.audit();
}

#[test]
fn without_retry_a_lost_worker_is_the_end() {
    let scene = Scene::new();
    let server = scene.server(&["--worker-lease", "1s"]);
    let mut worker = scene.worker(&server, "w", &FLAGS);
    let go = scene.path("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", go.display());
    let id = format!("{}-0", server.submit(1, &script, json!({ "retry": "never" })));
    server.until_state(&id, "running");
    worker.process.kill();
    assert_eq!(server.until_state(&id, "finished")["outcome_words"], "its worker was lost");
    // Its keeper saw nothing of that; what it kept ends by itself.
    std::fs::write(go, "").expect("the folder is ours");
    server.audit();
}

#[test]
fn a_wait_that_is_too_long_ends() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let alone = format!("{}-0", server.submit(1, "true", json!({ "max_wait": "100ms" })));
    assert_eq!(server.until_state(&alone, "finished")["outcome"]["outcome"], "expired");
    let _worker = scene.worker(&server, "w", &FLAGS);
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", scene.path("go").display());
    let whole = json!({ "resources": { "cpu": "1" } });
    let busy = format!("{}-0", server.submit(1, &script, whole));
    server.until_state(&busy, "running");
    let second = server.submit(50, "true", json!({ "resources": { "cpu": "1" }, "max_wait": "100ms" }));
    for container in server.until_finished(&second) {
        assert_eq!(container["outcome_words"], "waited longer than its max_wait", "{container}");
    }
    std::fs::write(scene.path("go"), "").expect("the folder is ours");
    assert_eq!(server.until_state(&busy, "finished")["success"], true);
    assert_eq!(server.audit()["finished"], 52);
}
