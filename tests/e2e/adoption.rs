//! A worker that is killed and comes back within its lease: what runs goes on, what ended
//! meanwhile is reported as it ended.

use serde_json::json;

use crate::scene::{Scene, until};

const FLAGS: [&str; 4] = ["--cpu", "1", "--memory", "1Gi"];

fn is_there(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty())
}

#[test]
fn what_runs_is_adopted_and_what_ended_is_reported() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let mut worker = scene.worker(&server, "w", &FLAGS);
    let folder = scene.path("").display().to_string();
    let script = |name: &str, then: &str| {
        format!(
            "echo $$ > {folder}/{name}.pid; echo before; while [ ! -e {folder}/{name} ]; do sleep 0.05; done; {then}"
        )
    };
    let small = json!({ "resources": { "cpu": "100m", "memory": "8Mi" } });
    let runs = format!("{}-0", server.submit(1, &script("runs", "echo after"), small.clone()));
    let ends = format!("{}-0", server.submit(1, &script("ends", "exit 7"), small.clone()));
    let stops = format!("{}-0", server.submit(1, &script("stops", "true"), small));
    for id in [&runs, &ends, &stops] {
        server.until_state(id, "running");
    }
    let pid = |name: &str| {
        let file = scene.path(&format!("{name}.pid"));
        until("its pid is noted", || std::fs::read_to_string(&file).ok()?.trim().parse::<i32>().ok())
    };
    let (running, ending) = (pid("runs"), pid("ends"));
    worker.process.kill();
    // While nobody looks, one ends, and another is asked to stop.
    std::fs::write(scene.path("ends"), "").expect("the folder is ours");
    until("its process is gone", || (!is_there(ending)).then_some(()));
    assert!(is_there(running), "a container outlives its worker");
    assert_eq!(server.json(&["stop", &stops])["stopped"][0]["stopping"], 1);
    let _again = scene.worker(&server, "w", &FLAGS);
    let end = server.until_state(&ends, "finished");
    assert_eq!((&end["attempt"], &end["outcome"]["code"]), (&1.into(), &7.into()), "{end}");
    assert_eq!(server.until_state(&stops, "finished")["outcome_words"], "stopped");
    assert!(is_there(running) && server.container(&runs)["state"] == "running");
    std::fs::write(scene.path("runs"), "").expect("the folder is ours");
    let end = server.until_state(&runs, "finished");
    assert_eq!((&end["attempt"], &end["success"]), (&1.into(), &true.into()), "{end}");
    // Its output of both lives is there.
    let logs = server.request("GET", &format!("/v1/containers/{runs}/logs"), &[], b"");
    assert_eq!(logs.body, "before\nafter\n");
    server.audit();
}
