//! Servers and simulated workers of a bench are this very program, as anybody would start it; and
//! the flags that say on what store. Holds the hidden command that is the simulated workers.

use std::process::Command;

use clap::{Args, ValueEnum};
use volley_bench::burst::{RedisServer, SimulatedWorkers, StorePlace, simulated_workers};
use volley_model::Millis;

use crate::command_error::CommandError;

/// The hidden command's name.
pub const WORKERS_COMMAND: &str = "__simulated-workers";
/// This very program, also when its file was replaced meanwhile.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";

/// The stores that a server can be started on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    /// In the server's process, on this machine's disk.
    Embedded,
    /// A Redis or Valkey server.
    Redis,
}

/// When Redis writes its file to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fsync {
    /// Before each answer.
    Always,
    /// Every second.
    Everysec,
    /// When the system likes.
    No,
}

/// Servers and what they keep their state in.
#[derive(Debug, Args)]
pub(super) struct StoreFlags {
    /// Server processes; more than one need a store that they can share.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) servers: u32,
    /// Where the servers keep their state.
    #[arg(long, value_enum, default_value = "embedded")]
    store: Store,
    /// With --store redis: the one to use, as `volley serve --store` takes it; by default one is started for the bench.
    #[arg(long, value_name = "URL", hide_env_values = true, conflicts_with_all = ["appendfsync", "redis_server"])]
    redis_url: Option<String>,
    /// With --store redis: when the bench's Redis writes to its disk.
    #[arg(long, value_enum, default_value = "always")]
    appendfsync: Fsync,
    /// With --store redis: the program that is started, as in valkey-server.
    #[arg(long, default_value = "redis-server", value_name = "PROGRAM", env = "VOLLEY_REDIS_SERVER")]
    redis_server: String,
}

impl StoreFlags {
    /// The Redis that is asked for; `None` for embedded stores.
    pub(super) fn redis(&self) -> Result<Option<RedisServer>, CommandError> {
        match (self.store, &self.redis_url) {
            (Store::Embedded, _) if self.servers > 1 => Err(CommandError::Usage(format!(
                "--servers {}: an embedded store belongs to one server; use --servers 1 or --store redis",
                self.servers
            ))),
            (Store::Embedded, Some(_)) => {
                Err(CommandError::Usage("--redis-url: the store is embedded; add --store redis".to_owned()))
            }
            (Store::Embedded, None) => Ok(None),
            (Store::Redis, Some(url)) => Ok(Some(RedisServer::At { url: url.clone() })),
            (Store::Redis, None) => Ok(Some(RedisServer::Own {
                program: self.redis_server.clone(),
                appendfsync: super::word(self.appendfsync),
            })),
        }
    }
}

/// A server on a free port.
pub(super) fn server(place: &StorePlace) -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    command.args(["--output", "table", "serve", "--end-with-stdin", "--listen", "127.0.0.1:0"]);
    match place {
        StorePlace::Folder(data) => command.arg("--data").arg(data),
        // A password belongs into no list of processes.
        StorePlace::Redis { url, cell } => command.env("VOLLEY_STORE", url).args(["--cell", cell]),
    };
    command
}

/// A command against a server, with its results as JSON.
pub(super) fn command(server: &str, words: &[&str]) -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    command.args(["--server", server, "--output", "json"]).args(words).stdin(std::process::Stdio::null());
    command
}

/// The process of simulated workers.
pub(super) fn workers(workers: &SimulatedWorkers) -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg(WORKERS_COMMAND).args(["--servers", &workers.servers.join(",")]);
    let SimulatedWorkers { workers, slots, shapes, run_for, .. } = workers;
    command.args(["--workers", &workers.to_string(), "--slots", &slots.to_string()]);
    command.args(["--shapes", &shapes.to_string(), "--run-for", &run_for.to_string()]);
    command
}

/// Simulated workers of a bench, driven over standard input and output; not for people.
#[derive(Debug, Args)]
pub struct Workers {
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    #[arg(long)]
    workers: usize,
    #[arg(long)]
    slots: u32,
    #[arg(long)]
    shapes: usize,
    #[arg(long)]
    run_for: Millis,
}

/// Runs until standard input ends.
pub async fn workers_process(flags: &Workers) -> Result<(), CommandError> {
    let Workers { workers, slots, shapes, run_for, .. } = *flags;
    let options = SimulatedWorkers { servers: flags.servers.clone(), workers, slots, shapes, run_for };
    simulated_workers(options).await.map_err(|error| CommandError::Failed(error.to_string()))
}
