//! `volley bench`: measures this program on this machine, and compares what was measured.

mod burst;
mod compare;
mod engine;
mod explain;
mod idle;
mod oci;
mod program;
mod scale;
mod seed;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use volley_bench::{Report, Submit, Table};

use crate::command_error::CommandError;
use crate::fleet::interrupted;
use crate::output::{self, Format};

pub use program::{WORKERS_COMMAND, Workers, workers_process};

/// Between two frames of the spinner, so that a long repetition is seen to go on.
const TICK: Duration = Duration::from_millis(200);

/// Measure this program on this machine.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What a plan costs: only the planner, in memory.
    Engine(engine::Engine),
    /// Bursts on a real server with real clients and simulated workers, each in a process of its own.
    Burst(burst::Burst),
    /// What servers, store and workers use while a backlog waits that fits nowhere.
    Idle(idle::Idle),
    /// How good expected starts are, in simulation; what an explanation and /metrics cost at a real server.
    Explain(explain::Explain),
    /// How good the plan of the fleet's size is, and what it costs.
    Scale(scale::Scale),
    /// The published case: a hundred containers onto ten workers, with each batching and one by one.
    Seed(seed::Seed),
    /// Containers from an image through Volley, beside the same OCI runtime called bare; as root.
    Oci(oci::Oci),
    /// The ratio of two saved reports, run by run, with its spread.
    Compare(compare::Compare),
}

/// Where a report goes besides the output.
#[derive(Debug, Args)]
struct Save {
    /// Keep the report, as JSON, for `volley bench compare`.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// How containers come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Coming {
    /// As one submission (a large burst: one for each shape).
    Batch,
    /// One submission each.
    Single,
}

impl From<Coming> for Submit {
    fn from(coming: Coming) -> Self {
        match coming {
            Coming::Batch => Submit::Batch,
            Coming::Single => Submit::Single,
        }
    }
}

/// Measures until it is done or interrupted.
pub async fn bench(bench: Bench, format: Format) -> Result<(), CommandError> {
    let measured = async {
        match bench.what {
            What::Engine(engine) => engine::run(engine, format).await,
            What::Burst(burst) => burst::run(burst, format).await,
            What::Idle(idle) => idle::run(idle, format).await,
            What::Explain(explain) => explain::run(explain, format).await,
            What::Scale(scale) => scale::run(scale, format).await,
            What::Seed(seed) => seed::run(seed, format).await,
            What::Oci(oci) => oci::run(oci, format).await,
            What::Compare(compare) => compare::run(&compare, format),
        }
    };
    tokio::select! {
        measured = measured => measured,
        // What was started ends with the future that is dropped.
        () = interrupted() => Err(CommandError::Ended(crate::command_error::INTERRUPTED)),
    }
}

/// A line on the terminal that says what is measured now; nothing where nobody watches.
fn watching() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}").expect("a constant template"));
    bar.enable_steady_tick(TICK);
    bar
}

/// Prints a report and saves it.
fn finish(report: &Report, save: &Save, format: Format) -> Result<(), CommandError> {
    if let Some(file) = &save.save {
        std::fs::write(file, report.to_json() + "\n").map_err(|error| {
            CommandError::Usage(format!(
                "--save {}: {error}; give a file in a folder that can be written",
                file.display()
            ))
        })?;
    }
    match format {
        Format::Table => {
            print_table(report.table())?;
            let machine = &report.machine;
            let processor = machine.processor.as_deref().unwrap_or("an unknown processor");
            output::write_line(&format!("\nmachine: {} x {processor}, {}", machine.cores, machine.system))?;
            output::write_line(&format!("how: {}", report.obtained))?;
            if machine.build != "release" {
                eprintln!("warning: this is a {} build; its figures say nothing", machine.build);
            }
            Ok(())
        }
        Format::Json => Ok(output::write_line(&report.to_json())?),
        Format::Quiet => Ok(()),
    }
}

fn print_table(table: Table) -> std::io::Result<()> {
    output::write_table(&table.header, table.rows)
}

/// A value as it is written on the command line.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
