//! `cargo xtask`: the one script surface of the repository. A developer and CI run the same
//! commands. Knows the workspace's layout, nothing of what the crates do.

mod docs;
mod limits;
mod packages;
mod site;
mod soak;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND
  test   all that CI runs: system packages, format, lints, tidy, every test
  docs   write the pages that are made from the code
  site   docs/ as a site, in target/site
  soak   [--rounds N] [--seed S] [KIND]: the seeded tests with many seeds
  tidy   the rules of the house that no compiler checks";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test"] => test::run(&root()),
        ["docs"] => docs::write(&root()),
        ["site"] => site::run(&root()),
        ["soak", more @ ..] => soak::run(&root(), more),
        ["tidy"] => tidy::run(&root()),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace: the folder above this crate.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the workspace").to_owned()
}
