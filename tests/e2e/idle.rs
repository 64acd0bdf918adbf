//! A hundred thousand containers that fit nowhere cost an idle server nothing.

use std::time::Duration;

use serde_json::json;

use crate::scene::{Scene, until};

/// How long the idle server is watched: several sweeps and heartbeats.
const WATCHED: Duration = Duration::from_secs(6);

/// CPU time used so far, in clock ticks (a hundredth of a second on Linux).
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name in brackets").1.split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

#[test]
fn nobody_polls_the_backlog() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi"]);
    let group = server.submit(100_000, "true", json!({ "resources": { "cpu": "3" } }));
    until("the shape is known to fit nowhere", || {
        let words = server.container(&format!("{group}-99999"))["waiting"]["words"].as_str()?.to_owned();
        words.contains("can never serve it").then_some(())
    });
    // The turn that looks once more, after the one that marked the shape.
    let mut turns = 0;
    until("its turns are over", || {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut turns, server.turns().len()).eq(&server.turns().len()).then_some(())
    });
    let (turns, before) = (server.turns().len(), ticks(server.process.pid()));
    std::thread::sleep(WATCHED);
    let used = ticks(server.process.pid()) - before;
    let percent = used as f64 / WATCHED.as_secs_f64();
    println!("an idle server with 100,000 waiting used {used} ticks in {WATCHED:?}: {percent:.2} % of a core");
    assert_eq!(server.turns().len(), turns, "an idle server takes no turns");
    // It is idle, not deaf: what fits goes past the backlog at once.
    let small = server.submit(1, "true", json!({ "resources": { "cpu": "100m" } }));
    server.until_finished(&small);
    assert_eq!(server.audit()["queued"], 100_000);
    let stopped = server.json(&["stop", &group]);
    assert_eq!(stopped["stopped"][0]["finished"], 100_000);
}
