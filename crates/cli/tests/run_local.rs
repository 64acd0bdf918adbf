//! `volley run --local` as a user types it: the real binary, real processes.

use std::collections::BTreeSet;
use std::process::{Command, Output};

fn volley(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_volley")).args(args).output().expect("the binary was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_hundred_containers_run_once_each() {
    let script = "echo hello from $VOLLEY_CONTAINER_ID";
    let ran = volley(&["run", "--local", "-n", "100", "--cpu", "100m", "--memory", "32Mi", "--", "sh", "-c", script]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let out = text(&ran.stdout);
    let lines: BTreeSet<&str> = out.lines().collect();
    assert_eq!((out.lines().count(), lines.len()), (100, 100), "{out}");
    assert!(lines.iter().all(|line| line.starts_with("hello from ")), "{out}");
    assert!(text(&ran.stderr).contains("100 containers: 100 exit code 0"), "{}", text(&ran.stderr));
}

#[test]
fn small_workers_take_turns_until_all_have_run() {
    let args = ["-o", "json", "run", "--local", "-n", "50", "--workers", "3", "--per-worker", "2", "--", "true"];
    let ran = volley(&args);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(summary["containers"], 50);
    assert_eq!(summary["workers"], 3);
    assert!(summary["largest_batch"].as_u64().is_some_and(|largest| largest <= 6), "{summary}");
}

#[test]
fn one_at_a_time() {
    let args = ["-o", "json", "run", "--local", "-n", "5", "--max-size", "1", "--", "true"];
    let summary: serde_json::Value = serde_json::from_slice(&volley(&args).stdout).expect("JSON");
    assert_eq!((&summary["largest_batch"], &summary["batches"]), (&1.into(), &5.into()));
}

#[test]
fn declared_gpus_are_counted() {
    let args = ["-o", "json", "run", "--local", "-n", "8", "--gpu", "A10G:0.5", "--per-worker", "2", "--", "true"];
    let summary: serde_json::Value = serde_json::from_slice(&volley(&args).stdout).expect("JSON");
    assert_eq!(summary["containers"], 8);
}

#[test]
fn a_retry_runs_again_and_counts_its_attempts() {
    let args = ["run", "--local", "--retry", "3", "--", "sh", "-c", "test $VOLLEY_ATTEMPT = 3"];
    assert_eq!(volley(&args).status.code(), Some(0));
}

#[test]
fn exit_codes_and_bad_input() {
    let table: [(&[&str], i32, &str); 10] = [
        (&["run", "--local", "--", "sh", "-c", "exit 7"], 7, "1 container"),
        (&["run", "--local", "-n", "2", "--", "false"], 1, "2 exit code 1"),
        (&["run", "--local", "--", "no-such-command"], 1, "was not found"),
        (&["run", "--local", "-n", "0", "--", "true"], 2, "count: 0 is out of range"),
        (&["run", "--local", "-n", "100001", "--", "true"], 2, "count: 100001 is out of range"),
        (&["run", "--local", "-n", "-5", "--", "true"], 2, "count"),
        (&["run", "--local", "--cpu=-1", "--", "true"], 2, "--cpu"),
        (&["run", "--local", "--memory", "3Q", "--", "true"], 2, "--memory"),
        (&["run", "--local", "--env", "X", "--", "true"], 2, "KEY=VALUE"),
        (&["--server", "http://127.0.0.1:1", "run", "--", "true"], 3, "no server answers"),
    ];
    for (args, code, words) in table {
        let ran = volley(args);
        let stderr = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
}
