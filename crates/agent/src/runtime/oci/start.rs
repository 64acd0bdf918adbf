//! In the keeper: mounts the image, writes the bundle, calls the runtime, and takes all of it
//! away again. The mounts lie in a namespace of the keeper's own: they end with it, whatever
//! happens.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, set_child_subreaper};
use serde::Deserialize;

use super::{OciLaunch, bundle, user};
use crate::runtime::attempt_dir::{AttemptDir, LaunchRecord};
use crate::runtime::cgroup;
use crate::runtime::keeper::Started;

/// The runtime starts a container within this, or it never will.
const START_WAIT: Duration = Duration::from_secs(120);
/// Mount options fit into one page.
const OPTIONS_BYTES_MAX: usize = 4096;
/// What the runtime wrote of its troubles is read so far.
const LOG_BYTES_MAX: usize = 64 << 10;

/// Where the parts of a container lie.
struct Places {
    bundle: PathBuf,
    rootfs: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    /// The runtime's own state.
    state: PathBuf,
    log: PathBuf,
    pid: PathBuf,
}

impl Places {
    fn of(dir: &AttemptDir) -> Self {
        let bundle = dir.0.join("bundle");
        Self {
            rootfs: bundle.join("rootfs"),
            upper: bundle.join("upper"),
            work: bundle.join("overlay"),
            state: dir.0.join("runtime"),
            log: bundle.join("runtime.log"),
            pid: bundle.join("pid"),
            bundle,
        }
    }
}

/// The name by which the runtime knows a container.
pub(super) fn id(launch: &LaunchRecord) -> String {
    format!("{}.{}", launch.container, launch.attempt.number)
}

/// The runtime with the state of one attempt.
pub(super) fn engine(dir: &AttemptDir, oci: &OciLaunch) -> Command {
    let places = Places::of(dir);
    let mut command = Command::new(&oci.engine);
    command.arg("--root").arg(places.state).arg("--log").arg(places.log).args(["--log-format", "json"]);
    command
}

/// Starts a container; it becomes a child of this process.
pub(in crate::runtime) fn start(dir: &AttemptDir, launch: &LaunchRecord, oci: &OciLaunch) -> Result<Started, String> {
    if bundle::words(launch, oci).is_empty() {
        return Err(format!("image {} names no command; give one", oci.image));
    }
    set_child_subreaper(Some(getpid())).map_err(|error| format!("its end could not be watched: {error}"))?;
    let places = Places::of(dir);
    mount_image(&places, oci).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => "no space on the worker's disk for its files".to_owned(),
        _ => format!("image {} could not be mounted: {error}", oci.image),
    })?;
    let wanted = launch.spec.sandbox.user.as_deref().unwrap_or(&oci.config.user);
    let user = user::resolve(&places.rootfs, wanted)?;
    let config = bundle::spec(launch, oci, &user, &places.rootfs).map_err(|error| error.to_string())?;
    let written = serde_json::to_vec(&config).map_err(io::Error::from).and_then(|json| {
        // It may hold secrets.
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(places.bundle.join("config.json"))?;
        io::Write::write_all(&mut file, &json)
    });
    written.map_err(|error| format!("its bundle could not be written: {error}"))?;
    let mut command = engine(dir, oci);
    command
        .args(["run", "--detach", "--pid-file"])
        .arg(&places.pid)
        .arg("--bundle")
        .arg(&places.bundle)
        .arg(id(launch));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let spawned = command.spawn();
    let mut child = spawned.map_err(|error| format!("{} could not be started: {error}", oci.engine.display()))?;
    dir.note_engine(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let pid = wait(&mut child)
        .and_then(|good| if good { read_pid(&places.pid) } else { Err(trouble(&places, launch, oci)) })?;
    limit_cpu(launch, oci)?;
    Ok(Started {
        pid,
        group: false,
        stop_signal: oci.config.stop_signal.as_deref().and_then(signal).unwrap_or(Signal::TERM),
        stdout: stdout.map(Into::into),
        stderr: stderr.map(Into::into),
    })
}

/// Bounds the CPU of a container that runs. Not before: what the runtime does to start it is not the container's work,
/// and takes seconds of a hundredth of a core.
fn limit_cpu(launch: &LaunchRecord, oci: &OciLaunch) -> Result<(), String> {
    let cpu = launch.spec.resources.cpu;
    if cpu.0 == 0 {
        return Ok(());
    }
    cgroup::limit_cpu(&oci.cgroups, cpu).map_err(|error| {
        cgroup::kill(&oci.cgroups);
        format!("its CPU could not be limited: {error}")
    })
}

/// Mounts the layers with a folder for what is written, where only this process and its children see it.
fn mount_image(places: &Places, oci: &OciLaunch) -> io::Result<()> {
    for dir in [&places.bundle, &places.rootfs, &places.upper, &places.work] {
        match fs::DirBuilder::new().mode(0o755).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    // The root folder is the uppermost one's.
    if let Some(top) = oci.layers.last() {
        let mode = fs::metadata(oci.layers_dir.join(top))?.permissions().mode();
        fs::set_permissions(&places.upper, fs::Permissions::from_mode(mode & 0o7777))?;
    }
    own_mounts()?;
    std::env::set_current_dir(&oci.layers_dir)?;
    let lower: Vec<&str> = oci.layers.iter().rev().map(String::as_str).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        lower.join(":"),
        escaped(&places.upper)?,
        escaped(&places.work)?
    );
    if options.len() >= OPTIONS_BYTES_MAX {
        return Err(io::Error::other("the paths of its layers are too long; give the worker a shorter --state folder"));
    }
    let options = CString::new(options)?;
    mount("overlay", &places.rootfs, "overlay", MountFlags::empty(), options.as_c_str())?;
    std::env::set_current_dir("/")
}

