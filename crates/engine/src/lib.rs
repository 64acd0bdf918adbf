//! The pure decisions: the fleet view, kept fresh by changes, and the plan of a turn. No
//! I/O, no clock, no randomness of its own; time and seed are arguments. Knows nothing of
//! stores, sessions' leases or the network.

#![deny(clippy::iter_over_hash_type)]

mod lane;
mod part;
pub mod plan;
mod room;
pub mod view;

pub use plan::{Plan, PlanInput, Planned, plan};
pub use view::FleetView;
