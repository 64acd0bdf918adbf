//! What a server asks of a container that runs: to run another program in it, and what it uses.
//! A program's output is held here until it was fetched, and no more than a little of it: one
//! that nobody fetches from waits, and is ended after a while.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc, watch};
use tokio::time::Instant;
use volley_wire::convert;
use volley_wire::proto::{self, call_reply::Reply, call_request::Call, from_worker};

use crate::Runtime;

/// Programs that run in containers of a worker at a time, by `exec`.
const EXECS_MAX: usize = 64;
/// Output of each stream that waits to be fetched.
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// One read of a stream.
const READ_BYTES: usize = 32 << 10;
/// Longest wait of a page for more, whatever is asked for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A program that nobody asks after for so long is ended: its client is gone.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Between SIGTERM and SIGKILL of a program that is ended.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Output that waits.
#[derive(Debug, Default)]
struct Buffer {
    /// The place of the first byte.
    start: u64,
    bytes: Vec<u8>,
    ended: bool,
}

impl Buffer {
    /// Bytes from a place on; what is before it was fetched.
    fn page(&mut self, from: u64, max: usize) -> (Vec<u8>, u64) {
        let fetched = usize::try_from(from.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.drain(..fetched);
        self.start += fetched as u64;
        let page = self.bytes[..self.bytes.len().min(max)].to_vec();
        let next = self.start + page.len() as u64;
        (page, next)
    }
}

/// A program that runs by `exec`.
#[derive(Debug)]
struct Exec {
    streams: [Mutex<Buffer>; 2],
    /// Counts what has changed.
    changed: watch::Sender<u64>,
    /// There is room in a buffer again.
    fetched: Notify,
    code: Mutex<Option<i32>>,
    stdin: AsyncMutex<Option<ChildStdin>>,
    kill: Notify,
    asked_at: Mutex<Instant>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exec {
    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Keeps what a stream says.
    async fn keep(&self, index: usize, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                break;
            }
            locked(&self.streams[index]).bytes.extend_from_slice(&buffer[..read]);
            self.touch();
            loop {
                let fetched = self.fetched.notified();
                if locked(&self.streams[index]).bytes.len() < BUFFER_BYTES_MAX {
                    break;
                }
                tokio::select! {
                    () = fetched => {}
                    // The other stream may have been the one fetched; and nobody must wait for ever.
                    () = tokio::time::sleep(IDLE_MAX) => return,
                }
            }
        }
        locked(&self.streams[index]).ended = true;
        self.touch();
    }

    /// Sees the program to its end.
    async fn watch(&self, mut child: Child) {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let keep = async {
            tokio::join!(
                async {
                    if let Some(stdout) = stdout {
                        self.keep(0, stdout).await
                    }
                },
                async {
                    if let Some(stderr) = stderr {
                        self.keep(1, stderr).await
                    }
                },
            )
        };
        let end = async {
            let idle = async {
                loop {
                    let until = *locked(&self.asked_at) + IDLE_MAX;
                    if Instant::now() >= until {
                        return;
                    }
                    tokio::time::sleep_until(until).await;
                }
            };
            let status = tokio::select! {
                status = child.wait() => status,
                () = self.kill.notified() => stop(&mut child).await,
                () = idle => stop(&mut child).await,
            };
            status.ok()
        };
        let (_, status) = tokio::join!(keep, end);
        use std::os::unix::process::ExitStatusExt as _;
        let code = status.map_or(-1, |status| status.code().unwrap_or(128 + status.signal().unwrap_or(0)));
        *locked(&self.code) = Some(code);
        self.touch();
    }

    async fn page(&self, request: &proto::ExecPage) -> proto::ExecOutput {
        let until = Instant::now() + Duration::from_millis(u64::from(request.wait_ms)).min(WAIT_MAX);
        let max = request.bytes_max.clamp(1, BUFFER_BYTES_MAX as u32) as usize;
        let mut changed = self.changed.subscribe();
        loop {
            *locked(&self.asked_at) = Instant::now();
            changed.mark_unchanged();
            // Asked first: a program that has ended says no more.
            let code = *locked(&self.code);
            let (stdout, stdout_next) = locked(&self.streams[0]).page(request.stdout_from, max);
            let (stderr, stderr_next) = locked(&self.streams[1]).page(request.stderr_from, max);
            self.fetched.notify_waiters();
            let empty = stdout.is_empty() && stderr.is_empty();
            let exit_code = code.filter(|_| empty);
            if !empty || exit_code.is_some() || Instant::now() >= until {
                return proto::ExecOutput { stdout, stderr, stdout_next, stderr_next, exit_code };
            }
            let _ = tokio::time::timeout_at(until, changed.changed()).await;
        }
    }

    async fn input(&self, input: proto::ExecInput) -> Result<(), String> {
        *locked(&self.asked_at) = Instant::now();
        let mut stdin = self.stdin.lock().await;
        if let Some(pipe) = stdin.as_mut() {
            // A program that reads no more, or is gone, has what it wanted.
            if pipe.write_all(&input.bytes).await.is_err() {
                *stdin = None;
            }
        }
        if input.end {
            *stdin = None;
        }
        Ok(())
    }
}

/// Asks a program to end, then kills what passes its signals on.
async fn stop(child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
    if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    match tokio::time::timeout(KILL_GRACE, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    last: u64,
    execs: BTreeMap<u64, Arc<Exec>>,
}

/// Answers a server's calls; lives as long as its worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    held: Arc<Mutex<Held>>,
}

