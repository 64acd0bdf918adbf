//! Metrics of the real binary say what the audit and the event record say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const VOLLEY: &str = env!("CARGO_BIN_EXE_volley");

/// A process that is ended with the test.
struct Started {
    child: Child,
    said: Value,
}

impl Started {
    /// Waits for the line of JSON that says where it answers.
    fn new(args: &[&str]) -> Self {
        let mut command = Command::new(VOLLEY);
        command.args(["-o", "json"]).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary was built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
        Self { child, said: serde_json::from_str(&line).expect("a line of JSON") }
    }

    fn said(&self, name: &str) -> &str {
        self.said[name].as_str().expect(name)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it was killed");
    }
}

fn volley(server: &str, args: &[&str]) -> Output {
    Command::new(VOLLEY).args(["--server", server]).args(args).output().expect("the binary was built")
}

fn json(server: &str, args: &[&str]) -> Value {
    let ran = volley(server, &[&["-o", "json"], args].concat());
    serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{args:?}: {ran:?}"))
}

/// What a URL answers.
fn get(url: &str) -> String {
    let (host, path) = url.trim_start_matches("http://").split_once('/').expect("a path");
    let mut connection = TcpStream::connect(host).expect("it listens");
    write!(connection, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// The sample with these labels, 0 when there is none.
fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.map_or(0.0, |line| line.rsplit(' ').next().expect("a value").parse().expect("a number"))
}

#[test]
fn metrics_agree_with_the_audit_and_the_events() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let state = dir.path().join("state");
    let server = Started::new(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    let url = server.said("address");
    let room = ["--cpu", "1", "--memory", "1Gi", "--metrics", "127.0.0.1:0", "--state", state.to_str().unwrap()];
    let worker = Started::new(&[&["--server", url, "worker", "--name", "one"], &room[..]].concat());
    assert!(volley(url, &["run", "-n", "40", "--cpu", "50m", "--", "true"]).status.success());
    assert_eq!(volley(url, &["run", "-n", "3", "--", "sh", "-c", "exit 7"]).status.code(), Some(1));
    assert!(!volley(url, &["run", "--memory", "64Gi", "--max-wait", "1s", "--", "true"]).status.success());

    let text = get(&format!("{url}/metrics"));
    let audit = json(url, &["audit"]);
    for state in ["queued", "claimed", "assigned", "starting", "running", "stopping", "finished"] {
        let shown = sample(&text, &format!("volley_containers{{state=\"{state}\"}}"));
        assert_eq!(shown, audit[state].as_f64().unwrap(), "{state}: {audit}");
    }
    assert_eq!(sample(&text, "volley_containers_accepted_total"), 44.0);
    // A line of JSON for each event.
    let events = String::from_utf8(volley(url, &["-o", "json", "events"]).stdout).expect("text");
    let happened = |state: &str| {
        let of_state = format!("\"state\":\"{state}\"");
        events.lines().filter(|event| event.contains(&of_state)).count() as f64
    };
    assert_eq!(happened("finished"), audit["finished"].as_f64().unwrap());
    assert_eq!(sample(&text, "volley_placements_total"), happened("assigned"));
    assert_eq!(sample(&text, "volley_attempts_ended_total{outcome=\"success\"}"), 40.0);
    assert_eq!(sample(&text, "volley_attempts_ended_total{outcome=\"exited\"}"), 3.0);
    assert_eq!(sample(&text, "volley_swept_total{what=\"expired\"}"), 1.0);
    assert_eq!(sample(&text, "volley_submitted_containers_total"), 44.0);
    assert_eq!(sample(&text, "volley_pool_cpu_cores{pool=\"default\",part=\"total\"}"), 1.0);
    assert_eq!(sample(&text, "volley_pool_cpu_cores{pool=\"default\",part=\"reserved\"}"), 0.0);
    let posts = "volley_request_seconds_count{route=\"/v1/containers\",method=\"POST\",status=\"2xx\"}";
    assert!(sample(&text, posts) + grpc_submissions(&text) >= 3.0, "{text}");
    assert!(!text.contains(&json(url, &["ps", "--all"])["containers"][0]["id"].as_str().unwrap()[..13]), "no ids");

    let text = get(worker.said("metrics"));
    assert_eq!(sample(&text, "volley_worker_starts_total"), 43.0);
    assert_eq!(sample(&text, "volley_worker_attempt_seconds_count{outcome=\"success\"}"), 40.0);
    assert_eq!(sample(&text, "volley_worker_connected"), 1.0);
    assert!(text.contains("volley_build_info{version=\""), "{text}");
}

/// Submissions may also come by gRPC.
fn grpc_submissions(text: &str) -> f64 {
    let grpc = text.lines().filter(|line| line.starts_with("volley_request_seconds_count{route=\"/volley.v1.Volley/"));
    grpc.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
}

/// Numbers that a seed gives.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        // Source: George Marsaglia, "Xorshift RNGs", the 64-bit triple 13, 7, 17.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's own arguments come from its environment")]
fn argument(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not '{text}'")),
        Err(_) => default,
    }
}

