//! The operations, each one call and safe to repeat. All are values: what is random or
//! depends on a clock was put in by the caller.

use volley_model::{
    Attempt, BlockedMark, ClaimNumber, CommitNumber, ContainerId, DeliveryNumber, Epoch, FleetVersion, GroupId,
    HoldRequest, Millis, Nonce, Placement, Pool, PoolName, PoolVersion, Progress, RetireCause, Role, ScaleLead,
    SecretHash, SessionId, ShapeHash, Submission, Tenant, TenantName, TokenId, Worker, WorkerId,
};

/// One call to the ledger.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Operation {
    Submit(Submit),
    OpenSession(OpenSession),
    CloseSession(CloseSession),
    Claim(Claim),
    Commit(Commit),
    Attach(Box<Attach>),
    Heartbeat(Heartbeat),
    Detach(Detach),
    Report(Report),
    Stop(Stop),
    SetSchedulable(SetSchedulable),
    Sweep(Sweep),
    ApplyPool(ApplyPool),
    RemovePool(RemovePool),
    CreateToken(CreateToken),
    RevokeToken(RevokeToken),
    ApplyTenant(ApplyTenant),
    RemoveTenant(RemoveTenant),
    LeadScaling(LeadScaling),
    Provision(Provision),
    NoteMachines(NoteMachines),
    Retire(Retire),
}

/// Accepts a group of containers, or gives the group that the same client key made before.
#[derive(Debug, Clone, PartialEq)]
pub struct Submit {
    /// The new group's id; random. Refused as `IdTaken` when in use.
    pub group: GroupId,
    /// Checked by `model`.
    pub submission: Submission,
    /// Digest of the body, to tell a repeat from a reused key.
    pub body_digest: u128,
}

/// Begins (or renews) a server's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// Random; one life of a server process.
    pub session: SessionId,
    /// Where its API answers, for people.
    pub address: String,
}

/// Ends a session at once: its claims go back to the queue with their scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseSession {
    /// Which.
    pub session: SessionId,
}

/// Takes the heads of the queues, and what changed in the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose turn.
    pub session: SessionId,
    /// The same number replays the last reply; an older one is refused.
    pub number: ClaimNumber,
    /// At most this many containers; 0 only fetches the fleet's changes.
    pub containers_max: u32,
    /// Version up to which the caller knows the fleet; 0 for a full load.
    pub known: FleetVersion,
    /// At most this many fleet changes; the reply says if there are `more`.
    pub changes_max: u32,
}

/// Commits a turn's decisions at once. Each item is checked alone; one bad item touches no other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Commit {
    /// Whose turn.
    pub session: SessionId,
    /// The same number replays the last reply; an older one is refused.
    pub number: CommitNumber,
    /// What goes where.
    pub placements: Vec<Placement>,
    /// Shapes of which nothing fits.
    pub blocked: Vec<BlockedMark>,
    /// Shapes that fit again.
    pub unblocked: Vec<ShapeHash>,
    /// Claimed containers that go back to their queue, with their score.
    pub returned: Vec<ContainerId>,
    /// Claimed containers that no pool could ever serve and whose spec says to fail.
    pub unplaceable: Vec<(ContainerId, String)>,
    /// Room to keep for the best waiting container of a pool.
    pub holds: Vec<HoldRequest>,
}

/// A worker opens a stream on a server: registration and inventory in one.
#[derive(Debug, Clone, PartialEq)]
pub struct Attach {
    /// The server that holds the stream.
    pub session: SessionId,
    /// What the worker is.
    pub worker: Worker,
    /// Random, one per stream; a newer stream fences this one.
    pub stream: Nonce,
    /// The worker's stream when this one was opened, which it takes the place of: a call that comes late, after yet
    /// another stream was opened, is refused instead of fencing that one.
    pub replaces: Option<Nonce>,
    /// The epoch the worker believes to be in.
    pub epoch: Option<Epoch>,
    /// For the new epoch, if one is begun.
    pub epoch_nonce: Nonce,
    /// Every attempt the worker knows and has no acknowledged end of.
    pub inventory: Vec<InventoryItem>,
    /// Affinity keys that it comes with (images that it holds), the best last.
    pub affinities: Vec<String>,
}

