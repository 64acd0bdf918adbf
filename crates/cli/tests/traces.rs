//! Traces of the real binary, taken by a receiver that speaks OTLP.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Takes one export after the other, and hands its spans on.
fn receive(listener: &TcpListener, spans: &Sender<Span>) {
    for connection in listener.incoming().map_while(Result::ok) {
        let spans = spans.clone();
        std::thread::spawn(move || while take(&connection, &spans).is_some() {});
    }
}

fn take(connection: &TcpStream, spans: &Sender<Span>) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let (mut length, mut first) = (0, String::new());
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    assert!(first.starts_with("POST /v1/traces "), "{first}");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.to_ascii_lowercase().trim().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().expect("a length"),
            Some(("content-type", value)) => assert_eq!(value, "application/x-protobuf"),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP");
    for resource in request.resource_spans {
        let attributes = resource.resource.expect("a resource").attributes;
        assert!(attributes.iter().any(|attribute| attribute.key == "service.name"));
        resource.scope_spans.into_iter().flat_map(|scope| scope.spans).for_each(|span| drop(spans.send(span)));
    }
    let mut connection = connection;
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n").ok()
}

struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it was killed");
    }
}

fn next(spans: &Receiver<Span>) -> Span {
    spans.recv_timeout(Duration::from_secs(60)).expect("a span more")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn one_trace_goes_from_the_client_to_the_containers_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let (sender, spans) = channel();
    std::thread::spawn(move || receive(&listener, &sender));
    let dir = tempfile::tempdir().expect("a folder");
    let mut dev = Command::new(env!("CARGO_BIN_EXE_volley"));
    dev.args(["-o", "json", "dev", "--listen", "127.0.0.1:0", "--cpu", "1", "--memory", "1Gi", "--data"])
        .arg(dir.path());
    dev.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut dev = Started(dev.spawn().expect("the binary was built"));
    let mut line = String::new();
    BufReader::new(dev.0.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
    let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let server = said["address"].as_str().expect("an address");

    let body = r#"{"spec": {"command": "sh", "args": ["-c", "echo $TRACEPARENT; sleep 0.2; exit 3"]}}"#;
    let host = server.trim_start_matches("http://");
    let mut connection = TcpStream::connect(host).expect("it listens");
    let (length, parent) = (body.len(), format!("00-{TRACE}-{PARENT}-01"));
    write!(
        connection,
        "POST /v1/containers HTTP/1.1\r\nHost: {host}\r\ntraceparent: {parent}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");

    let mut named: BTreeMap<String, Span> = BTreeMap::new();
    while !named.contains_key("run") {
        let span = next(&spans);
        assert_eq!(hex(&span.trace_id), TRACE);
        named.insert(span.name.clone(), span);
    }
    let whole = &named["container"];
    assert_eq!(hex(&whole.parent_span_id), PARENT, "it continues its client's span");
    assert_eq!(whole.status.as_ref().expect("a status").message, "exit code 3");
    for part in ["wait", "turn", "run"] {
        assert_eq!(named[part].parent_span_id, whole.span_id, "{part}");
    }
    assert!(named["run"].end_time_unix_nano - named["run"].start_time_unix_nano >= 100_000_000, "it slept");
    let id = whole.attributes.iter().find(|attribute| attribute.key == "volley.container.id").expect("its id");
    let id = format!("{:?}", id.value);
    let id = id.split('"').nth(1).expect("text");
    let logs = Command::new(env!("CARGO_BIN_EXE_volley")).args(["--server", server, "logs", id]).output();
    assert_eq!(String::from_utf8_lossy(&logs.expect("it ran").stdout).trim(), parent, "the container knows its trace");
}
