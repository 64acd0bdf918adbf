//! Attach: a worker's stream opens; registration, inventory and epoch in one.

use std::collections::BTreeSet;
use std::sync::Arc;

use volley_model::{
    Capacity, ContainerId, DeliveryNumber, Epoch, Free, Outcome, Pool, Revision, Timestamp, Worker, WorkerId,
    WorkerStatus,
};

use crate::effects::Effects;
use crate::feed::FeedKey;
use crate::ledger::Ledger;
use crate::state::WorkerEntry;
use crate::transitions::remember_affinity;
use crate::{Attach, AttachRefusal, AttachReply, Change, EventKind, InventoryItem, StoredPhase, Verdict};

impl Ledger {
    pub(crate) fn attach(&mut self, op: Attach, out: &mut Effects) -> Result<AttachReply, AttachRefusal> {
        self.renew_session(op.session).map_err(|_| AttachRefusal::SessionEnded)?;
        let id = op.worker.id.clone();
        self.may_attach(&op)?;
        let known = self.workers.contains_key(&id);
        // The same call again, because its reply was lost.
        let repeated = self.workers.get(&id).is_some_and(|w| w.stream == Some((op.session, op.stream)));
        let forgot = self.workers.get(&id).is_some_and(|w| !names_epoch(w, &op));
        match (known, repeated) {
            (true, false) => self.register_again(&op),
            (true, true) => {}
            (false, _) => self.register(&op),
        }
        if !self.pools.contains_key(&op.worker.pool) {
            self.put_pool(Pool::with_defaults(op.worker.pool.clone()), out);
        }
        self.machine_registered(&op.worker, out);
        let entry = self.workers.get_mut(&id).expect("registered above");
        if !repeated {
            for key in &op.affinities {
                remember_affinity(entry, Some(key), self.options.affinity_keys_max);
            }
        }
        entry.stream = Some((op.session, op.stream));
        let back = entry.lost_at.take().is_some() || !known;
        if back {
            entry.idle_since = self.counters.now;
        }
        let (epoch, status) = (entry.epoch, entry.status());
        self.renew_worker(&id);
        out.workers.insert(id.clone());
        if back {
            out.event(&mut self.counters, EventKind::Worker { worker: id.clone(), status });
        }
        let inventory = self.take_inventory(&op, (repeated, forgot), out);
        self.grow_worker(&id);
        if !self.workers[&id].outbox.is_empty() {
            out.outbox.insert(id);
        }
        Ok(AttachReply { epoch, lease: self.options.worker_lease, status, inventory })
    }

    fn may_attach(&self, op: &Attach) -> Result<(), AttachRefusal> {
        if self.is_kept_for_machine(&op.worker) {
            return Err(AttachRefusal::NameInUse { worker: op.worker.id.clone() });
        }
        let superseded = Err(AttachRefusal::Superseded { worker: op.worker.id.clone() });
        let Some(entry) = self.workers.get(&op.worker.id) else {
            if op.replaces.is_some() {
                return superseded;
            }
            if self.workers.len() as u64 >= u64::from(self.options.workers_max) {
                return Err(AttachRefusal::TooManyWorkers { limit: self.options.workers_max });
            }
            return Ok(());
        };
        let repeated = entry.stream == Some((op.session, op.stream));
        if !repeated && entry.stream.map(|(_, stream)| stream) != op.replaces {
            return superseded;
        }
        let live = entry.lost_at.is_none() && entry.stream.is_some() && entry.lease_until > self.counters.now;
        let same = names_epoch(entry, op)
            || repeated
            || op.inventory.iter().any(|item| self.holds_attempt(&op.worker.id, item));
        if live && !same {
            return Err(AttachRefusal::NameInUse { worker: op.worker.id.clone() });
        }
        Ok(())
    }

    /// Whether an item of an inventory is an attempt that is bound to the worker: nobody else knows its nonce.
    fn holds_attempt(&self, worker: &WorkerId, item: &InventoryItem) -> bool {
        let bound = self.live.get(&item.container).and_then(|c| c.bound());
        bound.is_some_and(|b| b.worker == *worker && b.attempt == item.attempt)
    }

    fn register(&mut self, op: &Attach) {
        let worker = op.worker.clone();
        let entry = WorkerEntry {
            free: worker.capacity.all_free(),
            wanted: None,
            worker: Arc::new(worker),
            epoch: Epoch { number: 1, nonce: op.epoch_nonce },
            previous: None,
            revision: Revision(1),
            admin: WorkerStatus::Ready,
            lost_at: None,
            drain_until: None,
            affinities: Arc::default(),
            hold: None,
            attempts: BTreeSet::new(),
            stream: None,
            lease_until: self.counters.now,
            outbox: Default::default(),
            last_delivery: DeliveryNumber(0),
            finished: 0,
            idle_since: self.counters.now,
            failing: BTreeSet::new(),
            quarantine: None,
        };
        self.leases.insert((entry.lease_until, op.worker.id.clone()));
        self.workers.insert(op.worker.id.clone(), entry);
    }

