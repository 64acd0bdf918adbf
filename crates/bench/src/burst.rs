//! `bench burst`: a real server in a process of its own, simulated workers (real agents with a
//! runtime that runs nothing) in another, and real gRPC clients in this one. Every figure is as
//! the client, the workers, the server's own counts or Redis saw it. Knows nothing of the command
//! line.

use std::path::PathBuf;

use volley_model::Millis;

pub(crate) mod clock;
mod counts;
mod disk;
mod figures;
mod idle;
pub(crate) mod load;
mod measure;
mod outcome;
pub(crate) mod processes;
mod redis;
mod registered;
pub(crate) mod scaling;
mod scene;
mod servers;
mod simulated;
mod sink;

pub use clock::Percentiles;
pub use figures::{BatchSize, BurstCase, BurstRun, CpuTime, Memory, MemoryGrowth, TurnFigures};
pub use idle::{IdleBench, IdleRun, idle};
pub use processes::{Programs, StorePlace};
pub use redis::{RedisFigures, RedisServer};
pub use simulated::{SimulatedError, SimulatedWorkers, simulated_workers};
pub use sink::TraceSink;

use crate::{Report, Runs, Submit};

/// What to run: every count of containers with every count of workers and every way to submit.
#[derive(Debug, Clone)]
pub struct BurstBench {
    /// In a burst.
    pub containers: Vec<usize>,
    /// Distinct shapes among them.
    pub shapes: usize,
    /// Simulated workers.
    pub workers: Vec<usize>,
    /// Containers at a time, of each worker; by default so many that the burst needs all workers.
    pub slots: Option<u32>,
    /// How the containers come.
    pub submits: Vec<Submit>,
    /// Instead of bursts: a rate, for a time.
    pub rate: Option<Rate>,
    /// Bursts that are measured on one server, after one that warms it.
    pub repetitions: usize,
    /// Server processes; clients and workers are spread over them.
    pub servers: usize,
    /// The Redis that they share; the embedded store when `None`.
    pub redis: Option<RedisServer>,
    /// Workers that are registered besides, and take nothing.
    pub registered_workers: u32,
    /// The emptiest worker that fits is chosen, not the fullest.
    pub spread: bool,
    /// A container runs so long on its simulated worker.
    pub run_for: Millis,
    /// `/metrics` of each server is read every second meanwhile.
    pub observed: bool,
    /// How the server gathers its batches, as it was told.
    pub batching: BurstBatching,
    /// Where the stores' directories are made; its disk is part of what is measured.
    pub dir: PathBuf,
}

/// How the server was told to gather batches, for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BurstBatching {
    /// Its name.
    pub profile: String,
    /// Containers of a batch at most.
    pub max_size: u32,
    /// Longest wait for a batch.
    pub window_ms: u64,
}

/// Containers that come steadily.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Containers.
    pub per_second: u64,
    /// For so long.
    pub seconds: u64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BurstError {
    /// No store in the directory.
    #[error("no store in {dir}: {problem}")]
    Directory {
        /// The one asked for.
        dir: PathBuf,
        /// What the system says.
        problem: std::io::Error,
    },
    /// A process did not start or broke.
    #[error("{what} does not work: {problem}")]
    Process {
        /// Which.
        what: &'static str,
        /// What it says.
        problem: String,
    },
    /// The server refused something.
    #[error("the server refuses: {0}")]
    Server(String),
    /// Something came out that must not.
    #[error("{case}: {problem}")]
    Wrong {
        /// What was run.
        case: String,
        /// What is wrong.
        problem: String,
    },
}

/// Told while a bench runs.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "told a few times, never kept")]
pub enum BurstProgress {
    /// A repetition ended, or a second of a rate.
    Went {
        /// What is run.
        case: BurstCase,
        /// In words.
        done: String,
    },
    /// A run ended.
    Run(BurstRun),
}

/// Measures. Needs a tokio runtime with I/O and time.
pub async fn burst(
    options: &BurstBench,
    programs: &dyn Programs,
    mut progress: impl FnMut(BurstProgress),
) -> Result<Report, BurstError> {
    let mut runs = Vec::new();
    for workers in &options.workers {
        for containers in &options.containers {
            for submit in &options.submits {
                let case = BurstCase::new(options, *containers, *workers, *submit);
                let run = measure::measure(options, case, programs, &mut progress).await?;
                progress(BurstProgress::Run(run.clone()));
                runs.push(run);
            }
        }
    }
    Ok(Report::of(obtained(options), Runs::Burst(runs)))
}

fn obtained(options: &BurstBench) -> String {
    let how = match options.rate {
        None => format!(
            "Bursts one after the other on one server: one that warms it, then {} that count; figures are their \
             medians. wall_ms is from the first submit sent to the last finish that the client saw.",
            options.repetitions
        ),
        Some(Rate { per_second, seconds }) => format!(
            "{per_second} containers a second for {seconds} s, sent every 10 ms whether the server keeps up or not. \
             wall_ms is from the first submit sent to the last finish that the client saw."
        ),
    };
    let servers = match &options.redis {
        None => "a real server process with its embedded store, every acknowledgement on disk".to_owned(),
        Some(redis) => {
            let registered = match options.registered_workers {
                0 => String::new(),
                count => format!(
                    "; {count} more workers are registered in the store, with a lease of a day, and offer too little \
                     for any container"
                ),
            };
            format!(
                "{} real server processes on one cell of {}; clients and workers are spread over the servers, one \
                 stream of ends comes from the first{registered}",
                options.servers,
                redis.words()
            )
        }
    };
    let observed = match options.observed {
        true => " Observed: the servers send traces to a sink in the bench, which reads /metrics every second.",
        false => "",
    };
    let runs = match options.run_for {
        Millis(0) => "reports each container as ended at once".to_owned(),
        run_for => format!("reports each container as ended after {run_for}"),
    };
    format!(
        "{servers}; gRPC clients in the bench's process that submit over 4 connections (as many for each server as for \
         any other) and watch one stream of ends; simulated workers: real agents on streams of their own, in one other \
         process, with a runtime that runs nothing and {runs}. {how} submit_to_assigned and submit_to_started are by \
         the calendar in whole milliseconds of the server's record (what ends at once is never recorded as running: \
         --run-for 1ms); submit_to_delivered is when the agent was told to \
         start the container; submit_to_finished is when the client heard of the end. Up to {} containers are one \
         group, shapes taking turns; more are a group for each shape. All processes share the machine.{observed}",
        scene::ONE_GROUP_MAX
    )
}
