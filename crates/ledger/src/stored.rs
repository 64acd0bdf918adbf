//! Conversions from the records in memory to those on disk.

use volley_model::ContainerId;

use crate::ledger::Ledger;
use crate::state::{Bound, Group, State, WorkerEntry};
use crate::{StoredAttempt, StoredGroup, StoredLive, StoredProgress, StoredWorker};

impl Group {
    pub(crate) fn stored(&self) -> StoredGroup {
        StoredGroup {
            id: self.id,
            arrival: self.arrival,
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            labels: self.labels.clone(),
            runs: self.runs.iter().map(|run| (run.spec_hash, run.count)).collect(),
            submitted_at: self.submitted_at,
            materialised: self.runs.iter().map(|run| run.mark - run.start).collect(),
            finished: self.finished,
            succeeded: self.succeeded,
            pruned: self.pruned,
        }
    }

    pub(crate) fn progress(&self) -> StoredProgress {
        StoredProgress { group: self.id, finished: self.finished, succeeded: self.succeeded, pruned: self.pruned }
    }
}

impl Bound {
    fn stored(&self) -> StoredAttempt {
        StoredAttempt {
            attempt: self.attempt,
            worker: self.worker.clone(),
            epoch: self.epoch,
            gpus: self.gpus.clone(),
            phase: self.phase,
            assigned_at: self.assigned_at,
            started_at: self.started_at,
            stop: self.stop.clone(),
        }
    }
}

impl WorkerEntry {
    pub(crate) fn stored(&self) -> StoredWorker {
        StoredWorker {
            worker: (*self.worker).clone(),
            epoch: self.epoch,
            revision: self.revision,
            status: self.admin,
            drain_until: self.drain_until,
            finished: self.finished,
        }
    }
}

impl Ledger {
    /// A live container's record. Claims are not kept: a claimed one is queued on disk.
    pub(crate) fn stored_live(&self, id: ContainerId) -> StoredLive {
        let container = &self.live[&id];
        let (ready_at, attempt) = match &container.state {
            State::Queued { ready_at } | State::Claimed { ready_at, .. } => (*ready_at, None),
            State::Bound(bound) => (bound.assigned_at, Some(bound.stored())),
        };
        StoredLive { id, attempts: container.attempts, ready_at, attempt }
    }
}