/// An attempt that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryItem {
    /// Which container.
    pub container: ContainerId,
    /// Which attempt.
    pub attempt: Attempt,
    /// How far it is.
    pub progress: Progress,
}

/// Renews leases: of the session and of workers whose streams it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The server.
    pub session: SessionId,
    /// Worker, its stream and epoch.
    pub workers: Vec<(WorkerId, Nonce, Epoch)>,
}

/// A worker leaves by itself: its lease ends at once, and what it still held is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detach {
    /// The server that holds the stream.
    pub session: SessionId,
    /// Which.
    pub worker: WorkerId,
    /// Its stream; a fenced one has no say.
    pub stream: Nonce,
}

/// Messages from workers, for all workers of a server at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The server.
    pub session: SessionId,
    /// Each judged alone; the reply has one verdict each, in order.
    pub messages: Vec<WorkerMessage>,
}

/// One message about one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerMessage {
    /// From this worker.
    pub worker: WorkerId,
    /// In this epoch.
    pub epoch: Epoch,
    /// About this container.
    pub container: ContainerId,
    /// And this attempt of it.
    pub attempt: Attempt,
    /// What happened.
    pub progress: Progress,
}

/// Stops containers: one, or all of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub target: StopTarget,
    /// Who may: only containers of this tenant are touched, of any tenant when `None`.
    pub tenant: Option<TenantName>,
    /// Kill at once instead of after the grace.
    pub force: bool,
}

/// One container or a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StopTarget {
    Container(ContainerId),
    Group(GroupId),
}

/// Cordon, uncordon or drain a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSchedulable {
    /// Which.
    pub worker: WorkerId,
    /// To what.
    pub to: Schedulable,
}

/// What may be scheduled on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedulable {
    /// Anything.
    Open,
    /// Nothing new.
    Cordoned,
    /// Nothing new; what runs is stopped after `deadline`, never when `None`. Gone when empty and disconnected.
    Drain {
        /// From now. Of two that are asked for the earlier counts; a drain without one lifts it.
        deadline: Option<Millis>,
    },
}

/// Does what time has made due: leases, expiries, retries, drains, pruning. Bounded; says if there is more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// Which server asks: while another one has the right to sweep, nothing is done. `None`: whoever has it.
    pub session: Option<SessionId>,
    /// At most this many items.
    pub items_max: u32,
}

/// Creates or changes a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyPool {
    /// Its record. The version in it does not count.
    pub pool: Pool,
    /// Only if this is still the record's version; [`PoolVersion`] 0 when there is none yet.
    pub expected: Option<PoolVersion>,
    /// Forget failures and quarantine: its owner has looked at it.
    pub renew: bool,
}

/// Removes a pool that has no workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovePool {
    /// Its name.
    pub pool: PoolName,
}

/// Makes a token. The same id with the same secret, tenant and role gives the token that it made before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateToken {
    /// The new token's id; random. Refused as `IdTaken` when another has it.
    pub token: TokenId,
    /// Of its secret, which stays with the caller.
    pub hash: SecretHash,
    /// Whose.
    pub tenant: TenantName,
    /// What it lets do.
    pub role: Role,
    /// What it is for.
    pub note: Option<String>,
    /// How long it counts from now; for ever when `None`.
    pub expires_in: Option<Millis>,
}

/// Ends a token at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokeToken {
    /// Which.
    pub token: TokenId,
}

/// Sets a tenant's limits. A new rate begins with a full bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyTenant {
    /// Its record.
    pub tenant: Tenant,
}

/// Forgets a tenant's limits: it has none but the cell's. Its containers and tokens stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveTenant {
    /// Its name.
    pub tenant: TenantName,
}

/// Takes or renews the right to buy and give up machines: one session's at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadScaling {
    /// Who asks.
    pub session: SessionId,
}

