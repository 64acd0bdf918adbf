//! `cargo xtask test`: what CI runs, step by step. Every step runs even when an earlier one
//! failed, so that one run shows all there is to mend.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::{packages, site, tidy};

/// The cargo steps: what is shown, and the words after `cargo`.
const STEPS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
    // The end-to-end tests are a test target of volley-cli: cargo builds the binary they start.
    ("tests", &["test", "--workspace", "--no-fail-fast"]),
];

/// Runs all steps; an error when one failed.
pub fn run(root: &Path) -> Result<()> {
    packages::install_missing()?;
    let mut failed = Vec::new();
    if let Err(error) = tidy::run(root) {
        println!("{error:#}");
        failed.push("tidy");
    }
    println!("== site: mdBook on docs/");
    let started = Instant::now();
    let built = site::run(root);
    println!("== site: {} after {:.1} s", if built.is_ok() { "ok" } else { "FAILED" }, seconds(started));
    if let Err(error) = built {
        println!("{error:#}");
        failed.push("site");
    }
    for (name, words) in STEPS {
        println!("== {name}: cargo {}", words.join(" "));
        let started = Instant::now();
        // The cargo that runs this is the one the toolchain file chose.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo).args(*words).current_dir(root).status()?;
        println!("== {name}: {} after {:.1} s", if status.success() { "ok" } else { "FAILED" }, seconds(started));
        if !status.success() {
            failed.push(name);
        }
    }
    println!("{} passed, {} failed", STEPS.len() + 2 - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
