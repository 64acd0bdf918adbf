//! The processes beside the bench: a server and the simulated workers, each started by whoever
//! knows how, and ended with the bench whatever happens.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use volley_model::ContainerId;

use super::BurstError;
use super::clock::Instant;
use super::simulated::{self, ATTACHED, DELIVERIES};

/// A server that is asked to end has so long before it is killed.
const END_WAIT: Duration = Duration::from_secs(10);
/// What is started says that it is ready within this, or it is ended.
const READY_WAIT: Duration = Duration::from_secs(60);
/// Between two looks at whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Where a server keeps its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// In a folder of its own.
    Folder(PathBuf),
    /// In a cell of a Redis, together with other servers.
    Redis {
        /// As `volley serve --store` takes it.
        url: String,
        /// Of all servers of the bench.
        cell: String,
    },
}

/// How the processes are started; known to the command line.
pub trait Programs {
    /// A server on a free loopback port, with its store there. A line that it writes to standard error has its
    /// `http://` address; warnings may come before. It ends with its standard input.
    fn server(&self, place: &StorePlace) -> Command;

    /// A process that calls [`simulated_workers`](super::simulated_workers).
    fn workers(&self, workers: &super::SimulatedWorkers) -> Command;
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> BurstError {
    move |error| BurstError::Process { what, problem: error.to_string() }
}

/// A child that does not outlive its owner.
pub(crate) struct Process(pub(super) Child);

impl Process {
    /// Starts a program and waits for a line on its standard error that says what is wanted. What else it says there is
    /// said here too, and its pipe is kept empty.
    pub(crate) fn start<T>(
        mut command: Command,
        what: &'static str,
        ready: impl Fn(&str) -> Option<T>,
    ) -> Result<(Self, T), BurstError> {
        let failed = failed(what);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let stderr = child.as_mut().ok().and_then(|child| child.stderr.take());
        let process = Self(child.map_err(&failed)?);
        let stderr = BufReader::new(stderr.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody waits for it any more.
                if let Err(mpsc::SendError(line)) = sender.send(line) {
                    eprintln!("{what}: {line}");
                }
            }
        });
        let (end, mut said) = (std::time::Instant::now() + READY_WAIT, String::new());
        loop {
            let line = lines.recv_timeout(end.saturating_duration_since(std::time::Instant::now()));
            let line = line.map_err(|error| {
                let late = match error {
                    mpsc::RecvTimeoutError::Timeout => format!("not ready within {} s; ", READY_WAIT.as_secs()),
                    mpsc::RecvTimeoutError::Disconnected => String::new(),
                };
                failed(io::Error::other(format!("{late}it says: {}", said.trim())))
            })?;
            if let Some(found) = ready(&line) {
                return Ok((process, found));
            }
            said.push_str(&line);
            said.push('\n');
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    fn status(&self, field: &str) -> u64 {
        status_kib(self.0.id(), field) * 1024
    }

    /// Asks it to end, and waits a while.
    pub(crate) fn end(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok()) {
            let begin = std::time::Instant::now();
            while begin.elapsed() < END_WAIT && matches!(self.0.try_wait(), Ok(None)) {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A number of `/proc/PID/status`; 0 when the process is gone.
fn status_kib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Milliseconds of processor time that all threads of a process have used.
pub(crate) fn cpu_ms(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 / 1e6
}

/// Of this process.
pub(super) fn own_cpu_ms() -> f64 {
    cpu_ms(std::process::id())
}

/// The most memory that this process has held.
pub(super) fn own_peak_rss() -> u64 {
    status_kib(std::process::id(), "VmHWM") * 1024
}

/// A running server.
pub(crate) struct ServerProcess {
    process: Process,
    pub(crate) url: String,
}

impl ServerProcess {
    pub(crate) fn start(programs: &dyn Programs, place: &StorePlace) -> Result<Self, BurstError> {
        Self::of_command(programs.server(place))
    }

    pub(crate) fn of_command(command: Command) -> Result<Self, BurstError> {
        let url = |line: &str| {
            let word = line.split_ascii_whitespace().find(|word| word.starts_with("http://"))?;
            Some(word.trim_end_matches([';', ',']).to_owned())
        };
        let (process, url) = Process::start(command, "the server", url)?;
        Ok(Self { process, url })
    }

    pub(super) fn peak_rss(&self) -> u64 {
        self.process.status("VmHWM")
    }

    pub(super) fn rss(&self) -> u64 {
        self.process.status("VmRSS")
    }

    pub(super) fn cpu_ms(&self) -> f64 {
        cpu_ms(self.process.0.id())
    }

    pub(crate) fn end(mut self) {
        self.process.end();
    }
}

/// The process of the simulated workers.
pub(super) struct WorkersProcess {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    process: Process,
}

impl WorkersProcess {
    /// Starts it, and waits till all are attached.
    pub(super) fn start(programs: &dyn Programs, workers: &super::SimulatedWorkers) -> Result<Self, BurstError> {
        let failed = failed("the process of the simulated workers");
        let mut child = programs.workers(workers).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let pipes = child.as_mut().ok().and_then(|child| Some((child.stdin.take()?, child.stdout.take()?)));
        let process = Process(child.map_err(&failed)?);
        let (stdin, stdout) = pipes.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let mut workers = Self { stdin, stdout: BufReader::new(stdout), process };
        match workers.line().map_err(&failed)?.as_str() {
            ATTACHED => Ok(workers),
            other => Err(failed(io::Error::other(format!("it says '{other}'")))),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line)? {
            0 => Err(io::Error::other("it ended")),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// When each container came to its worker, since the last time this was asked.
    pub(super) fn deliveries(&mut self) -> Result<HashMap<ContainerId, Instant>, BurstError> {
        self.ask().map_err(failed("the process of the simulated workers"))
    }

    fn ask(&mut self) -> io::Result<HashMap<ContainerId, Instant>> {
        writeln!(self.stdin, "{DELIVERIES}")?;
        let bad = |line: &str| io::Error::other(format!("it says '{line}'"));
        let line = self.line()?;
        let count: usize = line.parse().map_err(|_| bad(&line))?;
        let mut deliveries = HashMap::with_capacity(count);
        for _ in 0..count {
            let line = self.line()?;
            let (container, at) = simulated::read(&line).ok_or_else(|| bad(&line))?;
            // The first delivery counts: a second one repeats it.
            deliveries.entry(container).or_insert(at);
        }
        Ok(deliveries)
    }

    pub(super) fn peak_rss(&self) -> u64 {
        self.process.status("VmHWM")
    }

    pub(super) fn cpu_ms(&self) -> f64 {
        cpu_ms(self.process.0.id())
    }
}
