//! A keeper whose container has run for a while begins afresh: the same process executes its
//! program again, and what it took to make the container is memory of nobody any more. What it
//! holds stays open; what it knows are its arguments. Knows nothing of how containers are made.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal};

use super::{Capture, Kept, Started, clean};
use crate::runtime::attempt_dir::{AttemptDir, Lock};
use crate::runtime::cgroup;

/// What ends sooner is not worth it.
pub(super) const AFRESH_AFTER: Duration = Duration::from_secs(1);
/// The program of this process, also when its file was replaced meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Says that a stream has ended.
const CLOSED: &str = "-";

/// Executes this process's program again. Comes back only if that is not possible: then all stays as it is.
pub(super) fn begin(started: &Started, streams: &[Capture; 2], orders: &File, lock: &Lock) {
    let stays_open = |file: &File| fcntl_setfd(file.as_fd(), FdFlags::empty()).is_ok();
    let pipes = streams.iter().filter_map(|stream| stream.pipe.as_ref());
    // An order that comes meanwhile waits in the FIFO, which has a reader all the time.
    if !pipes.chain([orders, &lock.0]).all(stays_open) {
        return;
    }
    let mut args = std::env::args_os();
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0(args.next().unwrap_or_default()).args(args);
    command.arg(started.pid.as_raw_nonzero().to_string()).arg(u8::from(started.group).to_string());
    command.arg(started.stop_signal.as_raw().to_string());
    for stream in streams {
        command.arg(stream.pipe.as_ref().map_or_else(|| CLOSED.to_owned(), |pipe| pipe.as_raw_fd().to_string()));
    }
    let error = command.exec();
    let _ = writeln!(io::stderr(), "volley: a keeper could not begin afresh: {error}");
}

/// Keeps what an earlier program of this process started, to its end. The lock is still held: its file is still open.
pub(super) fn go_on(dir: &AttemptDir, args: &[OsString]) -> io::Result<()> {
    let Some(launch) = dir.launch()? else { return Err(io::Error::other("it does not say what runs")) };
    let kept = started(args).and_then(|started| Kept::of(dir, &launch, started, dir.open_orders()?)?.keep());
    if kept.is_err() {
        cgroup::kill(launch.how.cgroups());
    }
    clean(dir, &launch);
    dir.set_end(&kept?)
}

fn started(args: &[OsString]) -> io::Result<Started> {
    let wrong = || io::Error::other(format!("{args:?} are no arguments of a keeper"));
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str()).collect::<Option<_>>().ok_or_else(wrong)?;
    let [pid, group, signal, stdout, stderr] = words[..] else { return Err(wrong()) };
    let number = |word: &str| word.parse::<i32>().map_err(|_| wrong());
    // Opened once more by its number: the kernel gives the same pipe.
    let pipe = |word: &str| -> io::Result<Option<OwnedFd>> {
        match word {
            CLOSED => Ok(None),
            _ => File::open(format!("/proc/self/fd/{}", number(word)?)).map(|file| Some(file.into())),
        }
    };
    Ok(Started {
        pid: Pid::from_raw(number(pid)?).ok_or_else(wrong)?,
        group: group == "1",
        stop_signal: Signal::from_named_raw(number(signal)?).ok_or_else(wrong)?,
        stdout: pipe(stdout)?,
        stderr: pipe(stderr)?,
    })
}
