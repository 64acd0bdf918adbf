//! Conversions from the records in memory to those on disk.

use std::sync::Arc;

use volley_model::ContainerId;

use crate::ledger::Ledger;
use crate::state::{Bound, Group, State, WorkerEntry};
use crate::{Stored, StoredAttempt, StoredGroup, StoredLive, StoredProgress, StoredWorker};

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
            quarantine: self.quarantine.clone(),
            failing: self.failing.iter().copied().collect(),
        }
    }
}

impl Ledger {
    /// All that is durable: what a store holds that wrote every change set, in order of id (finished ones: of
    /// finishing). [`Ledger::restore`] of it gives this ledger less what is volatile.
    #[must_use]
    pub fn stored(&self) -> Stored {
        let below_mark = |id: &&ContainerId| {
            let group = &self.groups[&id.group];
            group.run_of(id.index).is_some_and(|run| id.index < group.runs[run].mark)
        };
        Stored {
            counters: self.counters,
            specs: self.specs.iter().map(|(hash, (spec, _))| (*hash, Arc::clone(spec))).collect(),
            groups: self.groups.values().map(Group::stored).collect(),
            live: self.live.keys().filter(below_mark).map(|id| self.stored_live(*id)).collect(),
            finished: self.finished.iter().copied().collect(),
            keys: self.keys.values().cloned().collect(),
            workers: self.workers.values().map(WorkerEntry::stored).collect(),
            pools: self.pools.values().cloned().collect(),
            tenants: self.tenants.values().filter_map(|entry| entry.limits.clone()).collect(),
            tokens: self.tokens.values().cloned().collect(),
            machines: self.machines.values().cloned().collect(),
            standings: self.standings.values().cloned().collect(),
            events_floor: self.events_floor,
        }
    }

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
