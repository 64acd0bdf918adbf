//! `volley dev` and the commands that talk to it: the real binary, a free port, real processes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(data: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volley"));
        command.args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(more);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary was built");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("a first line");
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("its address");
        Self { url: url.trim_end_matches(';').to_owned(), child }
    }

    fn volley(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volley"));
        command.args(["--server", &self.url]).args(args).output().expect("the binary was built")
    }

    fn json(&self, args: &[&str]) -> Value {
        let ran = self.volley(&[&["-o", "json"], args].concat());
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{args:?}: {ran:?}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it was killed");
    }
}

fn out(ran: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
}

#[test]
fn containers_run_and_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--workers", "2", "--cpu", "1", "--memory", "1Gi"]);
    let ran = server.volley(&["run", "-n", "30", "--", "sh", "-c", "echo from $VOLLEY_CONTAINER_ID"]);
    assert!(ran.status.success(), "{}", out(&ran));
    assert_eq!(String::from_utf8_lossy(&ran.stdout).lines().count(), 30);
    assert_eq!(server.volley(&["run", "--", "sh", "-c", "exit 3"]).status.code(), Some(3));
    let audit = server.json(&["audit"]);
    assert_eq!((&audit["ok"], &audit["accepted"], &audit["finished"]), (&true.into(), &31.into(), &31.into()));
    assert_eq!(server.json(&["ps", "--all"])["containers"].as_array().map(Vec::len), Some(31));
    let finished = server.volley(&["events"]);
    assert_eq!(out(&finished).lines().filter(|line| line.contains("  finished  ")).count(), 31);
    let copy = dir.path().join("copy.db");
    assert!(server.volley(&["backup", copy.to_str().unwrap()]).status.success() && copy.exists());
}

#[test]
fn what_waits_says_why_and_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--cpu", "1", "--memory", "1Gi"]);
    assert!(server.volley(&["cordon", "dev-1"]).status.success());
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_volley"))
        .args(["--server", &server.url, "run", "-n", "3", "--", "true"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let page = loop {
        let page = server.json(&["ps"]);
        let why = page["containers"][0]["waiting"]["reasons"][0]["reason"].as_str().unwrap_or_default();
        if why == "unavailable" {
            break page;
        }
    };
    let id = page["containers"][0]["id"].as_str().unwrap();
    let stopped = server.volley(&["stop", id.split_once('-').unwrap().0]);
    assert!(stopped.status.success(), "{}", out(&stopped));
    assert_eq!(waiting.wait().unwrap().code(), Some(1), "all were stopped");
    assert!(server.volley(&["uncordon", "dev-1"]).status.success());
    assert!(server.volley(&["run", "--", "true"]).status.success());
}

#[test]
fn a_killed_server_comes_back_with_all_it_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let room = ["--cpu", "1", "--memory", "1Gi"];
    let server = Server::start(dir.path(), &room);
    assert!(server.volley(&["cordon", "dev-1"]).status.success());
    let mut client = Command::new(env!("CARGO_BIN_EXE_volley"))
        .args(["--server", &server.url, "run", "-n", "40", "--patience", "0s", "--", "true"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while server.json(&["audit"])["accepted"] != 40 {}
    drop(server);
    assert_eq!(client.wait().unwrap().code(), Some(3), "its server went away");
    let server = Server::start(dir.path(), &room);
    assert_eq!(server.json(&["audit"])["accepted"], 40);
    assert!(server.volley(&["uncordon", "dev-1"]).status.success());
    let audit = loop {
        let audit = server.json(&["audit"]);
        if audit["finished"] == 40 {
            break audit;
        }
    };
    assert_eq!(audit["ok"], true);
}

#[test]
fn bad_luck_is_told_on_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let port = server.url.trim_start_matches("http://");
    let data = dir.path().to_str().unwrap();
    let table: [(&[&str], i32, &str); 6] = [
        (&["inspect", "0000000000000-1"], 4, "there is no container"),
        (&["stop", "zzzz"], 4, "there is no container or group"),
        (&["cordon", "nobody"], 4, "there is no"),
        (&["dev", "--listen", port, "--data", "elsewhere"], 3, "cannot listen"),
        (&["dev", "--listen", "127.0.0.1:0", "--data", data], 3, "uses it"),
        (&["dev", "--listen", "0.0.0.0:0"], 3, "not a loopback address"),
    ];
    for (args, code, words) in table {
        let ran = server.volley(args);
        assert_eq!(ran.status.code(), Some(code), "{args:?}: {}", out(&ran));
        assert!(out(&ran).contains(words) && out(&ran).lines().count() == 1, "{args:?}: {}", out(&ran));
    }
}
