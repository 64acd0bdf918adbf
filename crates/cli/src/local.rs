//! Server and workers in one process: workers whose streams are function calls. The same
//! ledger, store, planner and process runtime as with a network between them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use volley_agent::{Happened, Launch, ProcessOptions, ProcessRuntime};
use volley_api::Logs;
use volley_control::{AnsweredReport, Control, ControlError, Delivery};
use volley_ledger::{Order, Progress, Taken, WorkerMessage};
use volley_model::{Attempt, ContainerId, Epoch, Millis, Nonce, Outcome, StopCause, Worker, WorkerId};

/// A report without a verdict is sent again after this long.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// Well within the default lease of 60 s.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

type Key = (ContainerId, Attempt);

/// A worker in this process.
struct LocalWorker {
    id: WorkerId,
    epoch: Epoch,
    stream: Nonce,
    runtime: ProcessRuntime,
    /// What it said of its attempts that has no verdict yet, in order.
    unanswered: Mutex<BTreeMap<Key, Vec<Progress>>>,
}

impl LocalWorker {
    fn unanswered(&self) -> MutexGuard<'_, BTreeMap<Key, Vec<Progress>>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message(&self, (container, attempt): Key, progress: Progress) -> WorkerMessage {
        WorkerMessage { worker: self.id.clone(), epoch: self.epoch, container, attempt, progress }
    }
}

/// All workers of this process: the other end of control's deliveries.
#[derive(Default)]
pub struct LocalWorkers {
    workers: Mutex<BTreeMap<WorkerId, Arc<LocalWorker>>>,
    control: OnceLock<Weak<Control>>,
}

impl LocalWorkers {
    /// Where reports go. Called once, before the first worker is attached.
    pub fn connect(&self, control: &Arc<Control>) {
        let set = self.control.set(Arc::downgrade(control));
        assert!(set.is_ok(), "a fleet is connected once");
    }

    fn control(&self) -> Option<Arc<Control>> {
        self.control.get()?.upgrade()
    }

    fn worker(&self, id: &WorkerId, stream: Nonce) -> Option<Arc<LocalWorker>> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.get(id).filter(|worker| worker.stream == stream).cloned()
    }

    /// Registers a worker; its containers live under `state`.
    pub async fn attach(self: &Arc<Self>, worker: Worker, stream: Nonce, state: &Path) -> Result<(), ControlError> {
        let Some(control) = self.control() else { return Ok(()) };
        let id = worker.id.clone();
        let attached = control.attach(worker, stream, None, Vec::new()).await?;
        let (sender, happened) = mpsc::unbounded_channel();
        let options = ProcessOptions { worker: id.clone(), state_dir: state.join(id.as_str()) };
        let local = Arc::new(LocalWorker {
            id: id.clone(),
            epoch: attached.epoch,
            stream,
            runtime: ProcessRuntime::new(options, sender),
            unanswered: Mutex::default(),
        });
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Arc::clone(&local));
        tokio::spawn(report_loop(Arc::clone(&control), local, happened));
        control.stream_ready(&id, stream);
        Ok(())
    }
}

impl Logs for LocalWorkers {
    fn output(&self, worker: &WorkerId, container: ContainerId, attempt: u32) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.get(worker).map_or(Ok((Vec::new(), Vec::new())), |local| local.runtime.output(container, attempt))
    }
}

async fn report_loop(
    control: Arc<Control>,
    worker: Arc<LocalWorker>,
    mut happened: mpsc::UnboundedReceiver<(ContainerId, Attempt, Happened)>,
) {
    let mut repeat = tokio::time::interval(REPEAT_AFTER);
    let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
    let mut number = 0;
    loop {
        tokio::select! {
            told = happened.recv() => {
                let Some((container, attempt, what)) = told else { return };
                let progress = match what {
                    Happened::Running => Progress::Running,
                    Happened::Ended(outcome) => Progress::Ended(outcome),
                };
                send(&control, &worker, (container, attempt), progress).await;
            }
            _ = repeat.tick() => {
                let again: Vec<_> = worker.unanswered().iter().map(|(key, said)| (*key, said.clone())).collect();
                for (key, said) in again {
                    for progress in said {
                        control.report(worker.stream, worker.message(key, progress)).await;
                    }
                }
            }
            _ = heartbeat.tick() => {
                number += 1;
                control.heartbeat(&worker.id, worker.stream, number);
            }
        }
    }
}

async fn send(control: &Control, worker: &LocalWorker, key: Key, progress: Progress) {
    worker.unanswered().entry(key).or_default().push(progress.clone());
    control.report(worker.stream, worker.message(key, progress)).await;
}

/// As [`AnsweredReport::progress`] numbers them.
fn rank(progress: &Progress) -> u32 {
    match progress {
        Progress::Accepted => 1,
        Progress::Running => 2,
        Progress::Ended(_) => 3,
    }
}

impl Delivery for LocalWorkers {
    fn deliver(&self, taken: Vec<Taken>) {
        let Some(control) = self.control() else { return };
        for taken in taken {
            let Some(worker) = self.worker(&taken.worker, taken.stream) else { continue };
            let control = Arc::clone(&control);
            tokio::spawn(async move {
                for delivery in taken.deliveries {
                    on_order(&control, &worker, delivery.order).await;
                }
            });
        }
    }

    fn answer(&self, worker: &WorkerId, stream: Nonce, verdicts: Vec<AnsweredReport>) {
        let Some(worker) = self.worker(worker, stream) else { return };
        for verdict in verdicts {
            let key = (verdict.container, verdict.attempt);
            let mut unanswered = worker.unanswered();
            if let Some(said) = unanswered.get_mut(&key) {
                said.retain(|progress| rank(progress) > verdict.progress && verdict.keep);
                if said.is_empty() {
                    unanswered.remove(&key);
                }
            }
            drop(unanswered);
            if !verdict.keep && worker.runtime.stop(verdict.container, verdict.attempt, Millis(0)) {
                tracing::warn!(container = %verdict.container, "an attempt was taken back and is killed");
            }
        }
    }

    fn heartbeat(&self, worker: &WorkerId, _stream: Nonce, _number: u64, renewed: bool) {
        if !renewed {
            tracing::warn!(%worker, "a heartbeat was refused");
        }
    }

    fn close(&self, worker: &WorkerId, stream: Nonce) {
        if self.worker(worker, stream).is_some() {
            self.workers.lock().unwrap_or_else(PoisonError::into_inner).remove(worker);
        }
    }
}

async fn on_order(control: &Control, worker: &LocalWorker, order: Order) {
    match order {
        Order::Start { container, attempt, spec, .. } => {
            send(control, worker, (container, attempt), Progress::Accepted).await;
            worker.runtime.start(Launch { container, attempt, spec, gpus: Vec::new() });
        }
        Order::Stop { container, attempt, grace } => {
            if !worker.runtime.stop(container, attempt, grace) {
                // It never came here, or it has ended: then its end was said before, and counts.
                let outcome = Outcome::Stopped { by: StopCause::Client };
                send(control, worker, (container, attempt), Progress::Ended(outcome)).await;
            }
        }
    }
}
