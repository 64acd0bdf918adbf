//! The change set of an operation: what a durable store must write, as whole records, and
//! the hints to give once it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use volley_model::{
    ArrivalNumber, Attempt, ContainerId, Epoch, EventNumber, FleetVersion, GpuGrant, GroupId, Millis, Outcome, Pool,
    PoolName, PoolStanding, Provisioning, Spec, SpecHash, Tenant, TenantName, Timestamp, Token, TokenId, Worker,
    WorkerId, WorkerStatus,
};

use crate::Event;

/// What changed. Writing the same change twice is harmless; of two puts of one key the later counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A spec that a group uses.
    PutSpec(SpecHash, Arc<Spec>),
    /// No group uses it any more.
    RemoveSpec(SpecHash),
    /// A group.
    PutGroup(StoredGroup),
    /// A group's counts grew.
    PutProgress(StoredProgress),
    /// A run's mark grew: its containers below `mark` have a record of their own or have finished.
    PutMark {
        /// The group.
        group: GroupId,
        /// Index into [`StoredGroup::runs`].
        run: u32,
        /// Counted from the run's start.
        mark: u32,
    },
    /// All of its containers are pruned.
    RemoveGroup(GroupId),
    /// A container that was claimed at least once and has not finished. Containers of a group
    /// at or past `StoredGroup::materialised` have no record: they are queued, attempt 0.
    PutLive(StoredLive),
    /// A container finished: its live record goes, this one comes.
    Finish(StoredFinished),
    /// A finished container is forgotten.
    Prune(ContainerId),
    /// A client key.
    PutKey(StoredKey),
    /// Its retention ended.
    RemoveKey(TenantName, String),
    /// A worker.
    PutWorker(StoredWorker),
    /// It is gone.
    RemoveWorker(WorkerId),
    /// A pool.
    PutPool(Pool),
    /// It was removed, and its standing with it.
    RemovePool(PoolName),
    /// A tenant's limits.
    PutTenant(Tenant),
    /// It has none any more.
    RemoveTenant(TenantName),
    /// A token.
    PutToken(Token),
    /// It ended long ago.
    RemoveToken(TokenId),
    /// A bought machine's record.
    PutMachine(Arc<Provisioning>),
    /// It is destroyed, or never was.
    RemoveMachine(WorkerId),
    /// How a pool does with its provisioner.
    PutStanding(PoolStanding),
    /// Events below this number are forgotten.
    PruneEvents(EventNumber),
}

/// All changes of one operation, and what to tell whom once they are durable.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChangeSet {
    /// In order.
    pub changes: Vec<Change>,
    /// New events, rising by number. Durable with the changes.
    pub events: Vec<Event>,
    /// To be given after the changes are durable.
    pub hints: Vec<Hint>,
}

/// The ledger's numbers, written with every change set that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Counters {
    pub now: Timestamp,
    pub accepted: u64,
    pub finished: u64,
    pub pruned: u64,
    pub next_arrival: ArrivalNumber,
    pub fleet_version: FleetVersion,
    pub last_event: EventNumber,
}

/// A wake-up. Losing one costs time, never work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// So many containers became ready, or capacity grew while shapes are blocked (0).
    Ready {
        /// Newly ready.
        containers: u32,
    },
    /// These workers' outboxes have something new.
    Outbox(Vec<WorkerId>),
    /// The event record grew to this number.
    Events(EventNumber),
    /// Something is due earlier than last said.
    Due(Timestamp),
}

/// A group on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredGroup {
    /// Its id.
    pub id: GroupId,
    /// Its place in the order of arrival.
    pub arrival: ArrivalNumber,
    /// Owner.
    pub tenant: TenantName,
    /// For lists.
    pub name: Option<String>,
    /// For filters.
    pub labels: BTreeMap<String, String>,
    /// Spec and count of each run, in order of index.
    pub runs: Vec<(SpecHash, u32)>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// Per run: containers of the run (counted from its start) below this have a record of their own or have finished.
    pub materialised: Vec<u32>,
    /// Finished so far, pruned included.
    pub finished: u32,
    /// Of these: exit code 0.
    pub succeeded: u32,
    /// Pruned so far.
    pub pruned: u32,
}

/// A group's counts on disk; overrides those of [`StoredGroup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StoredProgress {
    pub group: GroupId,
    pub finished: u32,
    pub succeeded: u32,
    pub pruned: u32,
}

/// A live container on disk. Claims are not kept: a claimed one is stored as queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLive {
    /// Which.
    pub id: ContainerId,
    /// Attempts made so far.
    pub attempts: u32,
    /// When it joined (or may join) the queue.
    pub ready_at: Timestamp,
    /// Its attempt, if it has one.
    pub attempt: Option<StoredAttempt>,
}

/// An attempt on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAttempt {
    /// Number and nonce.
    pub attempt: Attempt,
    /// Where.
    pub worker: WorkerId,
    /// In which epoch.
    pub epoch: Epoch,
    /// Devices.
    pub gpus: Vec<GpuGrant>,
    /// How far.
    pub phase: StoredPhase,
    /// When assigned.
    pub assigned_at: Timestamp,
    /// When started.
    pub started_at: Option<Timestamp>,
    /// A stop was asked for, with this grace.
    pub stop: Option<(volley_model::StopCause, Millis)>,
}

/// How far an attempt on disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum StoredPhase {
    Assigned,
    Starting,
    Running,
}

/// A finished container on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFinished {
    /// Which.
    pub id: ContainerId,
    /// How it ended.
    pub outcome: Outcome,
    /// The last attempt; `None` when there was none.
    pub attempt: Option<Attempt>,
    /// Where it ran last.
    pub worker: Option<WorkerId>,
    /// Devices of the last attempt.
    pub gpus: Vec<GpuGrant>,
    /// When the last attempt was assigned.
    pub assigned_at: Option<Timestamp>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it finished.
    pub finished_at: Timestamp,
}

/// A client key on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKey {
    /// Whose.
    pub tenant: TenantName,
    /// The key.
    pub key: String,
    /// What it made.
    pub group: GroupId,
    /// How many containers.
    pub count: u32,
    /// Of the body.
    pub body_digest: u128,
    /// Kept until then.
    pub until: Timestamp,
}

/// A worker on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredWorker {
    /// What it is.
    pub worker: Worker,
    /// Its registration.
    pub epoch: Epoch,
    /// Of its static part.
    pub revision: volley_model::Revision,
    /// Its status.
    pub status: WorkerStatus,
    /// When a drain turns into stops.
    pub drain_until: Option<Timestamp>,
    /// Containers that ever finished on it.
    pub finished: u64,
    /// Why it was cordoned by itself, if it was.
    pub quarantine: Option<String>,
    /// Specs that it could not run since it last ran one.
    pub failing: Vec<SpecHash>,
}
