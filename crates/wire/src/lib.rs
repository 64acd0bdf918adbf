//! Wire formats: protobuf, JSON bodies, conversions, the Rust client. Knows the model only;
//! nothing of stores, planning or servers.

pub mod access;
pub mod client;
pub mod convert;
pub mod json;
pub mod pool_json;
pub mod protocol;

/// Generated from `proto/volley/v1/volley.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("volley.v1");
}
