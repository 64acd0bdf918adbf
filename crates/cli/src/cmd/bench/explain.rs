//! `volley bench explain`.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use volley_bench::burst::{Programs, SimulatedWorkers, StorePlace};
use volley_bench::{ExplainBench, explain};

use super::program;
use super::{Save, finish, watching};
use crate::command_error::CommandError;
use crate::output::Format;

/// How good expected starts are, in simulation; what an explanation and /metrics cost at a real server.
#[derive(Debug, Args)]
pub struct Explain {
    /// Simulated cells, each ten minutes of virtual time.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: u64,
    /// Seed of the first one.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Containers that wait at the real server.
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    containers: u32,
    /// Distinct shapes among them.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    shapes: u32,
    /// Its workers, all registered and none there.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    workers: u32,
    /// Their pools.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pools: u32,
    /// Of each request.
    #[arg(long, default_value_t = 51, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repetitions: u32,
    /// Where the store is made.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    save: Save,
}

pub(super) async fn run(flags: Explain, format: Format) -> Result<(), CommandError> {
    let options = ExplainBench {
        seeds: flags.seeds,
        first_seed: flags.seed,
        containers: flags.containers,
        shapes: flags.shapes,
        workers: flags.workers,
        pools: flags.pools,
        repetitions: flags.repetitions as usize,
        dir: flags.dir.unwrap_or_else(std::env::temp_dir),
    };
    let bar = watching();
    bar.set_message(format!("{} cells, then {} containers that wait", options.seeds, options.containers));
    let report = explain(&options, &OwnProgram).await;
    bar.finish_and_clear();
    finish(&report.map_err(|error| CommandError::Failed(error.to_string()))?, &flags.save, format)
}

/// A server whose workers are not missed: none of them is there.
struct OwnProgram;

impl Programs for OwnProgram {
    fn server(&self, place: &StorePlace) -> Command {
        let mut command = program::server(place);
        command.args(["--worker-lease", "24h"]);
        command
    }

    fn workers(&self, workers: &SimulatedWorkers) -> Command {
        program::workers(workers)
    }
}
