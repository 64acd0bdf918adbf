//! The command line: one command, one module under `cmd`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cmd;
use crate::config::DEFAULT_SERVER;
use crate::output::Format;

/// Places bursts of containers onto a fleet of workers.
#[derive(Debug, Parser)]
#[command(name = "volley", version, disable_help_subcommand = true, infer_subcommands = false)]
#[command(after_help = "Exit codes: 0 good; 1 a container ended badly (with one container: its own code); \
2 wrong input; 3 no server; 4 no such thing; 5 refused; 6 server trouble; 130 interrupted. See docs/cli.md.")]
pub struct Cli {
    /// For every command.
    #[command(flatten)]
    pub global: Global,
    /// Which.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where the server answers.
    #[arg(long, global = true, value_name = "URL", env = "VOLLEY_SERVER", help = server_help())]
    pub server: Option<String>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value = "table", env = "VOLLEY_OUTPUT")]
    pub output: Format,
    /// Settings file (default: volley.toml here, if it exists).
    #[arg(long, global = true, value_name = "FILE", env = "VOLLEY_CONFIG")]
    pub config: Option<PathBuf>,
}

fn server_help() -> String {
    format!("Where the server answers [default: {DEFAULT_SERVER}]")
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit containers, show their progress and output, end with their result.
    Run(Box<cmd::run::Run>),
    /// A server and its workers in one process.
    Dev(cmd::dev::Dev),
    /// A server.
    Serve(cmd::serve::Serve),
    /// A worker.
    Worker(cmd::worker::Worker),
    /// List containers, and why those that wait do.
    Ps(cmd::ps::Ps),
    /// All that is known of a container or group.
    Inspect(cmd::inspect::Inspect),
    /// What a container has printed.
    Logs(cmd::logs::Logs),
    /// Stop containers or groups.
    Stop(cmd::stop::Stop),
    /// List workers.
    Workers(cmd::workers::Workers),
    /// Place nothing new on a worker.
    Cordon(cmd::cordon::Cordon),
    /// Place on a worker again.
    Uncordon(cmd::cordon::Uncordon),
    /// Place nothing new on a worker, and let it go when it is empty.
    Drain(cmd::cordon::Drain),
    /// List or change pools.
    Pools(cmd::pools::Pools),
    /// Every transition, numbered.
    Events(cmd::events::Events),
    /// Counts of all containers, and whether every law holds.
    Audit(cmd::audit::Audit),
    /// Write a consistent copy of the store while it runs.
    Backup(cmd::backup::Backup),
}
