//! `volley bench compare`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use volley_bench::{Report, Spread, compare};

use super::print_table;
use crate::command_error::CommandError;
use crate::output::{self, Format};

/// The ratio of two saved reports, run by run, with its spread.
#[derive(Debug, Args)]
pub struct Compare {
    /// The report that the other is held against.
    a: PathBuf,
    /// The other one.
    b: PathBuf,
}

fn report(file: &Path) -> Result<Report, CommandError> {
    let wrong = |error: &dyn std::fmt::Display| CommandError::Usage(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    Report::from_json(&text).map_err(|error| wrong(&error))
}

pub(super) fn run(flags: &Compare, format: Format) -> Result<(), CommandError> {
    let (a, b) = (report(&flags.a)?, report(&flags.b)?);
    let found = compare(&a, &b);
    if found.compared.is_empty() {
        return Err(CommandError::Usage("the reports have no run in common; give two of the same bench".to_owned()));
    }
    match format {
        Format::Quiet => {}
        Format::Json => {
            let spread = |spread: Spread| json!({ "median": spread.median, "min": spread.min, "max": spread.max });
            let row = |row: &volley_bench::Compared| {
                json!({ "run": row.case, "measure": row.measure, "a": spread(row.a), "b": spread(row.b),
                        "ratio": spread(row.ratio), "certain": row.is_certain() })
            };
            let compared: Vec<_> = found.compared.iter().map(row).collect();
            output::write_json_object(json!({
                "compared": compared, "only_a": found.only_a, "only_b": found.only_b, "caveats": found.caveats,
            }))?;
        }
        Format::Table => {
            print_table(found.table())?;
            output::write_line("\nratio of the medians; spread: what the repetitions of both allow")?;
            for (file, cases) in [(&flags.a, &found.only_a), (&flags.b, &found.only_b)] {
                for case in cases {
                    output::write_line(&format!("only in {}: {case}", file.display()))?;
                }
            }
            for caveat in &found.caveats {
                output::write_line(&format!("caveat: {caveat}"))?;
            }
        }
    }
    Ok(())
}
