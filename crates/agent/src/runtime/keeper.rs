//! The keeper: a small process that is the parent of one container, captures its output, ends
//! it when told, and leaves its end on disk. It outlives the worker. One thread, no runtime.

mod afresh;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, pidfd_open, setsid, waitpid,
};
use volley_model::submission::STOP_GRACE_MAX;
use volley_model::{Bytes, Millis, Outcome, StopCause};

use super::attempt_dir::{AttemptDir, How, LaunchRecord, Lock, RunningRecord};
use super::log_file::LogFile;
use super::{cgroup, oci, process};
use crate::Usage;

/// Output that is still in the pipes when all processes of a container are gone is read for at most this long: a
/// process that left its group may hold them open for ever.
const DRAIN_WAIT: Duration = Duration::from_secs(1);
/// One read of a container's output.
const READ_BYTES: usize = 64 * 1024;
/// What the worker reads from its keeper's stdout when the command runs.
pub(crate) const RUNNING: u8 = b'r';

/// Runs the attempt whose folder this is, to its end. `more` are the arguments after it: none, or those of a keeper that
/// begins afresh.
#[must_use]
pub fn run(dir: &Path, more: impl Iterator<Item = OsString>) -> ExitCode {
    let dir = AttemptDir(dir.to_owned());
    let more: Vec<OsString> = more.collect();
    let kept = if more.is_empty() {
        // Its own session: a Ctrl-C at the worker's terminal is not for the container.
        let _ = setsid();
        keep(&dir)
    } else {
        afresh::go_on(&dir, &more)
    };
    match kept {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = format!("its keeper could not go on in {}: {error}", dir.0.display());
            // A disk that takes nothing: the worker finds the keeper gone and no end.
            let _ = dir.set_end(&Outcome::Failed { reason });
            ExitCode::FAILURE
        }
    }
}

fn keep(dir: &AttemptDir) -> io::Result<()> {
    // Another keeper lives, or a worker has found this one missing and ended the attempt.
    let Some(lock) = dir.lock()? else { return Ok(()) };
    let Some(launch) = dir.launch()? else { return Ok(()) };
    if dir.end()?.is_some() {
        return Ok(());
    }
    let orders = dir.open_orders()?;
    let outcome = match start(dir, &launch) {
        Ok(started) => Kept::new(dir, &launch, started, orders, &lock)?.keep()?,
        Err(reason) => Outcome::Failed { reason },
    };
    clean(dir, &launch);
    dir.set_end(&outcome)
}

/// A container that runs: a child of this process.
pub(super) struct Started {
    pub(super) pid: Pid,
    /// Its process group, when it leads one.
    pub(super) group: bool,
    /// What a stop sends first.
    pub(super) stop_signal: Signal,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

impl Started {
    /// A process that leads its group.
    pub(super) fn of_child(child: Child) -> Result<Self, String> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| "the kernel gave no process id".to_owned())?;
        let (stdout, stderr) = (child.stdout.map(OwnedFd::from), child.stderr.map(OwnedFd::from));
        Ok(Self { pid, group: true, stop_signal: Signal::TERM, stdout, stderr })
    }
}

fn start(dir: &AttemptDir, launch: &LaunchRecord) -> Result<Started, String> {
    match &launch.how {
        How::Waiting => Err("its keeper was started too early".to_owned()),
        How::Process { .. } => process::start(dir, launch),
        How::Oci(oci) => oci::start(dir, launch, oci),
    }
}

/// Removes what a container leaves on the machine, but for its output and its end.
pub(super) fn clean(dir: &AttemptDir, launch: &LaunchRecord) {
    if let Some(usage) = cgroup::usage(launch.how.cgroups()) {
        // What it used is told as long as it can be.
        let _ = dir.set_usage(Usage { memory: Bytes(0), ..usage });
    }
    match &launch.how {
        How::Waiting => {}
        How::Process { cgroups } => cgroup::remove(cgroups),
        How::Oci(oci) => oci::clean(dir, launch, oci),
    }
}

