//! Simulated machines: what runs on them goes on when their worker dies, and ends when they do.
//! The floor is where all of them stand: it sees what really runs, whatever anybody believes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use volley_agent::{Happened, Launch, Left, Output, Runtime};
use volley_model::{Attempt, ContainerId, Millis, Outcome, Progress, StopCause, WorkerId};

use crate::chance::Chance;
use crate::record::Record;

/// A process that is killed is gone after this at the latest.
const KILL_MILLIS_MAX: u64 = 40;

pub(crate) type Key = (ContainerId, Attempt);
type Told = mpsc::UnboundedSender<(ContainerId, Attempt, Happened)>;

/// What really ran.
#[derive(Clone)]
pub(crate) struct Floor {
    record: Record,
    /// Whether two attempts of a container must never run at a time.
    strict: bool,
    inner: Arc<Mutex<FloorInner>>,
}

#[derive(Default)]
struct FloorInner {
    running: BTreeMap<ContainerId, BTreeMap<(WorkerId, Attempt), bool>>,
    starts: BTreeMap<Key, u32>,
    ends: BTreeMap<Key, Outcome>,
}

impl Floor {
    pub(crate) fn new(record: Record, strict: bool) -> Self {
        Self { record, strict, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, FloorInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_start(&self, worker: &WorkerId, (container, attempt): Key, excused: bool) {
        let mut inner = self.lock();
        let others = inner.running.entry(container).or_default();
        if self.strict && others.values().any(|excused| !*excused) {
            self.record.fail(format!("law 8: {container} starts on {worker} while it runs elsewhere: {others:?}"));
        }
        others.insert((worker.clone(), attempt), excused);
        let starts = inner.starts.entry((container, attempt)).or_default();
        *starts += 1;
        if *starts > 1 {
            self.record.fail(format!("law 8: attempt {attempt:?} of {container} is started twice"));
        }
    }

    fn on_gone(&self, worker: &WorkerId, (container, attempt): Key, outcome: Option<&Outcome>) {
        let mut inner = self.lock();
        if let Some(others) = inner.running.get_mut(&container) {
            others.remove(&(worker.clone(), attempt));
        }
        if let Some(outcome) = outcome {
            inner.ends.insert((container, attempt), outcome.clone());
        }
    }

    fn excuse(&self, worker: &WorkerId, keys: &[Key]) {
        let mut inner = self.lock();
        for (container, attempt) in keys {
            let others = inner.running.get_mut(container);
            if let Some(excused) = others.and_then(|others| others.get_mut(&(worker.clone(), *attempt))) {
                *excused = true;
            }
        }
    }

    /// How an attempt really ended.
    pub(crate) fn end_of(&self, key: Key) -> Option<Outcome> {
        self.lock().ends.get(&key).cloned()
    }

    /// How many attempts of each container were really started.
    pub(crate) fn attempts_started(&self) -> BTreeMap<ContainerId, u32> {
        let mut started = BTreeMap::new();
        for (container, _) in self.lock().starts.keys() {
            *started.entry(*container).or_default() += 1;
        }
        started
    }

    /// Containers that run now.
    pub(crate) fn running(&self) -> BTreeSet<ContainerId> {
        let inner = self.lock();
        inner.running.iter().filter(|(_, attempts)| !attempts.is_empty()).map(|(id, _)| *id).collect()
    }
}

struct Process {
    launch: Launch,
    progress: Progress,
    excused: bool,
    stop: Option<Millis>,
    stopped: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    boots: u64,
    processes: BTreeMap<Key, Process>,
    worker: Option<Told>,
}

/// A machine; clones are the same.
#[derive(Clone)]
pub(crate) struct Machine {
    worker: WorkerId,
    floor: Floor,
    chance: Chance,
    record: Record,
    inner: Arc<Mutex<Inner>>,
}

impl Machine {
    pub(crate) fn new(worker: WorkerId, floor: Floor, chance: Chance, record: Record) -> Self {
        Self { worker, floor, chance, record, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new life of its worker hears of what happens from now on.
    pub(crate) fn worker_starts(&self, told: Told) {
        self.lock().worker = Some(told);
    }

    /// Its worker is dead or frozen: what runs goes on, and nobody ends it in time.
    pub(crate) fn unwatched(&self, dead: bool) {
        let mut inner = self.lock();
        if dead {
            inner.worker = None;
        }
        for process in inner.processes.values_mut() {
            process.excused = true;
        }
        let keys: Vec<Key> = inner.processes.keys().copied().collect();
        self.floor.excuse(&self.worker, &keys);
    }

    /// Power is lost: all that ran is gone. The disk knows what was started, or is `lost` with the machine.
    pub(crate) fn power_off(&self, lost: bool) {
        let mut inner = self.lock();
        inner.boots += 1;
        inner.worker = None;
        for (key, process) in &mut inner.processes {
            self.floor.on_gone(&self.worker, *key, None);
            if !matches!(process.progress, Progress::Ended(_)) {
                process.progress = Progress::Ended(Outcome::Lost);
            }
        }
        if lost {
            inner.processes.clear();
        }
    }

    /// What it holds and nobody has acknowledged the end of.
    pub(crate) fn held(&self) -> Vec<Key> {
        self.lock().processes.keys().copied().collect()
    }

    fn tell(&self, inner: &mut Inner, key: Key, happened: Happened) {
        self.record.note(format!("{}: {}#{} {happened:?}", self.worker, key.0, key.1.number));
        if let Some(worker) = &inner.worker {
            // It may have ended.
            let _ = worker.send((key.0, key.1, happened));
        }
    }

    /// The life of one process.
    async fn process(self, key: Key, boot: u64, stopped: Arc<Notify>) {
        sleep(self.chance.millis(0..20)).await;
        let span = {
            let mut inner = self.lock();
            if inner.boots != boot {
                return;
            }
            let Some(process) = inner.processes.get_mut(&key) else { return };
            process.progress = Progress::Running;
            let (excused, span) = (process.excused, span_of(&process.launch));
            self.floor.on_start(&self.worker, key, excused);
            self.tell(&mut inner, key, Happened::Running);
            span
        };
        tokio::select! {
            biased;
            () = stopped.notified() => {
                let grace = self.lock().processes.get(&key).and_then(|process| process.stop).unwrap_or_default();
                sleep(self.chance.millis(0..grace.0.min(500) + KILL_MILLIS_MAX)).await;
            }
            () = sleep(span) => {}
        }
        let mut inner = self.lock();
        if inner.boots != boot {
            return;
        }
        let Some(process) = inner.processes.get_mut(&key) else {
            // Forgotten while it was being killed.
            self.floor.on_gone(&self.worker, key, None);
            return;
        };
        let outcome = match process.stop {
            Some(_) => Outcome::Stopped { by: StopCause::Client },
            None => Outcome::Exited { code: code_of(&process.launch), signal: None },
        };
        process.progress = Progress::Ended(outcome.clone());
        self.floor.on_gone(&self.worker, key, Some(&outcome));
        self.tell(&mut inner, key, Happened::Ended(outcome));
    }
}

fn span_of(launch: &Launch) -> Duration {
    Duration::from_millis(launch.spec.args[0].parse().expect("the scenario wrote a number"))
}

fn code_of(launch: &Launch) -> i32 {
    launch.spec.args[1].parse().expect("the scenario wrote a number")
}

impl Runtime for Machine {
    fn adopt(&self) -> io::Result<Vec<Left>> {
        let inner = self.lock();
        let left = inner.processes.values();
        Ok(left.map(|process| Left { launch: process.launch.clone(), progress: process.progress.clone() }).collect())
    }

    fn start(&self, launch: Launch) {
        let key = (launch.container, launch.attempt);
        let mut inner = self.lock();
        if inner.processes.contains_key(&key) {
            return;
        }
        let stopped = Arc::new(Notify::new());
        let process =
            Process { launch, progress: Progress::Accepted, excused: false, stop: None, stopped: Arc::clone(&stopped) };
        inner.processes.insert(key, process);
        tokio::spawn(self.clone().process(key, inner.boots, stopped));
    }

    fn stop(&self, container: ContainerId, attempt: Attempt, grace: Millis) -> bool {
        let mut inner = self.lock();
        let Some(process) = inner.processes.get_mut(&(container, attempt)) else { return false };
        if matches!(process.progress, Progress::Ended(_)) {
            return false;
        }
        process.stop = Some(process.stop.map_or(grace, |before| before.min(grace)));
        process.stopped.notify_one();
        true
    }

    fn forget(&self, container: ContainerId, attempt: Attempt) {
        self.lock().processes.remove(&(container, attempt));
    }

    fn output(&self, _: ContainerId, _: u32, _: bool, _: u64, _: usize) -> io::Result<Output> {
        Ok(Output::default())
    }

    fn ended(&self, container: ContainerId, attempt: u32) -> bool {
        let inner = self.lock();
        let mut processes = inner.processes.iter();
        !processes.any(|((id, of), process)| {
            *id == container && of.number == attempt && !matches!(process.progress, Progress::Ended(_))
        })
    }
}
