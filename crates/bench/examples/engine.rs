//! `bench engine` without the command line: a table, or the report's JSON with `--json`. Words
//! such as `workers=1000,10000`, `shapes=64`, `batches=20`, `strategies=pack`, `ms=300` choose the runs.

use std::time::Duration;

use volley_bench::{EngineBench, EngineRun, engine};
use volley_model::Strategy;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = EngineBench::default();
    let mut json = false;
    for word in std::env::args().skip(1) {
        let (name, value) = word.split_once('=').unwrap_or((&word, ""));
        match name {
            "--json" => json = true,
            "workers" => options.workers = numbers(value)?,
            "shapes" => options.shapes = numbers(value)?,
            "batches" => options.batches = numbers(value)?,
            "strategies" if value == "pack" => options.strategies = vec![Strategy::Pack],
            "strategies" if value == "spread" => options.strategies = vec![Strategy::Spread],
            "ms" => options.run_time = Duration::from_millis(value.parse()?),
            _ => return Err(format!("unknown word '{word}'").into()),
        }
    }
    eprintln!("{}", line(EngineRun::HEADER));
    let report = engine(&options, |run| eprintln!("{}", line(&run.cells())))?;
    if json {
        println!("{}", report.to_json());
    }
    Ok(())
}

fn numbers(list: &str) -> Result<Vec<usize>, std::num::ParseIntError> {
    list.split(',').map(str::parse).collect()
}

fn line(cells: &[impl AsRef<str>]) -> String {
    cells.iter().map(|cell| format!("{:>12}", cell.as_ref())).collect::<Vec<_>>().join(" ")
}