    /// A known worker: within its lease it keeps its epoch; otherwise a new one begins.
    fn register_again(&mut self, op: &Attach) {
        let entry = self.workers.get_mut(&op.worker.id).expect("the caller has seen it");
        if op.epoch != Some(entry.epoch) || entry.lost_at.is_some() {
            // The worker may go on naming the epoch it knows until a reply reaches it, however many are begun.
            if op.epoch.is_none() || op.epoch != entry.previous {
                entry.previous = Some(entry.epoch);
            }
            entry.epoch = Epoch { number: entry.epoch.number + 1, nonce: op.epoch_nonce };
        }
        self.change_worker(&op.worker);
    }

    /// New capacity or labels. A capacity below what is reserved counts only when enough of that has ended
    /// (law 1); until then nothing new is let in.
    fn change_worker(&mut self, worker: &Worker) {
        let free = self.free_of(&worker.id, &worker.capacity);
        let entry = self.workers.get_mut(&worker.id).expect("the caller has seen it");
        let mut worker = worker.clone();
        match free {
            Some(free) => {
                entry.free = free;
                entry.wanted = None;
            }
            None => entry.wanted = Some(std::mem::replace(&mut worker.capacity, entry.worker.capacity.clone())),
        }
        if *entry.worker != worker {
            entry.worker = Arc::new(worker);
            entry.revision = entry.revision.next();
        }
    }

    /// What a worker's attempts would leave of a capacity; `None` when they exceed it.
    fn free_of(&self, id: &WorkerId, capacity: &Capacity) -> Option<Free> {
        let mut free = capacity.all_free();
        let fits = self.workers[id].attempts.iter().all(|id| {
            let container = &self.live[id];
            container.bound().is_some_and(|bound| free.reserve(&container.spec.resources, &bound.gpus))
        });
        fits.then_some(free)
    }

    /// Takes over the capacity that a worker came back with, when its attempts leave room for it.
    pub(crate) fn adopt_capacity(&mut self, id: &WorkerId, out: &mut Effects) {
        let Some(capacity) = self.workers[id].wanted.clone() else { return };
        let Some(free) = self.free_of(id, &capacity) else { return };
        let entry = self.workers.get_mut(id).expect("seen above");
        entry.free = free;
        entry.wanted = None;
        Arc::make_mut(&mut entry.worker).capacity = capacity;
        entry.revision = entry.revision.next();
        out.workers.insert(id.clone());
    }

    /// Goes through what the worker holds, then through what it should hold and does not. A repeated call says
    /// nothing about what the worker took over since. One that `forgot` its epoch may have forgotten what it started.
    fn take_inventory(&mut self, op: &Attach, (repeated, forgot): (bool, bool), out: &mut Effects) -> Vec<Verdict> {
        let id = &op.worker.id;
        let epoch = self.workers[id].epoch;
        let mut named = BTreeSet::new();
        let mut verdicts = Vec::with_capacity(op.inventory.len());
        for item in &op.inventory {
            if !self.holds_attempt(id, item) {
                verdicts.push(Verdict::Kill);
                continue;
            }
            self.rebind(item.container, epoch, out);
            named.insert(item.container);
            self.progress(item.container, &item.progress, out);
            verdicts.push(Verdict::Keep);
        }
        if repeated {
            return verdicts;
        }
        let missing: Vec<_> = self.workers[id].attempts.iter().filter(|id| !named.contains(id)).copied().collect();
        for container in missing {
            let (phase, stopping) = self.rebind(container, epoch, out);
            // What was never accepted is handed out again. What is to stop needs no start: it ends here.
            if phase != StoredPhase::Assigned || stopping || forgot {
                self.end_attempt(container, Outcome::Lost, out);
            }
        }
        verdicts
    }

    /// An attempt goes over to its worker's present epoch. Its reservation stays.
    fn rebind(&mut self, id: ContainerId, epoch: Epoch, out: &mut Effects) -> (StoredPhase, bool) {
        let bound = self.live.get_mut(&id).and_then(|c| c.bound_mut()).expect("law 8: an attempt is bound");
        if bound.epoch != epoch {
            bound.epoch = epoch;
            out.live.insert(id);
        }
        (bound.phase, bound.stop.is_some())
    }

    /// Renews a worker's lease.
    pub(crate) fn renew_worker(&mut self, id: &WorkerId) {
        self.set_lease(id, self.counters.now.after(self.options.worker_lease));
    }

    /// When a sweep looks at a worker next: its lease, or for a lost one the end of its listing.
    pub(crate) fn set_lease(&mut self, id: &WorkerId, until: Timestamp) {
        let entry = self.workers.get_mut(id).expect("the caller has seen it");
        if until != entry.lease_until {
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
        // No growth, but what only it could serve is to be looked at again: some of it may have to fail now.
        self.growth = self.touch(FeedKey::Worker(id.clone()), true);
        out.workers.remove(id);
        out.change(Change::RemoveWorker(id.clone()));
        out.event(&mut self.counters, EventKind::Worker { worker: id.clone(), status: WorkerStatus::Gone });
    }
}

/// Whether a worker says an epoch that it was given: the present one, or the one before when no reply has reached it.
fn names_epoch(entry: &WorkerEntry, op: &Attach) -> bool {
    op.epoch.is_some() && (op.epoch == Some(entry.epoch) || op.epoch == entry.previous)
}
