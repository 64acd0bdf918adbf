//! The plan of one turn: claimed containers x fleet view -> placements, blocked shapes,
//! holds, reasons. Plans shapes, not containers. Pure: time and seed are arguments.
//!
//! # The order in which work is served
//!
//! Claimed containers and the heads of blocked shapes are walked in **one order**: by score (smaller first); within a
//! score claimed containers before heads, larger shapes before smaller ones (GPUs, then CPU or memory, whichever is
//! more), so that small ones fill the gaps; within a shape by container id. A container that does not fit goes back
//! to its queue, with all later ones of its shape: a plan only ever takes room, so they would not fit either. Smaller
//! work behind it goes on.
//!
//! Heads come from `recheck` (all of them) and, where containers were claimed, from the view: the best
//! [`HEADS_MAX`] shapes with a better score than some claimed container whose marks are older than the last growth.
//! A head that fits keeps its room for this plan, for as many as wait, up to [`KEPT_MAX`], and its shape is
//! `unblocked`, so that the next claim brings it before anything worse. A head of `recheck` that does not fit is
//! marked anew.
//!
//! A shape that failed where this plan keeps room (for heads, or by a hold it asks for), or where it ends a hold, may
//! fit once the plan is over. It is marked blocked **at version 0**, older than any growth, so that the next
//! claim hands it out again. All other marks are made at the view's version.
//!
//! # The order in which workers are tried
//!
//! 1. GPU kind, in the shape's own order (`any`: all kinds alike, the worker's kinds by name);
//! 2. pool: the preferred one, then by priority (highest first), then by name; a required pool alone;
//! 3. for work without GPUs: workers without GPUs, then, only if the pool allows it, those with;
//! 4. this server's own part of the pool (rendezvous hashing over live sessions), then the rest;
//! 5. workers that have the affinity key, then the rest;
//! 6. the pool's strategy: `pack` the fullest that fits, `spread` the emptiest. How full a worker is, is the free
//!    share of its scarcest resource (CPU, memory, slots, GPUs);
//! 7. among equals, by the hash of the worker's name, going round from a point that the seed chooses.
//!
//! Devices are chosen by `Capacity::choose_of_kind` and `choose_gpus`. A worker with a hold takes only the hold's
//! shape or better scores.
//!
//! # Holds
//!
//! The first shape in the order that fails after waiting `hold_after` gets a hold on the emptiest worker that could
//! serve it, in its best pool without a hold; one per pool and per shape. Worse work is kept off at once.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use volley_model::{
    BlockedMark, Claimed, ContainerId, Epoch, FleetVersion, GpuGrant, HoldRequest, Millis, Resources, Revision, Score,
    SessionId, Shape, ShapeHash, Timestamp, WorkerId,
};

use crate::FleetView;

mod holds;
mod overlay;
mod reasons;
mod route;
mod search;
mod walk;

use overlay::NumberHasher;

/// Blocked heads that a plan considers for the order's sake: what stands behind them is looked at when its recheck
/// is handed out.
pub const HEADS_MAX: usize = 256;
/// Blocked shapes whose marks are looked at to find those heads.
const HEAD_LOOKS_MAX: usize = 1_000;
/// Containers for which a plan keeps room in all: the largest batch.
pub const KEPT_MAX: u64 = 1_000;

/// What a turn plans from, beside the view.
#[derive(Debug, Clone)]
pub struct PlanInput<'a> {
    /// Claimed containers in any order: this claim's and those refused before.
    pub containers: &'a [Claimed],
    /// Their shapes. A container whose shape is neither here nor blocked in the view is returned, to be claimed again.
    pub shapes: &'a [(ShapeHash, Arc<Shape>)],
    /// Blocked shapes that the store asks to look at again.
    pub recheck: &'a [ShapeHash],
    /// The planning server and all live ones, for its own part of every pool.
    pub session: SessionId,
    /// Sorted.
    pub sessions: &'a [SessionId],
    /// The store's time.
    pub now: Timestamp,
    /// After this wait the best waiting container of a pool gets a hold.
    pub hold_after: Millis,
    /// How long a hold lasts.
    pub hold_term: Millis,
    /// Breaks ties among equal workers.
    pub seed: u64,
}

/// A turn's decisions: an immutable value that says why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What goes where, in the order decided.
    pub placements: Vec<Planned>,
    /// Shapes of which nothing (more) fits, with reasons. A mark at version 0 asks to look again at the next claim.
    pub blocked: Vec<BlockedMark>,
    /// Blocked shapes that fit now: their heads are claimed next turn.
    pub unblocked: Vec<ShapeHash>,
    /// Claimed containers that go back to the queue: their shape is blocked.
    pub returned: Vec<ContainerId>,
    /// Claimed containers whose spec says to fail, and why no pool could ever serve them.
    pub unplaceable: Vec<(ContainerId, String)>,
    /// Room to keep.
    pub holds: Vec<HoldRequest>,
}

/// A container onto a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub container: Claimed,
    /// Where to.
    pub worker: WorkerId,
    /// The worker's epoch in the view.
    pub epoch: Epoch,
    /// The worker's revision in the view.
    pub revision: Revision,
    /// The exact devices.
    pub gpus: Vec<GpuGrant>,
}

