//! The `volley` binary: commands, their flags, and the wiring of the crates.

mod args;
mod cmd;
mod command_error;
mod local;
mod output;
mod words;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use command_error::CommandError;
use output::Format;
use volley_wire::client::Client;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("VOLLEY_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (server, format) = (cli.global.server, cli.global.output);
    let ran = match cli.command {
        Command::Run(run) => cmd::run::run(*run, &server, format),
        Command::Dev(dev) => cmd::dev::dev(&dev),
        other => with_server(other, &Client::new(&server), format),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error.report()),
    }
}

/// The commands that ask a server.
fn with_server(command: Command, client: &Client, format: Format) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::Failed(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Run(_) | Command::Dev(_) => unreachable!("these bring their own server"),
            Command::Ps(ps) => cmd::show::ps(&ps, client, format).await,
            Command::Inspect(id) => cmd::show::inspect(&id, client).await,
            Command::Logs(id) => cmd::show::logs(&id, client).await,
            Command::Workers => cmd::show::workers(client, format).await,
            Command::Events(events) => cmd::show::events(&events, client, format).await,
            Command::Audit => cmd::show::audit(client, format).await,
            Command::Stop(stop) => cmd::change::stop(&stop, client, format).await,
            Command::Cordon(name) => cmd::change::schedulable(&name, "cordon", client, format).await,
            Command::Uncordon(name) => cmd::change::schedulable(&name, "uncordon", client, format).await,
            Command::Drain(name) => cmd::change::schedulable(&name, "drain", client, format).await,
            Command::Backup(backup) => cmd::change::backup(&backup, client, format).await,
        }
    })
}
