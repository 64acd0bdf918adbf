//! What runs containers on a machine: the worker and its runtimes. Knows the model and the wire
//! only; nothing of stores, planning or servers.

mod attempts;
mod calls;
mod capacity;
mod epoch_file;
mod gpus;
pub mod image;
mod link;
mod output_page;
mod runtime;
mod worker;

/// What a worker counts.
pub use volley_metrics as metrics;

pub use capacity::detect;
pub use gpus::detect_gpus;
pub use link::{GrpcLink, Inbound, Link, OpenError, Opening};
pub use runtime::cgroup::limits_notes;
pub use runtime::keeper;
pub use runtime::kept::KeptOptions;
pub use runtime::oci::{Engine, EngineError, OciOptions, OciRuntime, PIDS_MAX};
pub use runtime::process::{ProcessOptions, ProcessRuntime};
pub use runtime::{Happened, Launch, Left, Output, Runtime, Usage};
pub use worker::{WorkerError, WorkerOptions, run, run_over};
