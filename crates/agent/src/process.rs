//! The process runtime: each container is a command in its own process group and directory,
//! with its output captured. Knows nothing of streams to servers.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use volley_model::{Attempt, ContainerId, Millis, Outcome, StopCause, WorkerId};

use crate::log_file::{self, LogFile};
use crate::{Happened, Launch, Left, Output, Runtime};

/// Output that is still in the pipes when all processes of a container are gone is read for at most this long: a
/// process that left its group may hold them open for ever.
const DRAIN_WAIT: Duration = Duration::from_secs(1);
/// One read of a container's output.
const READ_BYTES: usize = 16 * 1024;
/// Where commands are looked for when the worker itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The settings of a process runtime.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Its worker's name, told to containers.
    pub worker: WorkerId,
    /// Directories and output of containers are kept here.
    pub state_dir: PathBuf,
}

type Key = (ContainerId, Attempt);
type Live = Arc<Mutex<BTreeMap<Key, watch::Sender<Option<Millis>>>>>;

/// Runs commands as processes of this machine.
#[derive(Debug, Clone)]
pub struct ProcessRuntime {
    options: Arc<ProcessOptions>,
    happened: mpsc::UnboundedSender<(ContainerId, Attempt, Happened)>,
    live: Live,
}

fn lock(live: &Live) -> MutexGuard<'_, BTreeMap<Key, watch::Sender<Option<Millis>>>> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProcessOptions {
    /// For a worker that keeps all in a folder.
    #[must_use]
    pub fn new(worker: WorkerId, state_dir: PathBuf) -> Self {
        Self { worker, state_dir }
    }
}

impl Runtime for ProcessRuntime {
    fn adopt(&self) -> io::Result<Vec<Left>> {
        std::fs::create_dir_all(&self.options.state_dir)?;
        Ok(Vec::new())
    }

    fn start(&self, launch: Launch) {
        ProcessRuntime::start(self, launch);
    }

    fn stop(&self, container: ContainerId, attempt: Attempt, grace: Millis) -> bool {
        ProcessRuntime::stop(self, container, attempt, grace)
    }

    fn forget(&self, _container: ContainerId, _attempt: Attempt) {}

    fn output(&self, container: ContainerId, attempt: u32, stderr: bool, from: u64, max: usize) -> io::Result<Output> {
        let (stdout, err) = ProcessRuntime::output(self, container, attempt)?;
        let kept = if stderr { err } else { stdout };
        let start = usize::try_from(from).unwrap_or(usize::MAX).min(kept.len());
        let bytes = kept[start..(start + max).min(kept.len())].to_vec();
        let next = from + bytes.len() as u64;
        Ok(Output { bytes, next })
    }

    fn ended(&self, container: ContainerId, attempt: u32) -> bool {
        !lock(&self.live).keys().any(|(id, at)| *id == container && at.number == attempt)
    }
}

impl ProcessRuntime {
    /// A runtime that tells `happened` what becomes of its containers.
    pub fn new(
        options: ProcessOptions,
        happened: mpsc::UnboundedSender<(ContainerId, Attempt, Happened)>,
    ) -> io::Result<Self> {
        Ok(Self { options: Arc::new(options), happened, live: Live::default() })
    }

