//! The fleet view: an in-memory picture of workers, pools and blocked shapes, kept fresh by
//! the change feed. A change costs what the changed worker costs, never the fleet.
//!
//! Workers are kept in classes of alike ones (pool, labels, GPU kinds), so that feasibility is
//! decided once per shape and class; within a class they stand in the order of what is free, so
//! that the fullest that fits is found without looking at all. Knows nothing of plans.

use std::collections::{BTreeMap, BTreeSet};

use volley_model::{
    BlockedShape, Capacity, FleetChanges, FleetVersion, Free, Placement, Pool, PoolName, Resources, ShapeHash,
    WorkerId, WorkerStatus, WorkerView,
};

/// What is free on a worker, as one number each, in the order that matters for packing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FreeKey {
    pub gpu: u64,
    pub cpu: u64,
    pub memory: u64,
    pub slots: u32,
}

impl FreeKey {
    pub fn of(free: &Free) -> Self {
        let gpu = free.gpus.iter().map(|part| part.0).sum();
        Self { gpu, cpu: free.cpu.0, memory: free.memory.0, slots: free.slots }
    }
}

/// A place in a class's order: what is free, then a tie that depends on the worker's name only.
pub(crate) type Place = (FreeKey, u64, u32);

/// A worker in the view.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub worker: WorkerView,
    pub class: usize,
    pub place: Place,
}

/// What makes workers alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassKey {
    pub pool: PoolName,
    pub labels: BTreeMap<String, String>,
    pub gpus: Vec<String>,
}

/// A capacity in the order of its numbers.
type CapacityKey = (u64, u64, u32);

/// Alike workers.
#[derive(Debug, Clone)]
pub(crate) struct Class {
    pub key: ClassKey,
    /// Ready ones, fullest first.
    pub order: BTreeSet<Place>,
    /// All of them by capacity, with one slot of each to look at.
    pub capacities: BTreeMap<CapacityKey, BTreeSet<u32>>,
}

/// A server's picture of the fleet.
#[derive(Debug, Clone, Default)]
pub struct FleetView {
    version: FleetVersion,
    growth: FleetVersion,
    ids: BTreeMap<WorkerId, u32>,
    slots: Vec<Option<Slot>>,
    vacant: Vec<u32>,
    class_ids: BTreeMap<ClassKey, usize>,
    pub(crate) classes: Vec<Class>,
    pub(crate) pools: BTreeMap<PoolName, Pool>,
    pub(crate) blocked: BTreeMap<ShapeHash, BlockedShape>,
    pub(crate) affinities: BTreeMap<String, BTreeSet<u32>>,
    /// Workers with a hold.
    pub(crate) held: BTreeSet<u32>,
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

    /// The last version at which something grew that a blocked shape might fit into.
    #[must_use]
    pub fn growth(&self) -> FleetVersion {
        self.growth
    }

    /// How many workers it knows.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.ids.len()
    }

    /// Applies changes from the feed.
    pub fn apply(&mut self, changes: &FleetChanges) {
        if changes.reload {
            *self = Self::default();
        }
        let something = !(changes.workers.is_empty() && changes.pools.is_empty() && changes.pools_gone.is_empty());
        for pool in &changes.pools {
            self.pools.insert(pool.name.clone(), pool.clone());
        }
        for pool in &changes.pools_gone {
            self.pools.remove(pool);
        }
        for worker in &changes.workers {
            self.put_worker(worker);
        }
        for worker in &changes.workers_gone {
            self.remove_worker(worker);
        }
        for shape in &changes.blocked {
            self.blocked.insert(shape.hash, shape.clone());
        }
        for shape in &changes.unblocked {
            self.blocked.remove(shape);
        }
        self.version = changes.version;
        if something {
            self.growth = changes.version;
        }
    }

    /// Sets one worker's fresh numbers, as a refusal brings them.
    pub fn put_worker(&mut self, worker: &WorkerView) {
        self.remove_worker(&worker.worker.id);
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let class = self.class_of(worker);
        let place = (FreeKey::of(&worker.free), tie(&worker.worker.id), number);
        if worker.status == WorkerStatus::Ready {
            self.classes[class].order.insert(place);
        }
        let capacity = capacity_key(&worker.worker.capacity);
        self.classes[class].capacities.entry(capacity).or_default().insert(number);
        for key in worker.affinities.iter() {
            self.affinities.entry(key.clone()).or_default().insert(number);
        }
        if worker.hold.is_some() {
            self.held.insert(number);
        }
        self.ids.insert(worker.worker.id.clone(), number);
        self.slots[number as usize] = Some(Slot { worker: worker.clone(), class, place });
    }

    /// Books a placement that the commit accepted, until the feed brings the same. Does nothing when it
    /// no longer fits or the epoch differs: the feed is newer.
    pub fn reserve_committed(&mut self, placement: &Placement, resources: &Resources) {
        let Some(number) = self.ids.get(&placement.worker).copied() else { return };
        let Some(slot) = self.slots[number as usize].as_mut() else { return };
        if slot.worker.epoch != placement.epoch || !slot.worker.free.reserve(resources, &placement.gpus) {
            return;
        }
        let order = &mut self.classes[slot.class].order;
        let ready = order.remove(&slot.place);
        slot.place.0 = FreeKey::of(&slot.worker.free);
        if ready {
            order.insert(slot.place);
        }
    }

    pub(crate) fn slot(&self, number: u32) -> &Slot {
        self.slots[number as usize].as_ref().expect("law: an index speaks of workers that are in the view")
    }

    /// All workers, in the order of their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Slot> {
        self.ids.values().map(|number| self.slot(*number))
    }

    /// A pool's rules; the defaults for one that nobody configured.
    pub(crate) fn pool(&self, name: &PoolName) -> Pool {
        self.pools.get(name).cloned().unwrap_or_else(|| Pool::with_defaults(name.clone()))
    }

    fn remove_worker(&mut self, id: &WorkerId) {
        let Some(number) = self.ids.remove(id) else { return };
        let slot = self.slots[number as usize].take().expect("law: an id's slot is taken");
        let class = &mut self.classes[slot.class];
        class.order.remove(&slot.place);
        let capacity = capacity_key(&slot.worker.worker.capacity);
        if let Some(alike) = class.capacities.get_mut(&capacity) {
            alike.remove(&number);
            if alike.is_empty() {
                class.capacities.remove(&capacity);
            }
        }
        for key in slot.worker.affinities.iter() {
            if let Some(workers) = self.affinities.get_mut(key) {
                workers.remove(&number);
                if workers.is_empty() {
                    self.affinities.remove(key);
                }
            }
        }
        self.held.remove(&number);
        self.vacant.push(number);
    }

    fn class_of(&mut self, worker: &WorkerView) -> usize {
        let mut gpus = worker.worker.capacity.gpus.clone();
        gpus.sort();
        let key = ClassKey { pool: worker.worker.pool.clone(), labels: worker.worker.labels.clone(), gpus };
        if let Some(class) = self.class_ids.get(&key) {
            return *class;
        }
        self.classes.push(Class { key: key.clone(), order: BTreeSet::new(), capacities: BTreeMap::new() });
        self.class_ids.insert(key, self.classes.len() - 1);
        self.classes.len() - 1
    }
}

fn capacity_key(capacity: &Capacity) -> CapacityKey {
    (capacity.cpu.0, capacity.memory.0, capacity.slots)
}

/// FNV-1a (Fowler, Noll, Vo) with a final mix: spreads names over 64 bits, the same on every machine.
pub(crate) fn tie(id: &WorkerId) -> u64 {
    let hash = id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    mix(hash)
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
