//! `bench oci`: what Volley adds to a bare OCI runtime. Containers through a real server and a
//! real worker, beside a loop that does the same bundle work and calls the same runtime, both in
//! one run on one machine. Knows nothing of the command line.

use std::path::{Path, PathBuf};
use std::process::Command;

mod bare;
mod figures;
mod idle;
mod image;
mod measure;
mod unpacking;

pub use figures::{Idle, Lone, OciCase, OciRun, Unpacking};

use crate::burst::BurstError;
use crate::{Report, Runs};

/// What to run.
#[derive(Debug, Clone)]
pub struct OciBench {
    /// Of a burst, and of what idles.
    pub containers: usize,
    /// Of all that is timed.
    pub repetitions: usize,
    /// How long the idle worker is watched.
    pub idle_seconds: u64,
    /// The OCI runtime, by name or path.
    pub runtime: String,
    /// A static busybox: the one program of the image.
    pub busybox: PathBuf,
    /// Where stores, images and containers are made; its disk is part of what is measured.
    pub dir: PathBuf,
}

/// How the processes are started; known to the command line.
pub trait OciPrograms {
    /// A server on a free loopback port, with its store in this directory. The first line that it writes to standard
    /// error has its `http://` address.
    fn server(&self, data: &Path) -> Command;

    /// A worker of images with room for all of the bench. It says on standard error that it is attached.
    fn worker(&self, worker: &OciWorker) -> Command;
}

/// The worker that is measured.
#[derive(Debug, Clone)]
pub struct OciWorker {
    /// Where its server answers.
    pub server: String,
    /// Its name.
    pub name: String,
    /// The folder of its containers.
    pub state: PathBuf,
    /// Where the image lies.
    pub image_root: PathBuf,
    /// The OCI runtime.
    pub runtime: String,
    /// Containers at a time.
    pub slots: usize,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// This machine cannot run images.
    #[error(transparent)]
    Engine(#[from] volley_agent::EngineError),
    /// The image has nothing to run.
    #[error("there is no static busybox at {0}; apt-get install busybox-static, or name one with --busybox")]
    NoBusybox(PathBuf),
    /// Something of the bench's own.
    #[error("{what}: {problem}")]
    Own {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        problem: String,
    },
    /// A process or the server.
    #[error(transparent)]
    Process(#[from] BurstError),
    /// A container ended otherwise than it must.
    #[error("{0}")]
    Wrong(String),
}

impl OciError {
    fn own<E: ToString>(what: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Own { what, problem: error.to_string() }
    }
}

/// Measures, as root. Needs a tokio runtime with I/O and time.
///
/// # Errors
/// When this machine cannot run images, or something came out that must not.
pub async fn oci(
    options: &OciBench,
    programs: &dyn OciPrograms,
    mut progress: impl FnMut(String),
) -> Result<Report, OciError> {
    let run = measure::measure(options, programs, &mut progress).await?;
    Ok(Report::of(obtained(options), Runs::Oci(vec![run])))
}

fn obtained(options: &OciBench) -> String {
    format!(
        "a real server process with its embedded store, a real worker process that runs images, this process as client; \
         an image of a static busybox, pulled before. A burst is one submission of containers that run `true`; wall_ms \
         is from the submit sent to the last finish that the client saw. The bare loop does for each container what \
         Volley does: makes a bundle with the configuration that Volley wrote, mounts the same layer by overlayfs, calls \
         the same runtime, reads its output, unmounts and removes it; in as many threads as were fastest (parallelism; \
         each count was tried once before). Bursts and bare loops take turns, {} of each after one that warms; figures \
         are medians, ratio of the pairs. start_ms is from the submit to the start by the calendar in whole milliseconds \
         of the server's record. A lone container runs `echo`: first_output_ms is from the submit sent to the first byte \
         of its log at the client. Idle: {} s with all containers asleep; memory is proportional (PSS), of the worker \
         above what it had before, and of the keepers, one for each container. Unpacking: one gzip layer into the store of \
         images, held against both digests, beside `tar -xzpf`.",
        options.repetitions, options.idle_seconds
    )
}
