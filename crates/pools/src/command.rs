//! Machines by a program of the owner's: one run for each call, JSON on stdin and stdout (docs/pools.md). Whatever is not
//! a clear answer is unknown: a time-out, a signal, an exit code above 1, words that are not JSON.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use volley_model::{Machine, PoolName, WorkerId};

use crate::{Listed, Order, ProvisionError, ProvisionFuture, Provisioner};

/// Version of the contract.
const CONTRACT: u32 = 1;
/// Most bytes of an answer: ten thousand machines at a hundred bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Most bytes of stderr that are kept, from its end: the last words tell.
const COMPLAINT_BYTES_MAX: usize = 400;
/// Longest handle that is taken.
const HANDLE_BYTES_MAX: usize = 256;

/// Runs a program for each call.
#[derive(Debug, Clone)]
pub struct CommandProvisioner {
    /// Its path.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// It and all that it started is killed after this.
    pub timeout: Duration,
    /// Where workers find the server.
    pub server: String,
}

#[derive(Deserialize)]
struct Created {
    machine: String,
}

#[derive(Deserialize)]
struct Machines {
    machines: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    worker: WorkerId,
    machine: String,
}

impl Provisioner for CommandProvisioner {
    fn create<'a>(&'a self, order: &'a Order) -> ProvisionFuture<'a, String> {
        let asked = json!({
            "version": CONTRACT, "action": "create", "pool": order.pool, "worker": order.worker,
            "server": self.server, "machine": machine_to(&order.machine), "options": order.options,
        });
        Box::pin(async move {
            let created: Created = parse(&self.run(&asked).await?)?;
            handle(created.machine)
        })
    }

    fn destroy<'a>(&'a self, order: &'a Order, handle: Option<&'a str>) -> ProvisionFuture<'a, ()> {
        let asked = json!({
            "version": CONTRACT, "action": "destroy", "pool": order.pool, "worker": order.worker,
            "machine": handle, "options": order.options,
        });
        Box::pin(async move { self.run(&asked).await.map(drop) })
    }

    fn list<'a>(
        &'a self,
        pool: &'a PoolName,
        options: &'a BTreeMap<String, String>,
    ) -> ProvisionFuture<'a, Vec<Listed>> {
        let asked = json!({ "version": CONTRACT, "action": "list", "pool": pool, "options": options });
        Box::pin(async move {
            let found: Machines = parse(&self.run(&asked).await?)?;
            let listed = found.machines.into_iter().map(|entry| {
                let handle = handle(entry.machine)?;
                Ok(Listed { worker: entry.worker, handle })
            });
            listed.collect()
        })
    }
}

/// As the contract writes it.
fn machine_to(machine: &Machine) -> Value {
    let capacity = &machine.capacity;
    json!({
        "cpu_milli": capacity.cpu.0, "memory_bytes": capacity.memory.0, "slots": capacity.slots,
        "gpus": capacity.gpus, "labels": machine.labels,
    })
}

fn unknown(reason: impl Into<String>) -> ProvisionError {
    ProvisionError::Unknown { reason: reason.into() }
}

fn parse<T: for<'de> Deserialize<'de>>(answer: &[u8]) -> Result<T, ProvisionError> {
    serde_json::from_slice(answer).map_err(|error| {
        let start: String = String::from_utf8_lossy(answer).chars().take(80).collect();
        unknown(format!("its answer is not as docs/pools.md says ({error}): '{start}'"))
    })
}

fn handle(text: String) -> Result<String, ProvisionError> {
    if text.is_empty() || text.len() > HANDLE_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(unknown(format!("it gave a machine's name that is not 1 to {HANDLE_BYTES_MAX} printable bytes")));
    }
    Ok(text)
}

impl CommandProvisioner {
    /// One run: its stdout when it says that it did what was asked.
    async fn run(&self, asked: &Value) -> Result<Vec<u8>, ProvisionError> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Of its own group, so that a time-out ends what it started too.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| ProvisionError::Refused {
            reason: format!("cannot start {}: {error}; check the pool's provisioner", self.program),
        })?;
        let group = child.id();
        let ran = tokio::time::timeout(self.timeout, converse(&mut child, asked.to_string().into_bytes())).await;
        let Ok(ran) = ran else {
            kill_group(group);
            let _ = child.wait().await;
            return Err(unknown(format!("{} did not answer within {} ms", self.program, self.timeout.as_millis())));
        };
        let (status, answer, complaint) = ran.map_err(|error| unknown(format!("{}: {error}", self.program)))?;
        self.judge(status, answer, &complaint)
    }

    fn judge(
        &self,
        status: std::process::ExitStatus,
        answer: Vec<u8>,
        complaint: &str,
    ) -> Result<Vec<u8>, ProvisionError> {
        let said = if complaint.is_empty() { "it said nothing on stderr" } else { complaint };
        match (status.code(), status.signal()) {
            (Some(0), _) if answer.len() as u64 > ANSWER_BYTES_MAX => {
                Err(unknown(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")))
            }
            (Some(0), _) => Ok(answer),
            // It says that nothing was made, and names a machine: that is no clear answer.
            (Some(1), _) if serde_json::from_slice::<Created>(&answer).is_ok() => {
                Err(unknown(format!("exit code 1, and a machine: {said}")))
            }
            (Some(1), _) => Err(ProvisionError::Refused { reason: format!("exit code 1: {said}") }),
            (Some(code), _) => Err(unknown(format!("exit code {code}: {said}"))),
            (None, signal) => Err(unknown(format!("ended by signal {}: {said}", signal.unwrap_or(0)))),
        }
    }
}

/// Ends a program and all that it started in its process group.
fn kill_group(leader: Option<u32>) {
    let pid = leader.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself at last.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// Says what is asked and hears the answer.
async fn converse(child: &mut Child, asked: Vec<u8>) -> std::io::Result<(std::process::ExitStatus, Vec<u8>, String)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let say = async move {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input has its reasons.
            let _ = stdin.write_all(&asked).await;
        }
    };
    let hear = async move {
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).await?;
        }
        Ok::<_, std::io::Error>(answer)
    };
    let ((), answer, complaint, status) = tokio::join!(say, hear, last_words(stderr), child.wait());
    Ok((status?, answer?, complaint?))
}

/// The end of what a program says, on one line.
async fn last_words(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut kept: Vec<u8> = Vec::new();
    if let Some(mut stream) = stream {
        let mut piece = [0; 4096];
        loop {
            let count = stream.read(&mut piece).await?;
            if count == 0 {
                break;
            }
            kept.extend_from_slice(&piece[..count]);
            let surplus = kept.len().saturating_sub(COMPLAINT_BYTES_MAX);
            kept.drain(..surplus);
        }
    }
    let text = String::from_utf8_lossy(&kept);
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}
