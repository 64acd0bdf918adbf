//! The figures of a burst as they are reported. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BurstBench, Percentiles, RedisFigures, scene};
use crate::{Measure, Spread, Submit};

/// What was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BurstCase {
    /// Of a burst; with a rate: of all seconds.
    pub containers: usize,
    /// Distinct ones among them.
    pub shapes: usize,
    /// Simulated ones.
    pub workers: usize,
    /// Containers at a time, of each worker.
    pub slots_per_worker: u32,
    /// How the containers came.
    pub submit: Submit,
    /// How batches were gathered.
    pub profile: String,
    /// Containers of a batch at most.
    pub max_size: u32,
    /// Longest wait for a batch.
    pub window_ms: u64,
    /// Server processes.
    pub servers: usize,
    /// Which one.
    pub store: String,
    /// Workers that were registered besides, and took nothing.
    #[serde(default)]
    pub registered_workers: u32,
    /// The emptiest worker was chosen, not the fullest.
    #[serde(default)]
    pub spread: bool,
    /// How long a container ran.
    #[serde(default)]
    pub run_for_ms: u64,
    /// Containers a second; none for a burst.
    pub rate: Option<u64>,
    /// For how long.
    pub seconds: Option<u64>,
}

impl BurstCase {
    pub(super) fn new(options: &BurstBench, containers: usize, workers: usize, submit: Submit) -> Self {
        let containers = options.rate.map_or(containers, |rate| (rate.per_second * rate.seconds) as usize);
        Self {
            containers,
            shapes: options.shapes,
            workers,
            slots_per_worker: options.slots.unwrap_or_else(|| scene::slots(containers, workers)),
            submit,
            profile: options.batching.profile.clone(),
            max_size: options.batching.max_size,
            window_ms: options.batching.window_ms,
            servers: options.servers,
            store: if options.redis.is_some() { "redis" } else { "embedded" }.to_owned(),
            registered_workers: options.registered_workers,
            spread: options.spread,
            run_for_ms: options.run_for.0,
            rate: options.rate.map(|rate| rate.per_second),
            seconds: options.rate.map(|rate| rate.seconds),
        }
    }
}

impl fmt::Display for BurstCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { containers, shapes, workers, submit, profile, store, .. } = self;
        write!(f, "{containers} containers, {shapes} shapes, {workers} simulated workers, {}", submit.word())?;
        if let (Some(rate), Some(seconds)) = (self.rate, self.seconds) {
            write!(f, ", {rate}/s for {seconds} s")?;
        }
        write!(f, ", {profile}, at most {} a batch, {store}", self.max_size)?;
        if self.servers > 1 { write!(f, ", {} servers", self.servers) } else { Ok(()) }
    }
}

/// Batches of one size class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSize {
    /// Containers at most, and more than half of it; none for the largest class.
    pub up_to: Option<u64>,
    /// In all repetitions.
    pub batches: u64,
}

/// Most bytes that the processes held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The servers.
    pub server: u64,
    /// The simulated workers, all in one process.
    pub workers: u64,
    /// The clients.
    pub bench: u64,
}

/// Milliseconds of processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuTime {
    /// The servers.
    pub server: f64,
    /// Redis.
    #[serde(default)]
    pub redis: f64,
    /// The simulated workers, all in one process.
    pub workers: f64,
    /// The clients.
    pub bench: f64,
}

/// Bytes that the server held while containers came steadily.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryGrowth {
    /// After a quarter of the time.
    pub quarter: u64,
    /// After half.
    pub half: u64,
    /// At the end.
    pub end: u64,
}

/// Medians of the turns that wrote something, as the servers saw them, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TurnFigures {
    /// Containers planned.
    pub containers: f64,
    /// From the claim to its answer.
    pub claim_ms: f64,
    /// In memory.
    pub plan_ms: f64,
    /// From the commit to its answer.
    pub commit_ms: f64,
    /// Claim and commit of the same turn, together.
    pub claim_and_commit_ms: f64,
    /// Turns looked at.
    pub turns: usize,
}

