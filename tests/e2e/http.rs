//! A client of HTTP/1.0: a request, a reply whose end is the connection's. Knows nothing of
//! what the server does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The detail of a problem, which must be one line.
    pub fn problem(&self) -> String {
        assert!(self.headers.to_ascii_lowercase().contains("content-type: application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        let detail = problem["detail"].as_str().unwrap_or_else(|| panic!("no detail: {self:?}")).to_owned();
        assert_eq!(detail.lines().count(), 1, "{detail}");
        detail
    }
}

/// Opens a connection and sends a request.
fn begin(address: &str, method: &str, path: &str, headers: &[&str], body: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    // A server that has seen enough answers before it has read all.
    let _ = stream.write_all(body);
    Ok(stream)
}

/// One request and its reply.
pub fn request(address: &str, method: &str, path: &str, headers: &[&str], body: &[u8]) -> std::io::Result<Reply> {
    let mut stream = begin(address, method, path, headers, body)?;
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes)
        && bytes.is_empty()
    {
        return Err(error);
    }
    let text = String::from_utf8_lossy(&bytes);
    let (headers, body) = text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("the reply has no end"))?;
    let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("the reply has no status"))?;
    Ok(Reply { status, headers: headers.to_owned(), body: body.to_owned() })
}

/// Reads lines of a reply until `on` says false.
pub fn lines(address: &str, path: &str, headers: &[&str], mut on: impl FnMut(&str) -> bool) {
    let stream = begin(address, "GET", path, headers, b"").expect("the server answers");
    for line in BufReader::new(stream).lines() {
        if !on(&line.expect("the stream goes on")) {
            return;
        }
    }
}
