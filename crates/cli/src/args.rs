//! The command line: one command, one module under `cmd`.

use clap::{Args, Parser, Subcommand};

use crate::cmd;
use crate::output::Format;

/// Places bursts of containers onto a fleet of workers.
#[derive(Debug, Parser)]
#[command(name = "volley", version, disable_help_subcommand = true, infer_subcommands = false)]
#[command(after_help = "Exit codes: 0 good; 1 a container ended badly (with one container: its own code); \
2 wrong input; 5 refused; 6 store trouble; 130 interrupted.")]
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
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value = "table", env = "VOLLEY_OUTPUT")]
    pub output: Format,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit containers, show their progress and output, end with their result.
    Run(Box<cmd::run::Run>),
}
