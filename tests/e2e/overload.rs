//! More than there is room for: a backlog at its bound, thousands of clients that are slow or
//! never read, a million containers at once. The server goes on, answers others, ends when it is
//! told to, and its memory is bounded.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Reply;
use crate::http2;
use crate::scene::{Scene, Server, VOLLEY, until};

/// A million containers in all, which is the backlog's bound.
const GROUPS: u32 = 10;
const GROUP_CONTAINERS: u32 = 100_000;
const SLOW_CLIENTS: usize = 2_000;
/// And who follow the output of a container that has printed a lot.
const LOG_READERS: usize = 20;
/// Events that one of them reads in the end.
const EVENTS_READ: u64 = 20_000;
/// Each slow client may cost at most so much: what its connection and a page of events take.
const CLIENT_BYTES_MAX: u64 = 128 << 10;
/// And all else, a million containers and some hundred thousand events included.
const ELSE_BYTES_MAX: u64 = 400 << 20;

/// The most memory that a process has used.
fn peak_bytes(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel says it");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number of KiB");
    kib << 10
}

/// The seconds of a `429`'s `Retry-After`.
fn retry_after(reply: &Reply) -> u64 {
    assert_eq!(reply.status, 429, "{reply:?}");
    let value = |line: &str| line.to_ascii_lowercase().strip_prefix("retry-after: ")?.trim().parse().ok();
    reply.headers.lines().find_map(value).unwrap_or_else(|| panic!("it does not say when: {reply:?}"))
}

#[test]
fn a_full_backlog_says_when_there_will_be_room() {
    const BACKLOG: u32 = 60;
    let scene = Scene::new();
    let server = scene.server(&["--backlog-max", "60"]);
    let work = |count: u32| json!({ "spec": { "command": "sleep", "args": ["0.3"] }, "count": count });
    assert_eq!(server.post(&work(BACKLOG)).status, 201);
    let full = server.post(&work(1));
    assert_eq!(retry_after(&full), 30, "nobody knows while nothing drains");
    let problem = full.problem();
    assert!(problem.contains("60") && problem.contains("backlog"), "{problem}");
    // Two at a time: the wait is computed from how fast that is.
    let _worker = scene.worker(&server, "w", &["--cpu", "2", "--memory", "1Gi", "--slots", "2"]);
    until("some have finished", || (server.audit()["finished"].as_u64()? > 5).then_some(()));
    let (few, many) = (retry_after(&server.post(&work(20))), retry_after(&server.post(&work(BACKLOG))));
    assert!((1..=many).contains(&few) && many < 300, "{few} s for 20, {many} s for {BACKLOG}");
    // Who does as it is told gets in.
    let mut accepted = server.post(&work(20));
    while accepted.status != 201 {
        std::thread::sleep(Duration::from_secs(retry_after(&accepted)));
        accepted = server.post(&work(20));
    }
    let group = accepted.json()["group"].as_str().expect("a group").to_owned();
    server.until_finished(&group);
    assert_eq!(server.audit()["accepted"], BACKLOG + 20);
}

/// A server that begins with the usual limit of open files, which is less than there will be clients.
fn server(scene: &Scene) -> Server {
    let mut command = Command::new("sh");
    scene.dress(&mut command);
    command.args(["-c", "ulimit -Sn 1024; exec \"$0\" \"$@\"", VOLLEY, "serve", "-o", "json"]);
    command.args(["--listen", "127.0.0.1:0", "--data"]).arg(scene.path("data"));
    let (process, told) = scene.start(command);
    Server::of(process, &told)
}

fn begun(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.write_all(bytes).expect("a few bytes fit");
    stream
}

