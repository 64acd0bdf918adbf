//! Reads of the ledger, and the records they give.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_model::{
    Attempt, ContainerId, ContainerState, EventNumber, GpuGrant, GroupId, Outcome, Pool, SecretHash, Spec, Tenant,
    TenantName, Timestamp, Token, TokenId, WorkerId,
};

use volley_model::{FleetChanges, FleetVersion, Nonce, ScaleState, SessionId, WorkerView};

use crate::{Audit, Event, Overview, TakeFrom, Taken, Waiting};

/// Whose things a read may show: one tenant's, or all (`None`). What is another's is not there at all.
pub type Scope = Option<TenantName>;

/// A read.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// One container, live or finished.
    Container(ContainerId, Scope),
    /// One group.
    Group(GroupId, Scope),
    /// Ids that start with a text: at most two are needed to say "ambiguous".
    Prefix(String, Scope),
    /// A page of containers.
    List(ListQuery),
    /// A page of workers, in order of name.
    Workers {
        /// Exclusive; `None` from the first.
        after: Option<WorkerId>,
        /// At most.
        max: u32,
    },
    /// All pools.
    Pools,
    /// What changed in the fleet, for who does not plan turns: as a claim tells it, without claiming.
    Fleet {
        /// Version up to which the caller knows the fleet; 0 for a full load.
        known: FleetVersion,
        /// At most this many changes.
        max: u32,
    },
    /// All that a scale plan needs beside the fleet.
    Scale,
    /// Events after a number, at most so many.
    Events {
        /// Exclusive; 0 from the oldest kept.
        after: EventNumber,
        /// At most.
        max: u32,
        /// Of one tenant: its groups' and their containers', while the groups are kept.
        scope: Scope,
    },
    /// The token with this secret.
    Token(SecretHash),
    /// A page of tokens, in order of id.
    Tokens {
        /// Exclusive; `None` from the first.
        after: Option<TokenId>,
        /// At most.
        max: u32,
    },
    /// A page of tenants that have limits or waiting containers, in order of name.
    Tenants {
        /// Exclusive; `None` from the first.
        after: Option<TenantName>,
        /// At most.
        max: u32,
    },
    /// The servers of the cell, and which of them holds a worker's stream.
    Servers {
        /// Whose stream, if any.
        worker: Option<WorkerId>,
    },
    /// What workers' streams have not been handed yet.
    Take(Vec<TakeFrom>),
    /// Counts and laws.
    Audit,
    /// The cell at a glance; and what is in front of a container, if one is named.
    Overview {
        /// A container that waits.
        ahead_of: Option<ContainerId>,
    },
}

/// Which containers, in order of id by arrival, newest group first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Only these states; all when empty.
    pub states: Vec<ContainerState>,
    /// Only this group.
    pub group: Option<GroupId>,
    /// Only this tenant.
    pub tenant: Option<TenantName>,
    /// Only groups with all these labels.
    pub labels: BTreeMap<String, String>,
    /// Continue after this one.
    pub after: Option<ContainerId>,
    /// At most this many.
    pub max: u32,
}

/// What a read gives, by the query's name.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Answer {
    Container(Option<Box<ContainerRecord>>),
    Group(Option<Box<GroupRecord>>),
    Prefix(Vec<PrefixMatch>),
    List(ContainerPage),
    /// `more` of them come after the last one.
    Workers {
        workers: Vec<WorkerRecord>,
        more: bool,
    },
    Pools(Vec<Pool>),
    Fleet(Box<FleetChanges>),
    Scale(Box<ScaleState>),
    Events(EventPage),
    /// Live or ended; whoever asks has a clock.
    Token(Option<Box<Token>>),
    Tokens {
        tokens: Vec<Token>,
        more: bool,
    },
    Tenants {
        tenants: Vec<TenantRecord>,
        more: bool,
    },
    Servers(Box<Servers>),
    Take(Vec<Taken>),
    Audit(Box<Audit>),
    Overview(Box<Overview>),
}

/// An id that starts with the text asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PrefixMatch {
    Group(GroupId, u32),
    Container(ContainerId),
}

/// All that is known of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerRecord {
    /// Its id.
    pub id: ContainerId,
    /// Its owner.
    pub tenant: TenantName,
    /// Its group's name.
    pub name: Option<String>,
    /// What it runs.
    pub spec: Arc<Spec>,
    /// Its state.
    pub state: ContainerState,
    /// The present or last attempt; `None` before the first.
    pub attempt: Option<Attempt>,
    /// Where the present or last attempt runs.
    pub worker: Option<WorkerId>,
    /// Its devices.
    pub gpus: Vec<GpuGrant>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When the present or last attempt was assigned.
    pub assigned_at: Option<Timestamp>,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// When it finished.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it waits, while it does.
    pub waiting: Option<Waiting>,
}

/// All that is known of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRecord {
    /// Its id.
    pub id: GroupId,
    /// Its owner.
    pub tenant: TenantName,
    /// For lists.
    pub name: Option<String>,
    /// For filters.
    pub labels: BTreeMap<String, String>,
    /// All of its containers.
    pub count: u32,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// How many have finished, pruned ones included.
    pub finished: u32,
    /// Of these: exit code 0.
    pub succeeded: u32,
}

/// A page of containers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ContainerPage {
    /// At most as many as asked for.
    pub containers: Vec<ContainerRecord>,
    /// Ask again after this one; `None` at the end.
    pub next: Option<ContainerId>,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventPage {
    /// Rising by number.
    pub events: Vec<Event>,
    /// The oldest number still kept: a reader below it has missed something.
    pub oldest: EventNumber,
    /// The last number given out.
    pub last: EventNumber,
    /// Ask again after this one: all up to it were looked at, whether they were shown or not.
    pub seen: EventNumber,
}

/// A tenant for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// Its limits; those of a tenant without a record are none.
    pub tenant: Tenant,
    /// Its containers that wait.
    pub waiting: u64,
}

/// A worker for lists.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRecord {
    /// As the fleet sees it.
    pub view: WorkerView,
    /// Whether a stream is open.
    pub connected: bool,
    /// Its lease ends then, unless renewed.
    pub lease_until: Timestamp,
    /// Live attempts on it.
    pub containers: u32,
    /// Containers that ever finished on it.
    pub finished: u64,
    /// Since when it runs nothing, or is lost.
    pub idle_since: Timestamp,
    /// Why it was cordoned by itself, if it was.
    pub quarantine: Option<String>,
}

/// The servers of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Servers {
    /// Those whose sessions have not ended, in order of session, with the addresses that they gave; empty for one that
    /// nobody else can reach.
    pub live: Vec<(SessionId, String)>,
    /// Who holds the stream of the worker that was asked about, and which stream; `None` when there is none.
    pub holder: Option<(SessionId, Nonce)>,
}

impl Servers {
    /// The address of a session.
    #[must_use]
    pub fn address(&self, session: SessionId) -> Option<&str> {
        let found = self.live.iter().find(|(other, _)| *other == session);
        found.map(|(_, address)| address.as_str()).filter(|address| !address.is_empty())
    }
}
