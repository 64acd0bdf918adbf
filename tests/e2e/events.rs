//! The event record: followed, cut off, and gone on with by number.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::http;
use crate::scene::{Scene, Server};

fn follow(server: &Server, after: u64) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = server.command(&["events", "-f", "-o", "json", "--after", &after.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary was built");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    (child, lines)
}

fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON")
}

#[test]
fn a_reader_that_comes_back_misses_nothing() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi"]);
    let (mut first, mut lines) = follow(&server, 0);
    server.submit(3, "true", json!({}));
    let mut last = 0;
    while last < 5 {
        let event = next(&mut lines);
        assert_eq!((&event["version"], &event["number"]), (&1.into(), &(last + 1).into()));
        last += 1;
    }
    first.kill().expect("it is ours");
    first.wait().expect("it was killed");
    let group = server.submit(3, "true", json!({}));
    let (mut second, mut lines) = follow(&server, last);
    let mut finished = 0;
    while finished < 3 {
        let event = next(&mut lines);
        assert_eq!(event["number"], last + 1);
        last += 1;
        let container = event["container"].as_str().unwrap_or_default();
        finished += u32::from(container.starts_with(&group) && event["state"] == "finished");
    }
    second.kill().expect("it is ours");
    second.wait().expect("it was killed");

    // The stream of the HTTP API resumes as browsers do.
    let mut numbers = Vec::new();
    let headers = ["Accept: text/event-stream", "Last-Event-ID: 4"];
    http::lines(server.address(), "/v1/events", &headers, |line| {
        numbers.extend(line.strip_prefix("id: ").and_then(|number| number.parse::<u64>().ok()));
        numbers.len() < 6
    });
    assert_eq!(numbers, [5, 6, 7, 8, 9, 10]);
}

#[test]
fn what_is_no_longer_kept_is_said() {
    let scene = Scene::new();
    let server = scene.server(&["--keep-events-for", "1s"]);
    // Their ages are noted for a thousand at a time.
    let group = server.submit(3_000, "true", json!({}));
    assert_eq!(server.json(&["stop", &group])["stopped"][0]["finished"], 3_000);
    let oldest = crate::scene::until("the first events are pruned", || {
        server.get("/v1/events")["oldest"].as_u64().filter(|oldest| *oldest > 1)
    });
    let ran = server.volley(&["events"]);
    let told = crate::scene::out(&ran);
    assert!(told.contains(&format!("events up to {} are no longer kept", oldest - 1)), "{told}");
}
