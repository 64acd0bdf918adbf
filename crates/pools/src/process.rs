//! Machines that are processes of this machine: each a `volley worker` of its own, in a process group of its own, which
//! outlives the server unless it is told otherwise. What there is, is read from the system's list of processes, by the folder in their command line:
//! there is no list of ours that a crash could make wrong.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use volley_model::{Machine, PoolName, WorkerId};

use crate::{Listed, Order, ProvisionError, ProvisionFuture, Provisioner};

/// A worker that is to end has so long before it is killed: it is empty, or its machine is given up anyway.
const END_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const END_LOOK: Duration = Duration::from_millis(50);

/// How often, and how many times, a started process is looked for.
const SEEN_LOOK: Duration = Duration::from_millis(1);
const SEEN_LOOKS_MAX: u32 = 5_000;

/// What the processes are.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Program and first arguments; `worker` and its flags follow.
    pub program: Vec<String>,
    /// Where the workers find the server.
    pub server: String,
    /// Below this each worker has its folder.
    pub state_dir: PathBuf,
    /// Whether the workers outlive this process or end with it, however it ends.
    pub lifetime: Lifetime,
}

/// How long processes live.
#[derive(Debug, Clone)]
pub enum Lifetime {
    /// Until they are destroyed: another server finds them again.
    OfMachines,
    /// At most as long as this process.
    OfServer(Arc<Lifeline>),
}

/// A pipe whose one end is this process's alone: the other is at its end when this process is, by whatever signal.
#[derive(Debug)]
pub struct Lifeline {
    held: PipeReader,
    _only_here: PipeWriter,
}

impl Lifeline {
    /// # Errors
    /// When the process has too many open files.
    pub fn new() -> io::Result<Self> {
        let (held, only_here) = io::pipe()?;
        Ok(Self { held, _only_here: only_here })
    }
}

/// Starts workers as processes.
#[derive(Debug, Clone)]
pub struct ProcessProvisioner {
    options: ProcessOptions,
}

impl ProcessProvisioner {
    /// Makes the folder when the first worker is started.
    #[must_use]
    pub fn new(options: ProcessOptions) -> Self {
        Self { options }
    }

    fn folder(&self, pool: &PoolName, worker: &WorkerId) -> PathBuf {
        self.options.state_dir.join(pool.as_str()).join(worker.as_str())
    }

    /// Ends all processes of all pools. Nothing may be asked for meanwhile.
    ///
    /// # Errors
    /// When the list of processes cannot be read.
    pub async fn end_all(&self) -> io::Result<()> {
        let pools = match fs::read_dir(&self.options.state_dir) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let names = pools.iter().filter_map(|entry| PoolName::new(&entry.file_name().to_string_lossy()).ok());
        let names: Vec<PoolName> = names.collect();
        self.end_those(|| {
            let running = names.iter().map(|pool| self.running(pool)).collect::<io::Result<Vec<_>>>()?;
            Ok(running.into_iter().flatten().map(|(_, pid)| pid).collect())
        })
        .await
    }