/// Plans one turn. Changes nothing: reservations are made in an overlay that ends with the call.
/// The caller applies the commit's verdicts to the view (`FleetView::reserve_committed`).
///
/// Give the view the same sessions before (`FleetView::set_sessions`): a view with others is copied and indexed anew.
#[must_use]
pub fn plan(view: &FleetView, input: &PlanInput<'_>) -> Plan {
    if view.has_parts_of(input.session, input.sessions) {
        return plan_parts(view, input);
    }
    let mut view = view.clone();
    view.set_sessions(input.session, input.sessions);
    plan_parts(&view, input)
}

fn plan_parts(view: &FleetView, input: &PlanInput<'_>) -> Plan {
    let mut agenda = Agenda::default();
    agenda.add_shapes(view, input);
    agenda.add_heads(view, input);
    agenda.add_containers(input);
    agenda.items.sort();
    walk::walk(view, input, agenda)
}

/// A blocked head, as the walk meets it.
#[derive(Debug, Clone, Copy)]
struct Head {
    count: u64,
    since: Timestamp,
    /// The store waits for an answer about it.
    recheck: bool,
}

/// A shape of this plan.
#[derive(Debug)]
struct Planning<'a> {
    hash: ShapeHash,
    shape: &'a Shape,
    head: Option<Head>,
}

/// What is walked next: score; heads behind containers; larger shapes first; container; its index in the input.
type Item = (Score, bool, u32, ContainerId, u32);

/// Everything to walk through, and the shapes by a dense number, largest first.
#[derive(Debug, Default)]
struct Agenda<'a> {
    shapes: Vec<Planning<'a>>,
    numbers: HashMap<ShapeHash, u32, BuildHasherDefault<NumberHasher>>,
    items: Vec<Item>,
    /// Shapes of `recheck` that the view does not know.
    unknown_rechecks: Vec<ShapeHash>,
    /// Containers whose shape nobody knows.
    unknown: Vec<ContainerId>,
}

impl<'a> Agenda<'a> {
    fn add_shapes(&mut self, view: &'a FleetView, input: &PlanInput<'a>) {
        let mut shapes: Vec<(ShapeHash, &'a Shape)> =
            input.shapes.iter().map(|(hash, shape)| (*hash, &**shape)).collect();
        for hash in input.recheck.iter().copied().chain(input.containers.iter().map(|c| c.shape)) {
            if shapes.last().is_none_or(|(last, _)| *last != hash)
                && let Some(blocked) = view.blocked_shape(hash)
            {
                shapes.push((hash, &blocked.shape));
            }
        }
        if let Some(worst) = input.containers.iter().map(|c| c.score).max() {
            let heads = view.blocked_before(worst, HEAD_LOOKS_MAX).take(HEADS_MAX);
            shapes.extend(heads.map(|blocked| (blocked.hash, &*blocked.shape)));
        }
        shapes.sort_unstable_by(|a, b| size(&b.1.resources).cmp(&size(&a.1.resources)).then(a.0.cmp(&b.0)));
        shapes.dedup_by_key(|(hash, _)| *hash);
        self.numbers = shapes.iter().zip(0..).map(|((hash, _), number)| (*hash, number)).collect();
        self.shapes = shapes.into_iter().map(|(hash, shape)| Planning { hash, shape, head: None }).collect();
    }

    fn add_heads(&mut self, view: &FleetView, input: &PlanInput<'_>) {
        for hash in input.recheck {
            match view.blocked_shape(*hash) {
                Some(blocked) => self.add_head(blocked, true),
                None => self.unknown_rechecks.push(*hash),
            }
        }
        if let Some(worst) = input.containers.iter().map(|c| c.score).max() {
            let heads = view.blocked_before(worst, HEAD_LOOKS_MAX).take(HEADS_MAX);
            heads.for_each(|blocked| self.add_head(blocked, false));
        }
    }

    fn add_head(&mut self, blocked: &volley_model::BlockedShape, recheck: bool) {
        let number = self.numbers[&blocked.hash];
        let head = &mut self.shapes[number as usize].head;
        if head.is_none() {
            *head = Some(Head { count: blocked.count, since: blocked.since, recheck });
            let nobody = ContainerId { group: volley_model::GroupId(0), index: 0 };
            self.items.push((blocked.best, true, number, nobody, 0));
        }
    }

    fn add_containers(&mut self, input: &PlanInput<'_>) {
        self.items.reserve(input.containers.len());
        for (claimed, index) in input.containers.iter().zip(0..) {
            match self.numbers.get(&claimed.shape) {
                Some(number) => self.items.push((claimed.score, false, *number, claimed.container, index)),
                None => self.unknown.push(claimed.container),
            }
        }
    }
}

/// How large work is, to order it by: GPUs first, for they are few; then CPU or memory, whichever is more of a
/// machine with [`BYTES_PER_MILLI`].
pub(crate) fn size(resources: &Resources) -> (u64, u64, u64) {
    let gpu = resources.gpu.as_ref().map_or(0, |gpu| u64::from(gpu.count) * gpu.milli.0);
    let memory = resources.memory.0 / BYTES_PER_MILLI;
    (gpu, resources.cpu.0.max(memory), resources.cpu.0.saturating_add(memory))
}

/// Memory per thousandth of a core on an ordinary machine: 4 GiB to a core.
const BYTES_PER_MILLI: u64 = (4 << 30) / 1000;

/// Older than any growth: looked at again at the next claim.
const LOOK_AGAIN: FleetVersion = FleetVersion(0);

#[cfg(test)]
mod tests;
