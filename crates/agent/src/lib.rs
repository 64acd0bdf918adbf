//! What runs containers on a machine: the worker and its runtimes. Knows the model and the wire
//! only; nothing of stores, planning or servers.

mod attempt_dir;
mod attempts;
mod capacity;
mod cgroup;
mod epoch_file;
pub mod keeper;
mod log_file;
mod output_page;
pub mod process;
mod runtime;
mod worker;

pub use capacity::{detect, detect_gpus};
pub use cgroup::limits_notes;
pub use process::{ProcessOptions, ProcessRuntime};
pub use runtime::{Happened, Launch, Left, Output, Runtime};
pub use worker::{WorkerError, WorkerOptions, run};
