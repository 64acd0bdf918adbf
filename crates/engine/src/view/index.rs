//! The indexes over workers and pools: classes, lanes, affinities. Updated per worker. Small
//! numbers (slots, pools, lanes, classes) depend on history and must not reach a decision.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use volley_model::{
    Bytes, CpuMilli, Epoch, Free, GpuGrant, Pool, PoolName, Resources, ShapeHash, Worker, WorkerId, WorkerView,
    is_of_images,
};

use super::{grew, is_ready};
use crate::lane::{Entry, Lane, Slot};
use crate::part::{Parts, hash_name};
use crate::room::{Room, Scale};

/// Classes without a worker, kept in case one comes back, before all is indexed anew.
const EMPTY_CLASSES_MAX: usize = 1_000;

/// A worker and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct WorkerEntry {
    pub(crate) view: WorkerView,
    pub(crate) tie: u64,
    pub(crate) scale: Scale,
    pub(crate) pool: usize,
    pub(crate) class: usize,
    /// The lane it is in, when ready, or would be in.
    pub(crate) lane: usize,
    pub(crate) share: u32,
}

impl WorkerEntry {
    pub(crate) fn is_ready(&self) -> bool {
        is_ready(&self.view)
    }
}

/// Workers that differ only in what is free: a shape can be served by all of them or by none.
#[derive(Debug, Clone)]
pub(crate) struct Class {
    /// One of them, or the last one that was.
    pub(crate) sample: Arc<Worker>,
    pub(crate) workers: u32,
    pub(crate) ready: u32,
}

/// A pool, configured or only named by workers.
#[derive(Debug, Clone)]
pub(crate) struct PoolEntry {
    pub(crate) pool: Pool,
    pub(crate) configured: bool,
    pub(crate) workers: u32,
    /// Workers with a hold.
    pub(crate) holds: u32,
    pub(crate) lanes: Vec<usize>,
    pub(crate) classes: Vec<usize>,
}

/// Ready workers of a pool with the same GPUs and in the same part, by how full they are.
#[derive(Debug, Clone)]
pub(crate) struct LaneEntry {
    pub(crate) lane: Lane,
    pub(crate) pool: usize,
    /// Of this server's own part.
    pub(crate) own: bool,
    /// The kind of each device.
    pub(crate) gpus: Vec<String>,
    /// The same as numbers: the first device of its kind.
    pub(crate) device_kinds: Vec<u16>,
    /// Of the largest worker it ever had.
    pub(crate) scale: Scale,
}

impl LaneEntry {
    /// How many devices of a kind each worker has.
    pub(crate) fn devices_of(&self, kind: &str) -> usize {
        self.gpus.iter().filter(|k| *k == kind).count()
    }

    pub(crate) fn one_kind(&self) -> bool {
        self.device_kinds.iter().all(|kind| *kind == 0)
    }
}

/// Whether only what is free may differ.
fn same_but_numbers(old: &WorkerView, new: &WorkerView) -> bool {
    let same_lists = Arc::ptr_eq(&old.affinities, &new.affinities) || old.affinities == new.affinities;
    same_lists
        && (old.epoch, old.revision, old.status) == (new.epoch, new.revision, new.status)
        && old.hold == new.hold
        && Arc::ptr_eq(&old.worker, &new.worker)
}

type ClassKey = (PoolName, BTreeMap<String, String>, CpuMilli, Bytes, u32, Vec<String>);

/// All indexes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    slots: Vec<Option<WorkerEntry>>,
    vacant: Vec<Slot>,
    /// Looked up, never walked.
    by_id: HashMap<WorkerId, Slot>,
    pub(crate) pools: Vec<PoolEntry>,
    pool_of: BTreeMap<PoolName, usize>,
    /// By priority, highest first, then by name.
    pub(crate) pool_order: Vec<usize>,
    pub(crate) classes: Vec<Class>,
    class_of: BTreeMap<ClassKey, usize>,
    empty_classes: usize,
    /// Some class runs images and nothing else: not every worker of a lane serves what asks for no labels.
    pub(crate) any_of_images: bool,
    pub(crate) lanes: Vec<LaneEntry>,
    lane_of: BTreeMap<(PoolName, bool, Vec<String>), usize>,
    affinities: HashMap<String, BTreeSet<Slot>>,
    held: BTreeMap<ShapeHash, u32>,
}

impl Index {
    pub(crate) fn worker(&self, id: &WorkerId) -> Option<&WorkerEntry> {
        self.by_id.get(id).map(|slot| self.at(*slot))
    }

    pub(crate) fn at(&self, slot: Slot) -> &WorkerEntry {
        self.slots[slot.0 as usize].as_ref().expect("a slot in use has a worker")
    }

