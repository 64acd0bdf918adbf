//! `cargo xtask docs`: pages that are made from the code, and the rule that they are up to date.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::limits;
use crate::tidy::Tree;

/// A page: where it lies, and what makes it.
type Page = (&'static str, fn() -> String);

/// All of them.
pub const PAGES: &[Page] = &[("docs/metrics.md", volley_metrics::page)];

/// The page of limits, which is made from the tree.
pub const LIMITS: &str = "docs/limits.md";

/// Writes all pages.
pub fn write(root: &Path) -> Result<()> {
    let limits = limits::page(&Tree::read(root)?);
    std::fs::write(root.join(LIMITS), limits).with_context(|| format!("cannot write {LIMITS}"))?;
    println!("wrote {LIMITS}");
    for (path, page) in PAGES {
        std::fs::write(root.join(path), page()).with_context(|| format!("cannot write {path}"))?;
        println!("wrote {path}");
    }
    write_references(root)
}

/// The pages of commands and routes are written by the tests that hold them, which know both.
fn write_references(root: &Path) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--quiet", "--package", "volley-cli", "--bin", "volley", "--package", "volley-api", "--lib"]);
    cargo.args(["--", "the_reference_of_"]).env("VOLLEY_WRITE_DOCS", "1").current_dir(root);
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the references of commands and routes were not written");
    println!("wrote docs/reference-cli.md and docs/reference-api.md");
    Ok(())
}
