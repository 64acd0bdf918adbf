//! `volley explain` of the real binary: the change it names makes the container start.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

const VOLLEY: &str = env!("CARGO_BIN_EXE_volley");

struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn json(server: &str, args: &[&str]) -> Value {
    let ran = Command::new(VOLLEY).args(["--server", server, "-o", "json"]).args(args).output().expect("it was built");
    serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{args:?}: {ran:?}"))
}

#[test]
fn the_change_that_is_named_lets_it_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut dev = Command::new(VOLLEY);
    dev.args(["-o", "json", "dev", "--listen", "127.0.0.1:0", "--cpu", "2", "--memory", "1Gi", "--data"])
        .arg(dir.path());
    let mut dev = Started(dev.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it was built"));
    let mut line = String::new();
    BufReader::new(dev.0.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
    let said: Value = serde_json::from_str(&line).expect("JSON");
    let server = said["address"].as_str().expect("an address");
    let run = |args: &[&str]| {
        let mut run = Command::new(VOLLEY);
        run.args(["--server", server, "run"]).args(args).args(["--", "true"]).stderr(Stdio::null());
        run
    };
    let _waiting = Started(run(&["--cpu", "3", "--memory", "512Mi"]).spawn().expect("it was built"));
    let explained = loop {
        let page = json(server, &["ps"]);
        let waiting = &page["containers"][0];
        if waiting["waiting"]["reasons"][0]["reason"].as_str().is_some_and(|reason| reason != "not_looked_at") {
            break json(server, &["explain", waiting["id"].as_str().expect("an id")]);
        }
    };
    let change = &explained["changes"][0];
    assert_eq!(change["change"]["change"], "less_resources", "{explained}");
    assert_eq!(change["words"], "if it asked for 1 less CPU (2)");
    assert_eq!((&change["worker"], &explained["ahead"]["same_shape"]), (&"dev-1".into(), &0.into()));
    assert_eq!(explained["expected"]["basis"]["basis"], "unknown", "nothing of its shape was ever placed");
    assert!(
        run(&["--cpu", "2", "--memory", "512Mi"]).status().expect("it ran").success(),
        "with that change it starts"
    );
    let page = json(server, &["ps", "--state", "finished"]);
    let finished = json(server, &["explain", page["containers"][0]["id"].as_str().expect("an id")]);
    let parts: Vec<&str> =
        finished["spent"].as_array().expect("parts").iter().filter_map(|spent| spent["part"].as_str()).collect();
    assert_eq!(parts[..2], ["waited", "claimed"], "{finished}");
    let there: Vec<&str> = finished["there"].as_array().expect("why").iter().filter_map(Value::as_str).collect();
    assert_eq!(there[0], "pool default was the first by priority (0) that had room", "{finished}");
    assert_eq!(there.last(), Some(&"pool default packs: the fullest worker with room for it"));
}
