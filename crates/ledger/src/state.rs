//! The records in memory: groups, live containers, workers, sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use volley_model::{
    ArrivalNumber, Attempt, Capacity, ClaimNumber, CommitNumber, ContainerId, ContainerState, DeliveryNumber, Epoch,
    Free, GpuGrant, GroupId, HoldView, Millis, Nonce, Revision, Score, SessionId, ShapeHash, Spec, SpecHash, StopCause,
    TenantName, Timestamp, Worker, WorkerId, WorkerStatus,
};

use crate::{ClaimReply, CommitReply, StoredPhase};

/// A submission's containers.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) arrival: ArrivalNumber,
    pub(crate) tenant: TenantName,
    pub(crate) name: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) submitted_at: Timestamp,
    pub(crate) runs: Vec<GroupRun>,
    pub(crate) count: u32,
    pub(crate) finished: u32,
    pub(crate) succeeded: u32,
    pub(crate) pruned: u32,
}

/// Neighbours in a group with one spec.
#[derive(Debug, Clone)]
pub(crate) struct GroupRun {
    pub(crate) spec_hash: SpecHash,
    pub(crate) spec: Arc<Spec>,
    pub(crate) shape: ShapeHash,
    pub(crate) score: Score,
    /// Index in the group of its first container.
    pub(crate) start: u32,
    pub(crate) count: u32,
    /// Index in the group of the first one that was never claimed.
    pub(crate) next: u32,
    /// Index in the group below which all have a durable record.
    pub(crate) mark: u32,
}

impl GroupRun {
    pub(crate) fn end(&self) -> u32 {
        self.start + self.count
    }
}

impl Group {
    /// The run that holds a container; `None` past the group's end.
    pub(crate) fn run_of(&self, index: u32) -> Option<usize> {
        if index >= self.count {
            return None;
        }
        Some(self.runs.partition_point(|run| run.start <= index) - 1)
    }

    /// Containers that were never claimed.
    pub(crate) fn in_ranges(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.end() - run.next)).sum()
    }
}

/// A container that was claimed at least once and has not finished.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) spec: Arc<Spec>,
    pub(crate) spec_hash: SpecHash,
    pub(crate) shape: ShapeHash,
    pub(crate) score: Score,
    /// Attempts made so far.
    pub(crate) attempts: u32,
    pub(crate) state: State,
}

/// A live container's state.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// In its shape's queue, or among the delayed until `ready_at`.
    Queued { ready_at: Timestamp },
    /// In a server's turn.
    Claimed { session: SessionId, claim: ClaimNumber, ready_at: Timestamp },
    /// Has an attempt on a worker.
    Bound(Box<Bound>),
}

/// An attempt.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) attempt: Attempt,
    pub(crate) worker: WorkerId,
    pub(crate) epoch: Epoch,
    pub(crate) gpus: Vec<GpuGrant>,
    pub(crate) phase: StoredPhase,
    pub(crate) assigned_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) stop: Option<(StopCause, Millis)>,
    /// Its message in the worker's outbox: a start not accepted, or a stop.
    pub(crate) outbox: Option<DeliveryNumber>,
}

impl Container {
    pub(crate) fn state_name(&self) -> ContainerState {
        match &self.state {
            State::Queued { .. } => ContainerState::Queued,
            State::Claimed { .. } => ContainerState::Claimed,
            State::Bound(bound) if bound.stop.is_some() => ContainerState::Stopping,
            State::Bound(bound) => match bound.phase {
                StoredPhase::Assigned => ContainerState::Assigned,
                StoredPhase::Starting => ContainerState::Starting,
                StoredPhase::Running => ContainerState::Running,
            },
        }
    }

    pub(crate) fn bound(&self) -> Option<&Bound> {
        match &self.state {
            State::Bound(bound) => Some(bound),
            _ => None,
        }
    }

    pub(crate) fn bound_mut(&mut self) -> Option<&mut Bound> {
        match &mut self.state {
            State::Bound(bound) => Some(bound),
            _ => None,
        }
    }
}

/// A worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerEntry {
    pub(crate) worker: Arc<Worker>,
    pub(crate) epoch: Epoch,
    /// The epoch before, until the worker is heard of in this one: the reply that began it may have been lost.
    pub(crate) previous: Option<Epoch>,
    pub(crate) revision: Revision,
    /// What its owner wants: Ready, Cordoned or Draining.
    pub(crate) admin: WorkerStatus,
    /// When its lease ended, unless it came back.
    pub(crate) lost_at: Option<Timestamp>,
    pub(crate) drain_until: Option<Timestamp>,
    pub(crate) free: Free,
    /// A capacity too small for what is reserved: counts, and lets new work in, when enough of that has ended.
    pub(crate) wanted: Option<Capacity>,
    pub(crate) affinities: Arc<Vec<String>>,
    pub(crate) hold: Option<HoldView>,
    pub(crate) attempts: BTreeSet<ContainerId>,
    pub(crate) stream: Option<(SessionId, Nonce)>,
    pub(crate) lease_until: Timestamp,
    /// Messages not taken over by the worker yet.
    pub(crate) outbox: BTreeMap<DeliveryNumber, ContainerId>,
    pub(crate) last_delivery: DeliveryNumber,
    pub(crate) finished: u64,
    /// Since when it runs nothing, or is lost.
    pub(crate) idle_since: Timestamp,
    /// Specs that it could not run since it last ran one.
    pub(crate) failing: BTreeSet<SpecHash>,
    /// Why it was cordoned by itself, until its owner opens it.
    pub(crate) quarantine: Option<String>,
}

impl WorkerEntry {
    pub(crate) fn status(&self) -> WorkerStatus {
        if self.lost_at.is_some() { WorkerStatus::Lost } else { self.admin }
    }

    /// Puts a message about a container at the end of the outbox.
    pub(crate) fn post(&mut self, container: ContainerId) -> DeliveryNumber {
        self.last_delivery = self.last_delivery.next();
        self.outbox.insert(self.last_delivery, container);
        self.last_delivery
    }
}

/// A server's session.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) address: String,
    pub(crate) lease_until: Timestamp,
    pub(crate) claimed: BTreeSet<ContainerId>,
    pub(crate) last_claim: Option<(ClaimNumber, ClaimReply)>,
    pub(crate) last_commit: Option<(CommitNumber, CommitReply)>,
}

/// What waits for its `max_wait` to end: exactly what is queued, listed under its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expiring {
    /// What is left of a run's range.
    Run(GroupId, u32),
    /// A queued container with a record of its own.
    One(ContainerId),
}
