//! The HTTP and gRPC servers on one port: routes, tokens, limits, problem details, the event
//! stream, the workers' streams. Knows nothing of stores and planning.

mod auth;
mod bodies;
mod connections;
mod explained;
mod logs;
mod metrics;
mod overview;
mod patience;
mod patient_io;
mod peers;
mod problem;
mod routes;
mod server;
mod servers_service;
mod streams;
mod tls;
mod trace_context;
mod volley_service;
mod workers_service;

pub use auth::Tokens;
pub use connections::raise_open_files;
pub use metrics::serve_worker_metrics;
pub use server::{ApiOptions, BindError, Server};
pub use streams::{Receiver, WorkerStreams};
pub use tls::TlsFiles;
pub use workers_service::serve_worker;
