//! Another program in a running container: with the container's user, limits and seccomp list.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use oci_spec::runtime::Spec;

use super::OciLaunch;
use super::start::{engine, id};
use crate::runtime::attempt_dir::{AttemptDir, LaunchRecord};

/// The runtime, ready to run these words in a container that runs.
pub(in crate::runtime) fn exec(
    dir: &AttemptDir,
    launch: &LaunchRecord,
    oci: &OciLaunch,
    words: &[String],
) -> Result<Command, String> {
    // Of this life of the worker; a file of an earlier one is written over.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let bundle = dir.0.join("bundle");
    let trouble = |error: io::Error| format!("it could not be entered: {error}");
    let config: Spec = fs::read(bundle.join("config.json"))
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "it does not run".to_owned(),
            _ => trouble(error),
        })?;
    let mut process = config.process().clone().ok_or_else(|| "its bundle has no process".to_owned())?;
    process.set_args(Some(words.to_vec()));
    let file = bundle.join(format!("exec.{number}.json"));
    let written = serde_json::to_vec(&process).map_err(io::Error::from).and_then(|json| {
        // Its environment may hold secrets.
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&file)?;
        io::Write::write_all(&mut file, &json)
    });
    written.map_err(trouble)?;
    let mut command = engine(dir, oci);
    command.arg("exec").arg("--process").arg(file).arg(id(launch));
    Ok(command)
}
