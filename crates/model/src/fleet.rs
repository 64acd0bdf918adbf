//! The vocabulary between a store and a planner: claimed containers, the fleet's changes,
//! placements and refusals.

use std::sync::Arc;

use crate::{
    ClaimNumber, ContainerId, Epoch, FleetVersion, Free, GpuGrant, Millis, Nonce, Pool, PoolName, Revision, Shape,
    ShapeHash, Timestamp, WaitReason, Worker, WorkerId, WorkerStatus,
};

/// One claimed container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Which.
    pub container: ContainerId,
    /// The claim that took it.
    pub claim: ClaimNumber,
    /// Its shape.
    pub shape: ShapeHash,
    /// Its place in the order: smaller is better.
    pub score: Score,
    /// When it joined the queue.
    pub since: Timestamp,
    /// Whether it ends when no pool could ever serve it.
    pub fail_if_unplaceable: bool,
}

/// The place in the one order of all that waits; smaller goes first. Priority, then arrival.
/// Below 2^53, so that a Redis sorted set can hold it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Score(pub u64);

/// What changed in the fleet: the last version of each record, not a log.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FleetChanges {
    /// Forget all you know first: you were below the floor.
    pub reload: bool,
    /// You know the fleet up to this version after applying these.
    pub version: FleetVersion,
    /// There is more; ask again.
    pub more: bool,
    /// Workers with their current numbers.
    pub workers: Vec<WorkerView>,
    /// Workers that are gone.
    pub workers_gone: Vec<WorkerId>,
    /// Pools.
    pub pools: Vec<Pool>,
    /// Pools that were removed.
    pub pools_gone: Vec<PoolName>,
    /// Blocked shapes with their count and best score.
    pub blocked: Vec<BlockedShape>,
    /// Shapes no longer blocked (or with nothing waiting).
    pub unblocked: Vec<ShapeHash>,
}

/// A worker as the fleet view holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// What it is. Shared, not copied.
    pub worker: Arc<Worker>,
    /// Its registration.
    pub epoch: Epoch,
    /// Of its static part.
    pub revision: Revision,
    /// May it be scheduled on?
    pub status: WorkerStatus,
    /// What is free.
    pub free: Free,
    /// Affinity keys it ran lately, newest last; bounded.
    pub affinities: Arc<Vec<String>>,
    /// Room kept for a shape, with the score that may use it.
    pub hold: Option<HoldView>,
}

/// A hold on a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldView {
    /// For this shape.
    pub shape: ShapeHash,
    /// Work with a worse score than this is refused here.
    pub score: Score,
    /// Ends by itself.
    pub until: Timestamp,
}

/// A shape of which nothing fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedShape {
    /// Its content's address.
    pub hash: ShapeHash,
    /// What it is.
    pub shape: Arc<Shape>,
    /// How many wait, to within a factor of two (exact when small).
    pub count: u64,
    /// The best of them.
    pub best: Score,
    /// When the best of them joined the queue.
    pub since: Timestamp,
    /// The version planned against.
    pub at: FleetVersion,
}

/// A placement that the ledger turned down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not claimed by this session and claim number (stopped, expired, swept). Forget it.
    #[error("the claim was lost")]
    ClaimLost,
    /// The worker is gone, or in another epoch.
    #[error("the worker is gone or registered anew")]
    WorkerGone,
    /// The worker's static part changed.
    #[error("the worker changed")]
    RevisionChanged,
    /// Cordoned, draining or lost.
    #[error("the worker is not ready")]
    NotReady,
    /// The numbers do not fit.
    #[error("not enough is free")]
    NoCapacity,
    /// The room is held for a better score.
    #[error("the room is held for a container with a better score")]
    Held,
}

/// A container onto a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Claimed by this session.
    pub container: ContainerId,
    /// The claim that took it.
    pub claim: ClaimNumber,
    /// Where to.
    pub worker: WorkerId,
    /// The worker's epoch planned against.
    pub epoch: Epoch,
    /// The worker's revision planned against.
    pub revision: Revision,
    /// The exact devices.
    pub gpus: Vec<GpuGrant>,
    /// Random, for the attempt.
    pub nonce: Nonce,
}

/// Nothing of a shape fits, as of a fleet version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedMark {
    /// Which shape.
    pub shape: ShapeHash,
    /// The version planned against. A mark older than the last growth is looked at again.
    pub at: FleetVersion,
    /// Why, per pool and class of workers.
    pub reasons: Vec<WaitReason>,
}

/// Asks for an expiring hold: room on `worker` kept for a shape's best waiting container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRequest {
    /// For this shape.
    pub shape: ShapeHash,
    /// On this worker.
    pub worker: WorkerId,
    /// Ends by itself after this.
    pub term: Millis,
}
