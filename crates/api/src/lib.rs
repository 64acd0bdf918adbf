//! The HTTP server: routes, limits, problem details, the event stream. On loopback only, for
//! there are no tokens yet. Knows nothing of stores and planning.

mod problem;
mod records;
mod routes;
mod server;

pub use server::{ApiOptions, BindError, Logs, Server};
