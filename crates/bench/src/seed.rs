//! `bench seed`: the published case. A hundred containers of mixed CPU and GPU work burst onto
//! ten workers that hold ten each, once with each batching and once one by one; and the same
//! with half of the workers taken. Server and store are real, in this process; the workers are
//! simulated. Knows nothing of the network.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use volley_control::{ControlError, Options, Profile};
use volley_store::StoreError;
use volley_store::embedded::OpenError;

mod burst;
mod counted;
mod scene;
mod workers;

use crate::{Measure, Report, Runs, Spread, Submit};
use burst::Figures;

/// What to run: every batching with every count of taken workers and every way to submit.
#[derive(Debug, Clone)]
pub struct SeedBench {
    /// How the server gathers its batches.
    pub batchings: Vec<Batching>,
    /// How many of the ten workers are full before the burst: none, or half of each kind.
    pub taken: Vec<Taken>,
    /// How the containers come.
    pub submits: Vec<Submit>,
    /// Of each run.
    pub repetitions: usize,
    /// Where the stores' directories are made; its disk is part of what is measured.
    pub dir: PathBuf,
}

impl SeedBench {
    /// The runs that are published; a few seconds.
    #[must_use]
    pub fn in_dir(dir: PathBuf) -> Self {
        let profiles = [Profile::Latency, Profile::Balanced, Profile::Throughput, Profile::Auto];
        Self {
            batchings: profiles.map(Batching::Profile).into_iter().chain([Batching::OneByOne]).collect(),
            taken: vec![Taken::None, Taken::Half],
            submits: vec![Submit::Batch, Submit::Single],
            repetitions: 5,
            dir,
        }
    }
}

/// How the server gathers a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// As a profile says.
    Profile(Profile),
    /// `max_size = 1`: what a scheduler without batches does.
    OneByOne,
}

impl Batching {
    fn options(self) -> Options {
        match self {
            Batching::Profile(profile) => Options::of_profile(profile),
            Batching::OneByOne => Options {
                window: Duration::ZERO,
                pause: Duration::ZERO,
                max_size: 1,
                ..Options::of_profile(Profile::Auto)
            },
        }
    }

    fn word(self) -> &'static str {
        match self {
            Batching::Profile(Profile::Latency) => "latency",
            Batching::Profile(Profile::Balanced) => "balanced",
            Batching::Profile(Profile::Throughput) => "throughput",
            Batching::Profile(Profile::Auto) => "auto",
            Batching::OneByOne => "one by one",
        }
    }
}

/// Workers that are full before the burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Taken {
    None,
    Half,
}

/// What was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedCase {
    /// Of the burst.
    pub containers: usize,
    /// Simulated ones.
    pub workers: usize,
    /// Of these: full before the burst.
    pub workers_taken: usize,
    /// Profile, or `one by one`.
    pub batching: String,
    /// Containers of a batch at most.
    pub max_size: u32,
    /// Longest wait for a batch.
    pub window_ms: u64,
    /// How the containers came.
    pub submit: Submit,
}

impl fmt::Display for SeedCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { containers, workers, workers_taken, batching, submit, .. } = self;
        write!(
            f,
            "{containers} containers onto {workers} workers ({workers_taken} taken), {batching}, {}",
            submit.word()
        )
    }
}

/// One case and its figures: medians of the repetitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedRun {
    /// What was run.
    #[serde(flatten)]
    pub case: SeedCase,
    /// From the first submit sent to the last start that the store has: of all containers that there is room for.
    pub total_ms: f64,
    /// The best repetition.
    pub total_ms_min: f64,
    /// The worst one.
    pub total_ms_max: f64,
    /// Containers of the burst that run.
    pub placed: u64,
    /// Containers of the burst that wait for room.
    pub waiting: u64,
    /// Workers that run containers of the burst.
    pub workers_used: u64,
    /// Workers that the waiting need, of the kind they ask for.
    pub workers_bought: u64,
    /// Turns that placed something.
    pub batches: u64,
    /// The largest of them.
    pub batch_largest: u64,
    /// Store calls of turns.
    pub claims: u64,
    /// Store calls of turns that had something to write.
    pub commits: u64,
    /// Store calls in all: also submits, reports and takes.
    pub store_calls: u64,
    /// Durable transactions; calls that come together share one.
    pub transactions: u64,
    /// How often.
    pub repetitions: usize,
}

