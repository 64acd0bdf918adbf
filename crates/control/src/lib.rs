//! The loops (turn, sweep, delivery, scale), admission, and what the API calls. Free of `wire`:
//! it speaks in the words of `model` and `ledger`, and hands deliveries to a [`Delivery`].

mod access;
mod arrivals;
mod control;
mod counted;
mod delivery;
mod details;
mod drain_rate;
mod error;
mod expected;
mod foreseen;
mod observed;
mod options;
mod outlook;
mod random;
mod rates;
mod scale;
mod spent;
mod streams;
mod there;
mod turn;
mod turn_log;
mod turn_stats;
mod why;
mod work;

pub use access::{NewToken, create_token, has_admin};
pub use control::Control;
pub use delivery::{AnsweredReport, Attached, Delivery};
pub use details::{Detail, Details};
pub use error::ControlError;
pub use options::{Options, Profile};
pub use outlook::{DryRun, Explanation, RunOutlook};
pub use random::Random;
pub use scale::ScaleOptions;
pub use spent::{Part, Spent};
pub use turn_log::Turned;
pub use turn_stats::{TurnStats, TurnTimes};
pub use why::Why;

/// What is planned and explained.
pub use volley_engine as engine;
/// The records and requests that the API passes on.
pub use volley_ledger as ledger;
/// What is counted.
pub use volley_metrics as metrics;
/// Who makes machines.
pub use volley_pools as pools;
/// The store's errors.
pub use volley_store as store;
