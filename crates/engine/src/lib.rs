//! The pure decisions: the fleet view, kept fresh by changes, the plan of a turn, and the plan
//! of how many workers there are to be. No I/O, no clock, no randomness of its own; time and
//! seed are arguments. Knows nothing of stores, sessions' leases or the network.

#![deny(clippy::iter_over_hash_type)]

pub mod counterfactual;
pub mod explain;
pub mod forecast;
mod lane;
mod part;
pub mod plan;
mod room;
pub mod scale;
pub mod view;

pub use counterfactual::{Counterfactual, Counterfactuals, Question, counterfactuals};
pub use forecast::{Live, Outset, Queued, Spans, forecast};
pub use plan::{Plan, PlanInput, Planned, plan};
pub use scale::{ScalePlan, plan_scale};
pub use view::FleetView;
