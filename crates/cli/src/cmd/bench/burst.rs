//! `volley bench burst`.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use volley_bench::burst::{BurstBatching, Programs, Rate, SimulatedWorkers, StorePlace, TraceSink};
use volley_bench::{BurstBench, BurstProgress};
use volley_model::Millis;

use super::program::{self, StoreFlags};
use super::{Coming, Save, finish, watching, word};
use crate::command_error::CommandError;
use crate::output::Format;
use crate::server::Batching;

/// Bursts on a real server with real clients and simulated workers, each in a process of its own.
#[derive(Debug, Args)]
pub struct Burst {
    /// Containers of a burst.
    #[arg(long, value_delimiter = ',', default_value = "100", value_name = "N,..",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    containers: Vec<u32>,
    /// Distinct shapes among them.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    shapes: u32,
    /// Simulated workers.
    #[arg(long, value_delimiter = ',', default_value = "64", value_name = "N,..",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    workers: Vec<u32>,
    /// Containers of each worker at a time (default: so many that the burst needs all workers, 256 at most).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    slots: Option<u32>,
    /// How the containers come.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "batch")]
    submit: Vec<Coming>,
    /// How the server gathers its batches.
    #[arg(long, value_enum, default_value = "auto")]
    profile: Batching,
    /// Most containers of a batch.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_size: Option<u32>,
    /// A batch closes so long after its first container.
    #[arg(long, value_name = "TIME")]
    window: Option<Millis>,
    /// Instead of bursts: so many containers a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000),
        conflicts_with_all = ["containers", "repetitions"])]
    rate: Option<u64>,
    /// With --rate: for so long.
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400), requires = "rate")]
    seconds: u64,
    #[command(flatten)]
    store: StoreFlags,
    /// With --store redis: so many workers more, registered in the store, that take nothing.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=90_000))]
    registered_workers: u32,
    /// Choose the emptiest worker that fits, not the fullest.
    #[arg(long)]
    spread: bool,
    /// A container runs so long on its simulated worker.
    #[arg(long, default_value = "0s", value_name = "TIME")]
    run_for: Millis,
    /// The server sends traces, and /metrics is read every second: for a pair with a run without.
    #[arg(long)]
    observed: bool,
    /// Bursts that are measured, after one that warms the server.
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repetitions: u32,
    /// Where the store is made; its disk is part of what is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    save: Save,
}

pub(super) async fn run(flags: Burst, format: Format) -> Result<(), CommandError> {
    let redis = flags.store.redis()?;
    if redis.is_none() && flags.registered_workers > 0 {
        return Err(CommandError::Usage(
            "--registered-workers: workers are registered in a Redis; add --store redis".to_owned(),
        ));
    }
    let sizes = |list: &[u32]| list.iter().map(|number| *number as usize).collect::<Vec<_>>();
    let batching = crate::server::batching(flags.profile, flags.max_size, flags.window);
    let options = BurstBench {
        containers: sizes(&flags.containers),
        shapes: flags.shapes as usize,
        workers: sizes(&flags.workers),
        slots: flags.slots,
        submits: flags.submit.iter().map(|coming| (*coming).into()).collect(),
        rate: flags.rate.map(|per_second| Rate { per_second, seconds: flags.seconds }),
        repetitions: flags.repetitions as usize,
        servers: flags.store.servers as usize,
        redis,
        registered_workers: flags.registered_workers,
        spread: flags.spread,
        run_for: flags.run_for,
        observed: flags.observed,
        batching: BurstBatching {
            profile: word(flags.profile),
            max_size: batching.max_size,
            window_ms: batching.window.as_millis() as u64,
        },
        dir: flags.dir.clone().unwrap_or_else(std::env::temp_dir),
    };
    let sink = flags.observed.then(TraceSink::start).transpose();
    let sink = sink.map_err(|error| CommandError::Failed(format!("no port for traces: {error}")))?;
    let (bar, programs) = (watching(), OwnProgram { flags: &flags, traces: sink.map(|sink| sink.endpoint()) });
    let report = volley_bench::burst(&options, &programs, |progress| match progress {
        BurstProgress::Went { case, done } => bar.set_message(format!("{case}: {done}")),
        BurstProgress::Run(run) => bar.set_message(format!("{}: {:.1} ms", run.case, run.wall_ms)),
    });
    let report = report.await;
    bar.finish_and_clear();
    let report = report.map_err(|error| CommandError::Failed(error.to_string()))?;
    finish(&report, &flags.save, format)?;
    match lost(&report) {
        0 => Ok(()),
        lost => Err(CommandError::Failed(format!("{lost} acknowledged containers never ended"))),
    }
}

fn lost(report: &volley_bench::Report) -> u64 {
    match &report.runs {
        volley_bench::Runs::Burst(runs) => runs.iter().map(|run| run.lost).sum(),
        _ => 0,
    }
}

/// With the batching of a burst.
struct OwnProgram<'a> {
    flags: &'a Burst,
    /// Where the server sends traces, if it does.
    traces: Option<String>,
}

impl Programs for OwnProgram<'_> {
    fn server(&self, place: &StorePlace) -> Command {
        let mut command = program::server(place);
        command.args(["--profile", &word(self.flags.profile)]);
        for (flag, value) in [
            ("--max-size", self.flags.max_size.map(|size| size.to_string())),
            ("--window", self.flags.window.map(|window| window.to_string())),
        ] {
            command.args(value.iter().flat_map(|value| [flag, value]));
        }
        if let Some(endpoint) = &self.traces {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        }
        command
    }

    fn workers(&self, workers: &SimulatedWorkers) -> Command {
        program::workers(workers)
    }
}
