//! Bad luck: ports, folders, disks and commands that are not as they should be. One line each,
//! nothing lost, no panic.

use std::process::{Command, Output};

use serde_json::json;

use crate::scene::{Scene, Server, VOLLEY, out, until};

fn assert_told(ran: &Output, code: i32, words: &str) {
    assert_eq!(ran.status.code(), Some(code), "{}", out(ran));
    assert!(out(ran).starts_with("error: ") && out(ran).lines().count() == 1, "{}", out(ran));
    assert!(out(ran).contains(words), "{}", out(ran));
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let serve = |listen: &str, data: &str| scene.run(&["serve", "--listen", listen, "--data", data]);
    assert_told(&serve(server.address(), "elsewhere"), 3, "choose another with --listen");
    assert_told(&serve("127.0.0.1:0", "data"), 3, "stop that process, or name another directory");
    assert_told(&serve("0.0.0.0:0", "elsewhere"), 3, "is not a loopback address");
    std::fs::write(scene.path("file"), "").expect("the folder is ours");
    assert_told(&serve("127.0.0.1:0", "file"), 3, "it is not a directory");
    assert_told(&serve("127.0.0.1:0", "file/below"), 3, "it is not a directory");
    // Not even root makes folders there.
    assert_told(&serve("127.0.0.1:0", "/sys/volley-data"), 3, "it cannot be written");
    std::fs::create_dir(scene.path("broken")).expect("the folder is ours");
    std::fs::write(scene.path("broken/volley.db"), "not a database, but long enough to look like one".repeat(200))
        .expect("the folder is ours");
    assert_told(&serve("127.0.0.1:0", "broken"), 3, "restore a copy made by 'volley backup'");
    assert!(!scene.path("elsewhere").exists(), "nothing was begun");
    server.audit();
}

#[test]
fn a_worker_that_cannot_start_says_why() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi"]);
    let run = |args: &[&str]| scene.run(&[&["worker", "--server", &server.url], args].concat());
    std::fs::write(scene.path("file"), "").expect("the folder is ours");
    assert_told(&run(&["--name", &worker.name, "--state", "other"]), 5, "choose another name");
    assert_told(&run(&["--name", "x", "--state", &worker.name]), 3, "name another with --state");
    assert_told(&run(&["--name", "x", "--state", "file"]), 3, "the worker's folder file cannot be made");
    assert_told(&run(&["--name", "a b"]), 2, "--name: 'a b' is not a worker id");
    assert_told(&run(&["--name", "x", "--gpu", "any:1"]), 2, "--gpu: name the kind");
    assert_told(&run(&["--name", "x", "--label", "zone"]), 2, "is not KEY=VALUE");
    let nowhere = scene.run(&["worker", "--server", "ftp://x", "--name", "x", "--state", "x"]);
    assert_told(&nowhere, 2, "is not a server's address");
}

#[test]
fn no_server_is_told_with_where_and_what_to_do() {
    let scene = Scene::new();
    for args in [&["ps"][..], &["workers"], &["audit"], &["inspect", "x"], &["logs", "x"], &["stop", "x"], &["events"]]
    {
        let ran = scene.run(&[&["--server", "http://127.0.0.1:1"], args].concat());
        assert_told(&ran, 3, "no server answers at http://127.0.0.1:1");
        assert!(out(&ran).contains("start one with 'volley dev'"), "{}", out(&ran));
    }
    let ran = scene.run(&["--server", "not an address", "ps"]);
    assert_eq!(ran.status.code(), Some(3), "{}", out(&ran));
}

#[test]
fn commands_that_cannot_be_run_fail_with_the_reason() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi"]);
    let table = [
        (
            json!({ "command": "no-such-command" }),
            "command 'no-such-command' was not found on the worker; give its full path",
        ),
        (json!({ "command": "/etc/passwd" }), "command '/etc/passwd' may not be executed; chmod +x it"),
        (json!({ "command": "true", "working_dir": "/not/there" }), "working directory /not/there is not there"),
    ];
    for (spec, words) in table {
        let reply = server.post(&json!({ "spec": spec }));
        let group = reply.json()["group"].as_str().expect("a group").to_owned();
        let end = server.until_finished(&group).remove(0);
        assert_eq!(end["outcome"]["outcome"], "failed", "{end}");
        assert!(end["outcome_words"].as_str().is_some_and(|found| found.contains(words)), "{end}");
    }
    server.audit();
}

/// A server whose data folder is a small file system in memory that no other process sees.
fn server_on_a_small_disk(scene: &Scene, options: &str) -> Command {
    std::fs::create_dir(scene.path("small")).expect("the folder is ours");
    let mut command = Command::new("unshare");
    // Whoever is not root may be so in a name space of its own.
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    command.arg("--mount").args((!root).then_some("--map-root-user"));
    let script = "mount -t tmpfs -o \"$1\" volley small && exec \"$2\" serve -o json --listen 127.0.0.1:0 --data small";
    command.args(["sh", "-c", script, "sh", options, VOLLEY]);
    scene.dress(&mut command);
    command
}

#[test]
fn a_full_disk_refuses_what_adds_and_loses_nothing() {
    let scene = Scene::new();
    let (process, told) = scene.start(server_on_a_small_disk(&scene, "size=96m"));
    let server = Server::of(process, &told);
    let _worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi"]);
    let go = scene.path("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", go.display());
    let before = server.submit(5, &script, json!({ "resources": { "cpu": "100m", "memory": "8Mi" } }));
    until("all five run", || (server.get("/v1/audit")["running"] == 5).then_some(()));
    // The server's own view of the file system.
    let filler = format!("/proc/{}/root{}/filler", server.process.pid(), scene.path("small").display());
    std::fs::write(&filler, vec![0; 80 << 20]).expect("there is room for this much");
    let body = json!({ "spec": { "command": "true" } });
    let refused = until("a submission is refused", || Some(server.post(&body)).filter(|reply| reply.status != 201));
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.problem().contains("free some space"), "{refused:?}");
    let ran = server.volley(&["run", "-d", "--patience", "0s", "--", "true"]);
    assert_told(&ran, 6, "free some space");
    // What was accepted goes on and ends.
    std::fs::write(go, "").expect("the folder is ours");
    for container in server.until_finished(&before) {
        assert_eq!(container["success"], true, "{container}");
    }
    std::fs::remove_file(&filler).expect("it is there");
    let after = until("there is room again", || Some(server.post(&body)).filter(|reply| reply.status == 201));
    server.until_finished(after.json()["group"].as_str().expect("a group"));
    server.audit();
}

#[test]
fn a_disk_that_cannot_be_written_is_told_at_the_start() {
    let scene = Scene::new();
    let ran = server_on_a_small_disk(&scene, "ro").output().expect("util-linux is there");
    assert_told(&ran, 3, "it cannot be written");
}
