//! The pure decisions: the fleet view, kept fresh by changes, and the plan of a turn. No
//! I/O, no clock, no randomness of its own; time and seed are arguments. Knows nothing of
//! stores, sessions' leases or the network.

#![deny(clippy::iter_over_hash_type)]

pub mod plan;
pub mod view;

pub use plan::{Plan, PlanInput};
pub use view::FleetView;
