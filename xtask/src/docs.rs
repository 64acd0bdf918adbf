//! `cargo xtask docs`: pages that are made from the code, and the rule that they are up to date.

use std::path::Path;

use anyhow::{Context, Result};

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
    Ok(())
}
