//! The `volley` binary: commands, their flags, and the wiring of the crates.

mod args;
mod cmd;
mod command_error;
mod fleet;
mod output;
#[cfg(test)]
mod reference;
mod runtime_flags;
mod server;
mod settings;
mod shared_store;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use tokio::runtime::Builder;

use args::{Cli, Command};
use command_error::CommandError;
use settings::Places;
use volley_wire::client::Client;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if let (Some(first), Some(dir)) = (args.next(), args.next())
        && first == fleet::KEEPER_COMMAND
    {
        // Before all else: a keeper starts with each container.
        return volley_agent::keeper::run(dir.as_ref(), args);
    }
    let (cli, known) = match parse() {
        Ok(parsed) => parsed,
        Err(error) => return ExitCode::from(error.report()),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("VOLLEY_LOG").unwrap_or_else(|_| "warn".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match std::env::var("VOLLEY_LOG_FORMAT").as_deref() {
        Ok("json") => log.json().init(),
        _ => log.init(),
    }
    let ran = match cli.command {
        // What starts a server or many containers uses all cores; what asks a server needs one thread.
        Command::Run(_) | Command::Dev(_) | Command::Serve(_) | Command::Worker(_) | Command::Bench(_) => {
            Builder::new_multi_thread()
        }
        _ => Builder::new_current_thread(),
    }
    .enable_all()
    .build()
    .map_err(|error| CommandError::Failed(format!("cannot start threads: {error}")))
    .and_then(|runtime| runtime.block_on(command(cli, known)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error.report()),
    }
}

/// The command line with the settings file behind it.
struct Known {
    command: clap::Command,
    places: Places,
}

fn parse() -> Result<(Cli, Known), CommandError> {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let (command, places) = match settings::file(&args)? {
        Some(file) => settings::with_file(Cli::command(), &file)?,
        None => (Cli::command(), Places::new()),
    };
    let parsed = command.clone().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = parsed.map_err(|error| CommandError::from_clap(&error))?;
    Ok((cli, Known { command, places }))
}

async fn command(cli: Cli, known: Known) -> Result<(), CommandError> {
    let (access, format) = (&cli.global.access(), cli.global.output);
    let client = &Client::new(access)?;
    match cli.command {
        Command::Run(run) => cmd::run::run(*run, access, format).await,
        Command::Dev(dev) => cmd::dev::dev(&dev, format).await,
        Command::Serve(serve) => cmd::serve::serve(&serve, access, format).await,
        Command::Worker(worker) => cmd::worker::worker(&worker, access, format).await,
        Command::Ps(ps) => cmd::ps::ps(&ps, client, format).await,
        Command::Explain(id) => cmd::explain::explain(&id, client, format).await,
        Command::Inspect(id) => cmd::inspect::inspect(&id, client, format).await,
        Command::Logs(logs) => cmd::logs::logs(&logs, client, format).await,
        Command::Exec(exec) => cmd::exec::exec(&exec, client).await,
        Command::Workers => cmd::show::workers(client, format).await,
        Command::Watch(watch) => cmd::watch::watch(&watch, &access.server(), client, format).await,
        Command::Events(events) => cmd::events::events(&events, client, format).await,
        Command::Audit => cmd::show::audit(client, format).await,
        Command::Stop(stop) => cmd::change::stop(&stop, client, format).await,
        Command::Cordon(name) => cmd::change::cordon(&name, "cordon", client, format).await,
        Command::Uncordon(name) => cmd::change::cordon(&name, "uncordon", client, format).await,
        Command::Drain(drain) => cmd::change::drain(&drain, client, format).await,
        Command::Bench(bench) => cmd::bench::bench(*bench, format).await,
        Command::SimulatedWorkers(workers) => cmd::bench::workers_process(&workers).await,
        Command::Pools(pools) => cmd::pools::pools(&pools, client, format).await,
        Command::Plan(plan) => cmd::plan::plan(&plan, client, format).await,
        Command::Backup(backup) => cmd::change::backup(&backup, client, format).await,
        Command::Token(tokens) => cmd::token::tokens(&tokens, client, format).await,
        Command::Tenant(tenants) => cmd::token::tenants(&tenants, client, format).await,
        Command::Config(config) => cmd::config::config(&config, &known.command, &known.places, format),
        Command::Completions { shell } => cmd::config::completions(shell, Cli::command()),
        Command::Man(man) => cmd::config::man(&man, Cli::command()),
    }
}
