//! What the operations answer.

use std::sync::Arc;

use volley_model::{
    Attempt, Claimed, ContainerId, ContainerState, DeliveryNumber, Epoch, FleetChanges, FleetVersion, GpuGrant,
    GroupId, Millis, Nonce, PoolVersion, Refusal, ScaleLead, SessionId, Shape, ShapeHash, Spec, SpecHash, TenantName,
    Timestamp, Token, WaitReason, WorkerId, WorkerStatus, WorkerView,
};

/// One reply per operation, of the same name.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Reply {
    Submit(Result<SubmitReply, SubmitRefusal>),
    OpenSession(SessionReply),
    CloseSession(()),
    Claim(Result<ClaimReply, SessionRefusal>),
    Commit(Result<CommitReply, SessionRefusal>),
    Attach(Result<AttachReply, AttachRefusal>),
    Heartbeat(HeartbeatReply),
    /// Whether it was this stream's to say.
    Detach(bool),
    Report(Vec<Verdict>),
    Stop(Result<StopReply, NotFound>),
    SetSchedulable(Result<(), NotFound>),
    Sweep(SweepReply),
    ApplyPool(Result<PoolVersion, ApplyPoolRefusal>),
    RemovePool(Result<(), RemovePoolRefusal>),
    CreateToken(Result<Token, TokenRefusal>),
    RevokeToken(Result<Token, NotFound>),
    ApplyTenant(Result<(), TenantRefusal>),
    RemoveTenant(Result<(), NotFound>),
    LeadScaling(Result<ScaleLead, ScaleRefusal>),
    Provision(Result<Vec<Result<(), ProvisionRefusal>>, ScaleRefusal>),
    /// Whether each was noted.
    NoteMachines(Result<Vec<bool>, ScaleRefusal>),
    /// Whether each is given up.
    Retire(Result<Vec<bool>, ScaleRefusal>),
}

/// A group was accepted, now or before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmitReply {
    /// Its id.
    pub group: GroupId,
    /// Its containers are `group-0` to `group-(count-1)`.
    pub count: u32,
    /// The same client key made it before.
    pub repeated: bool,
}

/// Why a submission was not accepted. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitRefusal {
    /// Other containers must finish first.
    #[error("the backlog is full: {waiting} containers wait, at most {limit} may, and {asked} more were asked for")]
    BacklogFull {
        /// Waiting now.
        waiting: u64,
        /// The bound.
        limit: u64,
        /// Of this submission.
        asked: u64,
    },
    /// Other containers of this tenant must finish first.
    #[error(
        "the backlog of tenant {tenant} is full: {waiting} containers wait, at most {limit} may, and {asked} more \
         were asked for"
    )]
    TenantBacklogFull {
        /// Whose.
        tenant: TenantName,
        /// Waiting now.
        waiting: u64,
        /// The bound.
        limit: u64,
        /// Of this submission.
        asked: u64,
    },
    /// The tenant submits faster than it may.
    #[error("tenant {tenant} may submit {per_second} containers per second; send this again in {retry_after}")]
    RateExceeded {
        /// Whose.
        tenant: TenantName,
        /// In the long run.
        per_second: u32,
        /// Then the same submission is within the rate, if nothing else was submitted.
        retry_after: Millis,
    },
    /// The client key was used with another body.
    #[error("the client key was used before with another body (group {group}); use a new key")]
    KeyReused {
        /// What it made.
        group: GroupId,
    },
    /// The random id is in use; try with another.
    #[error("the group id is taken")]
    IdTaken,
}

/// A session is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReply {
    /// How long without a call before it is swept.
    pub lease: Millis,
}

/// Why a session's call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefusal {
    /// It was swept or never opened; open a new one.
    #[error("the session has ended")]
    SessionEnded,
    /// A newer call was seen.
    #[error("the number is older than the last one seen")]
    NumberTooOld,
}

