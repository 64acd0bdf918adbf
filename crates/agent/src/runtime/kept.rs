//! What all runtimes of this crate share: each attempt has a folder and a keeper of its own,
//! which outlives the worker. What is to run, and how, is its method's. Knows nothing of streams
//! to servers.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::process::{Signal, kill_process, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, Semaphore, mpsc};
use volley_model::{Attempt, ContainerId, Millis, Outcome, Progress, StopCause, WorkerId};

use super::attempt_dir::{AttemptDir, How, LaunchRecord, Lock};
use super::{cgroup, keeper, log_file};
use crate::attempts::Key;
use crate::{Happened, Launch, Left, Output, Runtime, Usage};

/// Keepers that are started at a time: more would only wait for each other.
const STARTING_MAX: usize = 8;
/// Keepers of an earlier life are looked at this often: they are nobody's children here.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Attempts that ended and whose output is kept: a few thousand folders are no burden to a disk.
const ENDED_MAX: usize = 10_000;
/// How long their output is kept.
const ENDED_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The settings of a runtime with keepers.
#[derive(Debug, Clone)]
pub struct KeptOptions {
    /// Its worker's name, told to containers.
    pub worker: WorkerId,
    /// Folders of attempts are kept here; one runtime at a time.
    pub state_dir: PathBuf,
    /// The program and first arguments that call [`keeper::run`] with the folder named by the last argument.
    pub keeper: Vec<String>,
}

/// Told what becomes of containers.
pub type Sender = mpsc::UnboundedSender<(ContainerId, Attempt, Happened)>;

/// Told how far a preparation is, in words.
pub type Tell<'a> = &'a (dyn Fn(String) + Send + Sync);

/// How containers are run: what a keeper needs to know.
pub trait Method: std::fmt::Debug + Send + Sync + 'static {
    /// Held while an attempt lives: what it uses stays.
    type Held: Send + 'static;

    /// Sees to it that all is there, which may take a while and is told, and says how to run it; or why it cannot run.
    fn prepare(
        &self,
        options: &KeptOptions,
        launch: &Launch,
        tell: Tell<'_>,
    ) -> impl Future<Output = Result<(How, Self::Held), String>> + Send;

    /// An attempt of an earlier life goes on: what it uses is held again.
    fn adopt(&self, how: &How) -> Self::Held;

    /// Images that are here, the one used last at the end.
    fn images(&self) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Debug)]
struct Live {
    dir: AttemptDir,
    /// Open while the keeper lives, so that no order is lost.
    orders: Option<File>,
    /// Asked for before the keeper could be told.
    stop: Option<Millis>,
    /// Wakes a preparation that need not go on.
    stopped: Arc<Notify>,
}

impl Live {
    fn new(dir: AttemptDir, orders: Option<File>) -> Self {
        Self { dir, orders, stop: None, stopped: Arc::default() }
    }
}

#[derive(Debug)]
struct Inner<M> {
    options: KeptOptions,
    method: M,
    happened: Sender,
    live: Mutex<BTreeMap<Key, Live>>,
    /// Folders of acknowledged attempts, oldest first.
    ended: Mutex<VecDeque<(SystemTime, AttemptDir)>>,
    starting: Semaphore,
    #[allow(dead_code, reason = "closing the file unlocks the folder")]
    lock: File,
}

/// Runs each attempt under a keeper of its own.
#[derive(Debug)]
pub struct Kept<M> {
    inner: Arc<Inner<M>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Method> Kept<M> {
    /// A runtime that tells `happened` what becomes of its containers.
    ///
    /// # Errors
    /// When its folder cannot be made or written, or another process uses it.
    pub fn with_method(options: KeptOptions, method: M, happened: Sender) -> io::Result<Self> {
        let dir = &options.state_dir;
        let named = |what: &str, error: &io::Error| {
            io::Error::new(error.kind(), format!("the worker's folder {} {what}: {error}", dir.display()))
        };
        std::fs::create_dir_all(dir).map_err(|error| named("cannot be made", &error))?;
        // Keepers run elsewhere than this process.
        let absolute = std::fs::canonicalize(dir).map_err(|error| named("cannot be found", &error))?;
        let file = File::create(absolute.join("worker.lock")).map_err(|error| named("cannot be written", &error))?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let words = format!("another worker uses the folder {}; name another with --state", dir.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, words));
        }
        let options = KeptOptions { state_dir: absolute, ..options };
        let (live, ended, starting) = (Mutex::default(), Mutex::default(), Semaphore::new(STARTING_MAX));
        Ok(Self { inner: Arc::new(Inner { options, method, happened, live, ended, starting, lock: file }) })
    }

    /// Runs an attempt in a task of its own, unless it runs already. One that is `noted` waited in an earlier life.
    fn begin(&self, launch: Launch, dir: AttemptDir, noted: bool) {
        let key = (launch.container, launch.attempt);
        match locked(&self.inner.live).entry(key) {
            std::collections::btree_map::Entry::Occupied(_) => return,
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(Live::new(dir.clone(), None));
            }
        }
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let outcome = if noted { inner.go_on(&launch, &dir).await } else { inner.run(&launch, &dir).await };
            inner.ended(key, outcome);
        });
    }

    fn dir(&self, container: ContainerId, attempt: u32) -> AttemptDir {
        AttemptDir::of(&self.inner.options.state_dir, container, attempt)
    }
}

