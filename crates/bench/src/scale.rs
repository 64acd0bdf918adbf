//! `bench scale`: how good the plan of the fleet's size is, and what it costs. How many random small bursts are planned as
//! an exact search plans them; the time of a plan for a large backlog, in memory; `volley explain` and `volley plan` on a
//! real server with that backlog; and what bursts lose while that server goes on looking at it.

use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};
use volley_engine::scale::oracle;

mod backlog;
mod large;
mod server;

use crate::burst::{BurstError, Programs};
use crate::{Measure, Report, Runs, Spread};

/// What to run.
#[derive(Debug, Clone)]
pub struct ScaleBench {
    /// Random small bursts held against the optimum.
    pub bursts: u64,
    /// The first of them.
    pub seed: u64,
    /// That wait.
    pub containers: u32,
    /// Distinct ones among them.
    pub shapes: usize,
    /// Elastic ones.
    pub pools: usize,
    /// Of each figure.
    pub repetitions: usize,
    /// Pairs of bursts, with and without scaling.
    pub pairs: usize,
    /// Where the stores' directories are made.
    pub dir: PathBuf,
}

/// How the processes are started; known to the command line.
pub trait ScalePrograms: Programs {
    /// A command of this program against a server.
    fn command(&self, server: &str, words: &[&str]) -> Command;
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// A server, its workers or its clients.
    #[error(transparent)]
    Server(#[from] BurstError),
    /// A command did not do what it should.
    #[error("`volley {command}`: {problem}")]
    Command {
        /// Which.
        command: String,
        /// What it said.
        problem: String,
    },
}

/// A figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScaleRun {
    /// Of what.
    pub figure: String,
    /// As in `ms`.
    pub unit: String,
    /// Of the repetitions.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// How many.
    pub repetitions: usize,
    /// What it has to be at most (a share: at least).
    pub must: f64,
}

impl ScaleRun {
    /// Of [`ScaleRun::cells`].
    pub const HEADER: &[&str] = &["figure", "median", "spread", "must", "repetitions"];

    fn of(figure: &str, unit: &str, must: f64, repetitions: &[f64]) -> Self {
        let Spread { median, min, max } = Spread::of(repetitions);
        let (figure, unit) = (figure.to_owned(), unit.to_owned());
        Self { figure, unit, median, min, max, repetitions: repetitions.len(), must }
    }

    /// As a row of a table.
    #[must_use]
    pub fn cells(&self) -> Vec<String> {
        vec![
            self.figure.clone(),
            format!("{:.2} {}", self.median, self.unit),
            format!("{:.2} to {:.2}", self.min, self.max),
            format!("{} {}", self.must, self.unit),
            self.repetitions.to_string(),
        ]
    }

    pub(crate) fn measures(&self) -> Vec<Measure> {
        let Self { median, min, max, .. } = *self;
        // Of the others more is better, or they are counts of mistakes.
        let comparable = self.unit == "ms";
        comparable.then_some(Measure { name: "ms", spread: Spread { median, min, max } }).into_iter().collect()
    }
}

/// Measures. Needs a tokio runtime with I/O and time; `progress` is told what goes on.
pub async fn scale(
    options: &ScaleBench,
    programs: &dyn ScalePrograms,
    mut progress: impl FnMut(&str),
) -> Result<Report, ScaleError> {
    progress("random small bursts against the optimum");
    let mut runs = optimum(options);
    progress("the plan of a large backlog");
    runs.push(large::run(options));
    runs.extend(server::runs(options, programs, &mut progress).await?);
    Ok(Report::of(obtained(options), Runs::Scale(runs)))
}

/// Plans of random small bursts, held against an exact search.
fn optimum(options: &ScaleBench) -> Vec<ScaleRun> {
    let trial = oracle::trial(options.seed, options.bursts);
    let rounds = trial.rounds.max(1) as f64;
    let count = |figure: &str, count: u64| ScaleRun::of(figure, "bursts", 0.0, &[count as f64]);
    vec![
        ScaleRun::of("small bursts planned optimally", "%", 95.0, &[trial.optimal as f64 * 100.0 / rounds]),
        count("small bursts with more than one machine above the optimum", trial.more_above),
        count("small bursts with a container unserved that the optimum serves", trial.unserved),
    ]
}

fn obtained(options: &ScaleBench) -> String {
    let ScaleBench { bursts, seed, containers, shapes, pools, repetitions, pairs, .. } = options;
    format!(
        "{bursts} random bursts from seed {seed} of up to {} containers, three pools, two resources and GPUs, each \
         planned and held against an exact search: optimal is the same containers, preference, cost and count of \
         machines. The plan of {containers} waiting in {shapes} shapes over {pools} pools and {} workers: in memory, on \
         one thread, {repetitions} times. A real server process with its embedded store holds that backlog, pools at \
         their limit on the way and workers that cannot run it; commands are timed from the start of their process to \
         its end, requests at the client, {repetitions} times each. Bursts of 100 containers onto 64 simulated workers \
         (as `bench burst`): {pairs} pairs in turns on two servers with the same backlog, one of them scaling, the \
         other with pools whose workers come by themselves; the figure is the ratio of each pair.",
        oracle::CONTAINERS_MAX,
        large::WORKERS,
    )
}
