//! Bodies of the event record.

use serde::Serialize;
use utoipa::ToSchema;
use volley_control::ledger::{self, EventKind};
use volley_model::Outcome;

/// One transition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    /// No gaps.
    number: u64,
    at_ms: u64,
    #[serde(flatten)]
    kind: Kind,
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = EventKind)]
pub(crate) enum Kind {
    /// A group was accepted; its containers are queued.
    GroupAccepted { group: String, tenant: String, count: u32 },
    /// A container changed its state.
    Container {
        container: String,
        state: String,
        attempt: u32,
        worker: Option<String>,
        #[schema(value_type = Option<Object>)]
        outcome: Option<Outcome>,
        outcome_words: Option<String>,
    },
    /// A worker changed its status.
    Worker { worker: String, status: String },
    /// A pool was made, changed or removed.
    Pool { pool: String, removed: bool },
    /// A token was made or revoked.
    Token { token: String, tenant: String, role: String, revoked: bool },
    /// A tenant's limits were set or removed.
    Tenant { tenant: String, removed: bool },
}

impl From<&ledger::Event> for Event {
    fn from(event: &ledger::Event) -> Self {
        let kind = match &event.kind {
            EventKind::GroupAccepted { group, tenant, count } => {
                Kind::GroupAccepted { group: group.to_string(), tenant: tenant.to_string(), count: *count }
            }
            EventKind::Container { container, state, attempt, worker, outcome } => Kind::Container {
                container: container.to_string(),
                state: state.to_string(),
                attempt: *attempt,
                worker: worker.as_ref().map(ToString::to_string),
                outcome: outcome.clone(),
                outcome_words: outcome.as_ref().map(ToString::to_string),
            },
            EventKind::Worker { worker, status } => {
                Kind::Worker { worker: worker.to_string(), status: status.to_string() }
            }
            EventKind::Pool { pool, removed } => Kind::Pool { pool: pool.to_string(), removed: *removed },
            EventKind::Token { token, tenant, role, revoked } => Kind::Token {
                token: token.to_string(),
                tenant: tenant.to_string(),
                role: role.to_string(),
                revoked: *revoked,
            },
            EventKind::Tenant { tenant, removed } => Kind::Tenant { tenant: tenant.to_string(), removed: *removed },
        };
        Self { number: event.number.0, at_ms: event.at.0, kind }
    }
}

/// A page of events, rising by number.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Events {
    pub(crate) events: Vec<Event>,
    /// The oldest number still kept: a reader below it has missed something.
    pub(crate) oldest: u64,
    /// The last number given out.
    pub(crate) last: u64,
    /// Ask again with `after` set to this.
    pub(crate) next: u64,
}
