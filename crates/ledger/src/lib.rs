//! The ledger: a pure state machine that owns every rule about containers, workers, leases
//! and capacity. It takes an operation and the time, and returns the reply and the change
//! set. It does no I/O, reads no clock and makes no random numbers: nonces and ids are
//! arguments. It knows nothing of SQLite, Redis or the network.

#![deny(clippy::iter_over_hash_type)]

pub mod change;
pub mod event;
pub mod op;
pub mod query;
pub mod reply;

pub use change::{Change, ChangeSet, Hint};
pub use event::{Event, EventKind};
pub use op::*;
pub use query::*;
pub use reply::*;
