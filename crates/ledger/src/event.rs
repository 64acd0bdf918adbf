//! The event record: every transition, numbered, bounded, resumable.

use serde::{Deserialize, Serialize};
use volley_model::{
    ContainerId, ContainerState, EventNumber, GroupId, Outcome, Role, TenantName, Timestamp, TokenId, WorkerId,
    WorkerStatus,
};

/// One transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; no gaps.
    pub number: EventNumber,
    /// The store's time.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum EventKind {
    /// A group was accepted; its containers are queued.
    GroupAccepted { group: GroupId, tenant: TenantName, count: u32 },
    /// A container changed its state. `Claimed` is not recorded.
    Container {
        container: ContainerId,
        state: ContainerState,
        attempt: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<WorkerId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcome: Option<Outcome>,
    },
    /// A worker changed its status.
    Worker { worker: WorkerId, status: WorkerStatus },
    /// A pool was made, changed or removed.
    Pool { pool: volley_model::PoolName, removed: bool },
    /// A token was made or revoked.
    Token { token: TokenId, tenant: TenantName, role: Role, revoked: bool },
    /// A tenant's limits were set or removed.
    Tenant { tenant: TenantName, removed: bool },
}
