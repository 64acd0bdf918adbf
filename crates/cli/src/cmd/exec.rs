//! `volley exec`: runs another program in a container that runs, with its output and exit code,
//! and its input with `-i`. Without a terminal.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use volley_wire::client::{Client, ClientError};

use crate::command_error::{CommandError, INTERRUPTED};
use crate::output::in_path;

/// A server holds a request for more output so long.
const WAIT_MS: u64 = 15_000;
/// Input is sent in pieces of this size.
const INPUT_BYTES: usize = 64 << 10;

/// Runs another program in a container that runs.
#[derive(Debug, Args)]
pub struct Exec {
    /// A container's id, or the beginning of one.
    id: String,
    /// Hands its input on.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `volley exec`: ends with the program's exit code.
pub async fn exec(exec: &Exec, client: &Client) -> Result<(), CommandError> {
    let container = format!("/v1/containers/{}/exec", in_path(&exec.id));
    let started = client.json(Method::POST, &container, Some(&json!({ "args": exec.command }))).await?;
    let program = format!("{container}/{}", started["exec"]);
    let code = tokio::select! {
        code = output(client, &program) => code?,
        failed = input(client, &program, exec.stdin) => return Err(failed.into()),
        _ = tokio::signal::ctrl_c() => {
            client.json(Method::DELETE, &program, None).await?;
            INTERRUPTED
        }
    };
    if code == 0 { Ok(()) } else { Err(CommandError::Ended(code)) }
}

/// Writes what it prints until it has ended; its code.
async fn output(client: &Client, program: &str) -> Result<u8, CommandError> {
    let (mut stdout_from, mut stderr_from) = (0, 0);
    loop {
        let path = format!("{program}?stdout_from={stdout_from}&stderr_from={stderr_from}&wait_ms={WAIT_MS}");
        let page = client.json(Method::GET, &path, None).await?;
        let bytes = |name: &str| STANDARD.decode(page[name].as_str().unwrap_or_default()).unwrap_or_default();
        let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
        let written = out.write_all(&bytes("stdout")).and_then(|()| out.flush());
        // Whoever read it has gone: nothing is left to do here.
        if written.and_then(|()| err.write_all(&bytes("stderr"))).is_err() {
            return Ok(0);
        }
        let next = |name: &str| page[name].as_u64().unwrap_or_default();
        (stdout_from, stderr_from) = (next("stdout_next"), next("stderr_next"));
        if let Some(code) = page["exit_code"].as_i64() {
            return Ok(u8::try_from(code).unwrap_or(1));
        }
    }
}

/// Hands input on until its end; comes back only when that fails.
async fn input(client: &Client, program: &str, forward: bool) -> ClientError {
    let path = format!("{program}/stdin");
    let mut pieces = pieces(forward);
    loop {
        let piece = pieces.recv().await;
        let bytes = piece.as_deref().unwrap_or_default();
        let body: Value = json!({ "bytes": STANDARD.encode(bytes), "end": piece.is_none() });
        if let Err(error) = client.json(Method::POST, &path, Some(&body)).await {
            return error;
        }
        if piece.is_none() {
            return std::future::pending().await;
        }
    }
}

/// This process's input in pieces. Read in a thread that nobody waits for: it may wait for a terminal for ever.
fn pieces(forward: bool) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    if forward {
        std::thread::spawn(move || {
            let mut buffer = vec![0; INPUT_BYTES];
            while let Ok(read @ 1..) = std::io::stdin().read(&mut buffer) {
                if sender.blocking_send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}
