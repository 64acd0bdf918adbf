//! Cordon, uncordon, drain.

use volley_model::{Millis, StopCause, WorkerId, WorkerStatus};

use crate::effects::Effects;
use crate::ledger::Ledger;
use crate::{EventKind, NotFound, Schedulable, SetSchedulable};

impl Ledger {
    pub(crate) fn set_schedulable(&mut self, op: &SetSchedulable, out: &mut Effects) -> Result<(), NotFound> {
        let now = self.counters.now;
        let not_found = || NotFound { what: format!("worker {}", op.worker) };
        let entry = self.workers.get_mut(&op.worker).ok_or_else(not_found)?;
        let (admin, drain_until) = match op.to {
            Schedulable::Open => (WorkerStatus::Ready, None),
            Schedulable::Cordoned => (WorkerStatus::Cordoned, None),
            Schedulable::Drain { deadline } => (WorkerStatus::Draining, deadline.map(|d| now.after(d))),
        };
        // A drain that is sent again must not move its own deadline away.
        let drain_until = match (entry.drain_until, drain_until) {
            (Some(before), Some(until)) => Some(before.min(until)),
            (_, until) => until,
        };
        if entry.admin == admin && entry.drain_until == drain_until {
            return Ok(());
        }
        if let Some(until) = entry.drain_until.take() {
            self.drains.remove(&(until, op.worker.clone()));
        }
        let changed = entry.admin != admin;
        entry.admin = admin;
        entry.drain_until = drain_until;
        if changed {
            entry.revision = entry.revision.next();
        }
        let status = entry.status();
        if let Some(until) = drain_until {
            self.drains.insert((until, op.worker.clone()));
            out.due_at(until);
        }
        if admin == WorkerStatus::Ready {
            self.grow_worker(&op.worker);
        } else {
            self.touch_worker(&op.worker);
        }
        out.workers.insert(op.worker.clone());
        if changed {
            out.event(&mut self.counters, EventKind::Worker { worker: op.worker.clone(), status });
        }
        Ok(())
    }

    /// A drain's deadline passed: what still runs is asked to stop.
    pub(crate) fn end_drain(&mut self, id: &WorkerId, out: &mut Effects) {
        let Some(entry) = self.workers.get(id) else { return };
        for container in entry.attempts.clone() {
            let grace: Millis = self.live[&container].spec.stop_grace;
            self.ask_stop(container, StopCause::Drain, grace, out);
        }
    }
}
