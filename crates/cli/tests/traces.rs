//! Traces of the real binary, taken by a receiver that speaks OTLP.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Takes one export after the other, and hands its spans on.
fn receive(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>, spans: &Sender<Span>) {
    for connection in listener.incoming().map_while(Result::ok) {
        let (spans, tls) = (spans.clone(), tls.cloned());
        std::thread::spawn(move || match tls {
            None => while take(&connection, &spans).is_some() {},
            Some(tls) => {
                let session = ServerConnection::new(tls).expect("a configuration that was made");
                let stream = Mutex::new(StreamOwned::new(session, connection));
                while take(Locked(&stream), &spans).is_some() {}
            }
        });
    }
}

/// A stream that is read and written by turns, as a `&TcpStream` is.
#[derive(Clone, Copy)]
struct Locked<'a>(&'a Mutex<StreamOwned<ServerConnection, TcpStream>>);

impl Read for Locked<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody broke").read(into)
    }
}

impl Write for Locked<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody broke").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.lock().expect("nobody broke").flush()
    }
}

fn take<S: Read + Write + Copy>(connection: S, spans: &Sender<Span>) -> Option<()> {
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
    connection
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
        .ok()?;
    connection.flush().ok()
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
    std::thread::spawn(move || receive(&listener, None, &sender));
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
    while !named.contains_key("commit") {
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
    for phase in ["claim", "plan", "commit"] {
        assert_eq!(named[phase].parent_span_id, named["turn"].span_id, "{phase}");
    }
    assert!(named["run"].end_time_unix_nano - named["run"].start_time_unix_nano >= 100_000_000, "it slept");
    let id = whole.attributes.iter().find(|attribute| attribute.key == "volley.container.id").expect("its id");
    let id = format!("{:?}", id.value);
    let id = id.split('"').nth(1).expect("text");
    let logs = Command::new(env!("CARGO_BIN_EXE_volley")).args(["--server", server, "logs", id]).output();
    assert_eq!(String::from_utf8_lossy(&logs.expect("it ran").stdout).trim(), parent, "the container knows its trace");
}

#[test]
fn a_collector_behind_tls_is_reached_with_the_authority_that_is_named() {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a good name");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let tls = tls.expect("versions").with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
    let tls = Arc::new(tls.expect("they go together"));
    let dir = tempfile::tempdir().expect("a folder");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("https://{}", listener.local_addr().expect("bound"));
    let (sender, spans) = channel();
    std::thread::spawn(move || receive(&listener, Some(&tls), &sender));
    let run = |ca: &std::path::Path| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_volley"));
        run.args(["dev", "--listen", "127.0.0.1:0", "-o", "json", "--data"]).arg(dir.path().join("data"));
        run.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env("OTEL_EXPORTER_OTLP_CERTIFICATE", ca);
        run
    };
    let refused = run(&dir.path().join("missing.pem")).output().expect("it ran");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("missing.pem") && words.contains("traces:"), "{words}");
    let mut dev = Started(run(&ca).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it was built"));
    let mut line = String::new();
    BufReader::new(dev.0.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
    let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let server = said["address"].as_str().expect("an address");
    let ran = Command::new(env!("CARGO_BIN_EXE_volley")).args(["--server", server, "run", "--", "true"]).status();
    assert!(ran.expect("it ran").success());
    assert_eq!(next(&spans).name, "container");
}