impl Calls {
    /// Answers in a task of its own.
    pub(crate) fn answer(
        &self,
        runtime: &Arc<dyn Runtime>,
        request: proto::CallRequest,
        out: mpsc::Sender<proto::FromWorker>,
    ) {
        let (calls, runtime) = (self.clone(), Arc::clone(runtime));
        tokio::spawn(async move {
            let number = request.request;
            let (reply, error) = match calls.call(runtime, request).await {
                Ok(reply) => (Some(reply), String::new()),
                Err(error) => (None, error),
            };
            let reply = proto::CallReply { request: number, reply, error };
            // A stream that broke meanwhile has nobody who waits.
            let _ = out.send(proto::FromWorker { message: Some(from_worker::Message::Reply(reply)) }).await;
        });
    }

    async fn call(&self, runtime: Arc<dyn Runtime>, request: proto::CallRequest) -> Result<Reply, String> {
        let container = convert::container_from("container", request.container).map_err(|error| error.to_string())?;
        let attempt = request.attempt;
        match request.call.ok_or("this worker does not know what is asked; it is older than its server")? {
            Call::Exec(start) => {
                let prepared = tokio::task::spawn_blocking(move || runtime.exec(container, attempt, &start.args)).await;
                let command = prepared.map_err(|error| error.to_string())??;
                Ok(Reply::Started(proto::ExecStarted { exec: self.start(command)? }))
            }
            Call::Page(page) => Ok(Reply::Output(self.exec(page.exec)?.page(&page).await)),
            Call::Input(input) => {
                self.exec(input.exec)?.input(input).await?;
                Ok(Reply::Done(true))
            }
            Call::Kill(kill) => {
                self.exec(kill.exec)?.kill.notify_one();
                Ok(Reply::Done(true))
            }
            Call::Usage(_) => {
                let read = tokio::task::spawn_blocking(move || {
                    (runtime.usage(container, attempt), runtime.image_digest(container, attempt))
                });
                let (usage, image_digest) = read.await.map_err(|error| error.to_string())?;
                let usage = usage.map_err(|error| error.to_string())?;
                let usage = usage.ok_or("nothing is known of what it uses")?;
                Ok(Reply::Usage(proto::Usage {
                    cpu_us: usage.cpu_us,
                    memory_bytes: usage.memory.0,
                    memory_peak_bytes: usage.memory_peak.0,
                    image_digest,
                }))
            }
        }
    }

    fn exec(&self, number: u64) -> Result<Arc<Exec>, String> {
        let found = locked(&self.held).execs.get(&number).cloned();
        found.ok_or_else(|| "its worker does not know this program any more".to_owned())
    }

    fn start(&self, command: std::process::Command) -> Result<u64, String> {
        let full = || format!("{EXECS_MAX} programs by exec are this worker's limit; wait for one to end");
        if locked(&self.held).execs.len() >= EXECS_MAX {
            return Err(full());
        }
        let mut command = Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("the OCI runtime could not be started: {error}"))?;
        let exec = Arc::new(Exec {
            streams: Default::default(),
            changed: watch::channel(0).0,
            fetched: Notify::new(),
            code: Mutex::new(None),
            stdin: AsyncMutex::new(child.stdin.take()),
            kill: Notify::new(),
            asked_at: Mutex::new(Instant::now()),
        });
        let number = {
            let mut held = locked(&self.held);
            held.last += 1;
            let number = held.last;
            held.execs.insert(number, Arc::clone(&exec));
            number
        };
        let calls = self.clone();
        tokio::spawn(async move {
            exec.watch(child).await;
            // Its last page is fetched within this, or nobody fetches it.
            tokio::time::sleep(IDLE_MAX).await;
            locked(&calls.held).execs.remove(&number);
        });
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_goes_and_places_count_from_the_start() {
        let mut buffer = Buffer { bytes: b"0123456789".to_vec(), ..Buffer::default() };
        assert_eq!(buffer.page(0, 4), (b"0123".to_vec(), 4));
        assert_eq!(buffer.page(0, 4), (b"0123".to_vec(), 4), "a page may be asked for again");
        assert_eq!(buffer.page(4, 100), (b"456789".to_vec(), 10));
        assert_eq!(buffer.page(10, 100), (Vec::new(), 10));
        assert!(buffer.bytes.is_empty());
    }

    async fn ran(script: &str, input: &[u8]) -> (String, String, Option<i32>) {
        let calls = Calls::default();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]);
        let number = calls.start(command).unwrap();
        let exec = calls.exec(number).unwrap();
        exec.input(proto::ExecInput { exec: number, bytes: input.to_vec(), end: true }).await.unwrap();
        let (mut out, mut err, mut at) = (Vec::new(), Vec::new(), (0, 0));
        loop {
            let page = proto::ExecPage {
                exec: number,
                stdout_from: at.0,
                stderr_from: at.1,
                bytes_max: 1000,
                wait_ms: 60_000,
            };
            let output = exec.page(&page).await;
            out.extend(output.stdout);
            err.extend(output.stderr);
            at = (output.stdout_next, output.stderr_next);
            if output.exit_code.is_some() {
                return (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), output.exit_code);
            }
        }
    }

    #[tokio::test]
    async fn input_goes_in_output_and_code_come_out() {
        let (out, err, code) = ran("cat; echo bad >&2; exit 3", b"hello").await;
        assert_eq!((out.as_str(), err.as_str(), code), ("hello", "bad\n", Some(3)));
        let (out, _, code) = ran("yes | head -c 1000000", b"").await;
        assert_eq!((out.len(), code), (1_000_000, Some(0)), "more than waits at a time");
    }
}
