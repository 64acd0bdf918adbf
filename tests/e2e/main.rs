//! End to end: the real binary, its HTTP API and real processes, as a user has them. Uses no
//! crate of ours for what it checks.

mod access;
mod adoption;
mod backup;
mod bad_input;
mod bad_luck;
mod cell;
mod commands;
mod config;
mod crashes;
mod deploy;
mod docs;
mod drain;
mod drills;
mod events;
mod frozen;
mod http;
mod http2;
mod idle;
#[path = "../../crates/agent/tests/runtimes/image.rs"]
#[allow(dead_code, reason = "a part of it is for hostile images")]
mod image;
mod images;
mod logs;
mod mixed;
mod overload;
mod pools;
mod redis_drills;
mod redis_proxy;
#[path = "../../crates/store/tests/conformance/redis_server.rs"]
#[allow(dead_code, reason = "a part of it is for the store's own tests")]
mod redis_server;
mod retries;
mod run_local;
mod scene;
mod servers;
mod stops;
mod unplaceable;
mod watch;
