//! The HTTP and gRPC servers on one port: routes, limits, problem details, the event stream,
//! the workers' streams. On loopback only, for there are no tokens yet. Knows nothing of stores and planning.

mod logs;
mod metrics;
mod problem;
mod records;
mod routes;
mod server;
mod streams;
mod volley_service;
mod workers_service;

pub use metrics::serve_worker_metrics;
pub use server::{ApiOptions, BindError, Server};
pub use streams::{Receiver, WorkerStreams};
pub use workers_service::serve_worker;