    /// In no order that means anything.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &WorkerEntry> {
        self.slots.iter().flatten()
    }

    pub(crate) fn workers_count(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn with_affinity(&self, key: &str) -> Option<&BTreeSet<Slot>> {
        self.affinities.get(key)
    }

    pub(crate) fn pool(&self, name: &PoolName) -> Option<&PoolEntry> {
        self.pool_of.get(name).map(|pool| &self.pools[*pool])
    }

    /// Whether some worker keeps room for a shape.
    pub(crate) fn is_held_for(&self, shape: ShapeHash) -> bool {
        self.held.contains_key(&shape)
    }

    pub(crate) fn is_littered(&self) -> bool {
        self.empty_classes > EMPTY_CLASSES_MAX && self.empty_classes > self.by_id.len()
    }

    /// The same fleet indexed anew, for other parts.
    pub(crate) fn rebuilt(&self, parts: &Parts) -> Self {
        let mut new = Self::default();
        for pool in self.pools.iter().filter(|p| p.configured) {
            new.put_pool(&pool.pool);
        }
        for worker in self.workers() {
            new.put_worker(&worker.view, parts);
        }
        new
    }

    /// Returns whether its rules are new or changed.
    pub(crate) fn put_pool(&mut self, pool: &Pool) -> bool {
        let index = self.pool_index(&pool.name);
        let entry = &mut self.pools[index];
        let changed = !entry.configured || entry.pool != *pool;
        entry.pool = pool.clone();
        entry.configured = true;
        self.order_pools();
        changed
    }

    pub(crate) fn remove_pool(&mut self, name: &PoolName) {
        let Some(index) = self.pool_of.get(name) else { return };
        self.pools[*index].pool = Pool::with_defaults(name.clone());
        self.pools[*index].configured = false;
        self.order_pools();
    }

    /// Returns whether something may fit now that did not before.
    pub(crate) fn put_worker(&mut self, view: &WorkerView, parts: &Parts) -> bool {
        let Some(slot) = self.by_id.get(&view.worker.id).copied() else {
            let entry = self.entry_of(view.clone(), parts);
            let slot = self.vacant.pop().unwrap_or(Slot(self.slots.len() as u32));
            if slot.0 as usize == self.slots.len() {
                self.slots.push(None);
            }
            self.by_id.insert(view.worker.id.clone(), slot);
            self.link(slot, entry);
            return is_ready(view);
        };
        let old = self.at(slot);
        let grew = grew(&old.view, view);
        if same_but_numbers(&old.view, view) {
            self.put_free(slot, &view.free);
            return grew;
        }
        let old = self.unlink(slot);
        let alike = Arc::ptr_eq(&old.view.worker, &view.worker) || old.view.worker == view.worker;
        let entry = if alike {
            let share = old.scale.free_share(&view.free);
            WorkerEntry { view: view.clone(), share, ..old }
        } else {
            self.entry_of(view.clone(), parts)
        };
        self.link(slot, entry);
        grew
    }

    /// Books a container. Returns false and changes nothing when it does not fit, or in another epoch.
    pub(crate) fn reserve(&mut self, id: &WorkerId, epoch: Epoch, resources: &Resources, gpus: &[GpuGrant]) -> bool {
        let Some(slot) = self.by_id.get(id).copied() else { return false };
        let view = &self.at(slot).view;
        let mut free = view.free.clone();
        let fits = view.epoch == epoch && free.reserve(resources, gpus);
        if fits {
            self.put_free(slot, &free);
        }
        fits
    }

    /// Sets what is free of a worker of which nothing else changed.
    fn put_free(&mut self, slot: Slot, free: &Free) {
        let entry = self.slots[slot.0 as usize].as_mut().expect("a slot in use has a worker");
        let before = entry.share;
        entry.view.free.clone_from(free);
        entry.share = entry.scale.free_share(free);
        let entry = self.at(slot);
        if entry.is_ready() {
            let (in_lane, lane) = (self.lane_entry(slot, entry), entry.lane);
            let lane = &mut self.lanes[lane].lane;
            assert!(lane.remove(before, in_lane.tie, slot), "a ready worker is in its lane");
            lane.insert(in_lane);
        }
    }

    pub(crate) fn remove_worker(&mut self, id: &WorkerId) {
        if let Some(slot) = self.by_id.remove(id) {
            self.unlink(slot);
            self.vacant.push(slot);
        }
    }

    /// A worker's lane entry with these numbers.
    pub(crate) fn lane_entry(&self, slot: Slot, entry: &WorkerEntry) -> Entry {
        let room = Room::of(&entry.view.free, &self.lanes[entry.lane].device_kinds);
        let (share, tie, class) = (entry.share, entry.tie, entry.class as u32);
        Entry { share, tie, slot, class, held: entry.view.hold.is_some(), room }
    }

    fn link(&mut self, slot: Slot, entry: WorkerEntry) {
        let ready = is_ready(&entry.view);
        if ready {
            let in_lane = self.lane_entry(slot, &entry);
            self.lanes[entry.lane].lane.insert(in_lane);
        }
        let class = &mut self.classes[entry.class];
        self.empty_classes -= usize::from(class.workers == 0);
        class.workers += 1;
        class.ready += u32::from(ready);
        let pool = &mut self.pools[entry.pool];
        pool.workers += 1;
        if let Some(hold) = &entry.view.hold {
            pool.holds += 1;
            *self.held.entry(hold.shape).or_default() += 1;
        }
        for key in entry.view.affinities.iter() {
            match self.affinities.get_mut(key) {
                Some(slots) => {
                    slots.insert(slot);
                }
                None => {
                    self.affinities.insert(key.clone(), BTreeSet::from([slot]));
                }
            }
        }
        self.slots[slot.0 as usize] = Some(entry);
    }

    fn unlink(&mut self, slot: Slot) -> WorkerEntry {
        let entry = self.slots[slot.0 as usize].take().expect("a slot in use has a worker");
        let ready = is_ready(&entry.view);
        if ready {
            let was_there = self.lanes[entry.lane].lane.remove(entry.share, entry.tie, slot);
            assert!(was_there, "a ready worker is in its lane");
        }
        let class = &mut self.classes[entry.class];
        class.workers -= 1;
        class.ready -= u32::from(ready);
        self.empty_classes += usize::from(class.workers == 0);
        let pool = &mut self.pools[entry.pool];
        pool.workers -= 1;
        if let Some(hold) = &entry.view.hold {
            pool.holds -= 1;
            let left = self.held.get_mut(&hold.shape).expect("a hold is counted");
            *left -= 1;
            if *left == 0 {
                self.held.remove(&hold.shape);
            }
        }
        for key in entry.view.affinities.iter() {
            if let Some(slots) = self.affinities.get_mut(key) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.affinities.remove(key);
                }
            }
        }
        entry
    }

    fn entry_of(&mut self, view: WorkerView, parts: &Parts) -> WorkerEntry {
        let tie = hash_name(view.worker.id.as_str());
        let scale = Scale::of(&view.worker.capacity);
        let pool = self.pool_index(&view.worker.pool);
        let class = self.class_index(&view, pool);
        let lane = self.lane_index(&view.worker, pool, parts.owns(tie));
        self.lanes[lane].scale.join(&scale);
        let share = scale.free_share(&view.free);
        WorkerEntry { view, tie, scale, pool, class, lane, share }
    }

    fn pool_index(&mut self, name: &PoolName) -> usize {
        if let Some(index) = self.pool_of.get(name) {
            return *index;
        }
        let index = self.pools.len();
        let (lanes, classes) = (Vec::new(), Vec::new());
        let pool = Pool::with_defaults(name.clone());
        self.pools.push(PoolEntry { pool, configured: false, workers: 0, holds: 0, lanes, classes });
        self.pool_of.insert(name.clone(), index);
        self.order_pools();
        index
    }

    fn order_pools(&mut self) {
        let pools = &self.pools;
        let place = |index: &usize| (std::cmp::Reverse(pools[*index].pool.priority), &pools[*index].pool.name);
        self.pool_order = (0..pools.len()).collect();
        self.pool_order.sort_by(|a, b| place(a).cmp(&place(b)));
    }

    fn class_index(&mut self, view: &WorkerView, pool: usize) -> usize {
        let Worker { pool: name, labels, capacity, .. } = &*view.worker;
        let (cpu, memory, slots) = (capacity.cpu, capacity.memory, capacity.slots);
        let key = (name.clone(), labels.clone(), cpu, memory, slots, capacity.gpus.clone());
        if let Some(index) = self.class_of.get(&key) {
            return *index;
        }
        let index = self.classes.len();
        self.any_of_images |= is_of_images(&view.worker.labels);
        self.classes.push(Class { sample: view.worker.clone(), workers: 0, ready: 0 });
        self.empty_classes += 1;
        self.pools[pool].classes.push(index);
        self.class_of.insert(key, index);
        index
    }

    fn lane_index(&mut self, worker: &Worker, pool: usize, own: bool) -> usize {
        let key = (worker.pool.clone(), own, worker.capacity.gpus.clone());
        if let Some(index) = self.lane_of.get(&key) {
            return *index;
        }
        let index = self.lanes.len();
        let gpus = key.2.clone();
        let first = |kind: &String| gpus.iter().position(|k| k == kind).expect("it is one of them") as u16;
        let device_kinds = gpus.iter().map(first).collect();
        let (lane, scale) = (Lane::default(), Scale::default());
        self.lanes.push(LaneEntry { lane, pool, own, gpus, device_kinds, scale });
        self.pools[pool].lanes.push(index);
        self.lane_of.insert(key, index);
        index
    }
}
