//! `volley bench idle`.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use volley_bench::burst::{Programs, SimulatedWorkers, StorePlace};
use volley_bench::{IdleBench, idle};

use super::program::{self, StoreFlags};
use super::{Save, finish, watching};
use crate::command_error::CommandError;
use crate::output::Format;

/// What servers, store and workers use while a backlog waits that fits nowhere.
#[derive(Debug, Args)]
pub struct Idle {
    /// Containers that wait.
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    containers: u32,
    /// Distinct shapes among them.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    shapes: u32,
    /// Simulated workers.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    workers: u32,
    /// Looked at for so long.
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    #[command(flatten)]
    store: StoreFlags,
    /// Where the store is made.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    save: Save,
}

pub(super) async fn run(flags: Idle, format: Format) -> Result<(), CommandError> {
    let options = IdleBench {
        containers: flags.containers,
        shapes: flags.shapes,
        workers: flags.workers as usize,
        seconds: flags.seconds,
        servers: flags.store.servers as usize,
        redis: flags.store.redis()?,
        dir: flags.dir.unwrap_or_else(std::env::temp_dir),
    };
    let bar = watching();
    bar.set_message(format!("{} containers wait", options.containers));
    let report = idle(&options, &OwnProgram).await;
    bar.finish_and_clear();
    finish(&report.map_err(|error| CommandError::Failed(error.to_string()))?, &flags.save, format)
}

/// With the settings that every server has by default.
struct OwnProgram;

impl Programs for OwnProgram {
    fn server(&self, place: &StorePlace) -> Command {
        program::server(place)
    }

    fn workers(&self, workers: &SimulatedWorkers) -> Command {
        program::workers(workers)
    }
}