/// Writes the records of machines, before anybody is asked to make them. Each is checked alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// The leader.
    pub session: SessionId,
    /// Its term; an older one has no say.
    pub term: u64,
    /// One record each.
    pub machines: Vec<NewMachine>,
}

/// A machine to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMachine {
    /// The record's id, new: the name of the worker that it will register. Sent again, it counts once.
    pub worker: WorkerId,
    /// Of this pool.
    pub pool: PoolName,
    /// The pool's record planned against.
    pub pool_version: PoolVersion,
}

/// What provisioners answered about machines. Each is noted alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteMachines {
    /// The leader.
    pub session: SessionId,
    /// Its term; an older one has no say.
    pub term: u64,
    /// Record's id and answer.
    pub notes: Vec<(WorkerId, MachineSaid)>,
    /// Chance in thousandths, for the wait after a failure.
    pub jitter: u16,
}

/// A provisioner's answer about one machine. An answer that did not come is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineSaid {
    /// It is there, by this name of the provisioner's own.
    Created {
        /// For people.
        handle: String,
    },
    /// It is not there and will not come: its record goes.
    Failed {
        /// In words.
        reason: String,
    },
    /// It is gone: the record of a machine that was to be destroyed goes.
    Destroyed,
}

/// Gives machines up. Each is checked alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retire {
    /// The leader.
    pub session: SessionId,
    /// Its term; an older one has no say.
    pub term: u64,
    /// Record's id and why.
    pub machines: Vec<(WorkerId, RetireCause)>,
    /// Chance in thousandths, for the wait after one that did not register.
    pub jitter: u16,
}

/// What a server asks for to hand to one worker's stream: messages after a place in its outbox. A read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeFrom {
    /// The worker.
    pub worker: WorkerId,
    /// Its stream; a fenced one gets nothing.
    pub stream: Nonce,
    /// The last message already handed over.
    pub after: DeliveryNumber,
}

/// A request with a typed reply.
pub trait Request {
    /// What comes back.
    type Reply;
    /// As an operation.
    fn into_operation(self) -> Operation;
    /// The typed part of the reply; `None` means a bug in the store.
    fn from_reply(reply: crate::Reply) -> Option<Self::Reply>;
}

macro_rules! requests {
    ($($name:ident => $reply:ty),+ $(,)?) => {
        $(impl Request for $name {
            type Reply = $reply;
            fn into_operation(self) -> Operation {
                Operation::$name(self.into())
            }
            fn from_reply(reply: crate::Reply) -> Option<$reply> {
                match reply {
                    crate::Reply::$name(reply) => Some(reply),
                    _ => None,
                }
            }
        })+
    };
}

requests! {
    Submit => Result<crate::SubmitReply, crate::SubmitRefusal>,
    OpenSession => crate::SessionReply,
    CloseSession => (),
    Claim => Result<crate::ClaimReply, crate::SessionRefusal>,
    Commit => Result<crate::CommitReply, crate::SessionRefusal>,
    Attach => Result<crate::AttachReply, crate::AttachRefusal>,
    Heartbeat => crate::HeartbeatReply,
    Detach => bool,
    Report => Vec<crate::Verdict>,
    Stop => Result<crate::StopReply, crate::NotFound>,
    SetSchedulable => Result<(), crate::NotFound>,
    Sweep => crate::SweepReply,
    ApplyPool => Result<PoolVersion, crate::ApplyPoolRefusal>,
    RemovePool => Result<(), crate::RemovePoolRefusal>,
    CreateToken => Result<volley_model::Token, crate::TokenRefusal>,
    RevokeToken => Result<volley_model::Token, crate::NotFound>,
    ApplyTenant => Result<(), crate::TenantRefusal>,
    RemoveTenant => Result<(), crate::NotFound>,
    LeadScaling => Result<ScaleLead, crate::ScaleRefusal>,
    Provision => Result<Vec<Result<(), crate::ProvisionRefusal>>, crate::ScaleRefusal>,
    NoteMachines => Result<Vec<bool>, crate::ScaleRefusal>,
    Retire => Result<Vec<bool>, crate::ScaleRefusal>,
}
