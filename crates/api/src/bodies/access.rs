//! Bodies of tokens, and of tenants and their limits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use volley_control::ledger::TenantRecord;
use volley_model::{Tenant, Token};

/// A token's record.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub(crate) struct TokenBody {
    id: String,
    tenant: String,
    /// admin, submit, read or worker.
    role: String,
    note: Option<String>,
    created_at_ms: u64,
    expires_at_ms: Option<u64>,
    revoked_at_ms: Option<u64>,
}

impl From<&Token> for TokenBody {
    fn from(token: &Token) -> Self {
        Self {
            id: token.id.to_string(),
            tenant: token.tenant.to_string(),
            role: token.role.to_string(),
            note: token.note.clone(),
            created_at_ms: token.created_at.0,
            expires_at_ms: token.expires_at.map(|at| at.0),
            revoked_at_ms: token.revoked_at.map(|at| at.0),
        }
    }
}

/// A new token with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedToken {
    #[serde(flatten)]
    pub(crate) token: TokenBody,
    pub(crate) secret: String,
}

/// A page of tokens in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenPage {
    pub(crate) tokens: Vec<TokenBody>,
    /// Ask again with `after` set to this; null at the end.
    pub(crate) next: Option<String>,
}

/// What a new token is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTokenBody {
    /// Whose; `default` when left out.
    pub(crate) tenant: Option<String>,
    /// admin, submit, read or worker.
    pub(crate) role: String,
    /// What it is for.
    pub(crate) note: Option<String>,
    /// How long it counts, as in `30m` or `720h`; for ever when left out.
    pub(crate) expires_in: Option<String>,
}

/// A tenant's limits, and how much of it waits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(crate) struct TenantBody {
    name: String,
    /// Most of its containers that may wait; null for no limit but the cell's.
    backlog_max: Option<u64>,
    /// How fast it may submit; null for no limit.
    rate: Option<RateBody>,
    /// Its containers that wait.
    waiting: u64,
}

/// A token bucket of containers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Rate)]
pub(crate) struct RateBody {
    /// Containers per second in the long run.
    pub(crate) per_second: u32,
    /// Containers at once after a pause. A larger group waits for a full bucket and leaves a debt.
    pub(crate) burst: u32,
}

/// Limits to set; what is left out is no limit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) backlog_max: Option<u64>,
    pub(crate) rate: Option<RateBody>,
}

impl From<&TenantRecord> for TenantBody {
    fn from(record: &TenantRecord) -> Self {
        let Tenant { name, backlog_max, rate } = &record.tenant;
        Self {
            name: name.to_string(),
            backlog_max: *backlog_max,
            rate: rate.map(|rate| RateBody { per_second: rate.per_second, burst: rate.burst }),
            waiting: record.waiting,
        }
    }
}

/// A page of tenants that have limits or waiting containers, in order of name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tenants {
    pub(crate) tenants: Vec<TenantBody>,
    /// Ask again with `after` set to this; null at the end.
    pub(crate) next: Option<String>,
}