/// The heads of the queues and the fleet's changes.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimReply {
    /// Containers now claimed by the caller, best score first.
    pub containers: Vec<Claimed>,
    /// Shapes of these containers that the caller may not know, by hash. Shared, not copied.
    pub shapes: Vec<(ShapeHash, Arc<Shape>)>,
    /// Changes since the version asked for.
    pub fleet: FleetChanges,
    /// Blocked shapes handed to the caller to look at again.
    pub recheck: Vec<ShapeHash>,
    /// Live sessions, sorted, for rendezvous.
    pub sessions: Vec<SessionId>,
    /// Queued containers of shapes that are not blocked, after this claim.
    pub ready: u64,
    /// When the next retry, expiry or lease is due.
    pub due: Option<Timestamp>,
    /// The store's time.
    pub now: Timestamp,
}

/// Verdicts of a commit, one per placement, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitReply {
    /// One each.
    pub placements: Vec<Result<Attempt, Refusal>>,
    /// Fresh numbers of the workers that refused something.
    pub fresh: Vec<WorkerView>,
    /// Workers that got something, for wake-ups, with the session that holds their stream.
    pub wake: Vec<(WorkerId, SessionId)>,
    /// The fleet's version after the commit.
    pub version: FleetVersion,
    /// The store's time.
    pub now: Timestamp,
}

/// A worker is attached.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachReply {
    /// Its epoch from now on.
    pub epoch: Epoch,
    /// Its lease.
    pub lease: Millis,
    /// Its status.
    pub status: WorkerStatus,
    /// One verdict per inventory item, in order.
    pub inventory: Vec<Verdict>,
}

/// Why a worker was not attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachRefusal {
    /// The server's session has ended.
    #[error("the server's session has ended")]
    SessionEnded,
    /// Too many workers.
    #[error("{limit} workers are registered, which is the limit")]
    TooManyWorkers {
        /// The bound.
        limit: u32,
    },
    /// Another machine uses this name within its lease (it sent neither this epoch nor its inventory).
    #[error("worker '{worker}' is connected from elsewhere; choose another name or wait for its lease to end")]
    NameInUse {
        /// The name.
        worker: WorkerId,
    },
    /// Another stream was opened or closed since this one began; the worker comes again if it still wants one.
    #[error("another stream of worker '{worker}' was opened or closed meanwhile; come again")]
    Superseded {
        /// Whose.
        worker: WorkerId,
    },
}

/// What a worker is to do about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Noted; go on (or, for an end: forget it).
    Keep,
    /// Not yours any more: kill it if it runs, and forget it.
    Kill,
}

/// Which workers' leases were renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The session is alive.
    pub session_alive: bool,
    /// One each, in order: false when the stream or epoch is fenced.
    pub workers: Vec<bool>,
}

/// How many containers a stop reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopReply {
    /// Finished at once: they waited.
    pub finished: u32,
    /// Told to stop.
    pub stopping: u32,
    /// Had finished before.
    pub already_finished: u32,
}

/// There is no such thing (for this tenant).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no {what}")]
pub struct NotFound {
    /// Kind and id, as in `container 0123456789abc-7`.
    pub what: String,
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SweepReply {
    /// Sessions that ended.
    pub sessions_ended: u32,
    /// Workers that lost their lease.
    pub workers_lost: Vec<WorkerId>,
    /// Containers that waited too long.
    pub expired: u32,
    /// Retries that became ready.
    pub ready: u32,
    /// Finished containers forgotten.
    pub pruned: u32,
    /// There is more to do now.
    pub more: bool,
    /// When the next thing is due.
    pub due: Option<Timestamp>,
    /// Something can be claimed or is to be looked at again. Told every time, for a hint may get lost.
    pub work: bool,
    /// The store's time.
    pub now: Timestamp,
    /// Another server has the right to sweep, until `due`: nothing was done.
    pub left: bool,
}

/// Why a pool was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApplyPoolRefusal {
    /// Someone else changed it.
    #[error("the pool was changed meanwhile (it is at version {version} now); look at it and apply again")]
    Changed {
        /// Its version; 0 when there is none.
        version: PoolVersion,
    },
    /// Their maker would be forgotten.
    #[error(
        "{machines} machines of the pool were made by its present provisioner; \
         set max to 0, wait until they are gone, then change the provisioner"
    )]
    HasMachines {
        /// How many.
        machines: u32,
    },
}