/// One case and its figures: medians of the repetitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BurstRun {
    /// What was run.
    #[serde(flatten)]
    pub case: BurstCase,
    /// From the first submit sent to the last finish that the client saw.
    pub wall_ms: f64,
    /// The best repetition.
    pub wall_ms_min: f64,
    /// The worst one.
    pub wall_ms_max: f64,
    /// From the median.
    pub containers_per_s: u64,
    /// By the server's record, in whole milliseconds of the calendar; none where the record is too long to be read.
    pub submit_to_assigned_ms: Option<Percentiles>,
    /// Until the agent was told to start it.
    pub submit_to_delivered_ms: Percentiles,
    /// Until it ran, as `submit_to_assigned_ms`.
    #[serde(default)]
    pub submit_to_started_ms: Option<Percentiles>,
    /// Until the client heard of its end.
    pub submit_to_finished_ms: Percentiles,
    /// The best and the worst repetition's 99th percentile.
    pub submit_to_finished_p99_ms_min_max: [f64; 2],
    /// Turns that placed something.
    pub batches: u64,
    /// Of all repetitions.
    pub batch_sizes: Vec<BatchSize>,
    /// Store calls of the turns that had something to do, over these turns; each has a batch, though all of it may be refused.
    pub turn_calls_per_batch: f64,
    /// What a turn took.
    #[serde(default)]
    pub turn: Option<TurnFigures>,
    /// Claims that found nothing to do.
    pub claims_idle: u64,
    /// All store calls of the server: also submits, reports, takes and reads of clients.
    pub store_calls: u64,
    /// Durable transactions; calls that come together share one.
    pub transactions: u64,
    /// Placements that the store refused at commit.
    pub refusals: u64,
    /// Of all placements that were tried, in all repetitions.
    #[serde(default)]
    pub refusals_percent: f64,
    /// Fleet views made anew.
    pub fleet_reloads: u64,
    /// Acknowledged containers without an end, in all repetitions.
    pub lost: u64,
    /// While containers were submitted and ended: hardly touched by what else the machine does.
    pub cpu_ms: CpuTime,
    /// At their most, with all repetitions.
    pub peak_rss_bytes: Memory,
    /// Only with a rate.
    pub server_rss_bytes: Option<MemoryGrowth>,
    /// Of the store's disk, by a probe before the run.
    pub fdatasync_ms_p50: f64,
    /// What the shared store used.
    #[serde(default)]
    pub redis: Option<RedisFigures>,
    /// How often.
    pub repetitions: usize,
}

impl BurstRun {
    /// Of [`BurstRun::cells`].
    pub const HEADER: &[&str] = &[
        "containers",
        "shapes",
        "workers",
        "submit",
        "wall ms",
        "spread",
        "per s",
        "finished p50",
        "p99",
        "max",
        "cpu ms",
        "batches",
        "turn calls",
        "store calls",
        "claim+commit ms",
        "refused",
        "lost",
        "server MB",
        "redis us each",
    ];

    /// As a row of a table.
    #[must_use]
    pub fn cells(&self) -> Vec<String> {
        let (case, finished) = (&self.case, self.submit_to_finished_ms);
        vec![
            case.containers.to_string(),
            case.shapes.to_string(),
            format!("{} simulated", case.workers),
            case.submit.word().to_owned(),
            format!("{:.1}", self.wall_ms),
            format!("{:.1} to {:.1}", self.wall_ms_min, self.wall_ms_max),
            self.containers_per_s.to_string(),
            format!("{:.1}", finished.p50),
            format!("{:.1}", finished.p99),
            format!("{:.1}", finished.max),
            format!("{:.1}", self.cpu_ms.server + self.cpu_ms.redis + self.cpu_ms.workers + self.cpu_ms.bench),
            self.batches.to_string(),
            format!("{:.2}", self.turn_calls_per_batch),
            self.store_calls.to_string(),
            self.turn.map_or_else(String::new, |turn| format!("{:.2}", turn.claim_and_commit_ms)),
            format!("{:.2} %", self.refusals_percent),
            self.lost.to_string(),
            (self.peak_rss_bytes.server / 1_000_000).to_string(),
            self.redis.as_ref().map_or_else(String::new, |redis| format!("{:.1}", redis.cpu_us_per_container)),
        ]
    }

    pub(crate) fn measures(&self) -> Vec<Measure> {
        let wall = Spread { median: self.wall_ms, min: self.wall_ms_min, max: self.wall_ms_max };
        let [min, max] = self.submit_to_finished_p99_ms_min_max;
        let p99 = Spread { median: self.submit_to_finished_ms.p99, min, max };
        vec![Measure { name: "wall_ms", spread: wall }, Measure { name: "submit_to_finished_ms.p99", spread: p99 }]
    }
}