    /// Starts an attempt; does nothing when it is there already. Must be called within a tokio runtime.
    pub fn start(&self, launch: Launch) {
        let key = (launch.container, launch.attempt);
        let (stop, stopped) = watch::channel(None);
        match lock(&self.live).entry(key) {
            std::collections::btree_map::Entry::Occupied(_) => return,
            std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(stop)),
        }
        let runtime = self.clone();
        tokio::spawn(async move {
            let outcome = runtime.run(&launch, stopped).await;
            lock(&runtime.live).remove(&key);
            runtime.tell(key, Happened::Ended(outcome));
        });
    }

    /// Ends an attempt: SIGTERM, and SIGKILL after the grace (at once when it is zero). False when it is not there.
    #[must_use]
    pub fn stop(&self, container: ContainerId, attempt: Attempt, grace: Millis) -> bool {
        lock(&self.live).get(&(container, attempt)).is_some_and(|stop| stop.send(Some(grace)).is_ok())
    }

    /// What is kept of an attempt's stdout and stderr.
    pub fn output(&self, container: ContainerId, attempt: u32) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let dir = self.dir(container, attempt);
        Ok((log_file::read(&dir.join("stdout.log"))?, log_file::read(&dir.join("stderr.log"))?))
    }

    fn dir(&self, container: ContainerId, attempt: u32) -> PathBuf {
        self.options.state_dir.join(format!("{container}.{attempt}"))
    }

    fn tell(&self, (container, attempt): Key, happened: Happened) {
        // Whoever listened is gone: the worker is ending.
        let _ = self.happened.send((container, attempt, happened));
    }

    async fn run(&self, launch: &Launch, mut stopped: watch::Receiver<Option<Millis>>) -> Outcome {
        let dir = self.dir(launch.container, launch.attempt.number);
        let mut child = match self.spawn(launch, &dir) {
            Ok(child) => child,
            Err(reason) => return Outcome::Failed { reason },
        };
        self.tell((launch.container, launch.attempt), Happened::Running);
        let limit = launch.spec.log_limit.0 / 2;
        let stdout = tokio::spawn(capture(child.stdout.take(), LogFile::new(dir.join("stdout.log"), limit)));
        let stderr = tokio::spawn(capture(child.stderr.take(), LogFile::new(dir.join("stderr.log"), limit)));
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (status, was_stopped) = wait(&mut child, group, &mut stopped).await;
        // What the command left behind in its group goes with it.
        signal(group, Signal::KILL);
        for stream in [stdout, stderr] {
            let abort = stream.abort_handle();
            if tokio::time::timeout(DRAIN_WAIT, stream).await.is_err() {
                abort.abort();
            }
        }
        match status {
            _ if was_stopped => Outcome::Stopped { by: StopCause::Client },
            Ok(status) => exited(status),
            Err(error) => Outcome::Failed { reason: format!("its end could not be waited for: {error}") },
        }
    }

    fn spawn(&self, launch: &Launch, dir: &Path) -> Result<Child, String> {
        let spec = &launch.spec;
        let own_dir = |error: io::Error| format!("its directory {} could not be made: {error}", dir.display());
        std::fs::create_dir_all(dir.join("work")).map_err(own_dir)?;
        let working_dir = spec.working_dir.as_ref().map_or_else(|| dir.join("work"), PathBuf::from);
        if !working_dir.is_dir() {
            return Err(format!("working directory {} is not there; make it, or name another", working_dir.display()));
        }
        let mut command = Command::new(&spec.command);
        command.args(&spec.args).current_dir(&working_dir).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()));
        command.envs(&spec.env);
        command.env("VOLLEY_CONTAINER_ID", launch.container.to_string());
        command.env("VOLLEY_ATTEMPT", launch.attempt.number.to_string());
        command.env("VOLLEY_WORKER", self.options.worker.as_str());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command.spawn().map_err(|error| spawn_problem(&spec.command, &error))
    }
}

fn spawn_problem(command: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("command '{command}' was not found on the worker; give its full path"),
        io::ErrorKind::PermissionDenied => format!("command '{command}' may not be executed; chmod +x it"),
        _ => format!("command '{command}' could not be started: {error}"),
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // The group may be gone already.
        let _ = kill_process_group(group, signal);
    }
}

/// Waits for the end; on a stop request signals the group, and after the grace kills it.
async fn wait(
    child: &mut Child,
    group: Option<Pid>,
    stopped: &mut watch::Receiver<Option<Millis>>,
) -> (io::Result<ExitStatus>, bool) {
    let grace = tokio::select! {
        biased;
        status = child.wait() => return (status, false),
        grace = stop_request(stopped) => grace,
    };
    if grace.0 > 0 {
        signal(group, Signal::TERM);
        let killed_at = tokio::time::sleep(grace.to_duration());
        tokio::pin!(killed_at);
        loop {
            tokio::select! {
                status = child.wait() => return (status, true),
                () = &mut killed_at => break,
                sooner = stop_request(stopped) => if sooner.0 == 0 { break },
            }
        }
    }
    signal(group, Signal::KILL);
    (child.wait().await, true)
}

async fn stop_request(stopped: &mut watch::Receiver<Option<Millis>>) -> Millis {
    loop {
        if stopped.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let grace = *stopped.borrow_and_update();
        if let Some(grace) = grace {
            return grace;
        }
    }
}

fn exited(status: ExitStatus) -> Outcome {
    let signal = status.signal();
    Outcome::Exited { code: status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0)), signal }
}

async fn capture(stream: Option<impl AsyncRead + Unpin>, mut log: LogFile) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if let Err(error) = log.append(&buffer[..read]) {
            tracing::warn!(%error, "a container's output could not be kept");
        }
    }
}
