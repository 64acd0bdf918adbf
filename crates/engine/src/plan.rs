//! The plan of one turn: claimed containers x fleet view -> placements, blocked shapes,
//! holds, reasons. Plans shapes, not containers.

use std::sync::Arc;

use volley_model::{
    BlockedMark, Claimed, ContainerId, Epoch, GpuGrant, HoldRequest, Millis, Revision, SessionId, Shape, ShapeHash,
    Timestamp, WorkerId,
};

use crate::FleetView;

/// What a turn plans from, beside the view.
#[derive(Debug, Clone)]
pub struct PlanInput<'a> {
    /// Claimed containers in any order: this claim's and those refused before.
    pub containers: &'a [Claimed],
    /// Their shapes.
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
    /// What goes where.
    pub placements: Vec<Planned>,
    /// Shapes of which nothing (more) fits, with reasons.
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
#[must_use]
pub fn plan(view: &FleetView, input: &PlanInput<'_>) -> Plan {
    let _ = (view, input);
    Plan::default()
}
