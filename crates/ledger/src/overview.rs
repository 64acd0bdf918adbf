//! The cell at a glance: containers by state, the backlog by shape, the fleet by pool. For
//! metrics and people; counts, no records.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_model::{
    Capacity, ContainerId, ContainerState, Free, PoolName, Score, Shape, ShapeHash, Timestamp, WaitReason, WorkerStatus,
};

use crate::ledger::Ledger;
use crate::state::{State, WorkerEntry};

/// Shapes of an overview: those in front. The rest are counted, not listed.
const SHAPES_MAX: usize = 1_000;

/// The cell at a glance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overview {
    /// The store's time.
    pub now: Timestamp,
    /// Containers ever accepted.
    pub accepted: u64,
    /// Finished containers that were forgotten.
    pub pruned: u64,
    /// Containers by state, zeros included.
    pub containers: BTreeMap<ContainerState, u64>,
    /// How many shapes have something waiting.
    pub shapes: u64,
    /// The shapes in front, the best score first; at most 1,000.
    pub backlog: Vec<ShapeBacklog>,
    /// Shapes of which nothing fits, and containers behind them.
    pub blocked: Blocked,
    /// When the longest waiting head of any shape joined its queue.
    pub oldest: Option<Timestamp>,
    /// The fleet by pool, by name.
    pub pools: BTreeMap<PoolName, PoolOverview>,
    /// Live servers.
    pub sessions: u32,
    /// What is in front of the container asked about, while it is in a queue.
    pub ahead: Option<Ahead>,
}

/// Shapes of which nothing fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Blocked {
    /// How many shapes.
    pub shapes: u64,
    /// How many containers wait behind them.
    pub containers: u64,
    /// When the longest waiting head of them joined its queue.
    pub oldest: Option<Timestamp>,
}

/// What waits of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct ShapeBacklog {
    /// Its content's address.
    pub hash: ShapeHash,
    /// What it is.
    pub shape: Arc<Shape>,
    /// Containers in its queue.
    pub waiting: u64,
    /// The best of them.
    pub best: Score,
    /// When the best of them joined the queue.
    pub since: Timestamp,
    /// Why nothing of it fits; `None` when it is not blocked.
    pub blocked: Option<Arc<Vec<WaitReason>>>,
}

/// Workers of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolOverview {
    /// By status.
    pub workers: BTreeMap<WorkerStatus, u32>,
    /// Ready ones on which nothing runs.
    pub empty: u32,
    /// Live attempts on all of them.
    pub containers: u64,
    /// What the ready ones offer.
    pub capacity: Amounts,
    /// What is free of it.
    pub free: Amounts,
    /// Workers on which room is kept.
    pub holds: u32,
}

/// Sums over workers; they saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Slots.
    pub slots: u64,
    /// Thousandths of a GPU device.
    pub gpu_milli: u64,
}

/// What is in front of a queued container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// Its shape.
    pub shape: ShapeHash,
    /// Its place in the order.
    pub score: Score,
    /// Containers of its shape in front of it.
    pub same_shape: u64,
    /// Containers of other shapes in front of it.
    pub other_shapes: u64,
    /// The same by shape. A shared store counts all of a shape whose head is in front.
    pub others: Vec<(ShapeHash, u64)>,
}

impl Amounts {
    fn add_free(&mut self, free: &Free) {
        self.cpu_milli = self.cpu_milli.saturating_add(free.cpu.0);
        self.memory_bytes = self.memory_bytes.saturating_add(free.memory.0);
        self.slots = self.slots.saturating_add(u64::from(free.slots));
        self.gpu_milli = self.gpu_milli.saturating_add(free.gpus.iter().map(|gpu| gpu.0).sum());
    }

    fn add_capacity(&mut self, capacity: &Capacity) {
        self.cpu_milli = self.cpu_milli.saturating_add(capacity.cpu.0);
        self.memory_bytes = self.memory_bytes.saturating_add(capacity.memory.0);
        self.slots = self.slots.saturating_add(u64::from(capacity.slots));
        self.gpu_milli = self.gpu_milli.saturating_add(capacity.gpus.len() as u64 * volley_model::GPU_WHOLE.0);
    }
}