/// One captured stream.
struct Capture {
    pipe: Option<File>,
    log: LogFile,
    failed: bool,
}

impl Capture {
    fn new(pipe: Option<OwnedFd>, log: LogFile) -> Self {
        Self { pipe: pipe.map(File::from), log, failed: false }
    }

    /// Reads what is there. A pipe at its end is closed. The buffer comes with the first output: many print nothing.
    fn read(&mut self, buffer: &mut Vec<u8>) {
        let Some(pipe) = &mut self.pipe else { return };
        buffer.resize(READ_BYTES, 0);
        match pipe.read(buffer) {
            Ok(read @ 1..) => {
                if let Err(error) = self.log.append(&buffer[..read])
                    && !std::mem::replace(&mut self.failed, true)
                {
                    // The container goes on without its output being kept.
                    let _ = writeln!(io::stderr(), "volley: output could not be kept: {error}");
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => self.pipe = None,
            #[allow(unreachable_patterns, reason = "the compiler does not see that the ranges are all")]
            Ok(_) => {}
        }
    }
}

struct Kept<'a> {
    launch: &'a LaunchRecord,
    started: Started,
    ended: OwnedFd,
    orders: File,
    streams: [Capture; 2],
    /// Its end was read: its number may be another's.
    reaped: bool,
    /// A stop was asked for; killed then.
    kill_at: Option<Instant>,
    stopped: bool,
    /// Begins afresh then, with what it holds.
    afresh_at: Option<(Instant, &'a Lock)>,
}

/// What a wait found.
#[derive(Default)]
struct Ready {
    ended: bool,
    ordered: bool,
    streams: [bool; 2],
}

impl<'a> Kept<'a> {
    fn new(
        dir: &AttemptDir,
        launch: &'a LaunchRecord,
        started: Started,
        orders: File,
        lock: &'a Lock,
    ) -> io::Result<Self> {
        let pid = started.pid;
        let mut kept = Self::of(dir, launch, started, orders)?;
        kept.afresh_at = Some((Instant::now() + afresh::AFRESH_AFTER, lock));
        let running = RunningRecord::of(pid.as_raw_nonzero().get().unsigned_abs());
        if let Err(error) = running.map_or(Ok(()), |running| dir.set_running(running)) {
            let _ = writeln!(io::stderr(), "volley: its process could not be noted: {error}");
        }
        // A worker that died meanwhile reads the file.
        let _ = io::stdout().write_all(&[RUNNING]).and_then(|()| io::stdout().flush());
        Ok(kept)
    }

    /// Keeps what runs; its output goes on where the files end.
    fn of(dir: &AttemptDir, launch: &'a LaunchRecord, mut started: Started, orders: File) -> io::Result<Self> {
        let ended = pidfd_open(started.pid, PidfdFlags::empty())?;
        let limit = launch.spec.log_limit.0 / 2;
        let streams = [
            Capture::new(started.stdout.take(), LogFile::open(&dir.0, "stdout", limit)?),
            Capture::new(started.stderr.take(), LogFile::open(&dir.0, "stderr", limit)?),
        ];
        let (kill_at, afresh_at) = (None, None);
        Ok(Self { launch, started, ended, orders, streams, reaped: false, kill_at, stopped: false, afresh_at })
    }

    /// What is due now, and when something is due next.
    fn on_time(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.kill();
        }
        if let Some((at, lock)) = self.afresh_at
            && (at <= now || self.stopped)
        {
            self.afresh_at = None;
            // One that is told to end soon will not fill its memory any more.
            if !self.stopped {
                afresh::begin(&self.started, &self.streams, &self.orders, lock);
            }
        }
        let next = self.kill_at.into_iter().chain(self.afresh_at.map(|(at, _)| at)).min()?;
        Some(next.saturating_duration_since(now))
    }

    fn keep(mut self) -> io::Result<Outcome> {
        let mut buffer = Vec::new();
        loop {
            let wait = self.on_time();
            let ready = self.wait(true, wait)?;
            for (stream, ready) in self.streams.iter_mut().zip(ready.streams) {
                if ready {
                    stream.read(&mut buffer);
                }
            }
            if ready.ended {
                break;
            }
            if ready.ordered {
                self.on_orders()?;
            }
        }
        let Some((_, status)) = waitpid(Some(self.started.pid), WaitOptions::empty())? else {
            return Err(io::Error::other("its end could not be read"));
        };
        self.reaped = true;
        // What the command left behind goes with it.
        self.kill();
        self.drain(&mut buffer)?;
        Ok(self.outcome(status))
    }

    fn outcome(&self, status: WaitStatus) -> Outcome {
        let signal = status.terminating_signal();
        if self.stopped {
            return Outcome::Stopped { by: StopCause::Client };
        }
        if signal == Some(Signal::KILL.as_raw()) && cgroup::was_out_of_memory(self.launch.how.cgroups()) {
            let limit = self.launch.spec.resources.memory;
            return Outcome::Failed { reason: format!("out of memory: it needed more than its limit of {limit}") };
        }
        Outcome::Exited { code: status.exit_status().unwrap_or_else(|| 128 + signal.unwrap_or(0)), signal }
    }

    fn kill(&self) {
        // It may be gone already.
        let _ = self.signal(Signal::KILL);
        cgroup::kill(self.launch.how.cgroups());
    }

    fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        match self.started.group {
            true => kill_process_group(self.started.pid, signal),
            false if self.reaped => Ok(()),
            false => kill_process(self.started.pid, signal),
        }
    }

