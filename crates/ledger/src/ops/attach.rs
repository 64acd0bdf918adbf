//! Attach: a worker's stream opens; registration, inventory and epoch in one.

use std::collections::BTreeSet;
use std::sync::Arc;

use volley_model::{DeliveryNumber, Epoch, Free, Outcome, Pool, Revision, Worker, WorkerId, WorkerStatus};

use crate::effects::Effects;
use crate::feed::FeedKey;
use crate::ledger::Ledger;
use crate::state::WorkerEntry;
use crate::{Attach, AttachRefusal, AttachReply, Change, EventKind, StoredPhase, Verdict};

impl Ledger {
    pub(crate) fn attach(&mut self, op: Attach, out: &mut Effects) -> Result<AttachReply, AttachRefusal> {
        self.renew_session(op.session).map_err(|_| AttachRefusal::SessionEnded)?;
        let id = op.worker.id.clone();
        self.may_attach(&op)?;
        let known = self.workers.contains_key(&id);
        let pool = op.worker.pool.clone();
        if known {
            self.register_again(&op, out);
        } else {
            self.register(&op);
        }
        if !self.pools.contains_key(&pool) {
            self.apply_pool(Pool::with_defaults(pool), out);
        }
        self.renew_worker(&id);
        let entry = self.workers.get_mut(&id).expect("registered above");
        entry.stream = Some((op.session, op.stream));
        let back = std::mem::take(&mut entry.lost) || !known;
        let (epoch, status) = (entry.epoch, entry.status());
        out.workers.insert(id.clone());
        if back {
            out.event(&mut self.counters, EventKind::Worker { worker: id.clone(), status });
        }
        let inventory = self.take_inventory(&op, out);
        self.grow_worker(&id);
        if !self.workers[&id].outbox.is_empty() {
            out.outbox.insert(id);
        }
        Ok(AttachReply { epoch, lease: self.options.worker_lease, status, inventory })
    }

    fn may_attach(&self, op: &Attach) -> Result<(), AttachRefusal> {
        let Some(entry) = self.workers.get(&op.worker.id) else {
            if self.workers.len() as u64 >= u64::from(self.options.workers_max) {
                return Err(AttachRefusal::TooManyWorkers { limit: self.options.workers_max });
            }
            return Ok(());
        };
        let same = op.epoch.is_some() && (op.epoch == Some(entry.epoch) || op.epoch == entry.previous);
        let live = !entry.lost && entry.stream.is_some() && entry.lease_until > self.counters.now;
        if live && !same {
            return Err(AttachRefusal::NameInUse { worker: op.worker.id.clone() });
        }
        Ok(())
    }

    fn register(&mut self, op: &Attach) {
        let worker = op.worker.clone();
        let entry = WorkerEntry {
            free: worker.capacity.all_free(),
            worker: Arc::new(worker),
            epoch: Epoch { number: 1, nonce: op.epoch_nonce },
            previous: None,
            revision: Revision(1),
            admin: WorkerStatus::Ready,
            lost: false,
            drain_until: None,
            affinities: Arc::default(),
            hold: None,
            attempts: BTreeSet::new(),
            stream: None,
            lease_until: self.counters.now,
            outbox: Default::default(),
            last_delivery: DeliveryNumber(0),
            finished: 0,
        };
        self.leases.insert((entry.lease_until, op.worker.id.clone()));
        self.workers.insert(op.worker.id.clone(), entry);
    }

    /// A known worker: within its lease it keeps its epoch; otherwise a new one begins.
    fn register_again(&mut self, op: &Attach, out: &mut Effects) {
        let entry = self.workers.get_mut(&op.worker.id).expect("the caller has seen it");
        if op.epoch != Some(entry.epoch) || entry.lost {
            entry.previous = Some(entry.epoch);
            entry.epoch = Epoch { number: entry.epoch.number + 1, nonce: op.epoch_nonce };
        }
        if *entry.worker != op.worker {
            self.change_worker(&op.worker);
            out.workers.insert(op.worker.id.clone());
        }
    }

    /// New capacity or labels. Capacity below what is reserved is taken over only when that has ended:
    /// until then the old one counts (law 1).
    fn change_worker(&mut self, worker: &Worker) {
        let entry = self.workers.get_mut(&worker.id).expect("the caller has seen it");
        let mut free: Free = worker.capacity.all_free();
        let fits = entry.attempts.iter().all(|id| {
            let container = &self.live[id];
            container.bound().is_some_and(|bound| free.reserve(&container.spec.resources, &bound.gpus))
        });
        let mut worker = worker.clone();
        if fits {
            entry.free = free;
        } else {
            worker.capacity = entry.worker.capacity.clone();
        }
        entry.worker = Arc::new(worker);
        entry.revision = entry.revision.next();
    }

    /// Goes through what the worker holds, then through what it should hold and does not.
    fn take_inventory(&mut self, op: &Attach, out: &mut Effects) -> Vec<Verdict> {
        let id = &op.worker.id;
        let epoch = self.workers[id].epoch;
        let mut named = BTreeSet::new();
        let mut verdicts = Vec::with_capacity(op.inventory.len());
        for item in &op.inventory {
            let bound = self.live.get_mut(&item.container).and_then(|c| c.bound_mut());
            let Some(bound) = bound.filter(|b| b.worker == *id && b.attempt == item.attempt) else {
                verdicts.push(Verdict::Kill);
                continue;
            };
            bound.epoch = epoch;
            named.insert(item.container);
            out.live.insert(item.container);
            self.progress(item.container, &item.progress, out);
            verdicts.push(Verdict::Keep);
        }
        let missing: Vec<_> = self.workers[id].attempts.iter().filter(|id| !named.contains(id)).copied().collect();
        for container in missing {
            let bound = self.live.get_mut(&container).and_then(|c| c.bound_mut()).expect("law 8: an attempt is bound");
            bound.epoch = epoch;
            out.live.insert(container);
            if bound.phase != StoredPhase::Assigned {
                self.end_attempt(container, Outcome::Lost, out);
            }
        }
        verdicts
    }

    /// Renews a worker's lease.
    pub(crate) fn renew_worker(&mut self, id: &WorkerId) {
        let until = self.counters.now.after(self.options.worker_lease);
        let entry = self.workers.get_mut(id).expect("the caller has seen it");
        if until > entry.lease_until {
            self.leases.remove(&(entry.lease_until, id.clone()));
            entry.lease_until = until;
            self.leases.insert((until, id.clone()));
        }
    }

    /// Forgets a worker that holds nothing.
    pub(crate) fn remove_worker(&mut self, id: &WorkerId, out: &mut Effects) {
        let entry = self.workers.remove(id).expect("the caller has seen it");
        assert!(entry.attempts.is_empty(), "law 8: {id} goes only when nothing is bound to it");
        self.leases.remove(&(entry.lease_until, id.clone()));
        if let Some(until) = entry.drain_until {
            self.drains.remove(&(until, id.clone()));
        }
        if let Some(hold) = entry.hold {
            self.holds.remove(&(hold.until, id.clone()));
        }
        self.touch(FeedKey::Worker(id.clone()), true);
        out.workers.remove(id);
        out.change(Change::RemoveWorker(id.clone()));
        out.event(&mut self.counters, EventKind::Worker { worker: id.clone(), status: WorkerStatus::Gone });
    }
}
