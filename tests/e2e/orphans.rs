//! A worker that is killed and never comes back: what it left ends by itself when its lease does, and
//! runs elsewhere.

use serde_json::json;

use crate::scene::{Scene, until};

#[test]
fn what_a_dead_worker_left_ends_by_itself_and_runs_elsewhere() {
    let scene = Scene::new();
    let server = scene.server(&["--worker-lease", "2s"]);
    let flags = ["--cpu", "1", "--memory", "1Gi"];
    let mut dead = scene.worker(&server, "dead", &flags);
    let folder = scene.path("").display().to_string();
    let script = format!("echo $$ > {folder}/pid.$VOLLEY_ATTEMPT; while [ ! -e {folder}/go ]; do sleep 0.05; done");
    let id = format!("{}-0", server.submit(1, &script, json!({})));
    server.until_state(&id, "running");
    let pid =
        until("it has noted its pid", || std::fs::read_to_string(scene.path("pid.1")).ok()?.trim().parse::<i32>().ok());
    dead.process.kill();
    let other = scene.worker(&server, "other", &flags);
    // Nobody tells it to.
    let alive = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty());
    until("the first attempt is gone", || (!alive()).then_some(()));
    until("it runs elsewhere", || {
        let again = server.container(&id);
        let there = again["attempt"] == 2 && again["worker"] == other.name.as_str() && again["state"] == "running";
        there.then_some(())
    });
    std::fs::write(scene.path("go"), "").expect("the folder is ours");
    assert_eq!(server.until_state(&id, "finished")["success"], true);
    server.audit();
}
