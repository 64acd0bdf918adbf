//! A report: what was measured, how it was obtained, on what machine, and its JSON. Knows
//! nothing of how the figures came about.

use serde::{Deserialize, Serialize};

use crate::{BurstRun, EngineRun, ExplainRun, IdleRun, OciRun, ScaleRun, SeedRun};

/// Grows when a field changes its meaning or goes.
pub const REPORT_VERSION: u32 = 1;

/// The figures of one bench.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// Of volley.
    pub volley: String,
    /// Where.
    pub machine: Machine,
    /// What was measured and what was not, in words.
    pub obtained: String,
    /// The figures.
    #[serde(flatten)]
    pub runs: Runs,
}

/// What a bench ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// The processor's name, where the system tells it.
    pub processor: Option<String>,
    /// As in `linux x86_64`.
    pub system: String,
    /// `release`, or `debug`: figures of a debug build say nothing.
    pub build: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor.map(|(_, name)| name.trim().to_owned()),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        }
    }
}

/// The runs of a bench, by its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "bench", content = "runs", rename_all = "snake_case")]
pub enum Runs {
    /// Of `bench engine`.
    Engine(Vec<EngineRun>),
    /// Of `bench burst`.
    Burst(Vec<BurstRun>),
    /// Of `bench idle`.
    Idle(Vec<IdleRun>),
    /// Of `bench explain`.
    Explain(Vec<ExplainRun>),
    /// Of `bench scale`.
    Scale(Vec<ScaleRun>),
    /// Of `bench seed`.
    Seed(Vec<SeedRun>),
    /// Of `bench oci`.
    Oci(Vec<OciRun>),
}

/// A median and how far the repetitions lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half are below.
    pub median: f64,
    /// The best.
    pub min: f64,
    /// The worst.
    pub max: f64,
}

impl Spread {
    /// Of repetitions, at least one.
    #[must_use]
    pub fn of(repetitions: &[f64]) -> Self {
        let mut sorted = repetitions.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Self { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }
}

/// A figure of a run that can be compared: smaller is better.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// As in the JSON.
    pub name: &'static str,
    /// The figure.
    pub spread: Spread,
}

/// Plain rows for a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// One word for each column.
    pub header: Vec<&'static str>,
    /// As many cells each.
    pub rows: Vec<Vec<String>>,
}

/// Why a text is not a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Not JSON, or not of this form.
    #[error("not a report of `volley bench`: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Made by another volley.
    #[error("the report has version {found}, this volley reads version {REPORT_VERSION}: make it again")]
    OtherVersion {
        /// What it says.
        found: u64,
    },
}

impl Report {
    /// With all that is the same for every bench on this machine.
    #[must_use]
    pub fn of(obtained: String, runs: Runs) -> Self {
        let volley = env!("CARGO_PKG_VERSION").to_owned();
        Self { version: REPORT_VERSION, volley, machine: Machine::here(), obtained, runs }
    }

    /// As JSON, one field a line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has only text keys")
    }

    /// From JSON.
    pub fn from_json(text: &str) -> Result<Self, ReportError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(REPORT_VERSION) => Err(ReportError::OtherVersion { found }),
            _ => Ok(serde_json::from_value(value)?),
        }
    }

    /// One row for each run.
    #[must_use]
    pub fn table(&self) -> Table {
        match &self.runs {
            Runs::Engine(runs) => {
                Table { header: EngineRun::HEADER.to_vec(), rows: runs.iter().map(EngineRun::cells).collect() }
            }
            Runs::Burst(runs) => {
                Table { header: BurstRun::HEADER.to_vec(), rows: runs.iter().map(BurstRun::cells).collect() }
            }
            Runs::Explain(runs) => {
                Table { header: ExplainRun::HEADER.to_vec(), rows: runs.iter().map(ExplainRun::cells).collect() }
            }
            Runs::Scale(runs) => {
                Table { header: ScaleRun::HEADER.to_vec(), rows: runs.iter().map(ScaleRun::cells).collect() }
            }
            Runs::Idle(runs) => {
                Table { header: IdleRun::HEADER.to_vec(), rows: runs.iter().map(IdleRun::cells).collect() }
            }
            Runs::Seed(runs) => {
                Table { header: SeedRun::HEADER.to_vec(), rows: runs.iter().map(SeedRun::cells).collect() }
            }
            Runs::Oci(runs) => {
                Table { header: OciRun::HEADER.to_vec(), rows: runs.iter().map(OciRun::cells).collect() }
            }
        }
    }

    /// What was run and what came out, in order.
    #[must_use]
    pub fn measures(&self) -> Vec<(String, Vec<Measure>)> {
        match &self.runs {
            Runs::Engine(runs) => runs.iter().map(|run| (run.case.to_string(), run.measures())).collect(),
            Runs::Burst(runs) => runs.iter().map(|run| (run.case.to_string(), run.measures())).collect(),
            Runs::Explain(runs) => runs.iter().map(|run| (run.to_string(), run.measures())).collect(),
            Runs::Scale(runs) => runs.iter().map(|run| (run.figure.clone(), run.measures())).collect(),
            Runs::Idle(runs) => runs.iter().map(|run| (run.to_string(), run.measures())).collect(),
            Runs::Seed(runs) => runs.iter().map(|run| (run.case.to_string(), run.measures())).collect(),
            Runs::Oci(runs) => runs.iter().map(|run| (run.case.to_string(), run.measures())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0]), Spread { median: 3.0, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    }

    #[test]
    fn reads_what_it_wrote_and_refuses_another_version() {
        let report = Report::of("by a test".to_owned(), Runs::Engine(vec![]));
        let text = report.to_json();
        assert_eq!(Report::from_json(&text).unwrap(), report);
        let other = text.replace("\"version\": 1", "\"version\": 7");
        assert!(matches!(Report::from_json(&other), Err(ReportError::OtherVersion { found: 7 })));
        assert!(matches!(Report::from_json("{}"), Err(ReportError::Malformed(_))));
    }
}
