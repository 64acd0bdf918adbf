//! `volley bench scale`.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use volley_bench::burst::{Programs, SimulatedWorkers, StorePlace};
use volley_bench::{ScaleBench, ScalePrograms, scale};

use super::program;
use super::{Save, finish, watching};
use crate::command_error::CommandError;
use crate::output::Format;

/// How good the plan of the fleet's size is, and what it costs.
#[derive(Debug, Args)]
pub struct Scale {
    /// Random small bursts that are held against the exact optimum.
    #[arg(long, default_value_t = 400, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    bursts: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Containers that wait.
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=900_000))]
    containers: u32,
    /// Distinct shapes among them.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(8..=64))]
    shapes: u32,
    /// Elastic pools.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(5..=100))]
    pools: u32,
    /// Of each time.
    #[arg(long, default_value_t = 21, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repetitions: u32,
    /// Pairs of bursts, with and without scaling.
    #[arg(long, default_value_t = 51, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pairs: u32,
    /// Where the stores are made.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    save: Save,
}

pub(super) async fn run(flags: Scale, format: Format) -> Result<(), CommandError> {
    let options = ScaleBench {
        bursts: flags.bursts,
        seed: flags.seed,
        containers: flags.containers,
        shapes: flags.shapes as usize,
        pools: flags.pools as usize,
        repetitions: flags.repetitions as usize,
        pairs: flags.pairs as usize,
        dir: flags.dir.unwrap_or_else(std::env::temp_dir),
    };
    let bar = watching();
    let report = scale(&options, &OwnProgram, |what| bar.set_message(what.to_owned())).await;
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

impl ScalePrograms for OwnProgram {
    fn command(&self, server: &str, words: &[&str]) -> Command {
        program::command(server, words)
    }
}