impl SeedRun {
    /// Of [`SeedRun::cells`].
    pub const HEADER: &[&str] = &[
        "taken",
        "batching",
        "submit",
        "total ms",
        "spread",
        "placed",
        "waiting",
        "used",
        "bought",
        "batches",
        "claims",
        "commits",
        "store calls",
        "transactions",
    ];

    /// As a row of a table.
    #[must_use]
    pub fn cells(&self) -> Vec<String> {
        let counts = [
            self.placed,
            self.waiting,
            self.workers_used,
            self.workers_bought,
            self.batches,
            self.claims,
            self.commits,
            self.store_calls,
            self.transactions,
        ];
        let mut cells = vec![
            format!("{} of {}", self.case.workers_taken, self.case.workers),
            self.case.batching.clone(),
            self.case.submit.word().to_owned(),
            format!("{:.1}", self.total_ms),
            format!("{:.1} to {:.1}", self.total_ms_min, self.total_ms_max),
        ];
        cells.extend(counts.map(|count| count.to_string()));
        cells
    }

    pub(crate) fn measures(&self) -> Vec<Measure> {
        let (median, min, max) = (self.total_ms, self.total_ms_min, self.total_ms_max);
        vec![Measure { name: "total_ms", spread: Spread { median, min, max } }]
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// No store in the directory.
    #[error("no store in {dir}: {problem}")]
    Directory {
        /// The one asked for.
        dir: PathBuf,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The store was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server refused something.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Containers that there is room for did not start.
    #[error("{case}: {running} of {expected} containers ran after {seconds} s")]
    Stuck {
        /// What was run.
        case: String,
        /// So many did start.
        running: usize,
        /// So many have room.
        expected: usize,
        /// The time given.
        seconds: u64,
    },
    /// Something came out that must not.
    #[error("{case}: {problem}")]
    Wrong {
        /// What was run.
        case: String,
        /// What is wrong.
        problem: String,
    },
}

/// Measures; `progress` is told of each run as it ends. Needs a tokio runtime with time.
pub async fn seed(options: &SeedBench, mut progress: impl FnMut(&SeedRun)) -> Result<Report, SeedError> {
    let mut runs = Vec::new();
    for taken in &options.taken {
        for batching in &options.batchings {
            for submit in &options.submits {
                let run = run(options, *taken, *batching, *submit).await?;
                progress(&run);
                runs.push(run);
            }
        }
    }
    let obtained = format!(
        "server (control) and embedded store in one process with the load, every acknowledgement on disk; {} simulated \
         workers in the same process that report each container as running at once and keep it. Time from the first \
         submit sent to the last start that the store has. Medians of {} repetitions, each on a new store.",
        scene::WORKERS,
        options.repetitions
    );
    Ok(Report::of(obtained, Runs::Seed(runs)))
}

async fn run(options: &SeedBench, taken: Taken, batching: Batching, submit: Submit) -> Result<SeedRun, SeedError> {
    let settings = batching.options();
    let case = SeedCase {
        containers: scene::CONTAINERS,
        workers: scene::WORKERS,
        workers_taken: scene::workers_taken(taken),
        batching: batching.word().to_owned(),
        max_size: settings.max_size,
        window_ms: settings.window.as_millis() as u64,
        submit,
    };
    let mut figures = Vec::new();
    for _ in 0..options.repetitions.max(1) {
        figures.push(burst::burst(options, &case, taken, settings.clone()).await?);
    }
    let total = Spread::of(&figures.iter().map(|figures| figures.total.as_secs_f64() * 1e3).collect::<Vec<_>>());
    let median = |count: fn(&Figures) -> u64| {
        let counts: Vec<f64> = figures.iter().map(|figures| count(figures) as f64).collect();
        Spread::of(&counts).median.round() as u64
    };
    let rounded = |ms: f64| (ms * 100.0).round() / 100.0;
    Ok(SeedRun {
        total_ms: rounded(total.median),
        total_ms_min: rounded(total.min),
        total_ms_max: rounded(total.max),
        placed: median(|f| f.placed),
        waiting: median(|f| f.waiting),
        workers_used: median(|f| f.workers_used),
        workers_bought: median(|f| f.workers_bought),
        batches: median(|f| f.calls.batches.len() as u64),
        batch_largest: median(|f| f.calls.batches.iter().copied().max().unwrap_or_default()),
        claims: median(|f| f.calls.claims),
        commits: median(|f| f.calls.commits),
        store_calls: median(|f| f.calls.all),
        transactions: median(|f| f.transactions),
        repetitions: figures.len(),
        case,
    })
}
