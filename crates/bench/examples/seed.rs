//! `bench seed` without the command line: a table, or the report's JSON with `--json`. The
//! directory for the stores may follow; the system's for temporary files when it does not.

use volley_bench::{SeedBench, SeedRun, seed};

#[tokio::main]
async fn main() -> Result<(), volley_bench::SeedError> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let json = words.iter().any(|word| word == "--json");
    words.retain(|word| word != "--json");
    let dir = words.first().map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    eprintln!("{}", line(SeedRun::HEADER));
    let report = seed(&SeedBench::in_dir(dir), |run| eprintln!("{}", line(&run.cells()))).await?;
    if json {
        println!("{}", report.to_json());
    }
    Ok(())
}

fn line(cells: &[impl AsRef<str>]) -> String {
    cells.iter().map(|cell| format!("{:>12}", cell.as_ref())).collect::<Vec<_>>().join(" ")
}
