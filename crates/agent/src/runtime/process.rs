//! The process runtime: each container is a command in its own process group and directory, with
//! limits by control groups. Knows nothing of images.

use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::attempt_dir::{AttemptDir, How, LaunchRecord};
use super::cgroup;
use super::keeper::Started;
use super::kept::{Kept, KeptOptions, Method, Sender, Tell};
use crate::Launch;

/// Where commands are looked for when the worker itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Commands of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Process;

/// The settings of a process runtime.
pub type ProcessOptions = KeptOptions;

/// Runs commands as processes of this machine.
pub type ProcessRuntime = Kept<Process>;

impl Kept<Process> {
    /// A runtime that tells `happened` what becomes of its containers.
    ///
    /// # Errors
    /// When its folder cannot be made or written, or another process uses it.
    pub fn new(options: ProcessOptions, happened: Sender) -> io::Result<Self> {
        Self::with_method(options, Process, happened)
    }
}

impl Method for Process {
    type Held = ();

    async fn prepare(&self, options: &KeptOptions, launch: &Launch, _: Tell<'_>) -> Result<(How, ()), String> {
        if launch.spec.image.is_some() {
            return Err("this worker runs commands, not images; let it go to one that runs images".to_owned());
        }
        let resources = &launch.spec.resources;
        let (worker, container, attempt) = (&options.worker, launch.container, launch.attempt.number);
        let cgroups = cgroup::hierarchies().plan(worker, container, attempt, resources);
        Ok((How::Process { cgroups }, ()))
    }

    fn adopt(&self, _: &How) {}
}

/// Starts the command as this process's child, born in its control groups.
pub(super) fn start(dir: &AttemptDir, launch: &LaunchRecord) -> Result<Started, String> {
    let spec = &launch.spec;
    let working_dir = spec.working_dir.as_ref().map_or_else(|| dir.work(), PathBuf::from);
    if !working_dir.is_dir() {
        return Err(format!("working directory {} is not there; make it, or name another", working_dir.display()));
    }
    let mut command = Command::new(&spec.command);
    command.args(&spec.args).current_dir(&working_dir).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()));
    if !launch.gpus.is_empty() {
        let devices: Vec<String> = launch.gpus.iter().map(|grant| grant.device.to_string()).collect();
        command.env("CUDA_VISIBLE_DEVICES", devices.join(","));
        command.env("NVIDIA_VISIBLE_DEVICES", devices.join(","));
    }
    command.envs(&spec.env).envs(launch.own_env());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    // What the keeper starts is born where the keeper is; the keeper itself must not die with it.
    cgroup::make(launch.how.cgroups(), &spec.resources);
    let home = cgroup::enter(launch.how.cgroups());
    let spawned = command.spawn();
    cgroup::go_home(&home);
    let child = spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("command '{}' was not found on the worker; give its full path", spec.command),
        ErrorKind::PermissionDenied => format!("command '{}' may not be executed; chmod +x it", spec.command),
        _ => format!("command '{}' could not be started: {error}", spec.command),
    })?;
    Started::of_child(child)
}
