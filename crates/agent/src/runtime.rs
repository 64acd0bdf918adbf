//! The seam between a worker and what runs its containers, and the runtimes. Knows nothing of
//! servers.

pub(crate) mod attempt_dir;
pub(crate) mod cgroup;
pub mod keeper;
pub(crate) mod kept;
pub(crate) mod log_file;
pub(crate) mod oci;
pub(crate) mod process;

use std::io;
use std::sync::Arc;

use volley_model::{Attempt, Bytes, ContainerId, GpuGrant, Millis, Outcome, Progress, Spec};

/// What to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Which container.
    pub container: ContainerId,
    /// Which attempt.
    pub attempt: Attempt,
    /// What to run.
    pub spec: Arc<Spec>,
    /// Which GPU devices it got.
    pub gpus: Vec<GpuGrant>,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// It does not run yet; how far it is, in words. Said now and then.
    Waits(String),
    /// Its process runs.
    Running,
    /// It ended; said once.
    Ended(Outcome),
}

/// An attempt that an earlier life of the worker left.
#[derive(Debug, Clone)]
pub struct Left {
    /// What was started.
    pub launch: Launch,
    /// How far it is. `Ended` stays until it is forgotten.
    pub progress: Progress,
}

/// What is kept of one stream of a container, from a place on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The place after them, counted in bytes since the attempt's start.
    pub next: u64,
}

/// What a container uses, or used in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// Memory now; 0 when it has ended.
    pub memory: Bytes,
    /// The most memory that it ever had.
    pub memory_peak: Bytes,
}

/// Runs containers. What becomes of them is told by the channel that it was made with.
pub trait Runtime: Send + Sync + 'static {
    /// What an earlier life of this worker left: what runs goes on and is watched from now on. Called once, first.
    fn adopt(&self) -> io::Result<Vec<Left>>;

    /// Notes an attempt, so that a next life knows of it, and starts it; does nothing when it is there already.
    fn start(&self, launch: Launch);

    /// Ends an attempt: SIGTERM, and SIGKILL after the grace (at once when it is zero). False when it is not running
    /// here. The end is told as [`Outcome::Stopped`].
    fn stop(&self, container: ContainerId, attempt: Attempt, grace: Millis) -> bool;

    /// The server has the end of this attempt: a next life need not report it. Its output is kept for a while.
    fn forget(&self, container: ContainerId, attempt: Attempt);

    /// Output of an attempt from a place on, at most `max` bytes; what was rotated away is skipped.
    fn output(&self, container: ContainerId, attempt: u32, stderr: bool, from: u64, max: usize) -> io::Result<Output>;

    /// Another program in a container that runs, ready to be started: its streams are the program's, its exit code, too.
    /// In words why not.
    fn exec(&self, _container: ContainerId, _attempt: u32, _words: &[String]) -> Result<std::process::Command, String> {
        Err("it is a process of its worker's machine: there is nothing to enter".to_owned())
    }

    /// What a container uses, or used in all; `None` when that is not known.
    fn usage(&self, _container: ContainerId, _attempt: u32) -> io::Result<Option<Usage>> {
        Ok(None)
    }

    /// The digest of the image that a container is made from.
    fn image_digest(&self, _container: ContainerId, _attempt: u32) -> Option<String> {
        None
    }

    /// Images that are here, the one used last at the end.
    fn images(&self) -> Vec<String> {
        Vec::new()
    }

    /// No attempt of this number runs here any more (so its output is complete).
    fn ended(&self, container: ContainerId, attempt: u32) -> bool;
}
