//! Traces: the life of each container as spans, made from the event record when it has finished, and
//! sent by OTLP over HTTP to where the standard `OTEL_*` variables say. Nothing is made, and nothing on a container's way
//! is slower, while they say nothing. Knows nothing of HTTP routes, of turns or of stores.

mod export;
mod life;
mod tracer;

pub use export::{Export, ExportError};
pub use tracer::follow;