impl<M: Method> Inner<M> {
    fn tell(&self, (container, attempt): Key, happened: Happened) {
        // Whoever listened is gone: the worker is ending.
        let _ = self.happened.send((container, attempt, happened));
    }

    /// A live attempt ended.
    fn ended(&self, key: Key, outcome: Outcome) {
        locked(&self.live).remove(&key);
        self.tell(key, Happened::Ended(outcome));
    }

    fn record(&self, launch: &Launch, how: How) -> LaunchRecord {
        let (worker, container, attempt) = (self.options.worker.clone(), launch.container, launch.attempt);
        LaunchRecord { worker, container, attempt, spec: (*launch.spec).clone(), gpus: launch.gpus.clone(), how }
    }

    /// Notes what is to run, so that the next life goes on when this one ends meanwhile, and runs it.
    async fn run(&self, launch: &Launch, dir: &AttemptDir) -> Outcome {
        match dir.create(&self.record(launch, How::Waiting)) {
            Ok(()) => self.go_on(launch, dir).await,
            Err(error) => not_started(dir, &error),
        }
    }

    /// Waits for what it needs, starts its keeper, and waits for its end.
    async fn go_on(&self, launch: &Launch, dir: &AttemptDir) -> Outcome {
        let key = (launch.container, launch.attempt);
        let stopped = locked(&self.live).get(&key).map(|live| Arc::clone(&live.stopped)).unwrap_or_default();
        let tell = |words| self.tell(key, Happened::Waits(words));
        let prepared = tokio::select! {
            prepared = self.method.prepare(&self.options, launch, &tell) => {
                prepared.map_err(|reason| Outcome::Failed { reason })
            }
            () = stopped.notified() => Err(Outcome::Stopped { by: StopCause::Client }),
        };
        let (how, _held) = match prepared {
            Ok(prepared) => prepared,
            Err(outcome) => {
                // Noted, so that the next life does not begin it again.
                if let Err(error) = dir.set_end(&outcome) {
                    tracing::warn!(%error, dir = %dir.0.display(), "an end could not be noted");
                }
                return outcome;
            }
        };
        let child = {
            let _turn = self.starting.acquire().await;
            match self.spawn(launch, how, dir) {
                Ok(child) => child,
                Err(error) => return not_started(dir, &error),
            }
        };
        self.watch(key, child).await;
        self.end_of(dir)
    }

