//! The metrics of a worker.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::instruments::{Count, Counts, Histograms, Value};
use crate::process::ProcessMetrics;
use crate::table::{Metric, Table};

/// All metrics of a worker process.
pub struct WorkerMetrics {
    /// What it runs.
    pub attempts: AttemptMetrics,
    /// The images that it has and gets.
    pub images: ImageMetrics,
    /// Its connection to a server.
    pub link: LinkMetrics,
    process: ProcessMetrics,
    registry: Mutex<Registry>,
    metrics: Vec<Metric>,
}

impl fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerMetrics").finish_non_exhaustive()
    }
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        let mut table = Table::new();
        let attempts = AttemptMetrics::register(&mut table);
        let images = ImageMetrics::register(&mut table);
        let link = LinkMetrics::register(&mut table);
        let process = ProcessMetrics::register(&mut table);
        let (registry, metrics) = (Mutex::new(table.registry), table.metrics);
        Self { attempts, images, link, process, registry, metrics }
    }
}

impl WorkerMetrics {
    /// The text of `/metrics` (OpenMetrics 1.0).
    pub fn text(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.process.refresh();
        let mut text = String::new();
        encode(&mut text, &registry).expect("text takes all that is written");
        text
    }

    pub(crate) fn metrics(&self) -> &[Metric] {
        &self.metrics
    }
}

/// What a worker runs.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct AttemptMetrics {
    pub held: Value,
    pub running: Value,
    pub started: Count,
    pub adopted: Count,
    pub start: Histograms<0>,
    pub run: Histograms<1>,
}

impl AttemptMetrics {
    fn register(table: &mut Table) -> Self {
        let outcome = [("outcome", "success, exited, stopped, lost, failed")];
        Self {
            held: table.value(
                "worker_attempts",
                "",
                "Attempts that this worker holds; ended ones until the server has their end.",
            ),
            running: table.value("worker_running", "", "Of these: those whose process runs."),
            started: table.count("worker_starts", "Attempts that this worker took from a server."),
            adopted: table.count("worker_adopted", "Attempts left by an earlier life of this worker."),
            start: table.seconds("worker_start", [], "From an attempt's order to its running process, pulls included."),
            run: table.seconds("worker_attempt", outcome, "From an attempt's order to its end."),
        }
    }
}

/// A worker's images.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ImageMetrics {
    pub present: Count,
    pub shared: Count,
    pub pull: Histograms<1>,
}

impl ImageMetrics {
    fn register(table: &mut Table) -> Self {
        let result = [("result", "pulled, not_found, denied, broken, no_space, unreachable, failed")];
        let says = "Time of a pull: looked up, fetched and unpacked, by what became of it.";
        Self {
            present: table.count("worker_images_present", "Attempts whose image was there already."),
            shared: table.count("worker_pulls_shared", "Attempts that waited for a pull that went on for another."),
            pull: table.seconds("worker_pull", result, says),
        }
    }
}

/// A worker's connection to a server.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct LinkMetrics {
    pub connected: Value,
    pub connects: Counts<1>,
    pub reports: Count,
    pub repeated: Count,
    pub verdicts: Counts<1>,
    pub heartbeats: Counts<1>,
    pub leases_ended: Count,
}

impl LinkMetrics {
    fn register(table: &mut Table) -> Self {
        Self {
            connected: table.value("worker_connected", "", "1 while a stream to a server is open."),
            connects: table.counts(
                "worker_connects",
                [("result", "attached, not_connected, refused")],
                "Tries to open a stream to a server.",
            ),
            reports: table.count("worker_reports", "Reports sent, repeats included."),
            repeated: table.count("worker_repeats", "Rounds in which unanswered reports were sent again."),
            verdicts: table.counts("worker_verdicts", [("verdict", "keep, kill")], "Answers to reports."),
            heartbeats: table.counts("worker_heartbeats", [("result", "sent, renewed")], "Heartbeats."),
            leases_ended: table.count("worker_leases_ended", "How often the lease ended and what ran was stopped."),
        }
    }
}
