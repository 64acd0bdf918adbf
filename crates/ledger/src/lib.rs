//! The ledger: a pure state machine that owns every rule about containers, workers, leases
//! and capacity. It takes an operation and the time, and returns the reply and the change
//! set. It does no I/O, reads no clock and makes no random numbers: nonces and ids are
//! arguments. It knows nothing of SQLite, Redis or the network.

#![deny(clippy::iter_over_hash_type)]

pub mod change;
mod effects;
pub mod event;
mod feed;
mod laws;
mod ledger;
pub mod op;
mod ops;
mod options;
mod overview;
pub mod query;
mod queue;
mod read;
pub mod reply;
mod restore;
mod scale;
mod state;
mod stored;
mod tenants;
mod transitions;
mod waiting;

pub use change::*;
pub use event::{Event, EventKind};
pub use ledger::Ledger;
pub use op::*;
pub use ops::{JITTER_MAX, score_of};
pub use options::LedgerOptions;
pub use overview::{Ahead, Amounts, Blocked, Overview, PoolOverview, ShapeBacklog};
pub use query::*;
pub use read::{Found, FoundPage};
pub use reply::*;
pub use restore::{RestoreError, Stored};
pub use volley_model::Progress;
