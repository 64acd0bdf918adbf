//! What containers print: read afterwards, while they run, followed to the end, and bounded.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::scene::{Scene, until};

const FLAGS: [&str; 4] = ["--cpu", "1", "--memory", "1Gi"];

fn stdout(server: &crate::scene::Server, args: &[&str]) -> String {
    let ran = server.volley(args);
    assert!(ran.status.success(), "{args:?}: {}", crate::scene::out(&ran));
    String::from_utf8(ran.stdout).expect("text")
}

#[test]
fn logs_are_read_while_it_runs_and_followed_to_its_end() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let worker = scene.worker(&server, "w", &FLAGS);
    let go = scene.path("go");
    let script = format!("echo one; echo oops >&2; while [ ! -e {} ]; do sleep 0.05; done; echo two", go.display());
    // Followed before it has even started (its worker is frozen), by the beginning of its id.
    worker.process.signal("STOP");
    let group = server.submit(1, &script, json!({}));
    let id = format!("{group}-0");
    server.until_state(&id, "assigned");
    let mut follow = server.command(&["logs", "-f", "--stream", "stdout", &group[..8]]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("the binary was built");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    worker.process.signal("CONT");
    assert_eq!(lines.next().expect("a line").expect("text"), "one");
    // It still runs.
    assert_eq!(server.container(&id)["state"], "running");
    assert_eq!(stdout(&server, &["logs", &id, "--stream", "stdout"]), "one\n");
    until("its stderr is there", || (stdout(&server, &["logs", &id, "--stream", "stderr"]) == "oops\n").then_some(()));
    std::fs::write(go, "").expect("the folder is ours");
    assert_eq!(lines.next().expect("a line").expect("text"), "two");
    assert!(lines.next().is_none(), "it ends with the container");
    assert!(follow.wait().expect("it is ours").success());
    let json = stdout(&server, &["logs", &id, "-o", "json"]);
    let mut lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    lines.sort_by_key(|line| line["line"].to_string());
    let line = |stream: &str, line: &str| json!({ "version": 1, "stream": stream, "line": line });
    assert_eq!(lines, [line("stdout", "one"), line("stderr", "oops"), line("stdout", "two")]);
    let shown = stdout(&server, &["inspect", &id]);
    for words in ["state:        finished", "outcome:      exit code 0", &id] {
        assert!(shown.contains(words), "{shown}");
    }
}

#[test]
fn the_newest_of_a_flood_is_kept() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &FLAGS);
    let script = "seq 1 100000; echo last";
    let id = format!("{}-0", server.submit(1, script, json!({ "log_limit": "128Ki" })));
    server.until_state(&id, "finished");
    let kept = stdout(&server, &["logs", &id]);
    assert!(kept.ends_with("99999\n100000\nlast\n"), "the newest is kept: {}", &kept[kept.len().saturating_sub(80)..]);
    assert!(kept.len() <= 128 << 10 && kept.len() > 16 << 10, "{} bytes are kept", kept.len());
}

#[test]
fn each_attempts_output_is_its_own() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &FLAGS);
    let retry =
        json!({ "retry": { "attempts_max": 2, "backoff": "300ms", "backoff_max": "300ms", "on": ["exit_nonzero"] } });
    let group = server.submit(1, "echo attempt $VOLLEY_ATTEMPT; [ $VOLLEY_ATTEMPT = 2 ]", retry);
    // Who comes late, when the second attempt is under way, sees that one only.
    let followed = stdout(&server, &["logs", "-f", &group]);
    assert!(followed.ends_with("attempt 2\n"), "{followed}");
    assert_eq!(stdout(&server, &["logs", &group]), "attempt 2\n");
}