/// From here on, mounts made here are seen here only; those that end on the machine end here, too.
fn own_mounts() -> io::Result<()> {
    #[expect(deprecated, reason = "the flags that make it unsafe (files) are not used; the keeper has one thread")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// Commas and colons have a meaning in mount options.
fn escaped(path: &Path) -> io::Result<String> {
    let path =
        path.to_str().ok_or_else(|| io::Error::other("the worker's --state folder has a name that is no text"))?;
    Ok(path.replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:"))
}

/// Waits for the runtime; true when it says that all is good.
fn wait(child: &mut Child) -> Result<bool, String> {
    let trouble = |error: io::Error| format!("the OCI runtime could not be waited for: {error}");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| "the kernel gave no process id".to_owned())?;
    let ended = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| trouble(error.into()))?;
    let limit = Timespec { tv_sec: i64::try_from(START_WAIT.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut fds = [PollFd::new(&ended, PollFlags::IN)];
    let ready = loop {
        match poll(&mut fds, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => break ready.map_err(|error| trouble(error.into()))?,
        }
    };
    if ready == 0 {
        // It may have ended just now.
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("the OCI runtime did not start it within {} s", START_WAIT.as_secs()));
    }
    child.wait().map(|status| status.success()).map_err(trouble)
}

fn read_pid(path: &Path) -> Result<Pid, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("the OCI runtime told no process id: {error}"))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| format!("the OCI runtime told '{}' for a process id", text.trim()))
}

#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

/// The last trouble that a runtime wrote of.
pub(super) fn said(dir: &AttemptDir) -> Option<String> {
    said_in(&Places::of(dir).log)
}

fn said_in(log: &Path) -> Option<String> {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_BYTES_MAX)..]).into_owned();
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<LogLine>(line).ok());
    lines.filter(|line| matches!(line.level.as_str(), "error" | "fatal")).map(|line| line.msg).next()
}

/// What the runtime wrote last, as a reason with a remedy where there is one.
fn trouble(places: &Places, launch: &LaunchRecord, oci: &OciLaunch) -> String {
    let said = said_in(&places.log).unwrap_or_else(|| "it did not say why".to_owned());
    let words = bundle::words(launch, oci);
    explained(&said, words.first().map(String::as_str).unwrap_or_default(), &oci.image)
}

pub(super) fn explained(said: &str, command: &str, image: &str) -> String {
    let has = |text: &str| said.contains(text);
    if has("executable file not found") || (has("exec") && has("no such file or directory")) {
        format!("command '{command}' is not in image {image}; look for a mistake in its name, or give its full path")
    } else if has("exec format error") {
        format!("command '{command}' of image {image} is for another kind of machine")
    } else if has("exec") && has("permission denied") {
        format!("command '{command}' of image {image} may not be executed; chmod +x it in the image")
    } else if has("exec") && has("is a directory") {
        format!("command '{command}' of image {image} is a folder")
    } else {
        format!("the OCI runtime could not start it: {said}")
    }
}

/// `SIGQUIT`, `QUIT` or `3`.
fn signal(name: &str) -> Option<Signal> {
    let named = [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("ABRT", Signal::ABORT),
        ("KILL", Signal::KILL),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("PIPE", Signal::PIPE),
        ("ALRM", Signal::ALARM),
        ("TERM", Signal::TERM),
        ("WINCH", Signal::WINCH),
    ];
    let name = name.trim().to_ascii_uppercase();
    match name.parse() {
        Ok(number) => Signal::from_named_raw(number),
        Err(_) => {
            let name = name.strip_prefix("SIG").unwrap_or(&name);
            named.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
        }
    }
}

/// Takes away what a container leaves on the machine, but for its output and its end.
pub(in crate::runtime) fn clean(dir: &AttemptDir, launch: &LaunchRecord, oci: &OciLaunch) {
    let places = Places::of(dir);
    if oci.tell_engine && places.state.is_dir() {
        let mut command = engine(dir, oci);
        command.args(["delete", "--force"]).arg(id(launch));
        // What it does not remove is removed below.
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    cgroup::remove(&oci.cgroups);
    // In another life's namespace it is not there.
    let _ = unmount(&places.rootfs, UnmountFlags::DETACH);
    for path in [&places.bundle, &places.state] {
        if let Err(error) = fs::remove_dir_all(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "what a container left could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (name, expected) in [
            ("SIGQUIT", Some(Signal::QUIT)),
            ("term", Some(Signal::TERM)),
            ("9", Some(Signal::KILL)),
            ("SIGWHAT", None),
        ] {
            assert_eq!(signal(name), expected, "{name}");
        }
    }

    #[test]
    fn troubles_of_the_runtime_are_told_with_a_remedy() {
        for (said, start) in [
            (
                "runc create failed: unable to start container process: exec: \"x\": executable file not found in $PATH",
                "command 'x' is not in image i",
            ),
            (
                "unable to start container process: exec: \"/x\": stat /x: no such file or directory",
                "command 'x' is not in",
            ),
            ("exec /bin/x: exec format error", "command 'x' of image i is for another kind"),
            ("exec: \"/etc/passwd\": permission denied", "command 'x' of image i may not be executed"),
            ("something else", "the OCI runtime could not start it: something else"),
        ] {
            assert!(explained(said, "x", "i").starts_with(start), "{said}");
        }
    }
}