/// Why a call about machines was refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScaleRefusal {
    /// It was swept or never opened; open a new one.
    #[error("the session has ended")]
    SessionEnded,
    /// Another session may buy at present, or nobody, or this one in a later term.
    #[error("this session does not lead")]
    NotLeading {
        /// Who does.
        lead: Option<ScaleLead>,
    },
}

/// Why a machine's record was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionRefusal {
    /// There is none, or its workers come by themselves.
    #[error("there is no such elastic pool")]
    NoSuchPool,
    /// Plan again.
    #[error("the pool was changed meanwhile")]
    PoolChanged,
    /// A worker, or a machine of another pool, has the name.
    #[error("the id is taken")]
    IdTaken,
    /// It has as many machines as it may.
    #[error("the pool is at its maximum of {max} machines")]
    AtMax {
        /// Its limit.
        max: u32,
    },
    /// So many are on their way already.
    #[error("{limit} machines of the pool are on their way, which is the limit")]
    InFlight {
        /// Its limit.
        limit: u32,
    },
    /// So many were bought in this minute.
    #[error("{limit} machines of the pool were bought this minute, which is the limit")]
    MinuteLimit {
        /// Its limit.
        limit: u32,
    },
    /// Purchases failed.
    #[error("the pool waits after a failure")]
    Waits {
        /// Until then.
        until: Timestamp,
    },
}

/// Why a pool was not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemovePoolRefusal {
    /// There is none.
    #[error("there is no such pool")]
    NotFound,
    /// It has workers.
    #[error("{workers} workers are in the pool; drain them first")]
    HasWorkers {
        /// How many.
        workers: u32,
    },
    /// It has machines.
    #[error("{machines} machines of the pool are not destroyed; set max and min to 0 and drain its workers first")]
    HasMachines {
        /// How many.
        machines: u32,
    },
}

/// Why a token was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Another token has the random id; try with another.
    #[error("the token id is taken")]
    IdTaken,
    /// Too many.
    #[error("{limit} tokens are kept, which is the limit; revoked and expired ones count until they are forgotten")]
    TooMany {
        /// The bound.
        limit: u32,
    },
}

/// Why a tenant's limits were not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantRefusal {
    /// Too many.
    #[error("{limit} tenants have limits of their own, which is the limit; remove one first")]
    TooMany {
        /// The bound.
        limit: u32,
    },
}

/// A message in a worker's outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its place.
    pub number: DeliveryNumber,
    /// What to do.
    pub order: Order,
}

/// What a worker is told to do.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Order {
    /// Run this attempt.
    Start { container: ContainerId, attempt: Attempt, spec_hash: SpecHash, spec: Arc<Spec>, gpus: Vec<GpuGrant> },
    /// End this attempt after a grace; zero kills at once.
    Stop { container: ContainerId, attempt: Attempt, grace: Millis },
}

/// What `take` found for one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// For this worker.
    pub worker: WorkerId,
    /// And this stream.
    pub stream: Nonce,
    /// Rising by number; empty for a fenced stream.
    pub deliveries: Vec<Delivery>,
    /// As many as one take gives: there may be more.
    pub more: bool,
}

/// Counts for law 3 and the violations of all laws.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Audit {
    pub accepted: u64,
    pub queued: u64,
    pub claimed: u64,
    pub assigned: u64,
    pub starting: u64,
    pub running: u64,
    pub stopping: u64,
    pub finished: u64,
    pub pruned: u64,
    /// One line each: law and what breaks it.
    pub violations: Vec<String>,
}

impl Audit {
    /// The count of a state.
    #[must_use]
    pub fn count(&self, state: ContainerState) -> u64 {
        match state {
            ContainerState::Queued => self.queued,
            ContainerState::Claimed => self.claimed,
            ContainerState::Assigned => self.assigned,
            ContainerState::Starting => self.starting,
            ContainerState::Running => self.running,
            ContainerState::Stopping => self.stopping,
            ContainerState::Finished => self.finished,
        }
    }
}

/// Why a waiting container waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Since when.
    pub since: Timestamp,
    /// Not before (a retry's backoff).
    pub not_before: Option<Timestamp>,
    /// Of its shape's mark.
    pub reasons: Vec<WaitReason>,
}