impl PoolOverview {
    fn add(&mut self, worker: &WorkerEntry) {
        *self.workers.entry(worker.status()).or_default() += 1;
        self.containers += worker.attempts.len() as u64;
        self.holds += u32::from(worker.hold.is_some());
        if worker.status() == WorkerStatus::Ready {
            self.empty += u32::from(worker.attempts.is_empty());
            self.capacity.add_capacity(&worker.worker.capacity);
            self.free.add_free(&worker.free);
        }
    }
}

impl Ledger {
    /// The cell at a glance, and what is in front of a container.
    #[must_use]
    pub fn overview(&self, ahead_of: Option<ContainerId>) -> Overview {
        let mut overview = Overview {
            now: self.counters.now,
            accepted: self.counters.accepted,
            pruned: self.counters.pruned,
            containers: self.count_states(),
            sessions: self.sessions.len() as u32,
            ahead: ahead_of.and_then(|id| self.ahead(id)),
            ..Overview::default()
        };
        self.add_backlog(&mut overview);
        for name in self.pools.keys() {
            overview.pools.entry(name.clone()).or_default();
        }
        for entry in self.workers.values() {
            match overview.pools.get_mut(&entry.worker.pool) {
                Some(pool) => pool.add(entry),
                None => overview.pools.entry(entry.worker.pool.clone()).or_default().add(entry),
            }
        }
        overview
    }

    fn count_states(&self) -> BTreeMap<ContainerState, u64> {
        use ContainerState::{Assigned, Claimed, Finished, Queued, Running, Starting, Stopping};
        let all = [Queued, Claimed, Assigned, Starting, Running, Stopping, Finished];
        let mut counts: BTreeMap<ContainerState, u64> = all.into_iter().map(|state| (state, 0)).collect();
        for container in self.live.values().filter(|container| matches!(container.state, State::Bound(_))) {
            *counts.entry(container.state_name()).or_default() += 1;
        }
        counts.insert(Queued, self.queues.waiting() + self.delayed.len() as u64);
        counts.insert(Claimed, self.sessions.values().map(|session| session.claimed.len() as u64).sum());
        counts.insert(Finished, self.counters.finished);
        counts
    }

    fn add_backlog(&self, overview: &mut Overview) {
        for (hash, queue) in &self.queues.shapes {
            let Some((place, entry)) = queue.entries.first_key_value() else { continue };
            let since = entry.since();
            let earlier = |oldest: Option<Timestamp>| Some(oldest.map_or(since, |oldest| oldest.min(since)));
            overview.shapes += 1;
            overview.oldest = earlier(overview.oldest);
            if queue.mark.is_some() {
                overview.blocked.shapes += 1;
                overview.blocked.containers += queue.waiting;
                overview.blocked.oldest = earlier(overview.blocked.oldest);
            }
            overview.backlog.push(ShapeBacklog {
                hash: *hash,
                shape: Arc::clone(&queue.shape),
                waiting: queue.waiting,
                best: place.0,
                since,
                blocked: queue.mark.as_ref().map(|mark| Arc::clone(&mark.reasons)),
            });
        }
        overview.backlog.sort_by_key(|shape| (shape.best, shape.hash));
        overview.backlog.truncate(SHAPES_MAX);
    }

    /// Counts what is in front; `None` for what is in no queue now.
    fn ahead(&self, id: ContainerId) -> Option<Ahead> {
        let group = self.groups.get(&id.group)?;
        let run = &group.runs[group.run_of(id.index)?];
        let (shape, score) = match self.live.get(&id) {
            Some(container) => (container.shape, container.score),
            None if id.index >= run.next => (run.shape, run.score),
            None => return None,
        };
        let queue = self.queues.shapes.get(&shape)?;
        let (place, entry) = queue.entries.range(..=(score, id.index)).next_back()?;
        let within = entry.holds(*place, id)?;
        let before: u64 = queue.entries.range(..*place).map(|(place, entry)| entry.count(place.1)).sum();
        let others = self.queues.shapes.iter().filter(|(hash, _)| **hash != shape);
        let others = others.map(|(hash, other)| (*hash, other.before(score))).filter(|(_, count)| *count > 0);
        let others: Vec<(ShapeHash, u64)> = others.collect();
        let other_shapes = others.iter().map(|(_, count)| count).sum();
        Some(Ahead { shape, score, same_shape: before + within, other_shapes, others })
    }
}
