//! A worker that is frozen for longer than its lease: what it held runs elsewhere, and what it
//! says when it thaws counts no more.

use crate::scene::{Scene, until};

#[test]
fn a_thawed_workers_attempt_is_killed_and_the_container_finishes_once_elsewhere() {
    let scene = Scene::new();
    let server = scene.server(&["--worker-lease", "2s"]);
    let flags = ["--cpu", "1", "--memory", "1Gi"];
    let frozen = scene.worker(&server, "frozen", &flags);
    let (folder, go) = (scene.path("").display().to_string(), scene.path("go"));
    let script = format!("echo $$ > {folder}/pid.$VOLLEY_ATTEMPT; while [ ! -e {folder}/go ]; do sleep 0.05; done");
    let group = server.submit(1, &script, serde_json::json!({}));
    let id = format!("{group}-0");
    let first = server.until_state(&id, "running");
    assert_eq!(first["worker"], frozen.name.as_str());
    let pid =
        until("it has noted its pid", || std::fs::read_to_string(scene.path("pid.1")).ok()?.trim().parse::<i32>().ok());

    frozen.process.signal("STOP");
    let other = scene.worker(&server, "other", &flags);
    let again = until("it runs elsewhere", || {
        Some(server.container(&id)).filter(|found| found["state"] == "running" && found["attempt"] == 2)
    });
    assert_eq!(again["worker"], other.name.as_str());
    frozen.process.signal("CONT");
    let alive = || std::path::Path::new(&format!("/proc/{pid}/cmdline")).exists();
    until("the first attempt is killed", || (!alive()).then_some(()));
    // Its word is not taken either: the second attempt goes on.
    until("the thawed worker is attached again", || {
        let workers = server.get("/v1/workers");
        let found = workers["workers"].as_array()?.iter().find(|worker| worker["id"] == frozen.name.as_str())?.clone();
        (found["status"] == "ready" && found["connected"] == true && found["containers"] == 0).then_some(())
    });
    assert_eq!(server.container(&id)["state"], "running");
    std::fs::write(go, "").expect("the folder is ours");
    let end = server.until_state(&id, "finished");
    assert_eq!(
        (&end["attempt"], &end["worker"], &end["success"]),
        (&2.into(), &other.name.as_str().into(), &true.into())
    );
    assert_eq!(server.states(&id).iter().filter(|state| *state == "finished").count(), 1);
    server.audit();
}
