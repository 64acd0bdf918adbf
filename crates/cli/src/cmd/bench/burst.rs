//! `volley bench burst`, and the hidden command that is the process of its simulated workers.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};
use volley_bench::burst::{BurstBatching, Programs, Rate, SimulatedWorkers, simulated_workers};
use volley_bench::{BurstBench, BurstProgress};
use volley_model::Millis;

use super::{Coming, Save, finish, watching};
use crate::command_error::CommandError;
use crate::output::Format;
use crate::server::Batching;

/// The hidden command's name.
pub const WORKERS_COMMAND: &str = "__simulated-workers";
/// This very program, also when its file was replaced meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The stores that a server can be started on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    /// In the server's process, on this machine's disk.
    Embedded,
    /// A Redis or Valkey server.
    Redis,
}

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
    /// Server processes; more than one need a store that they can share.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    servers: u32,
    /// Where the servers keep their state.
    #[arg(long, value_enum, default_value = "embedded")]
    store: Store,
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
    check_store(&flags)?;
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
        batching: BurstBatching {
            profile: word(flags.profile),
            max_size: batching.max_size,
            window_ms: batching.window.as_millis() as u64,
        },
        dir: flags.dir.clone().unwrap_or_else(std::env::temp_dir),
    };
    let (bar, programs) = (watching(), OwnProgram { flags: &flags });
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

/// The one place that knows which stores a server can be started on.
fn check_store(flags: &Burst) -> Result<(), CommandError> {
    match flags.store {
        Store::Redis => {
            Err(CommandError::Usage("--store redis: there is no Redis store yet; use --store embedded".to_owned()))
        }
        Store::Embedded if flags.servers > 1 => Err(CommandError::Usage(format!(
            "--servers {}: an embedded store belongs to one server; use --servers 1",
            flags.servers
        ))),
        Store::Embedded => Ok(()),
    }
}

fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Server and workers are this program, as anybody would start it.
struct OwnProgram<'a> {
    flags: &'a Burst,
}

impl Programs for OwnProgram<'_> {
    fn server(&self, data: &Path) -> Command {
        let mut command = Command::new(OWN_PROGRAM);
        command
            .args([
                "--output",
                "table",
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--profile",
                &word(self.flags.profile),
                "--data",
            ])
            .arg(data);
        for (flag, value) in [
            ("--max-size", self.flags.max_size.map(|size| size.to_string())),
            ("--window", self.flags.window.map(|window| window.to_string())),
        ] {
            command.args(value.iter().flat_map(|value| [flag, value]));
        }
        command
    }

    fn workers(&self, workers: &SimulatedWorkers) -> Command {
        let mut command = Command::new(OWN_PROGRAM);
        command.args(["--server", &workers.server, WORKERS_COMMAND]);
        let (workers, slots, shapes) = (workers.workers, workers.slots, workers.shapes);
        for (flag, value) in [("--workers", workers), ("--slots", slots as usize), ("--shapes", shapes)] {
            command.args([flag, &value.to_string()]);
        }
        command
    }
}

/// Simulated workers of a bench, driven over standard input and output; not for people.
#[derive(Debug, Args)]
pub struct Workers {
    #[arg(long)]
    workers: usize,
    #[arg(long)]
    slots: u32,
    #[arg(long)]
    shapes: usize,
}

/// Runs until standard input ends.
pub async fn workers(flags: &Workers, server: &str) -> Result<(), CommandError> {
    let Workers { workers, slots, shapes } = *flags;
    let options = SimulatedWorkers { server: server.to_owned(), workers, slots, shapes };
    simulated_workers(options).await.map_err(|error| CommandError::Failed(error.to_string()))
}
