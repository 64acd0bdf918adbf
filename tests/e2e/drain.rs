//! A drain while containers run: nothing new comes, what runs ends, or is stopped at the deadline.

use serde_json::json;

use crate::scene::{Scene, out, until};

const FLAGS: [&str; 4] = ["--cpu", "1", "--memory", "1Gi"];

#[test]
fn what_runs_goes_on_and_what_is_new_goes_elsewhere() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let drained = scene.worker(&server, "a", &FLAGS);
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", scene.path("go").display());
    let old = format!("{}-0", server.submit(1, &script, json!({})));
    server.until_state(&old, "running");
    // The beginning of its name will do.
    let ran = server.volley(&["drain", "a-"]);
    assert!(ran.status.success() && out(&ran).contains("nothing new is placed on it"), "{}", out(&ran));
    let new = format!("{}-0", server.submit(1, "true", json!({})));
    let waits = until("it says why it waits", || {
        let words = server.container(&new)["waiting"]["words"].as_str()?.to_owned();
        words.contains("draining").then_some(words)
    });
    let ps = out(&server.volley(&["ps"]));
    assert!(ps.contains(&waits), "{ps}");
    let other = scene.worker(&server, "b", &FLAGS);
    assert_eq!(server.until_state(&new, "finished")["worker"], other.name.as_str());
    let kept = server.container(&old);
    assert_eq!((&kept["state"], &kept["worker"]), (&"running".into(), &drained.name.as_str().into()));
    std::fs::write(scene.path("go"), "").expect("the folder is ours");
    assert_eq!(server.until_state(&old, "finished")["success"], true);
    server.audit();
}

#[test]
fn what_still_runs_at_the_deadline_is_stopped() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let worker = scene.worker(&server, "a", &FLAGS);
    let id = format!("{}-0", server.submit(1, "exec sleep 1000", json!({})));
    server.until_state(&id, "running");
    assert_eq!(server.json(&["drain", &worker.name, "--deadline", "200ms"])["deadline_ms"], 200);
    assert_eq!(server.until_state(&id, "finished")["outcome_words"], "stopped by a drain");
    server.audit();
}

#[test]
fn a_worker_that_leaves_ends_its_containers_which_run_elsewhere() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let mut leaving = scene.worker(&server, "a", &FLAGS);
    let script = "[ $VOLLEY_ATTEMPT = 2 ] || exec sleep 1000";
    let id = format!("{}-0", server.submit(1, script, json!({})));
    server.until_state(&id, "running");
    let other = scene.worker(&server, "b", &FLAGS);
    assert!(leaving.process.end().success());
    let end = server.until_state(&id, "finished");
    assert_eq!(
        (&end["attempt"], &end["worker"], &end["success"]),
        (&2.into(), &other.name.as_str().into(), &true.into())
    );
    server.audit();
}
