//! The bare loop: the bundle work and the OCI runtime, and nothing else. Each thread has a
//! namespace of mounts of its own, so that nothing is left whatever happens.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

/// One container starts and ends within this, or never.
const CONTAINER_WAIT: Duration = Duration::from_secs(60);

/// All that the loop needs.
#[derive(Debug, Clone)]
pub(super) struct Bare {
    pub(super) engine: PathBuf,
    /// Bundles and the runtime's state are made here.
    pub(super) dir: PathBuf,
    /// The image's one layer.
    pub(super) layer: PathBuf,
    /// As Volley wrote it for a container of the same image.
    pub(super) config: Value,
}

/// What one container printed, and when its first byte came.
pub(super) struct Ran {
    pub(super) first_output_ms: Option<f64>,
    pub(super) printed: Vec<u8>,
}

impl Bare {
    /// So many containers in so many threads; the wall time in milliseconds.
    pub(super) fn burst(&self, containers: usize, threads: usize, words: &[&str]) -> io::Result<f64> {
        let next = AtomicUsize::new(0);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            let work = || -> io::Result<()> {
                own_mounts()?;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= containers {
                        return Ok(());
                    }
                    self.container(number, words)?;
                }
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a thread of the bench does not panic"))
        })?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }

    /// One container in a thread of its own.
    pub(super) fn lone(&self, words: &[&str]) -> io::Result<Ran> {
        std::thread::scope(|scope| {
            let ran = scope.spawn(|| {
                own_mounts()?;
                self.container(0, words)
            });
            ran.join().expect("a thread of the bench does not panic")
        })
    }

    fn container(&self, number: usize, words: &[&str]) -> io::Result<Ran> {
        let begin = Instant::now();
        let name = format!("bare-{number}");
        let bundle = self.dir.join(&name);
        let (rootfs, upper, work) = (bundle.join("rootfs"), bundle.join("upper"), bundle.join("work"));
        for dir in [&bundle, &rootfs, &upper, &work] {
            fs::create_dir(dir)?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={},volatile",
            self.layer.display(),
            upper.display(),
            work.display()
        );
        mount("overlay", &rootfs, "overlay", MountFlags::empty(), CString::new(options)?.as_c_str())?;
        let mut config = self.config.clone();
        config["root"]["path"] = json!(rootfs);
        config["hostname"] = json!(name);
        config["process"]["args"] = json!(words);
        config["linux"]["cgroupsPath"] = json!(format!("/volley/bench-{}-{name}", std::process::id()));
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;
        let ran = self.run(&bundle, &name, begin);
        unmount(&rootfs, UnmountFlags::DETACH)?;
        fs::remove_dir_all(&bundle)?;
        ran
    }

    fn run(&self, bundle: &Path, name: &str, begin: Instant) -> io::Result<Ran> {
        let mut command = Command::new(&self.engine);
        command.arg("--root").arg(self.dir.join("runtime")).arg("--log").arg(bundle.join("runtime.log"));
        command.arg("run").arg("--bundle").arg(bundle).arg(name);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let ran = self.watch(&mut child, begin);
        if ran.is_err() {
            // Whatever it waits for: nothing of it is left to run.
            let _ = child.kill().and_then(|()| child.wait());
            let mut delete = Command::new(&self.engine);
            delete.arg("--root").arg(self.dir.join("runtime")).args(["delete", "--force", name]);
            let _ = delete.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        ran
    }

    /// Reads what it prints, to its end.
    fn watch(&self, child: &mut Child, begin: Instant) -> io::Result<Ran> {
        let end = begin + CONTAINER_WAIT;
        let (mut printed, mut first_output_ms, mut buffer) = (Vec::new(), None, [0; 4096]);
        if let Some(stdout) = &mut child.stdout {
            loop {
                self.wait(&*stdout, end)?;
                let read = stdout.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                first_output_ms.get_or_insert_with(|| begin.elapsed().as_secs_f64() * 1e3);
                printed.extend_from_slice(&buffer[..read]);
            }
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the kernel gave no process id"))?;
        self.wait(pidfd_open(pid, PidfdFlags::empty())?, end)?;
        match child.wait()? {
            status if status.success() => Ok(Ran { first_output_ms, printed }),
            status => Err(io::Error::other(format!("{} ended with {status}", self.engine.display()))),
        }
    }

    /// Until there is something to read, or an end.
    fn wait(&self, of: impl AsFd, end: Instant) -> io::Result<()> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let limit = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&of, PollFlags::IN)], Some(&limit)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => {
                    let (engine, seconds) = (self.engine.display(), CONTAINER_WAIT.as_secs());
                    let words = format!("{engine} did not run a container within {seconds} s");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, words));
                }
                ready => return Ok(ready.map(drop)?),
            }
        }
    }
}

/// From here on, mounts of this thread are seen by it and its children only.
fn own_mounts() -> io::Result<()> {
    #[expect(deprecated, reason = "the flags that make it unsafe (files) are not used")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}
