//! `volley logs`: what a container has printed, as bytes or, as JSON, line by line.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde_json::json;
use volley_wire::client::{Client, ClientError};

use crate::command_error::CommandError;
use crate::output::{self, Format, in_path};

/// A line of JSON holds at most so much of a longer line of output.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Stream {
    Both,
    Stdout,
    Stderr,
}

/// What a container has printed.
#[derive(Debug, Args)]
pub struct Logs {
    /// A container's id, or the beginning of one.
    id: String,
    /// Wait for more until it has finished.
    #[arg(short, long)]
    follow: bool,
    /// Only this stream.
    #[arg(long, value_enum, default_value = "both")]
    stream: Stream,
}

/// `volley logs`.
pub async fn logs(logs: &Logs, client: &Client, format: Format) -> Result<(), CommandError> {
    let path = |stream| format!("/v1/containers/{}/logs?stream={stream}&follow={}", in_path(&logs.id), logs.follow);
    let (stdout, stderr) = (logs.stream != Stream::Stderr, logs.stream != Stream::Stdout);
    if format == Format::Json {
        let stdout = async { if stdout { lines(client, &path("stdout"), "stdout").await } else { Ok(()) } };
        let stderr = async { if stderr { lines(client, &path("stderr"), "stderr").await } else { Ok(()) } };
        let (stdout, stderr) = futures_util::future::join(stdout, stderr).await;
        return stdout.and(stderr);
    }
    let stream = if stdout && stderr {
        "both"
    } else if stdout {
        "stdout"
    } else {
        "stderr"
    };
    let path = path(stream);
    let mut written = Ok(());
    let copied = client.stream(&path, |bytes| {
        let mut out = io::stdout().lock();
        written = out.write_all(bytes).and_then(|()| out.flush());
        written.is_ok()
    });
    end(copied.await, written)
}

fn end(copied: Result<(), ClientError>, written: io::Result<()>) -> Result<(), CommandError> {
    written?;
    Ok(copied?)
}

/// Each line as one JSON document.
async fn lines(client: &Client, path: &str, stream: &str) -> Result<(), CommandError> {
    let mut rest: Vec<u8> = Vec::new();
    let mut written = Ok(());
    let copied = client.stream(path, |bytes| {
        rest.extend_from_slice(bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n').or(long(&rest)) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            written = put(stream, line);
            if written.is_err() {
                return false;
            }
        }
        true
    });
    let copied = copied.await;
    if written.is_ok() && !rest.is_empty() {
        written = put(stream, &rest);
    }
    end(copied, written)
}

/// Where a line that is too long is cut.
fn long(rest: &[u8]) -> Option<usize> {
    (rest.len() >= LINE_BYTES_MAX).then_some(LINE_BYTES_MAX - 1)
}

fn put(stream: &str, line: &[u8]) -> io::Result<()> {
    output::write_json_line(json!({ "stream": stream, "line": String::from_utf8_lossy(line) }))
}
