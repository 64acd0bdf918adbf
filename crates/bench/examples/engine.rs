//! `bench engine` without the command line: a table, or the report's JSON with `--json`; with
//! `--quick` one size of fleet and shorter runs.

use std::time::Duration;

use volley_bench::{EngineBench, EngineRun, engine};

fn main() -> Result<(), volley_bench::WrongPlan> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let asked = |word: &str| words.iter().any(|w| w == word);
    let mut options = EngineBench::default();
    if asked("--quick") {
        options.workers = vec![10_000];
        options.run_time = Duration::from_millis(300);
    }
    eprintln!("{}", line(EngineRun::HEADER));
    let report = engine(&options, |run| eprintln!("{}", line(&run.cells())))?;
    if asked("--json") {
        println!("{}", report.to_json());
    }
    Ok(())
}

fn line(cells: &[impl AsRef<str>]) -> String {
    cells.iter().map(|cell| format!("{:>12}", cell.as_ref())).collect::<Vec<_>>().join(" ")
}
