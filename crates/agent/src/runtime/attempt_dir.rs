//! The folder of one attempt: what worker and keeper tell each other, and what outlives both.
//!
//! | file | written by | what |
//! | --- | --- | --- |
//! | `launch.json` | worker | what to run; how, before the keeper starts |
//! | `lock` | | held by the keeper while it lives |
//! | `orders` | worker | a FIFO: 8 bytes for each stop, the grace in ms |
//! | `engine.json` | keeper | the OCI runtime that makes the container |
//! | `running.json` | keeper | the process, once it runs |
//! | `usage.json` | keeper | what it used in all |
//! | `end.json` | keeper | the outcome; nothing runs any more |
//! | `acknowledged` | worker | the server has the outcome |
//! | `stdout.N`, `stderr.N` | keeper | output from byte N on |
//! | `work/` | container | its working directory, of a process |
//! | `bundle/`, `runtime/` | keeper | of one from an image: its files, and the OCI runtime's state |

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, mkfifoat};
use rustix::process::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use volley_model::{Attempt, ContainerId, GpuGrant, Millis, Outcome, Spec, WorkerId};

use super::oci::OciLaunch;
use crate::{Launch, Usage};

/// What a keeper is to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LaunchRecord {
    pub(crate) worker: WorkerId,
    pub(crate) container: ContainerId,
    pub(crate) attempt: Attempt,
    pub(crate) spec: Spec,
    pub(crate) gpus: Vec<GpuGrant>,
    pub(crate) how: How,
}

/// How a container is run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// What it needs is not there yet: no keeper was started.
    Waiting,
    /// As a process of this machine.
    Process {
        /// Folders of cgroups, made by the worker with their limits; the container's processes live in them.
        cgroups: Vec<PathBuf>,
    },
    /// From an image.
    Oci(Box<OciLaunch>),
}

impl How {
    /// Where the container's processes are found.
    pub(crate) fn cgroups(&self) -> &[PathBuf] {
        match self {
            How::Waiting => &[],
            How::Process { cgroups } => cgroups,
            How::Oci(oci) => &oci.cgroups,
        }
    }
}

impl LaunchRecord {
    pub(crate) fn launch(&self) -> Launch {
        let spec = Arc::new(self.spec.clone());
        Launch { container: self.container, attempt: self.attempt, spec, gpus: self.gpus.clone() }
    }

    /// What every container is told of itself.
    pub(crate) fn own_env(&self) -> [(&'static str, String); 3] {
        [
            ("VOLLEY_CONTAINER_ID", self.container.to_string()),
            ("VOLLEY_ATTEMPT", self.attempt.number.to_string()),
            ("VOLLEY_WORKER", self.worker.to_string()),
        ]
    }
}

/// The process of a container: its id, and when it started in the kernel's ticks, for ids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningRecord {
    pub(crate) pid: i32,
    pub(crate) started: u64,
}

impl RunningRecord {
    /// A process that is there.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self { pid, started: started_at(Pid::from_raw(pid)?)? })
    }

    /// The process, if it is still there.
    pub(crate) fn alive(&self) -> Option<Pid> {
        // To kill the group of process 1 is to kill everything.
        Pid::from_raw(self.pid).filter(|pid| self.pid > 1 && started_at(*pid) == Some(self.started))
    }
}

/// When a process started, in ticks since the machine did; `None` when it is not there.
fn started_at(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name, in brackets, may hold anything; the 22nd field is the 20th after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// One attempt's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttemptDir(pub(crate) PathBuf);

/// Held by a keeper while it lives, and by a worker that finds none alive.
pub(crate) struct Lock(pub(super) File);

impl AttemptDir {
    pub(crate) fn of(state_dir: &Path, container: ContainerId, attempt: u32) -> Self {
        Self(state_dir.join(format!("{container}.{attempt}")))
    }

    /// Makes the folder and notes what is to run in it.
    pub(crate) fn create(&self, launch: &LaunchRecord) -> io::Result<()> {
        if self.0.exists() {
            // The store was set back and numbers are used again; or a worker lost what it knew.
            match self.lock()? {
                Some(_) => fs::remove_dir_all(&self.0)?,
                None => return Err(io::Error::new(ErrorKind::AlreadyExists, "an earlier attempt still runs there")),
            }
        }
        // What is to run may hold secrets.
        fs::DirBuilder::new().mode(0o700).create(&self.0)?;
        let fifo = self.0.join("orders");
        match mkfifoat(rustix::fs::CWD, &fifo, Mode::RUSR | Mode::WUSR) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.write("launch.json", launch)
    }

    /// What it needs is there: its keeper may start.
    pub(crate) fn prepared(&self, launch: &LaunchRecord) -> io::Result<()> {
        if matches!(launch.how, How::Process { .. }) {
            fs::create_dir_all(self.work())?;
        }
        self.write("launch.json", launch)
    }

    /// A container's own working directory.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    pub(crate) fn launch(&self) -> io::Result<Option<LaunchRecord>> {
        self.read("launch.json")
    }

    pub(crate) fn running(&self) -> io::Result<Option<RunningRecord>> {
        self.read("running.json")
    }

    pub(crate) fn set_running(&self, running: RunningRecord) -> io::Result<()> {
        self.write("running.json", &running)
    }

    /// Notes the OCI runtime while it makes the container: with its keeper gone it must not go on.
    pub(crate) fn note_engine(&self, child: &std::process::Child) {
        if let Some(record) = RunningRecord::of(child.id()) {
            // Without the note there is nothing to look for.
            let _ = self.write("engine.json", &record);
        }
    }

    pub(crate) fn engine(&self) -> io::Result<Option<RunningRecord>> {
        self.read("engine.json")
    }

    pub(crate) fn end(&self) -> io::Result<Option<Outcome>> {
        self.read("end.json")
    }

    pub(crate) fn set_end(&self, outcome: &Outcome) -> io::Result<()> {
        self.write("end.json", outcome)
    }

    pub(crate) fn usage(&self) -> io::Result<Option<Usage>> {
        self.read("usage.json")
    }

    pub(crate) fn set_usage(&self, usage: Usage) -> io::Result<()> {
        self.write("usage.json", &usage)
    }

    pub(crate) fn is_acknowledged(&self) -> bool {
        self.0.join("acknowledged").exists()
    }

    pub(crate) fn acknowledge(&self) -> io::Result<()> {
        File::create(self.0.join("acknowledged")).map(drop)
    }

    /// The right to be the keeper; `None` while another holds it.
    pub(crate) fn lock(&self) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.0.join("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Both ends of the FIFO, so that it is never without a writer.
    pub(crate) fn open_orders(&self) -> io::Result<File> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(self.0.join("orders"))
    }

    /// Asks the keeper to end the container. Kept for it while `orders` is open at either end.
    pub(crate) fn order_stop(mut orders: &File, grace: Millis) -> io::Result<()> {
        orders.write_all(&grace.0.to_le_bytes())
    }

    /// A file that is there is whole: it is written beside and moved.
    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let new = self.0.join(format!("{name}.new"));
        fs::write(&new, serde_json::to_vec(value)?)?;
        fs::rename(new, self.0.join(name))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
