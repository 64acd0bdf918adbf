//! The OCI runtime: each container is made from an image, in namespaces of its own, by a
//! program such as runc. No daemon: the worker unpacks images, a keeper mounts them and calls the
//! program. Knows nothing of streams to servers.

mod bundle;
mod cdi;
mod engine;
mod exec;
mod seccomp;
mod start;
mod trial;
mod user;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use volley_model::{Mount, Network};

use super::attempt_dir::How;
use super::cgroup;
use super::kept::{Kept, KeptOptions, Method, Sender, Tell};
use crate::Launch;
use crate::image::{ImageConfig, ImageHold, Images};

pub use engine::{Engine, EngineError};
pub(super) use exec::exec;
pub(super) use start::{clean, start};

/// Processes and threads of a container at most, unless the worker's owner says otherwise: far above what a program
/// needs, far below what troubles a machine.
pub const PIDS_MAX: u32 = 4096;

/// The settings of an OCI runtime.
#[derive(Debug, Clone)]
pub struct OciOptions {
    /// What all runtimes have.
    pub kept: KeptOptions,
    /// The program that makes containers.
    pub engine: Engine,
    /// The images.
    pub images: Images,
    /// Containers may mount what lies below these folders.
    pub mount_roots: Vec<PathBuf>,
    /// Containers may use the machine's network.
    pub host_network: bool,
    /// Processes and threads of a container at most.
    pub pids_max: u32,
    /// Where descriptions of devices lie.
    pub cdi_dirs: Vec<PathBuf>,
}

/// Images, run by an OCI runtime.
#[derive(Debug)]
pub struct Oci {
    options: OciOptions,
}

/// Runs images.
pub type OciRuntime = Kept<Oci>;

impl Kept<Oci> {
    /// A runtime that tells `happened` what becomes of its containers.
    ///
    /// # Errors
    /// When its folder cannot be made or written, or another process uses it.
    pub fn new(options: OciOptions, happened: Sender) -> io::Result<Self> {
        let mount_roots = options.mount_roots.iter().map(|root| root.canonicalize().unwrap_or_else(|_| root.clone()));
        let options = OciOptions { mount_roots: mount_roots.collect(), ..options };
        Self::with_method(options.kept.clone(), Oci { options }, happened)
    }
}

/// What a keeper needs to know beside the spec.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OciLaunch {
    engine: PathBuf,
    /// The program must be told that a container is gone; else what it leaves is removed here, which is faster.
    tell_engine: bool,
    image: String,
    /// What the reference meant when it started; empty in records of versions that did not note it.
    #[serde(default)]
    pub(super) digest: String,
    layers_dir: PathBuf,
    /// Lowest first.
    layers: Vec<String>,
    config: ImageConfig,
    /// Host paths, resolved: each is below an allowed root.
    mounts: Vec<Mount>,
    pids_max: u32,
    devices: cdi::Edits,
    /// Below the root of each hierarchy.
    cgroup: String,
    pub(super) cgroups: Vec<PathBuf>,
}

impl Method for Oci {
    type Held = Option<ImageHold>;

    async fn prepare(
        &self,
        options: &KeptOptions,
        launch: &Launch,
        tell: Tell<'_>,
    ) -> Result<(How, Self::Held), String> {
        let spec = &launch.spec;
        let Some(image) = &spec.image else {
            return Err("this worker runs images; name one (--image), or a worker that runs commands".to_owned());
        };
        if spec.sandbox.network == Network::Host && !self.options.host_network {
            return Err(
                "this worker does not let containers use the machine's network (--allow-host-network)".to_owned()
            );
        }
        let mounts = spec.sandbox.mounts.iter().map(|mount| self.mount(mount)).collect::<Result<Vec<_>, _>>()?;
        let devices = cdi::edits(&self.options.cdi_dirs, Path::new("/dev"), &launch.gpus)?;
        let held =
            self.options.images.get_telling(image, spec.sandbox.pull, tell).await.map_err(|error| error.to_string())?;
        let name = format!("{}.{}.{}", options.worker, launch.container, launch.attempt.number);
        let oci = OciLaunch {
            engine: self.options.engine.program().to_owned(),
            tell_engine: !self.options.engine.is_runc() || devices.has_poststop(),
            image: image.clone(),
            digest: held.digest().to_owned(),
            layers_dir: self.options.images.layers_dir(),
            layers: held.layers(),
            config: held.config().clone(),
            mounts,
            pids_max: self.options.pids_max,
            devices,
            cgroups: cgroup::roots().iter().map(|root| root.join("volley").join(&name)).collect(),
            cgroup: format!("/volley/{name}"),
        };
        Ok((How::Oci(Box::new(oci)), Some(held)))
    }

    fn adopt(&self, how: &How) -> Self::Held {
        match how {
            How::Oci(oci) => self.options.images.hold_as_it_was(&oci.image, &oci.digest),
            How::Waiting | How::Process { .. } => None,
        }
    }

    fn images(&self) -> Vec<String> {
        self.options.images.held()
    }
}

impl Oci {
    /// A mount whose source is what it really is, if it may be used.
    fn mount(&self, mount: &Mount) -> Result<Mount, String> {
        let Mount::Host { source, target, read_only } = mount else { return Ok(mount.clone()) };
        let roots = &self.options.mount_roots;
        let not_allowed =
            || format!("{source} is not below a folder that this worker lets containers mount (--mount-root)");
        // What lies elsewhere is not even told to be there or not.
        let real = Path::new(source).canonicalize().map_err(|_| {
            match roots.iter().any(|root| Path::new(source).starts_with(root)) {
                true => format!("{source} is not there on this worker, or cannot be mounted"),
                false => not_allowed(),
            }
        })?;
        let Some(real) = real.to_str().filter(|_| roots.iter().any(|root| real.starts_with(root))) else {
            return Err(not_allowed());
        };
        Ok(Mount::Host { source: real.to_owned(), target: target.clone(), read_only: *read_only })
    }
}
