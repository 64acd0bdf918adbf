//! Where a shape may go, as a list of tiers from best to worst: GPU kind in the shape's own
//! order, pool (the preferred one first, then by priority), workers without GPUs before
//! others for work that needs none, this server's own part before the rest, workers with the
//! affinity key before others. Knows nothing of what is free.

use std::collections::BTreeSet;
use std::ops::Range;

use volley_model::{GPU_WHOLE, GpuKinds, GpuRequest, PoolSelector, Score, Shape, ShapeHash, Strategy, feasible};

use super::search::{Cursor, Found};
use crate::lane::{Entry, Slot};
use crate::room::Room;
use crate::view::{Index, LaneEntry, PoolEntry};

/// Tiers of a shape in a fleet of a few pools, to reserve memory for once.
const TIERS_USUAL: usize = 8;

/// A shape on its way through a plan.
pub(super) struct Route<'a> {
    pub(super) hash: ShapeHash,
    pub(super) shape: &'a Shape,
    pub(super) need: Room,
    pub(super) tiers: Vec<Tier<'a>>,
    /// The lanes of all tiers, tier after tier.
    pub(super) searches: Vec<LaneSearch>,
    /// Earlier tiers have no room left for it, for good: a plan only takes room.
    pub(super) tier: usize,
    /// Workers with its affinity key.
    pub(super) near: Option<&'a BTreeSet<Slot>>,
    pub(super) verdicts: Verdicts,
}

/// Answers of `feasible` by class, as far as asked; empty when the lanes say all.
#[derive(Default)]
pub(super) struct Verdicts(Vec<Option<bool>>);

impl Verdicts {
    /// Whether a class of alike workers can serve a shape, asked once. The lanes have sorted out pools and GPUs; what
    /// else is static is labels (a worker with enough free has enough in all).
    pub(super) fn serves(&mut self, index: &Index, shape: &Shape, class: u32) -> bool {
        let Some(verdict) = self.0.get_mut(class as usize) else { return true };
        *verdict.get_or_insert_with(|| feasible(shape, &index.classes[class as usize].sample, true).is_ok())
    }
}

/// Lanes of one pool that are equally good for a shape.
pub(super) struct Tier<'a> {
    pub(super) strategy: Strategy,
    /// Devices of this kind; of whichever kind there is when `None`.
    pub(super) kind: Option<&'a str>,
    /// Into [`Route::searches`].
    pub(super) lanes: Range<usize>,
    /// Only workers with the affinity key.
    pub(super) near: bool,
}

/// A lane and how far it was searched for a shape.
pub(super) struct LaneSearch {
    pub(super) lane: usize,
    pub(super) cursor: Cursor,
    /// Of a near tier: the workers with the key, in order, once asked for, and how far they were looked at.
    pub(super) near: Option<(Vec<(Found, Entry)>, usize)>,
}

impl<'a> Route<'a> {
    pub(super) fn new(index: &'a Index, hash: ShapeHash, shape: &'a Shape) -> Self {
        let near = shape.affinity.as_deref().and_then(|key| index.with_affinity(key));
        let mut route = Self {
            hash,
            shape,
            need: Room::needed(&shape.resources),
            tiers: Vec::with_capacity(TIERS_USUAL),
            searches: Vec::with_capacity(TIERS_USUAL),
            tier: 0,
            near,
            verdicts: Verdicts::default(),
        };
        match &shape.resources.gpu {
            None => route.add_pools(index, None, None),
            Some(gpu) => match &gpu.kinds {
                GpuKinds::Any => route.add_pools(index, Some(gpu), None),
                GpuKinds::Ordered(kinds) => {
                    kinds.iter().for_each(|kind| route.add_pools(index, Some(gpu), Some(kind)));
                }
            },
        }
        // Without labels to ask for, a lane's workers differ in nothing else that counts.
        if !shape.require_labels.is_empty() || index.any_of_images {
            route.verdicts.0 = vec![None; index.classes.len()];
        }
        route
    }

    /// All lanes it may go to, some more than once.
    pub(super) fn lanes(&self) -> impl Iterator<Item = usize> {
        self.searches.iter().map(|search| search.lane)
    }

    fn add_pools(&mut self, index: &Index, gpu: Option<&GpuRequest>, kind: Option<&'a str>) {
        let shape = self.shape;
        let admitting = |pool: &&PoolEntry| pool.workers > 0 && pool.pool.admits(shape).is_ok();
        for pool in pools(index, &shape.pool).filter(admitting) {
            // Work without GPUs: workers without any first, and the others only where the pool lets it.
            let with_gpus: &[bool] = match (gpu, pool.pool.cpu_on_gpu) {
                (Some(_), _) => &[true],
                (None, false) => &[false],
                (None, true) => &[false, true],
            };
            for with_gpus in with_gpus {
                for own in [true, false] {
                    let lanes = pool.lanes.iter().copied().filter(|lane| {
                        let entry = &index.lanes[*lane];
                        let right = entry.own == own && entry.gpus.is_empty() != *with_gpus;
                        right && !entry.lane.is_empty() && has_devices(entry, gpu, kind)
                    });
                    if self.near.is_some() {
                        self.add_tier(pool.pool.strategy, kind, lanes.clone(), true);
                    }
                    self.add_tier(pool.pool.strategy, kind, lanes, false);
                }
            }
        }
    }

    fn add_tier(&mut self, strategy: Strategy, kind: Option<&'a str>, lanes: impl Iterator<Item = usize>, near: bool) {
        let start = self.searches.len();
        self.searches.extend(lanes.map(|lane| LaneSearch { lane, cursor: Cursor::Fresh, near: None }));
        let lanes = start..self.searches.len();
        if !lanes.is_empty() {
            self.tiers.push(Tier { strategy, kind, lanes, near });
        }
    }
}

/// Pools that a selector allows, the best first.
pub(super) fn pools<'i>(index: &'i Index, selector: &PoolSelector) -> impl Iterator<Item = &'i PoolEntry> + use<'i> {
    let named = match selector {
        PoolSelector::Any => None,
        PoolSelector::Preferred(name) | PoolSelector::Required(name) => index.pool(name),
    };
    let others = if matches!(selector, PoolSelector::Required(_)) { &[][..] } else { &index.pool_order[..] };
    let others = others.iter().map(|pool| &index.pools[*pool]);
    let others = others.filter(move |pool| named.is_none_or(|named| !std::ptr::eq(named, *pool)));
    named.into_iter().chain(others)
}

/// Whether workers of a lane have, when idle, the devices asked for.
fn has_devices(lane: &LaneEntry, gpu: Option<&GpuRequest>, kind: Option<&str>) -> bool {
    let Some(gpu) = gpu else { return true };
    let count = if gpu.milli == GPU_WHOLE { gpu.count as usize } else { 1 };
    match kind {
        Some(kind) => lane.devices_of(kind) >= count,
        None => lane.gpus.iter().any(|kind| lane.devices_of(kind) >= count),
    }
}

/// A hold as far as a plan minds it: work of other shapes with this score or a worse one keeps off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) shape: ShapeHash,
    pub(super) score: Score,
}

impl Held {
    pub(super) fn lets(self, shape: ShapeHash, score: Score) -> bool {
        self.shape == shape || score < self.score
    }
}