    fn spawn(&self, launch: &Launch, how: How, dir: &AttemptDir) -> io::Result<Child> {
        dir.prepared(&self.record(launch, how))?;
        let orders = dir.open_orders()?;
        if let Some(live) = locked(&self.live).get_mut(&(launch.container, launch.attempt)) {
            if let Some(grace) = live.stop {
                AttemptDir::order_stop(&orders, grace)?;
            }
            live.orders = Some(orders);
        }
        let Some((program, args)) = self.options.keeper.split_first() else {
            return Err(io::Error::other("no keeper is named"));
        };
        let mut command = Command::new(program);
        command.args(args).arg(&dir.0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()
    }

    /// Until the keeper is gone; says when the command runs.
    async fn watch(&self, key: Key, mut keeper: Child) {
        if let Some(mut said) = keeper.stdout.take()
            && matches!(said.read_u8().await, Ok(keeper::RUNNING))
        {
            self.tell(key, Happened::Running);
        }
        if let Err(error) = keeper.wait().await {
            tracing::error!(%error, "a keeper could not be waited for");
        }
    }

    /// What a keeper that is gone has left.
    fn end_of(&self, dir: &AttemptDir) -> Outcome {
        match dir.end() {
            Ok(Some(outcome)) => outcome,
            Ok(None) => self.end_orphan(dir),
            Err(error) => Outcome::Failed { reason: format!("its end in {} cannot be read: {error}", dir.0.display()) },
        }
    }

    /// The keeper is gone and left no end: whatever still runs is killed, and the attempt is lost.
    fn end_orphan(&self, dir: &AttemptDir) -> Outcome {
        if let Some(pid) = dir.engine().ok().flatten().and_then(|engine| engine.alive()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let running = dir.running().ok().flatten().and_then(|running| running.alive());
        if let Ok(Some(launch)) = dir.launch() {
            if let Some(pid) = running {
                let _ = match launch.how {
                    How::Process { .. } => kill_process_group(pid, Signal::KILL),
                    How::Waiting | How::Oci(_) => kill_process(pid, Signal::KILL),
                };
            }
            cgroup::kill(launch.how.cgroups());
            keeper::clean(dir, &launch);
        }
        tracing::warn!(dir = %dir.0.display(), "a keeper is gone without an end of its container");
        if let Err(error) = dir.set_end(&Outcome::Lost) {
            tracing::warn!(%error, dir = %dir.0.display(), "the loss of an attempt could not be noted");
        }
        Outcome::Lost
    }

    /// Watches an attempt of an earlier life.
    async fn watch_adopted(&self, key: Key, dir: AttemptDir, mut running: bool) {
        let _held = match dir.launch() {
            Ok(Some(launch)) => Some(self.method.adopt(&launch.how)),
            _ => None,
        };
        loop {
            let gone = match dir.lock() {
                Ok(lock) => lock,
                Err(error) => {
                    tracing::error!(%error, dir = %dir.0.display(), "a keeper cannot be looked after");
                    None
                }
            };
            if !running && matches!(dir.running(), Ok(Some(_))) {
                running = true;
                self.tell(key, Happened::Running);
            }
            if gone.is_some() {
                return self.ended(key, self.end_of(&dir));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Looks at one folder of an earlier life.
    fn look(&self, dir: &AttemptDir) -> io::Result<Option<(Left, Option<Lock>)>> {
        if dir.is_acknowledged() {
            return Ok(None);
        }
        // Taken while the keeper is gone: one that has not begun yet will not begin.
        let gone = dir.lock()?;
        let Some(record) = dir.launch()? else {
            return Err(io::Error::other("it does not say what was to run"));
        };
        let progress = match (dir.end()?, &gone, dir.running()?) {
            (Some(outcome), ..) => Progress::Ended(outcome),
            // It never ran, or its keeper was killed: it is not known here whether it may still run elsewhere or not.
            (None, Some(_), None) if matches!(record.how, How::Waiting) => Progress::Accepted,
            (None, Some(_), _) => Progress::Ended(self.end_orphan(dir)),
            (None, None, Some(_)) => Progress::Running,
            (None, None, None) => Progress::Accepted,
        };
        Ok(Some((Left { launch: record.launch(), progress }, gone)))
    }

    fn keep_ended(&self, at: SystemTime, dir: AttemptDir) {
        let mut ended = locked(&self.ended);
        ended.push_back((at, dir));
        let now = SystemTime::now();
        while let Some((at, dir)) = ended.front() {
            let old = now.duration_since(*at).is_ok_and(|age| age > ENDED_AGE_MAX);
            if !old && ended.len() <= ENDED_MAX {
                break;
            }
            remove(dir);
            ended.pop_front();
        }
    }
}

fn not_started(dir: &AttemptDir, error: &io::Error) -> Outcome {
    Outcome::Failed { reason: format!("it could not be started in {}: {error}", dir.0.display()) }
}

fn remove(dir: &AttemptDir) {
    if let Err(error) = std::fs::remove_dir_all(&dir.0) {
        tracing::warn!(%error, dir = %dir.0.display(), "an attempt's folder could not be removed");
    }
}

impl<M: Method> Runtime for Kept<M> {
    fn adopt(&self) -> io::Result<Vec<Left>> {
        let (mut left, mut acknowledged) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&self.inner.options.state_dir)? {
            let entry = entry?;
            // What is named otherwise is not an attempt's.
            let number = entry.file_name().to_str().and_then(|name| name.rsplit_once('.')?.1.parse::<u32>().ok());
            if !entry.file_type()?.is_dir() || number.is_none() {
                continue;
            }
            let dir = AttemptDir(entry.path());
            match self.inner.look(&dir) {
                Ok(Some((found, gone))) => {
                    let key = (found.launch.container, found.launch.attempt);
                    let running = found.progress == Progress::Running;
                    if gone.is_some() && found.progress == Progress::Accepted {
                        drop(gone);
                        self.begin(found.launch.clone(), dir, true);
                    } else if gone.is_none() && !matches!(found.progress, Progress::Ended(_)) {
                        let orders = dir.open_orders().ok();
                        locked(&self.inner.live).insert(key, Live::new(dir.clone(), orders));
                        let inner = Arc::clone(&self.inner);
                        tokio::spawn(async move { inner.watch_adopted(key, dir, running).await });
                    }
                    left.push(found);
                }
                Ok(None) => {
                    let at = entry.metadata().and_then(|metadata| metadata.modified());
                    acknowledged.push((at.unwrap_or(SystemTime::UNIX_EPOCH), dir));
                }
                Err(error) => {
                    tracing::warn!(%error, dir = %dir.0.display(), "not an attempt's folder; it is removed");
                    remove(&dir);
                }
            }
        }
        acknowledged.sort_by_key(|(at, _)| *at);
        for (at, dir) in acknowledged {
            self.inner.keep_ended(at, dir);
        }
        Ok(left)
    }

    fn start(&self, launch: Launch) {
        let dir = self.dir(launch.container, launch.attempt.number);
        self.begin(launch, dir, false);
    }

    fn stop(&self, container: ContainerId, attempt: Attempt, grace: Millis) -> bool {
        let mut live = locked(&self.inner.live);
        let Some(live) = live.get_mut(&(container, attempt)) else { return false };
        live.stop = Some(live.stop.map_or(grace, |before| before.min(grace)));
        live.stopped.notify_one();
        if let Some(orders) = &live.orders
            && let Err(error) = AttemptDir::order_stop(orders, grace)
        {
            tracing::warn!(%error, dir = %live.dir.0.display(), "a keeper takes no order");
        }
        true
    }

    fn forget(&self, container: ContainerId, attempt: Attempt) {
        let dir = self.dir(container, attempt.number);
        match dir.acknowledge() {
            Ok(()) => self.inner.keep_ended(SystemTime::now(), dir),
            // Nothing was begun here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, dir = %dir.0.display(), "an acknowledged end is told again"),
        }
    }

    fn output(&self, container: ContainerId, attempt: u32, stderr: bool, from: u64, max: usize) -> io::Result<Output> {
        let name = if stderr { "stderr" } else { "stdout" };
        log_file::read(&self.dir(container, attempt).0, name, from, max)
    }

    fn exec(&self, container: ContainerId, attempt: u32, words: &[String]) -> Result<std::process::Command, String> {
        let dir = self.dir(container, attempt);
        let launch = dir.launch().map_err(|error| format!("its folder cannot be read: {error}"))?;
        match launch.as_ref().map(|launch| (launch, &launch.how)) {
            _ if self.ended(container, attempt) => Err("it does not run here any more".to_owned()),
            None | Some((_, How::Waiting)) => Err("it does not run yet".to_owned()),
            Some((launch, How::Oci(oci))) => super::oci::exec(&dir, launch, oci, words),
            Some((_, How::Process { .. })) => {
                Err("it is a process of its worker's machine: there is nothing to enter".to_owned())
            }
        }
    }

    fn usage(&self, container: ContainerId, attempt: u32) -> io::Result<Option<Usage>> {
        let dir = self.dir(container, attempt);
        if let Some(usage) = dir.usage()? {
            return Ok(Some(usage));
        }
        Ok(dir.launch()?.and_then(|launch| cgroup::usage(launch.how.cgroups())))
    }

    fn image_digest(&self, container: ContainerId, attempt: u32) -> Option<String> {
        match self.dir(container, attempt).launch().ok()??.how {
            How::Oci(oci) => Some(oci.digest).filter(|digest| !digest.is_empty()),
            How::Waiting | How::Process { .. } => None,
        }
    }

    fn images(&self) -> Vec<String> {
        self.inner.method.images()
    }

    fn ended(&self, container: ContainerId, attempt: u32) -> bool {
        !locked(&self.inner.live).keys().any(|(id, at)| *id == container && at.number == attempt)
    }
}
