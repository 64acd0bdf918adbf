//! `volley run --local`: server, workers and containers from one command.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::scene::{Scene, out, until};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn summary(ran: &Output) -> Value {
    let summary: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("no JSON: {}", out(ran)));
    assert_eq!(summary["version"], 1);
    summary
}

#[test]
fn a_hundred_containers_run_once_each() {
    let scene = Scene::new();
    let script = "echo hello from $VOLLEY_CONTAINER_ID";
    let args = ["run", "--local", "-n", "100", "--cpu", "100m", "--memory", "32Mi", "--", "sh", "-c", script];
    let ran = scene.run(&args);
    assert!(ran.status.success(), "{}", out(&ran));
    let printed = text(&ran.stdout);
    let lines: BTreeSet<&str> = printed.lines().collect();
    assert_eq!((printed.lines().count(), lines.len()), (100, 100), "{printed}");
    assert!(lines.iter().all(|line| line.starts_with("hello from ")), "{printed}");
    let told = text(&ran.stderr);
    for words in ["100 containers: 100 exit code 0", "submit to assigned", "submit to started", "submit to finished"] {
        assert!(told.contains(words), "{told}");
    }
    assert!(told.contains("virtual") && told.contains("0 would have been bought"), "{told}");
}

#[test]
fn small_workers_take_turns_until_all_have_run() {
    let scene = Scene::new();
    let args = ["-o", "json", "run", "--local", "-n", "50", "--workers", "3", "--per-worker", "2", "--", "true"];
    let summary = summary(&scene.run(&args));
    assert_eq!(
        (&summary["containers"], &summary["succeeded"], &summary["workers"]),
        (&50.into(), &50.into(), &3.into())
    );
    assert!(summary["largest_batch"].as_u64().is_some_and(|largest| largest <= 6), "{summary}");
}

#[test]
fn one_at_a_time() {
    let scene = Scene::new();
    let args = ["-o", "json", "run", "--local", "-n", "5", "--max-size", "1", "--", "true"];
    let summary = summary(&scene.run(&args));
    assert_eq!((&summary["largest_batch"], &summary["batches"]), (&1.into(), &5.into()));
}

#[test]
fn declared_gpus_are_counted() {
    let scene = Scene::new();
    let args = ["-o", "json", "run", "--local", "-n", "8", "--gpu", "A10G:0.5", "--per-worker", "2", "--", "true"];
    assert_eq!(summary(&scene.run(&args))["succeeded"], 8);
}

#[test]
fn a_file_of_many_shapes_and_pools_runs() {
    let scene = Scene::new();
    let spec = |index: usize| {
        let gpu = ["H100:2", "A10G:0.5", "any:1"].get(index % 4);
        json!({
            "command": "true",
            "resources": { "cpu": format!("{}m", 100 * (index + 1)), "memory": "8Mi",
                           "gpu": gpu },
            "pool": if index.is_multiple_of(2) { json!({ "required": "batch" }) } else { json!({ "preferred": "web" }) },
            "require_labels": if index.is_multiple_of(3) { json!({ "zone": "a" }) } else { json!({}) },
        })
    };
    let body = json!({ "specs": (0..12).map(spec).collect::<Vec<_>>(), "name": "mixed" });
    std::fs::write(scene.path("burst.json"), body.to_string()).expect("the folder is ours");
    let ran = scene.run(&["-o", "json", "run", "--local", "--file", "burst.json"]);
    let summary = summary(&ran);
    assert_eq!((&summary["containers"], &summary["succeeded"]), (&12.into(), &12.into()), "{}", out(&ran));
}

#[test]
fn a_retry_runs_again_and_counts_its_attempts() {
    let scene = Scene::new();
    let args = ["run", "--local", "--retry", "3", "--", "sh", "-c", "test $VOLLEY_ATTEMPT = 3"];
    assert_eq!(scene.run(&args).status.code(), Some(0));
}

#[test]
fn exit_codes_and_bad_input() {
    let scene = Scene::new();
    let table: [(&[&str], i32, &str); 12] = [
        (&["run", "--local", "--", "sh", "-c", "exit 7"], 7, "1 container"),
        (&["run", "--local", "-n", "2", "--", "false"], 1, "2 exit code 1"),
        (&["run", "--local", "--", "no-such-command"], 1, "'no-such-command' was not found"),
        (&["run", "--local", "--", "/etc/passwd"], 1, "'/etc/passwd' may not be executed"),
        (&["run", "--local", "-n", "0", "--", "true"], 2, "count: 0 is out of range"),
        (&["run", "--local", "-n", "100001", "--", "true"], 2, "count: 100001 is out of range"),
        (&["run", "--local", "-n", "-5", "--", "true"], 2, "count"),
        (&["run", "--local", "--cpu=-1", "--", "true"], 2, "--cpu"),
        (&["run", "--local", "--memory", "3Q", "--", "true"], 2, "--memory"),
        (&["run", "--local", "--env", "X", "--", "true"], 2, "KEY=VALUE"),
        (&["run", "--local", "--file", "not-there.json"], 2, "not-there.json"),
        (&["--server", "http://127.0.0.1:1", "run", "--patience", "0s", "--", "true"], 3, "no server answers"),
    ];
    for (args, code, words) in table {
        let ran = scene.run(args);
        let told = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains(words), "{args:?}: {told}");
        assert!(code != 2 || told.lines().count() == 1, "{args:?}: {told}");
    }
}

#[test]
fn an_interrupt_stops_the_containers_and_leaves_nothing() {
    for signal in ["INT", "TERM"] {
        let scene = Scene::new();
        let script = "echo up > up.$VOLLEY_CONTAINER_ID; exec sleep 1000";
        let mut command: Command = scene.command(&["run", "--local", "-n", "3", "--", "sh", "-c"]);
        command.arg(script.replace("up.", &format!("{}/up.", scene.path("").display())));
        let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary was built");
        let up = || std::fs::read_dir(scene.path("")).expect("ours").flatten().map(|entry| entry.file_name());
        let count = || up().filter(|name| name.to_string_lossy().starts_with("up.")).count();
        until("all three run", || (count() == 3).then_some(()));
        crate::scene::signal(run.id().cast_signed(), signal);
        let status = until("it ends", || run.try_wait().expect("it is ours"));
        assert_eq!(status.code(), Some(130), "{signal}");
    }
}

#[test]
fn an_image_without_an_oci_runtime_is_a_mistake_that_says_what_to_add() {
    let scene = Scene::new();
    let ran = scene.run(&["run", "--local", "--image", "busybox", "--", "true"]);
    assert_eq!(ran.status.code(), Some(2), "{}", out(&ran));
    assert!(text(&ran.stderr).contains("--runtime oci"), "{}", out(&ran));
}
