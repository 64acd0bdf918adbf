//! What `volley bench` measures, and what it reports: figures that anyone can make again. Owns
//! load generators, the check that what was measured was right, reports and their comparison.
//! Must not know: settings, output formats for people, the command line.

pub mod burst;
mod compare;
pub mod engine;
pub mod explain;
pub mod oci;
mod report;
pub mod scale;
pub mod seed;
mod submit;

pub use burst::{BurstBench, BurstError, BurstProgress, BurstRun, IdleBench, IdleRun, burst, idle};
pub use compare::{Compared, Comparison, compare};
pub use engine::{EngineBench, EngineRun, WrongPlan, engine};
pub use explain::{ExplainBench, ExplainRun, explain};
pub use oci::{OciBench, OciError, OciPrograms, OciRun, OciWorker, oci};
pub use report::{Machine, Measure, REPORT_VERSION, Report, ReportError, Runs, Spread, Table};
pub use scale::{ScaleBench, ScaleError, ScalePrograms, ScaleRun, scale};
pub use seed::{SeedBench, SeedError, SeedRun, seed};
pub use submit::Submit;
