//! What runs containers on this machine, as flags say it: processes, or images by an OCI
//! runtime.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use tokio::sync::mpsc;
use volley_agent::image::{ImageOptions, Images, RegistryOptions};
use volley_agent::metrics::WorkerMetrics;
use volley_agent::{
    Engine, Happened, KeptOptions, OciOptions, OciRuntime, PIDS_MAX, ProcessRuntime, Runtime as AgentRuntime,
};
use volley_model::{
    Attempt, Bytes, ContainerId, HOST_NETWORK_ALLOWED, HOST_NETWORK_LABEL, RUNTIME_LABEL, RUNTIME_OCI, RUNTIME_PROCESS,
    Worker,
};

use crate::command_error::CommandError;

/// Where descriptions of devices lie on most machines.
const CDI_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// What runs containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Commands of this machine, as processes.
    #[default]
    Process,
    /// Images, isolated from this machine and from each other.
    Oci,
}

/// The flags of all that starts workers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Runtime")]
pub struct RuntimeFlags {
    /// What runs containers: commands of this machine as processes, or images by an OCI runtime (needs root).
    #[arg(long, value_enum, default_value_t, env = "VOLLEY_RUNTIME")]
    pub runtime: Kind,
    /// The OCI runtime, by name or path: runc, crun, youki, runsc.
    #[arg(long, value_name = "PROGRAM", default_value = "runc", env = "VOLLEY_OCI_RUNTIME")]
    oci_runtime: String,
    /// Folder of images; one worker process each (default: beside the workers' state).
    #[arg(long, value_name = "DIR", env = "VOLLEY_IMAGES")]
    images: Option<PathBuf>,
    /// What images may take of the disk; the ones not used for longest go first.
    #[arg(long, value_name = "BYTES", default_value = "20Gi")]
    image_disk: Bytes,
    /// Layers that are fetched at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    image_downloads: u32,
    /// Folders that layouts and archives (oci:DIR, docker-archive:FILE) may be taken from.
    #[arg(long = "image-root", value_name = "DIR")]
    image_roots: Vec<PathBuf>,
    /// Folders that containers may mount, or parts of them.
    #[arg(long = "mount-root", value_name = "DIR")]
    mount_roots: Vec<PathBuf>,
    /// Containers may use the machine's network.
    #[arg(long)]
    allow_host_network: bool,
    /// Processes and threads of a container at most.
    #[arg(long, value_name = "N", default_value_t = PIDS_MAX, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pids_max: u32,
    /// A docker config.json with credentials (default: docker's own, if it is there).
    #[arg(long, value_name = "FILE", env = "VOLLEY_REGISTRY_AUTH")]
    registry_auth: Option<PathBuf>,
    /// Registries that are asked before another one.
    #[arg(long = "registry-mirror", value_name = "REGISTRY=MIRROR")]
    registry_mirrors: Vec<String>,
    /// Registries that are spoken to without TLS; loopback always is.
    #[arg(long = "plain-http", value_name = "HOST:PORT")]
    plain_http: Vec<String>,
    /// Folders of device descriptions (CDI) (default: /etc/cdi and /var/run/cdi).
    #[arg(long = "cdi-dir", value_name = "DIR")]
    cdi_dirs: Vec<PathBuf>,
}

/// What runs the containers of the workers in this process.
pub enum Runtimes {
    /// Processes.
    Process,
    /// Images; all workers share them.
    Oci(Box<OciFlags>),
}

/// What an OCI runtime needs beside its worker's own.
pub struct OciFlags {
    engine: Engine,
    images: Images,
    flags: RuntimeFlags,
}

type Sender = mpsc::UnboundedSender<(ContainerId, Attempt, Happened)>;

impl RuntimeFlags {
    /// Looks for what is needed. Images lie in `folder` unless flags say otherwise.
    pub fn open(&self, folder: &Path) -> Result<Runtimes, CommandError> {
        if self.runtime == Kind::Process {
            return Ok(Runtimes::Process);
        }
        let engine = Engine::find(&self.oci_runtime).map_err(|error| CommandError::Usage(error.to_string()))?;
        engine.try_out().map_err(|error| CommandError::Usage(error.to_string()))?;
        let mut mirrors = Vec::new();
        for pair in &self.registry_mirrors {
            let wrong = || CommandError::Usage(format!("--registry-mirror '{pair}' is not REGISTRY=MIRROR"));
            let (of, mirror) = pair.split_once('=').ok_or_else(wrong)?;
            mirrors.push((of.to_owned(), mirror.to_owned()));
        }
        if let Some(file) = self.registry_auth.as_ref().filter(|file| !file.is_file()) {
            return Err(CommandError::Usage(format!("--registry-auth: there is no file {}", file.display())));
        }
        let registry =
            RegistryOptions { auth_file: self.registry_auth.clone(), plain_http: self.plain_http.clone(), mirrors };
        let images = Images::open(ImageOptions {
            dir: self.images.clone().unwrap_or_else(|| folder.join("images")),
            disk_max: self.image_disk,
            roots: self.image_roots.clone(),
            downloads_max: self.image_downloads as usize,
            registry,
        });
        let images = images.map_err(|error| CommandError::Unreachable(error.to_string()))?;
        Ok(Runtimes::Oci(Box::new(OciFlags { engine, images, flags: self.clone() })))
    }
}

impl Runtimes {
    /// Says on a worker what runs its containers.
    pub fn label(&self, worker: &mut Worker) {
        let mut set = |key: &str, value: &str| worker.labels.insert(key.to_owned(), value.to_owned());
        match self {
            Runtimes::Process => {
                set(RUNTIME_LABEL, RUNTIME_PROCESS);
            }
            Runtimes::Oci(oci) => {
                set(RUNTIME_LABEL, RUNTIME_OCI);
                set("oci-runtime", oci.engine.name());
                if oci.flags.allow_host_network {
                    set(HOST_NETWORK_LABEL, HOST_NETWORK_ALLOWED);
                }
            }
        }
    }

    /// What it does is counted there.
    pub fn measured_by(&self, metrics: &WorkerMetrics) {
        if let Runtimes::Oci(oci) = self {
            oci.images.measured_by(&metrics.images);
        }
    }

    /// The runtime of one worker.
    pub fn start(&self, kept: KeptOptions, happened: Sender) -> Result<Arc<dyn AgentRuntime>, CommandError> {
        let started: std::io::Result<Arc<dyn AgentRuntime>> = match self {
            Runtimes::Process => ProcessRuntime::new(kept, happened).map(|runtime| Arc::new(runtime) as _),
            Runtimes::Oci(oci) => {
                let flags = &oci.flags;
                let cdi_dirs = match flags.cdi_dirs.as_slice() {
                    [] => CDI_DIRS.map(PathBuf::from).to_vec(),
                    dirs => dirs.to_vec(),
                };
                let options = OciOptions {
                    kept,
                    engine: oci.engine.clone(),
                    images: oci.images.clone(),
                    mount_roots: flags.mount_roots.clone(),
                    host_network: flags.allow_host_network,
                    pids_max: flags.pids_max,
                    cdi_dirs,
                };
                OciRuntime::new(options, happened).map(|runtime| Arc::new(runtime) as _)
            }
        };
        started.map_err(|error| CommandError::Unreachable(error.to_string()))
    }
}
