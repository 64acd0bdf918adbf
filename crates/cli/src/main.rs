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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("VOLLEY_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let ran = match cli.command {
        Command::Run(run) => cmd::run::run(*run, cli.global.output),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error.report()),
    }
}