    /// A stop: asks the group to end, and notes when it is killed. A shorter grace counts.
    fn on_orders(&mut self) -> io::Result<()> {
        let mut order = [0; 8];
        while let Ok(()) = self.orders.read_exact(&mut order) {
            let grace = Millis(u64::from_le_bytes(order));
            let at = Instant::now() + grace.min(STOP_GRACE_MAX).to_duration();
            self.kill_at = Some(self.kill_at.map_or(at, |before| before.min(at)));
            if !std::mem::replace(&mut self.stopped, true) && grace.0 > 0 {
                let _ = self.signal(self.started.stop_signal);
            }
        }
        Ok(())
    }

    /// Reads what is left in the pipes.
    fn drain(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let until = Instant::now() + DRAIN_WAIT;
        while self.streams.iter().any(|stream| stream.pipe.is_some()) {
            let wait = until.saturating_duration_since(Instant::now());
            let ready = self.wait(false, Some(wait))?;
            if ready.streams == [false; 2] && wait.is_zero() {
                return Ok(());
            }
            for (stream, ready) in self.streams.iter_mut().zip(ready.streams) {
                if ready {
                    stream.read(buffer);
                }
            }
        }
        Ok(())
    }

    /// Waits for output, and while the container lives for its end and for orders.
    fn wait(&self, alive: bool, timeout: Option<Duration>) -> io::Result<Ready> {
        #[derive(Clone, Copy)]
        enum Of {
            Ended,
            Orders,
            Stream(usize),
        }
        let mut of: Vec<(Of, BorrowedFd<'_>)> = Vec::with_capacity(4);
        if alive {
            of.push((Of::Ended, self.ended.as_fd()));
            of.push((Of::Orders, self.orders.as_fd()));
        }
        for (index, stream) in self.streams.iter().enumerate() {
            of.extend(stream.pipe.as_ref().map(|pipe| (Of::Stream(index), pipe.as_fd())));
        }
        let mut fds: Vec<PollFd<'_>> = of.iter().map(|of| PollFd::from_borrowed_fd(of.1, PollFlags::IN)).collect();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = Ready::default();
        for ((what, _), fd) in of.iter().zip(&fds) {
            let set = !fd.revents().is_empty();
            match what {
                Of::Ended => ready.ended = set,
                Of::Orders => ready.ordered = set,
                Of::Stream(index) => ready.streams[*index] = set,
            }
        }
        Ok(ready)
    }
}
