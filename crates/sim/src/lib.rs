//! A whole system in one thread and in virtual time: servers (control and the workers' streams),
//! workers with their machines, and clients, on a store that is the ledger. All of it is what
//! runs in production, but for what is between the parts: calls, hints, messages and processes
//! are late, lost and doubled, and everything dies and comes back, as a seed says. The same seed
//! gives the same run. The checks know only what clients were told and what machines ran.
//!
//! Knows nothing of SQLite, sockets or real processes: those have drills of their own.

mod cell;
mod chance;
mod checks;
mod clients;
mod cluster;
mod expected;
mod faults;
mod flag;
mod link;
mod machine;
mod record;
mod run;
mod scenario;
mod server_store;

pub use expected::{Basis, Guess, Guesses, expected_starts};
pub use record::Failure;
pub use run::{Summary, run};
pub use scenario::Scenario;
