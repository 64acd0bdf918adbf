//! `volley bench seed`.

use std::path::PathBuf;

use clap::Args;
use volley_bench::SeedBench;

use super::{Save, finish, watching};
use crate::command_error::CommandError;
use crate::output::Format;

/// The published case: a hundred containers onto ten workers, with each batching and one by one.
#[derive(Debug, Args)]
pub struct Seed {
    /// How often each run is repeated, each time on a new store.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    repetitions: u32,
    /// Where the stores are made; its disk is part of what is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    save: Save,
}

pub(super) async fn run(flags: Seed, format: Format) -> Result<(), CommandError> {
    let dir = flags.dir.unwrap_or_else(std::env::temp_dir);
    let options = SeedBench { repetitions: flags.repetitions as usize, ..SeedBench::in_dir(dir) };
    let total = options.batchings.len() * options.taken.len() * options.submits.len();
    let (bar, mut done) = (watching(), 0);
    let report = volley_bench::seed(&options, |run| {
        done += 1;
        bar.set_message(format!("{done} of {total}: {}: {:.1} ms", run.case, run.total_ms));
    });
    let report = report.await;
    bar.finish_and_clear();
    finish(&report.map_err(|error| CommandError::Failed(error.to_string()))?, &flags.save, format)
}
