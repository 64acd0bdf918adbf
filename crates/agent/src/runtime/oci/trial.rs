//! Whether the OCI runtime can do here what containers are promised: what it says of itself, and
//! a trial with a container's own configuration and nothing to run in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use volley_model::{Attempt, Bytes, ContainerId, CpuMilli, GroupId, Nonce, Spec, WorkerId};

use super::engine::{Engine, EngineError};
use super::user::User;
use super::{OciLaunch, bundle, cdi, start};
use crate::image::ImageConfig;
use crate::runtime::attempt_dir::{AttemptDir, How, LaunchRecord};
use crate::runtime::cgroup;

/// The namespaces that every container has.
const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mount", "network", "pid", "uts"];
/// A command that no root folder has.
const NOTHING: &str = "/volley-trial";

/// What `features` of a runtime says, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Features {
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Option<Vec<String>>,
    capabilities: Option<Vec<String>>,
    cgroup: Option<Versions>,
    seccomp: Option<Enabled>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Versions {
    v1: Option<bool>,
    v2: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Enabled {
    enabled: Option<bool>,
}

impl Features {
    /// What containers need and it does not have. What it does not speak of is left to the trial.
    fn lacks(&self, unified: bool) -> Vec<String> {
        let linux = &self.linux;
        let missing = |has: &Option<Vec<String>>, needs: &[&str]| -> Vec<String> {
            let Some(has) = has else { return Vec::new() };
            needs.iter().filter(|need| !has.iter().any(|one| one == *need)).map(|need| (*need).to_owned()).collect()
        };
        let mut lacks = Vec::new();
        lacks.extend(missing(&linux.namespaces, &NAMESPACES).iter().map(|name| format!("namespaces of kind {name}")));
        let needed = bundle::capability_names();
        let needed: Vec<&str> = needed.iter().map(String::as_str).collect();
        lacks.extend(missing(&linux.capabilities, &needed));
        let versions = linux.cgroup.as_ref().map(|cgroup| if unified { cgroup.v2 } else { cgroup.v1 });
        if versions.flatten() == Some(false) {
            lacks.push(format!("control groups of version {}, which this machine has", if unified { 2 } else { 1 }));
        }
        if linux.seccomp.as_ref().and_then(|seccomp| seccomp.enabled) == Some(false) {
            lacks.push("seccomp (it was built without)".to_owned());
        }
        lacks
    }
}

/// Asks a runtime what it can do, and has it make a container with nothing in it.
pub(super) fn check(engine: &Engine) -> Result<(), EngineError> {
    let unfit = |problem: String| EngineError::Unfit { program: engine.program().display().to_string(), problem };
    // Older ones do not know the question.
    let answer = Command::new(engine.program()).arg("features").stdin(Stdio::null()).output().ok();
    let features = answer.filter(|answer| answer.status.success());
    let features = features.and_then(|answer| serde_json::from_slice::<Features>(&answer.stdout).ok());
    let lacks = features.unwrap_or_default().lacks(cgroup::is_unified());
    if !lacks.is_empty() {
        return Err(unfit(format!("it has no {}", lacks.join(", no "))));
    }
    let dir = std::env::temp_dir().join(format!("volley-trial-{}", std::process::id()));
    let tried = fs::create_dir_all(&dir).and_then(|()| dir.canonicalize()).and_then(|dir| trial(engine, &dir));
    drop(fs::remove_dir_all(&dir));
    match tried {
        Ok(None) => Ok(()),
        Ok(Some(said)) => Err(unfit(said)),
        Err(error) => Err(unfit(format!("a trial in {} failed: {error}", dir.display()))),
    }
}

/// What the runtime says instead of that there is nothing to run.
fn trial(engine: &Engine, dir: &Path) -> io::Result<Option<String>> {
    let name = format!("trial.{}", std::process::id());
    let oci = OciLaunch {
        engine: engine.program().to_owned(),
        tell_engine: true,
        image: "of the trial".to_owned(),
        digest: String::new(),
        layers_dir: PathBuf::new(),
        layers: Vec::new(),
        config: ImageConfig::default(),
        mounts: Vec::new(),
        pids_max: super::PIDS_MAX,
        devices: cdi::Edits::default(),
        cgroups: cgroup::roots().iter().map(|root| root.join("volley").join(&name)).collect(),
        cgroup: format!("/volley/{name}"),
    };
    let mut spec = Spec::of_command(NOTHING, &[]);
    (spec.resources.cpu, spec.resources.memory) = (CpuMilli(100), Bytes(64 << 20));
    let worker = WorkerId::new("trial").map_err(|error| io::Error::other(error.to_string()))?;
    let container = ContainerId { group: GroupId(u64::from(std::process::id())), index: 0 };
    let attempt = Attempt { number: 1, nonce: Nonce(0) };
    let launch = LaunchRecord { worker, container, attempt, spec, gpus: Vec::new(), how: How::Waiting };
    let attempt_dir = AttemptDir(dir.to_owned());
    let (bundle, rootfs) = (dir.join("bundle"), dir.join("bundle/rootfs"));
    fs::create_dir_all(&rootfs)?;
    let user = User { uid: 0, gid: 0, groups: Vec::new(), home: None };
    let config = bundle::spec(&launch, &oci, &user, &rootfs).map_err(|error| io::Error::other(error.to_string()))?;
    fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;
    let mut command = start::engine(&attempt_dir, &oci);
    command.args(["run", "--detach", "--bundle"]).arg(&bundle).arg(start::id(&launch));
    let ran = command.stdin(Stdio::null()).output()?;
    let said = start::said(&attempt_dir);
    start::clean(&attempt_dir, &launch, &oci);
    let says = said.unwrap_or_else(|| String::from_utf8_lossy(&ran.stderr).trim().to_owned());
    let as_hoped = ran.status.success() || start::explained(&says, NOTHING, "").starts_with("command ");
    Ok((!as_hoped).then_some(says))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(json: &str, unified: bool) -> Vec<String> {
        serde_json::from_str::<Features>(json).expect("features").lacks(unified)
    }

    #[test]
    fn what_a_runtime_says_of_itself_is_held_against_what_containers_need() {
        assert_eq!(lacks("{}", true), [""; 0], "what it does not speak of is tried");
        let good = r#"{"linux": {"namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "cgroup": {"v1": true, "v2": false}, "seccomp": {"enabled": true}}}"#;
        assert_eq!(lacks(good, false), [""; 0]);
        assert!(lacks(good, true)[0].contains("version 2"));
        let poor = r#"{"linux": {"namespaces": ["ipc", "mount", "network", "pid", "uts"], "seccomp": {"enabled": false},
            "capabilities": ["CAP_CHOWN"]}}"#;
        let found = lacks(poor, false);
        assert!(found[0].contains("cgroup") && found[1] == "CAP_DAC_OVERRIDE", "{found:?}");
        assert!(found.last().is_some_and(|last| last.contains("seccomp")), "{found:?}");
    }
}
