//! Cordon, uncordon, drain.

use volley_model::{Millis, Outcome, SpecHash, Stage, StopCause, WorkerId, WorkerStatus};

use crate::effects::Effects;
use crate::ledger::Ledger;
use crate::{EventKind, NotFound, Schedulable, SetSchedulable};

impl Ledger {
    pub(crate) fn set_schedulable(&mut self, op: &SetSchedulable, out: &mut Effects) -> Result<(), NotFound> {
        let now = self.counters.now;
        let not_found = || NotFound { what: format!("worker {}", op.worker) };
        let given_up = self.machines.get(&op.worker).map(|record| record.stage);
        if let Some(Stage::Draining { .. } | Stage::Destroying { .. }) = given_up
            && !matches!(op.to, Schedulable::Drain { .. })
        {
            return Err(NotFound { what: format!("worker {} that stays: its machine is given up", op.worker) });
        }
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
        if admin == WorkerStatus::Ready {
            entry.quarantine = None;
            entry.failing.clear();
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

    /// Counts the specs that a worker could not run, since it last ran one. One that fails several is cordoned, with
    /// the reason, until its owner opens it: what is wrong is the worker and not the specs. Exit codes are the
    /// containers' own.
    pub(crate) fn judge_worker(&mut self, id: &WorkerId, spec: SpecHash, outcome: &Outcome, out: &mut Effects) {
        let limit = self.options.failing_specs_max;
        let entry = self.workers.get_mut(id).expect("law 8: a bound container's worker is known");
        let reason = match outcome {
            Outcome::Exited { .. } => {
                if !entry.failing.is_empty() {
                    entry.failing.clear();
                    out.workers.insert(id.clone());
                }
                return;
            }
            Outcome::Failed { reason } => reason,
            _ => return,
        };
        if entry.admin != WorkerStatus::Ready {
            return;
        }
        entry.failing.insert(spec);
        out.workers.insert(id.clone());
        if entry.failing.len() < limit {
            return;
        }
        entry.failing.clear();
        let last: String = reason.chars().take(QUARANTINE_CHARS_MAX).collect();
        entry.quarantine = Some(format!("it could not run {limit} different specs in a row; the last: {last}"));
        entry.admin = WorkerStatus::Cordoned;
        entry.revision = entry.revision.next();
        let status = entry.status();
        self.touch_worker(id);
        out.event(&mut self.counters, EventKind::Worker { worker: id.clone(), status });
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

/// Longest cause of a quarantine that is kept, in characters.
const QUARANTINE_CHARS_MAX: usize = 300;