/// A submission by chance, some of which is stopped; how many containers it has.
fn submit(url: &str, chance: &mut Chance) -> u64 {
    let count = 1 + chance.below(12);
    let number = count.to_string();
    let script = ["exit 0", "exit 3", "sleep 0.3", "kill -9 $$", "sleep 30"][chance.below(5) as usize];
    // Now and then more than the worker has: it waits and expires.
    let (cpu, more) = match chance.below(5) {
        0 => ("64", &["--max-wait", "300ms"][..]),
        1 => ("20m", &["--retry", "2"][..]),
        2 => ("20m", &["--max-wait", "400ms"][..]),
        3 => ("20m", &["--no-retry", "--priority", "3"][..]),
        _ => ("20m", &[][..]),
    };
    let args =
        [&["run", "--detach", "-o", "quiet", "-n", &number, "--cpu", cpu, "--memory", "16Mi"][..], more].concat();
    let ran = volley(url, &[&args[..], &["--", "sh", "-c", script]].concat());
    assert!(ran.status.success(), "{args:?}: {ran:?}");
    if script == "sleep 30" || chance.below(4) == 0 {
        let group = String::from_utf8(ran.stdout).expect("an id");
        let force = if chance.below(2) == 0 { &["stop", "--force"][..] } else { &["stop"][..] };
        assert!(volley(url, &[force, &[group.trim()]].concat()).status.success(), "{group}");
    }
    count
}

#[test]
fn metrics_agree_after_random_runs() {
    let (first, rounds) = (argument("VOLLEY_SEED", 1), argument("VOLLEY_ROUNDS", 2));
    for seed in first..first + rounds {
        println!("seed {seed}");
        agree_after_a_random_run(&mut Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
    }
}

fn agree_after_a_random_run(chance: &mut Chance) {
    let dir = tempfile::tempdir().unwrap();
    let (data, state) = (dir.path().join("data"), dir.path().join("state"));
    let server = Started::new(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    let url = server.said("address");
    let room = ["--cpu", "200m", "--memory", "1Gi", "--metrics", "127.0.0.1:0", "--state", state.to_str().unwrap()];
    let worker = Started::new(&[&["--server", url, "worker", "--name", "random"], &room[..]].concat());
    let accepted: u64 = (0..6 + chance.below(6)).map(|_| submit(url, chance)).sum();
    let audit = loop {
        let audit = json(url, &["audit"]);
        assert_eq!(audit["ok"], true, "{audit}");
        if audit["finished"] == audit["accepted"] {
            break audit;
        }
    };
    assert_eq!(audit["accepted"], accepted);
    let text = get(&format!("{url}/metrics"));
    for state in ["queued", "claimed", "assigned", "starting", "running", "stopping", "finished"] {
        let shown = sample(&text, &format!("volley_containers{{state=\"{state}\"}}"));
        assert_eq!(shown, audit[state].as_f64().unwrap(), "{state}: {audit}");
    }
    let events = String::from_utf8(volley(url, &["-o", "json", "events"]).stdout).expect("text");
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let count = |of: &dyn Fn(&Value) -> bool| events.iter().filter(|event| of(event)).count() as f64;
    assert_eq!(sample(&text, "volley_containers_accepted_total"), accepted as f64);
    assert_eq!(sample(&text, "volley_submitted_containers_total"), accepted as f64);
    assert_eq!(count(&|event| event["state"] == "finished"), accepted as f64, "each ends once");
    assert_eq!(sample(&text, "volley_placements_total"), count(&|event| event["state"] == "assigned"));
    let expired = count(&|event| event["outcome_words"] == "waited longer than its max_wait");
    assert_eq!(sample(&text, "volley_swept_total{what=\"expired\"}"), expired);
    for resource in ["cpu_cores", "memory_bytes", "slots"] {
        let reserved = format!("volley_pool_{resource}{{pool=\"default\",part=\"reserved\"}}");
        assert_eq!(sample(&text, &reserved), 0.0, "{resource}");
    }
    let overview: Value =
        serde_json::from_str(get(&format!("{url}/v1/overview")).rsplit("\r\n").next().expect("a body")).expect("JSON");
    assert_eq!(overview["containers"]["finished"], audit["finished"]);
    assert_eq!(overview["pools"][0]["containers"], 0);
    // A worker counts what it took; what was stopped before that never got there.
    let shown = get(worker.said("metrics"));
    let took = sample(&shown, "volley_worker_starts_total");
    assert!(took <= sample(&text, "volley_placements_total"), "{took}");
    let outcomes = ["success", "exited", "stopped", "lost", "failed"];
    let ended = outcomes
        .map(|outcome| sample(&shown, &format!("volley_worker_attempt_seconds_count{{outcome=\"{outcome}\"}}")));
    assert_eq!(ended.iter().sum::<f64>(), took, "what it took has ended: {ended:?}");
}
