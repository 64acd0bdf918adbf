//! The figures of `bench oci`. Knows nothing of how they came about.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::burst::Percentiles;
use crate::{Measure, Spread};

/// What was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciCase {
    /// Of a burst.
    pub containers: usize,
    /// The OCI runtime's name and version, as it says them.
    pub runtime: String,
}

impl fmt::Display for OciCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} containers, {}", self.containers, self.runtime)
    }
}

/// A container alone, to its first output.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lone {
    /// From the submit sent to the first byte at the client.
    pub first_output_ms: f64,
    /// From the begin of the bundle work to the first byte.
    pub bare_first_output_ms: f64,
    /// What Volley adds.
    pub added_ms: f64,
}

/// A worker whose containers sleep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// How long it was watched.
    pub seconds: u64,
    /// Processor time of worker and keepers, in hundredths of a core.
    pub cpu_percent: f64,
    /// What the worker process has more, for each container.
    pub worker_bytes_per_container: u64,
    /// What a keeper has.
    pub keeper_bytes_per_container: u64,
    /// Of it, what it shares with nobody.
    pub keeper_private_bytes: u64,
}

/// A layer unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Unpacking {
    /// Files of the layer.
    pub files: usize,
    /// Their content.
    pub bytes: u64,
    /// As it is kept.
    pub packed_bytes: u64,
    /// Into the store of images.
    pub wall_ms: f64,
    /// By `tar`.
    pub tar_wall_ms: f64,
    /// The first over the second.
    pub ratio: f64,
}

/// One case and its figures: medians of the repetitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OciRun {
    /// What was run.
    #[serde(flatten)]
    pub case: OciCase,
    /// A burst's wall over that of the bare loop beside it.
    pub ratio: f64,
    /// The best pair.
    pub ratio_min: f64,
    /// The worst one.
    pub ratio_max: f64,
    /// From the submit to the last end.
    pub wall_ms: f64,
    /// The best repetition.
    pub wall_ms_min: f64,
    /// The worst one.
    pub wall_ms_max: f64,
    /// Of the bare loop.
    pub bare_wall_ms: f64,
    /// The best repetition.
    pub bare_wall_ms_min: f64,
    /// The worst one.
    pub bare_wall_ms_max: f64,
    /// Threads of the bare loop: the fastest count.
    pub parallelism: usize,
    /// From the submit to the start of each.
    pub start_ms: Percentiles,
    /// A container alone.
    pub lone: Lone,
    /// All asleep.
    pub idle: Idle,
    /// A layer.
    pub unpacking: Unpacking,
    /// How often.
    pub repetitions: usize,
}

impl OciRun {
    /// Of [`OciRun::cells`].
    pub const HEADER: &[&str] = &[
        "containers",
        "ratio",
        "spread",
        "wall ms",
        "bare ms",
        "parallelism",
        "start p50/p99 ms",
        "lone adds ms",
        "idle CPU %",
        "KiB/container",
        "unpacking/tar",
    ];

    /// As a row of a table.
    #[must_use]
    pub fn cells(&self) -> Vec<String> {
        let bytes = self.idle.worker_bytes_per_container + self.idle.keeper_bytes_per_container;
        vec![
            self.case.containers.to_string(),
            format!("{:.2}", self.ratio),
            format!("{:.2} to {:.2}", self.ratio_min, self.ratio_max),
            format!("{:.0}", self.wall_ms),
            format!("{:.0}", self.bare_wall_ms),
            self.parallelism.to_string(),
            format!("{:.0}/{:.0}", self.start_ms.p50, self.start_ms.p99),
            format!("{:.1}", self.lone.added_ms),
            format!("{:.2}", self.idle.cpu_percent),
            format!("{}", bytes >> 10),
            format!("{:.2}", self.unpacking.ratio),
        ]
    }

    pub(crate) fn measures(&self) -> Vec<Measure> {
        let one = |figure: f64| Spread { median: figure, min: figure, max: figure };
        let ratio = Spread { median: self.ratio, min: self.ratio_min, max: self.ratio_max };
        let wall = Spread { median: self.wall_ms, min: self.wall_ms_min, max: self.wall_ms_max };
        vec![
            Measure { name: "ratio", spread: ratio },
            Measure { name: "wall_ms", spread: wall },
            Measure { name: "lone.added_ms", spread: one(self.lone.added_ms) },
            Measure { name: "unpacking.ratio", spread: one(self.unpacking.ratio) },
        ]
    }
}
