//! Simulated workers in the server's process: they say of each container at once that it runs,
//! and keep it. The other end of control's deliveries; no processes, no network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::watch;
use volley_control::{AnsweredReport, Control, ControlError, Delivery};
use volley_ledger::{Order, Progress, Taken, WorkerMessage};
use volley_model::{ContainerId, Epoch, Nonce, Worker, WorkerId};

/// As [`AnsweredReport::progress`] numbers them.
const RUNNING: u32 = 2;

/// All of them.
pub(super) struct SimulatedWorkers {
    control: OnceLock<Weak<Control>>,
    /// Stream and epoch of each.
    attached: Mutex<BTreeMap<WorkerId, (Nonce, Epoch)>>,
    /// Where each container runs, as far as the store has it.
    running: watch::Sender<BTreeMap<ContainerId, WorkerId>>,
}

impl SimulatedWorkers {
    pub(super) fn new() -> Self {
        Self { control: OnceLock::new(), attached: Mutex::default(), running: watch::Sender::default() }
    }

    pub(super) fn running(&self) -> watch::Receiver<BTreeMap<ContainerId, WorkerId>> {
        self.running.subscribe()
    }

    fn attached(&self) -> MutexGuard<'_, BTreeMap<WorkerId, (Nonce, Epoch)>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn attach(&self, control: &Arc<Control>, workers: Vec<Worker>) -> Result<(), ControlError> {
        let set = self.control.set(Arc::downgrade(control));
        assert!(set.is_ok(), "workers are attached once");
        for (worker, number) in workers.into_iter().zip(1..) {
            let (id, stream) = (worker.id.clone(), Nonce(number));
            let attached = control.attach(worker, stream, None, (Vec::new(), Vec::new())).await?;
            self.attached().insert(id.clone(), (stream, attached.epoch));
            control.stream_ready(&id, stream);
        }
        Ok(())
    }
}

impl Delivery for SimulatedWorkers {
    fn deliver(&self, taken: Vec<Taken>) {
        let Some(control) = self.control.get().and_then(Weak::upgrade) else { return };
        let mut messages = Vec::new();
        for taken in taken {
            let Some((stream, epoch)) = self.attached().get(&taken.worker).copied() else { continue };
            for delivery in taken.deliveries {
                let Order::Start { container, attempt, .. } = delivery.order else { continue };
                let (worker, progress) = (taken.worker.clone(), Progress::Running);
                messages.push((stream, WorkerMessage { worker, epoch, container, attempt, progress }));
            }
        }
        tokio::spawn(async move {
            for (stream, message) in messages {
                control.report(stream, message).await;
            }
        });
    }

    fn answer(&self, worker: &WorkerId, _stream: Nonce, verdicts: Vec<AnsweredReport>) {
        let kept = verdicts.into_iter().filter(|verdict| verdict.keep && verdict.progress == RUNNING);
        self.running.send_modify(|running| running.extend(kept.map(|verdict| (verdict.container, worker.clone()))));
    }

    fn heartbeat(&self, _worker: &WorkerId, _stream: Nonce, _number: u64, _renewed: bool) {}

    fn close(&self, _worker: &WorkerId, _stream: Nonce) {}
}
