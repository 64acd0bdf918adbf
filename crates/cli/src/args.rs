//! The command line: one command, one module under `cmd`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use volley_wire::access::ServerAccess;

use crate::cmd;
use crate::output::Format;

/// Places bursts of containers onto a fleet of workers.
#[derive(Debug, Parser)]
#[command(name = "volley", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 good; 1 a container ended badly (with one container: its own code); \
2 wrong input; 3 no server; 4 no such thing; 5 refused; 6 server trouble; 130 interrupted.")]
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
    /// Where the server answers; several of one cell divided by commas, of which the next is taken when one does not.
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:7171", env = "VOLLEY_SERVER")]
    #[arg(value_delimiter = ',')]
    pub server: Vec<String>,
    /// Settings file (default: volley.toml in this folder, if it is there).
    #[arg(long, global = true, value_name = "FILE", env = "VOLLEY_CONFIG")]
    pub config: Option<PathBuf>,
    /// A token's secret, if the server asks for one.
    #[arg(long, global = true, value_name = "SECRET", env = "VOLLEY_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Certificates (PEM) of who may have signed the server's (default: those of the system).
    #[arg(long, global = true, value_name = "FILE", env = "VOLLEY_CA")]
    pub ca: Option<PathBuf>,
    /// This client's certificate (PEM), for a server that asks for one.
    #[arg(long, global = true, value_name = "FILE", env = "VOLLEY_CLIENT_CERT", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// The key of --client-cert (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "VOLLEY_CLIENT_KEY", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value = "table", env = "VOLLEY_OUTPUT")]
    pub output: Format,
}

impl Global {
    /// How to reach the server.
    pub fn access(&self) -> ServerAccess {
        ServerAccess {
            servers: self.server.iter().map(|server| server.trim().trim_end_matches('/').to_owned()).collect(),
            token: self.token.clone(),
            ca: self.ca.clone(),
            identity: self.client_cert.clone().zip(self.client_key.clone()),
        }
    }
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit containers, show their progress and output, end with their result.
    Run(Box<cmd::run::Run>),
    /// A server and its workers in one process.
    Dev(cmd::dev::Dev),
    /// A server; workers connect to it.
    Serve(cmd::serve::Serve),
    /// Offer this machine to a server and run what it places here.
    Worker(cmd::worker::Worker),
    /// List containers, and why those that wait do.
    Ps(cmd::ps::Ps),
    /// All that is known of a container or group.
    Inspect(cmd::inspect::Inspect),
    /// Why a container waits, and what would have to change; where its time went.
    Explain(cmd::explain::Explain),
    /// What a container has printed.
    Logs(cmd::logs::Logs),
    /// Run another program in a container that runs.
    Exec(cmd::exec::Exec),
    /// Stop a container or group.
    Stop(cmd::change::Stop),
    /// List workers.
    Workers,
    /// Place nothing new on a worker.
    Cordon(cmd::change::Name),
    /// Place on a worker again.
    Uncordon(cmd::change::Name),
    /// Place nothing new on a worker, and let it go when it is empty.
    Drain(cmd::change::Drain),
    /// Pools of workers: what they offer, how many there may be, how they are made.
    Pools(cmd::pools::Pools),
    /// What would become of containers: placed where, bought for, left waiting; exit code 2 when some have nothing in
    /// sight. Changes nothing.
    Plan(Box<cmd::plan::Plan>),
    /// The cell on one screen, as it changes; q quits.
    Watch(cmd::watch::Watch),
    /// Every transition, numbered.
    Events(cmd::events::Events),
    /// Counts of all containers, and whether every law holds.
    Audit,
    /// Write a consistent copy of the store while it runs.
    Backup(cmd::change::Backup),
    /// Make, list and revoke tokens.
    #[command(subcommand)]
    Token(cmd::token::Tokens),
    /// Set, list and remove tenants' limits.
    #[command(subcommand)]
    Tenant(cmd::token::Tenants),
    /// Check and show the settings.
    #[command(subcommand)]
    Config(cmd::config::Config),
    /// Print completions for a shell.
    Completions {
        /// Which.
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write one for each command.
    Man(cmd::config::Man),
    /// Measure this program on this machine.
    Bench(Box<cmd::bench::Bench>),
    /// Simulated workers of a bench.
    #[command(name = cmd::bench::WORKERS_COMMAND, hide = true)]
    SimulatedWorkers(cmd::bench::Workers),
}
