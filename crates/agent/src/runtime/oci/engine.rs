//! The program that makes containers: found, and held against what it must be able to do,
//! before the worker offers anything.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that speaks the command line of runc: `runc`, `crun`, `youki`, `runsc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    program: PathBuf,
    version: String,
}

/// Why this machine cannot run images.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Not found.
    #[error(
        "there is no OCI runtime '{0}' on this machine; install it (apt-get install runc), or name another with --oci-runtime"
    )]
    NotFound(String),
    /// It does not answer.
    #[error("'{program} --version' failed: {problem}; is it an OCI runtime?")]
    Broken {
        /// Which.
        program: String,
        /// What it said.
        problem: String,
    },
    /// It lacks something, or cannot do it here.
    #[error("{program} cannot run containers on this machine: {problem}; name another with --oci-runtime")]
    Unfit {
        /// Which.
        program: String,
        /// What is wrong.
        problem: String,
    },
    /// Namespaces and mounts are root's.
    #[error(
        "a worker that runs images must be root (it makes namespaces, mounts and control groups); start it as root, or with --runtime process"
    )]
    NotRoot,
    /// The kernel lacks it.
    #[error("this kernel has no overlayfs, which images need; load it (modprobe overlay)")]
    NoOverlay,
}

impl Engine {
    /// Finds a program by name or path, and asks for its version.
    ///
    /// # Errors
    /// When this machine cannot run images: no program, not root, no overlayfs.
    pub fn find(name: &str) -> Result<Self, EngineError> {
        if !rustix::process::geteuid().is_root() {
            return Err(EngineError::NotRoot);
        }
        let program = look_for(name).ok_or_else(|| EngineError::NotFound(name.to_owned()))?;
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !filesystems.lines().any(|line| line.split_whitespace().next_back() == Some("overlay")) && !modprobe() {
            return Err(EngineError::NoOverlay);
        }
        let broken = |problem: String| EngineError::Broken { program: program.display().to_string(), problem };
        let answer = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
        let answer = answer.map_err(|error: io::Error| broken(error.to_string()))?;
        if !answer.status.success() {
            return Err(broken(String::from_utf8_lossy(&answer.stderr).trim().to_owned()));
        }
        let version = String::from_utf8_lossy(&answer.stdout).lines().next().unwrap_or_default().to_owned();
        Ok(Self { program, version })
    }

    /// Holds it against what containers are promised: by what it says of itself, and by a trial.
    ///
    /// # Errors
    /// When it lacks something, or does not work on this machine.
    pub fn try_out(&self) -> Result<(), EngineError> {
        super::trial::check(self)
    }

    /// Where it lies.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// As it calls itself.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its name, for a label.
    #[must_use]
    pub fn name(&self) -> &str {
        self.program.file_name().and_then(|name| name.to_str()).unwrap_or("runc")
    }

    pub(super) fn is_runc(&self) -> bool {
        self.name() == "runc"
    }
}

fn look_for(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Path::new(name).canonicalize().ok().filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(std::env::split_paths(PATH));
    dirs.map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The kernel loads it when something asks for it.
fn modprobe() -> bool {
    let quiet = |command: &mut Command| command.stdin(Stdio::null()).stderr(Stdio::null()).status();
    quiet(Command::new("modprobe").arg("overlay")).is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_runtime_is_said() {
        let error = |name: &str| Engine::find(name).unwrap_err().to_string();
        if !rustix::process::geteuid().is_root() {
            assert!(error("runc").contains("must be root"));
            return;
        }
        assert!(error("no-such-runtime").starts_with("there is no OCI runtime 'no-such-runtime'"));
        assert!(error("/no/such/path").starts_with("there is no OCI runtime"));
        assert!(error("false").contains("is it an OCI runtime?"), "{}", error("false"));
    }
}
