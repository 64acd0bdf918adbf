//! `volley bench engine`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use volley_bench::EngineBench;
use volley_model::{Millis, Strategy};

use super::{Coming, Save, finish, watching};
use crate::command_error::CommandError;
use crate::output::Format;

/// How workers are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// The fullest that fits.
    Pack,
    /// The emptiest.
    Spread,
}

/// What a plan costs: only the planner, in memory.
#[derive(Debug, Args)]
pub struct Engine {
    /// Sizes of fleets.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000", value_name = "N,..",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    workers: Vec<u32>,
    /// Counts of distinct shapes.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,10000", value_name = "N,..",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    shapes: Vec<u32>,
    /// Containers planned together.
    #[arg(long, value_delimiter = ',', default_value = "20,100,1000", value_name = "N,..",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: Vec<u32>,
    /// Rules for choosing among workers.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "pack,spread")]
    strategy: Vec<Choice>,
    /// How the containers came: one score for all, or one each.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "single")]
    submit: Vec<Coming>,
    /// Containers of one repetition.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    containers: u32,
    /// Each run is repeated for so long, and five times at least.
    #[arg(long, default_value = "1s", value_name = "TIME")]
    run_time: Millis,
    /// The same seed gives the same fleets and plans.
    #[arg(long, default_value_t = 7, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    save: Save,
}

fn sizes(list: &[u32]) -> Vec<usize> {
    list.iter().map(|number| *number as usize).collect()
}

pub(super) async fn run(flags: Engine, format: Format) -> Result<(), CommandError> {
    let strategy = |choice: &Choice| match choice {
        Choice::Pack => Strategy::Pack,
        Choice::Spread => Strategy::Spread,
    };
    let options = EngineBench {
        workers: sizes(&flags.workers),
        shapes: sizes(&flags.shapes),
        batches: sizes(&flags.batch),
        strategies: flags.strategy.iter().map(strategy).collect(),
        submits: flags.submit.iter().map(|coming| (*coming).into()).collect(),
        containers: flags.containers as usize,
        run_time: Duration::from_millis(flags.run_time.0),
        seed: flags.seed,
        ..EngineBench::default()
    };
    let per_workers = options.shapes.len() * options.batches.len() * options.strategies.len() * options.submits.len();
    let (bar, total) = (watching(), options.workers.len() * per_workers);
    let (finished, report) = tokio::sync::oneshot::channel();
    // A thread that nobody waits for, so that an interrupt ends it while it computes.
    std::thread::spawn(move || {
        let mut done = 0;
        let report = volley_bench::engine(&options, |run| {
            done += 1;
            bar.set_message(format!("{done} of {total}: {}: {:.0} ns/placement", run.case, run.ns_per_placement));
        });
        bar.finish_and_clear();
        // Nobody waits after an interrupt.
        let _ = finished.send(report);
    });
    let report =
        report.await.map_err(|_| CommandError::Failed("the bench broke; this is a bug in volley".to_owned()))?;
    finish(&report.map_err(|error| CommandError::Failed(format!("a wrong plan: {error}")))?, &flags.save, format)
}
