//! `cargo xtask site`: docs/ as a site, in target/site, by mdBook. Knows nothing of what the pages say.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A minute of two cores to build, once for each target folder. Without its server, search and watching.
const MDBOOK_VERSION: &str = "0.5.4";

/// Builds the site; what mdBook warns of is an error.
pub fn run(root: &Path) -> Result<()> {
    let mdbook = mdbook(root)?;
    let mut command = Command::new(&mdbook);
    command.arg("build").arg(root.join("docs")).arg("--dest-dir").arg(root.join("target/site"));
    let built = command.output().with_context(|| format!("{} does not run", mdbook.display()))?;
    let said = String::from_utf8_lossy(&built.stderr);
    if !built.status.success() || said.lines().any(|line| line.contains("WARN") || line.contains("ERROR")) {
        bail!("mdBook on docs/:\n{said}");
    }
    println!("the site is in target/site");
    Ok(())
}

/// The program, built when it is not there.
fn mdbook(root: &Path) -> Result<PathBuf> {
    let tools = root.join("target/tools").join(format!("mdbook-{MDBOOK_VERSION}"));
    let program = tools.join("bin/mdbook");
    if !program.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["install", "mdbook", "--quiet", "--locked", "--no-default-features"]);
        command.args(["--version", MDBOOK_VERSION, "--root"]).arg(&tools);
        // A folder of its own, inside the one that is not committed.
        command.arg("--target-dir").arg(root.join("target/tools/build")).current_dir(root);
        let status = command.status()?;
        if !status.success() {
            bail!("mdBook {MDBOOK_VERSION} could not be built ({status}); its output is above");
        }
    }
    Ok(program)
}