    /// Processes whose command line names a worker's folder: worker and process.
    fn running(&self, pool: &PoolName) -> io::Result<Vec<(WorkerId, Pid)>> {
        let base = self.options.state_dir.join(pool.as_str());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Ok(number) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
            // It may end while it is looked at, or be a zombie, whose command line is empty.
            let Ok(line) = fs::read(format!("/proc/{number}/cmdline")) else { continue };
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let state = words.windows(2).find(|pair| pair[0] == b"--state").map(|pair| pair[1]);
            let state = state.and_then(|state| std::str::from_utf8(state).ok()).map(Path::new);
            let name = state.filter(|state| state.parent() == Some(&base)).and_then(Path::file_name);
            let worker = name.and_then(|name| WorkerId::new(&name.to_string_lossy()).ok());
            if let (Some(worker), Some(pid)) = (worker, Pid::from_raw(number)) {
                found.push((worker, pid));
            }
        }
        // What a worker starts has its command line until it is its own program.
        let mut of_workers: Vec<(WorkerId, Pid)> = Vec::new();
        for (worker, pid) in &found {
            let parent = parent_of(*pid);
            if !found.iter().any(|(other, of)| other == worker && Some(*of) == parent) {
                of_workers.push((worker.clone(), *pid));
            }
        }
        of_workers.sort_by_key(|(worker, pid)| (worker.clone(), pid.as_raw_nonzero()));
        Ok(of_workers)
    }

    fn start(&self, order: &Order) -> io::Result<String> {
        let folder = self.folder(&order.pool, &order.worker);
        fs::create_dir_all(&folder)?;
        // Two calls for one id, of this server or another on this machine, must not both start it.
        let lock = File::create(folder.join("start.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let mine = |(worker, _): &&(WorkerId, Pid)| *worker == order.worker;
        if let Some((_, pid)) = self.running(&order.pool)?.iter().find(mine) {
            return Ok(pid.as_raw_nonzero().to_string());
        }
        let (program, first) = self.options.program.split_first().ok_or(io::ErrorKind::NotFound)?;
        let log = File::options().create(true).append(true).open(folder.join("worker.log"))?;
        let mut command = Command::new(program);
        command.args(first).args(["worker", "--server", &self.options.server]);
        command.args(["--name", order.worker.as_str(), "--pool", order.pool.as_str()]);
        command.args(flags(&order.machine)).arg("--state").arg(&folder).envs(&order.options);
        let stdin = match &self.options.lifetime {
            Lifetime::OfMachines => Stdio::null(),
            Lifetime::OfServer(line) => {
                command.arg("--end-with-stdin");
                line.held.try_clone()?.into()
            }
        };
        command.stdin(stdin).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut child = command.spawn()?;
        let pid = child.id();
        // Its command line is there a moment after it runs: before that the next call would not find it.
        for _ in 0..SEEN_LOOKS_MAX {
            if child.try_wait()?.is_some() || self.running(&order.pool)?.iter().any(|found| mine(&found)) {
                break;
            }
            std::thread::sleep(SEEN_LOOK);
        }
        // Whoever started it hears of its end, or it stays in the list of processes.
        std::thread::Builder::new().name("reaper".to_owned()).spawn(move || child.wait())?;
        Ok(pid.to_string())
    }

    async fn end(&self, order: &Order, handle: Option<&str>) -> io::Result<()> {
        let mine = |(worker, pid): &(WorkerId, Pid)| {
            *worker == order.worker && handle.is_none_or(|handle| handle == pid.as_raw_nonzero().to_string())
        };
        self.end_those(|| Ok(self.running(&order.pool)?.into_iter().filter(mine).map(|(_, pid)| pid).collect()))
            .await?;
        if handle.is_none() || self.running(&order.pool)?.iter().all(|(worker, _)| *worker != order.worker) {
            remove_folder(&self.folder(&order.pool, &order.worker))?;
        }
        Ok(())
    }

    /// Asks processes to end, and kills those that have not after a while.
    async fn end_those(&self, which: impl Fn() -> io::Result<Vec<Pid>>) -> io::Result<()> {
        let looks = END_WAIT.as_millis() / END_LOOK.as_millis();
        for look in 0..=looks {
            let left = which()?;
            if left.is_empty() {
                break;
            }
            for pid in left {
                // It may have ended by itself.
                let _ = match look {
                    0 => kill_process(pid, Signal::TERM),
                    look if look == looks => kill_process_group(pid, Signal::KILL),
                    _ => Ok(()),
                };
            }
            tokio::time::sleep(END_LOOK).await;
        }
        Ok(())
    }
}

impl Provisioner for ProcessProvisioner {
    fn create<'a>(&'a self, order: &'a Order) -> ProvisionFuture<'a, String> {
        let (provisioner, order) = (self.clone(), order.clone());
        Box::pin(async move {
            let started = tokio::task::spawn_blocking(move || provisioner.start(&order)).await;
            let started = started.map_err(|error| ProvisionError::Unknown { reason: error.to_string() })?;
            started.map_err(|error| ProvisionError::Refused { reason: format!("cannot start a worker: {error}") })
        })
    }

    fn destroy<'a>(&'a self, order: &'a Order, handle: Option<&'a str>) -> ProvisionFuture<'a, ()> {
        Box::pin(async move {
            let ended = self.end(order, handle).await;
            ended.map_err(|error| ProvisionError::Unknown { reason: format!("cannot end the worker: {error}") })
        })
    }

    fn list<'a>(&'a self, pool: &'a PoolName, _: &'a BTreeMap<String, String>) -> ProvisionFuture<'a, Vec<Listed>> {
        Box::pin(async move {
            let running = self.running(pool).map_err(|error| ProvisionError::Unknown { reason: error.to_string() })?;
            let listed = |(worker, pid): (WorkerId, Pid)| Listed { worker, handle: pid.as_raw_nonzero().to_string() };
            Ok(running.into_iter().map(listed).collect())
        })
    }
}

/// What a machine offers, as flags of `volley worker`.
fn flags(machine: &Machine) -> Vec<String> {
    let capacity = &machine.capacity;
    let mut flags = vec![
        format!("--cpu={}", capacity.cpu),
        format!("--memory={}", capacity.memory),
        format!("--slots={}", capacity.slots),
    ];
    let mut gpus: Vec<(&String, u32)> = Vec::new();
    for kind in &capacity.gpus {
        match gpus.last_mut() {
            Some((last, count)) if *last == kind => *count += 1,
            _ => gpus.push((kind, 1)),
        }
    }
    flags.extend(gpus.into_iter().map(|(kind, count)| format!("--gpu={kind}:{count}")));
    flags.extend(machine.labels.iter().map(|(key, value)| format!("--label={key}={value}")));
    flags
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name, in brackets, may have anything in it.
    let (_, fields) = stat.rsplit_once(')')?;
    Pid::from_raw(fields.split_whitespace().nth(1)?.parse().ok()?)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
