//! The fleet view: an in-memory picture of workers, pools and blocked shapes, kept fresh by
//! the change feed. A change costs what the changed worker costs, never the fleet. It holds
//! what the store said and indexes over it; it decides nothing, and knows nothing of turns.
//!
//! Three indexes make a plan cheap (`index`): **classes** of alike workers (same pool, labels
//! and capacity), so that feasibility is asked once per shape and class; **lanes**, the ready
//! workers of a pool that have the same GPUs and belong to the same server's part, in order of
//! how full they are; and workers by **affinity** key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use volley_model::{
    BlockedShape, FleetChanges, FleetVersion, Placement, Pool, Resources, Score, SessionId, ShapeHash, WorkerId,
    WorkerStatus, WorkerView,
};

mod index;

pub(crate) use index::{Index, LaneEntry, PoolEntry};

use crate::part::Parts;

/// A server's picture of the fleet.
#[derive(Debug, Clone, Default)]
pub struct FleetView {
    version: FleetVersion,
    /// Changes up to `version` are all known: the last reply had no `more`.
    complete: bool,
    /// When capacity last grew, as far as seen: a mark that is not older need not be looked at again.
    growth: FleetVersion,
    parts: Parts,
    index: Index,
    blocked: BTreeMap<ShapeHash, BlockedShape>,
    blocked_order: BTreeSet<(Score, ShapeHash)>,
}

impl FleetView {
    /// An empty view at version 0: the first claim loads it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The version up to which it is fresh.
    #[must_use]
    pub fn version(&self) -> FleetVersion {
        self.version
    }

    /// Whether everything up to [`FleetView::version`] was loaded (the last changes had no `more`).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Says who shares the fleet, so that `plan` finds this server's part by index. Cheap while nothing changes;
    /// when it does, all workers are indexed anew. `plan` is right without it, only slower.
    pub fn set_sessions(&mut self, session: SessionId, sessions: &[SessionId]) {
        if !self.has_parts_of(session, sessions) {
            self.parts = Parts::new(session, sessions);
            self.index = self.index.rebuilt(&self.parts);
        }
    }

    /// Applies changes from the feed.
    pub fn apply(&mut self, changes: &FleetChanges) {
        let mut grew = changes.reload;
        if changes.reload {
            *self = Self { parts: self.parts.clone(), ..Self::default() };
        }
        for pool in &changes.pools {
            grew |= self.index.put_pool(pool);
        }
        for name in &changes.pools_gone {
            self.index.remove_pool(name);
        }
        for id in &changes.workers_gone {
            self.index.remove_worker(id);
        }
        for worker in &changes.workers {
            grew |= self.index.put_worker(worker, &self.parts);
        }
        for shape in &changes.unblocked {
            self.unblock(*shape);
        }
        for shape in &changes.blocked {
            self.unblock(shape.hash);
            self.blocked_order.insert((shape.best, shape.hash));
            self.blocked.insert(shape.hash, shape.clone());
        }
        self.version = changes.version;
        self.complete = !changes.more;
        if grew {
            self.growth = self.growth.max(changes.version);
        }
        if self.index.is_littered() {
            self.index = self.index.rebuilt(&self.parts);
        }
    }

    /// Sets one worker's fresh numbers, as a refusal brings them. Call it after [`FleetView::reserve_committed`] for
    /// the same reply: these numbers have all its placements in them.
    pub fn put_worker(&mut self, worker: &WorkerView) {
        if self.index.put_worker(worker, &self.parts) {
            // Newer than the version: a mark made at it may be too old.
            self.growth = self.growth.max(self.version.next());
        }
    }

    /// Books a placement that the commit accepted, until the feed brings the same. Does nothing when it
    /// no longer fits or the epoch differs: the feed is newer.
    pub fn reserve_committed(&mut self, placement: &Placement, resources: &Resources) {
        self.index.reserve(&placement.worker, placement.epoch, resources, &placement.gpus);
    }

    /// A worker as the view knows it.
    #[must_use]
    pub fn worker(&self, id: &WorkerId) -> Option<&WorkerView> {
        self.index.worker(id).map(|entry| &entry.view)
    }

    /// All workers by name, put in order for this call.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerView> {
        let mut workers: Vec<&WorkerView> = self.index.workers().map(|entry| &entry.view).collect();
        workers.sort_unstable_by(|a, b| a.worker.id.cmp(&b.worker.id));
        workers.into_iter()
    }

    /// How many workers are known, of whatever status.
    #[must_use]
    pub fn workers_count(&self) -> usize {
        self.index.workers_count()
    }

    /// Configured pools by name. Workers of a pool that nobody configured follow [`Pool::with_defaults`].
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        let mut pools: Vec<&Pool> = self.index.pools.iter().filter(|p| p.configured).map(|p| &p.pool).collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        pools.into_iter()
    }

    /// Blocked shapes, the best score first.
    pub fn blocked(&self) -> impl Iterator<Item = &BlockedShape> {
        self.blocked_order.iter().map(|(_, hash)| &self.blocked[hash])
    }

    /// A blocked shape.
    #[must_use]
    pub fn blocked_shape(&self, hash: ShapeHash) -> Option<&BlockedShape> {
        self.blocked.get(&hash)
    }

    /// Of the best `looks` blocked shapes those with a better score than `score` whose marks are older than the last
    /// growth, best first.
    pub(crate) fn blocked_before(&self, score: Score, looks: usize) -> impl Iterator<Item = &BlockedShape> {
        let better = self.blocked_order.range(..(score, ShapeHash(0))).map(|(_, hash)| &self.blocked[hash]);
        better.take(looks).filter(|shape| shape.at < self.growth)
    }

    pub(crate) fn has_parts_of(&self, session: SessionId, sessions: &[SessionId]) -> bool {
        self.parts.are_of(session, sessions)
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    fn unblock(&mut self, hash: ShapeHash) {
        if let Some(old) = self.blocked.remove(&hash) {
            self.blocked_order.remove(&(old.best, hash));
        }
    }
}

/// Whether containers may be placed on it.
fn is_ready(view: &WorkerView) -> bool {
    view.status == WorkerStatus::Ready
}

/// Whether something may fit now that did not before.
fn grew(old: &WorkerView, new: &WorkerView) -> bool {
    let more = |old: &WorkerView, new: &WorkerView| {
        new.free.cpu > old.free.cpu
            || new.free.memory > old.free.memory
            || new.free.slots > old.free.slots
            || new.free.gpus.iter().zip(&old.free.gpus).any(|(new, old)| new > old)
    };
    let same_static = Arc::ptr_eq(&old.worker, &new.worker) || old.worker == new.worker;
    is_ready(new) && (!is_ready(old) || !same_static || more(old, new) || (old.hold.is_some() && old.hold != new.hold))
}
