//! The loops (turn, sweep, delivery), admission, and what the API calls. Free of `wire`:
//! it speaks in the words of `model` and `ledger`, and hands deliveries to a [`Delivery`].

mod control;
mod delivery;
mod error;
mod options;
mod streams;
mod turn;

pub use control::{Control, TurnStats};
pub use delivery::{AnsweredReport, Attached, Delivery};
pub use error::ControlError;
pub use options::{Options, Profile};