/// Every way of not going on that there is, in turn.
fn slow_clients(address: &str) -> Vec<TcpStream> {
    let head = |first: &str| format!("{first} HTTP/1.1\r\nHost: {address}\r\n").into_bytes();
    let half_head = [head("GET /healthz"), b"X-Slow: ".to_vec()].concat();
    let half_body = [head("POST /v1/containers"), b"Content-Length: 1000000\r\n\r\n{".to_vec()].concat();
    let events = [head("GET /v1/events"), b"Accept: text/event-stream\r\n\r\n".to_vec()].concat();
    let call = |method: &str| http2::call(address, &format!("/volley.v1.Volley/{method}"));
    // All events from the first, in all states.
    let watch = [call("WatchEvents"), http2::message(&[0x08, 0, 0x10, 1])].concat();
    let half_call = [call("Submit"), http2::half_message()].concat();
    let half_preface = b"PRI * HT".to_vec();
    let ways = [Vec::new(), half_head, half_body, half_preface, http2::PREFACE.to_vec(), half_call, events, watch];
    ways.iter().cycle().take(SLOW_CLIENTS).map(|bytes| begun(address, bytes)).collect()
}

/// A stream of events that nobody has read so far has all of them, in order.
fn read_on(mut events: TcpStream, last: u64) {
    events.set_read_timeout(Some(Duration::from_secs(60))).expect("it is open");
    let mut head = [0; 12];
    events.read_exact(&mut head).expect("the server goes on");
    assert_eq!(&head, b"HTTP/1.1 200");
    let lines = BufReader::new(events).lines().map(|line| line.expect("the stream goes on"));
    let numbers = lines.filter_map(|line| line.strip_prefix("id: ")?.parse::<u64>().ok());
    let read: Vec<u64> = numbers.take_while(|number| *number < last).collect();
    assert_eq!(read, (1..last).collect::<Vec<_>>());
}

#[test]
fn thousands_of_slow_clients_and_a_million_containers_do_not_take_the_server_down() {
    let scene = Scene::new();
    // Dropped after the server: whoever is still connected does not keep it from ending.
    let mut slow = Vec::new();
    let server = server(&scene);
    let host = server.address().to_owned();
    let worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi"]);
    let small = json!({ "resources": { "cpu": "100m", "memory": "8Mi" } });
    let prints = "yes | head -c 4000000; sleep 1000000";
    let prints = format!("{}-0", server.submit(1, prints, small.clone()));
    server.until_state(&prints, "running");
    slow.extend(slow_clients(&host));
    let logs = format!("GET /v1/containers/{prints}/logs?follow=true HTTP/1.1\r\nHost: {host}\r\n\r\n");
    slow.extend((0..LOG_READERS).map(|_| begun(&host, logs.as_bytes())));

    // What fits nowhere waits; the rest is not in its way.
    let nowhere =
        json!({ "spec": { "command": "true", "pool": { "required": "nowhere" } }, "count": GROUP_CONTAINERS });
    let mut groups = Vec::new();
    for _ in 0..GROUPS - 1 {
        let reply = server.post(&nowhere);
        assert_eq!(reply.status, 201, "{reply:?}");
        groups.push(reply.json()["group"].as_str().expect("a group").to_owned());
        assert_eq!(server.request("GET", "/healthz", &[], b"").status, 200);
    }
    let done = server.submit(10, "true", small.clone());
    assert!(server.until_finished(&done).iter().all(|container| container["success"] == true));
    let rest = GROUP_CONTAINERS - 1;
    assert_eq!(
        server.post(&json!({ "spec": { "command": "true", "pool": { "required": "nowhere" } }, "count": rest })).status,
        201
    );
    assert!(retry_after(&server.post(&nowhere)) > 0, "a million wait");
    // A hundred thousand events for everybody who follows and does not read.
    let stopped: Value = server.request("DELETE", &format!("/v1/groups/{}", groups[0]), &[], b"").json();
    assert_eq!(stopped["finished"], GROUP_CONTAINERS);
    assert!(server.until_finished(&server.submit(10, "true", small))[0]["success"] == true);
    let audit = server.audit();
    assert_eq!(audit["accepted"], GROUPS * GROUP_CONTAINERS - 1 + 21, "{audit}");
    // The seventh way is that of the events.
    read_on(slow[6].try_clone().expect("it is open"), EVENTS_READ);
    let (peak, bound) = (peak_bytes(server.process.pid()), SLOW_CLIENTS as u64 * CLIENT_BYTES_MAX + ELSE_BYTES_MAX);
    println!("{} MiB at most, with {} clients that do not read", peak >> 20, slow.len());
    assert!(peak < bound, "{peak} bytes");
    drop(worker);
}
