//! The only script surface: `cargo xtask test`.

fn main() -> anyhow::Result<()> {
    let status = std::process::Command::new("cargo").args(["test", "--workspace"]).status()?;
    std::process::exit(status.code().unwrap_or(1));
}
