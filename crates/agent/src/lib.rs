//! What runs containers on a machine: the worker and its runtimes. Knows the model and the wire
//! only; nothing of stores, planning or servers.

mod log_file;
pub mod process;
mod runtime;

pub use process::{ProcessOptions, ProcessRuntime};
pub use runtime::{Happened, Launch, Left, Output, Runtime};
