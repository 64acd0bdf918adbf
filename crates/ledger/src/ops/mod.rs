//! The operations, one file each (or one for a few that belong together).

mod access;
mod attach;
mod claim;
mod commit;
mod machine;
mod pool;
mod report;
mod session;
mod stop;
mod submit;

mod sweep;
mod worker;

pub use machine::JITTER_MAX;
pub use submit::score_of;
