//! What runs containers on a machine: the runtimes. Knows the model only; nothing of stores,
//! planning or servers.

mod log_file;
pub mod process;

pub use process::{Happened, Launch, ProcessOptions, ProcessRuntime};
