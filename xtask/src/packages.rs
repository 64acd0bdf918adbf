//! System packages that tests need, in one table, installed with apt when they are missing.
//! A test never skips for want of a program: either it is installed here or the run fails.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program that some test starts.
pub struct Package {
    /// What apt calls it.
    pub name: &'static str,
    /// The program looked for.
    pub program: &'static str,
    /// Which test starts it; `None` while no test does, and then it is not installed.
    pub needed_by: Option<&'static str>,
}

/// All packages that the plan of the project names.
pub const PACKAGES: &[Package] = &[
    Package {
        name: "redis-server",
        program: "redis-server",
        needed_by: Some(
            "volley-store: conformance; crates/cli/tests/bench.rs; volley-control: scale_race; tests/e2e: redis_drills, servers, deploy",
        ),
    },
    Package { name: "runc", program: "runc", needed_by: Some("volley-agent: runtimes") },
    Package { name: "crun", program: "crun", needed_by: Some("volley-agent: runtimes") },
    Package { name: "busybox-static", program: "busybox", needed_by: Some("volley-agent: runtimes") },
    Package { name: "docker-registry", program: "docker-registry", needed_by: Some("volley-agent: runtimes") },
    Package { name: "prometheus", program: "prometheus", needed_by: Some("crates/cli/tests/prometheus.rs") },
    Package { name: "strace", program: "strace", needed_by: Some("tests/e2e/drills: syncs that fail") },
    Package { name: "faketime", program: "faketime", needed_by: Some("tests/e2e/drills: a clock that jumps") },
    Package { name: "curl", program: "curl", needed_by: Some("tests/e2e/docs.rs") },
    Package { name: "bsdutils", program: "script", needed_by: Some("tests/e2e/watch.rs") },
    Package { name: "chromium", program: "chromium", needed_by: None },
];

const PROGRAM_FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Installs what is needed and missing.
pub fn install_missing() -> Result<()> {
    let missing = missing(PACKAGES, |program| PROGRAM_FOLDERS.iter().any(|f| Path::new(f).join(program).exists()));
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing with apt: {}", missing.join(" "));
    let Some(prefix) = privilege() else {
        bail!(
            "tests need {0}, and this user may not install them: as root run `apt-get install {0}`, then try again",
            missing.join(" ")
        );
    };
    apt(&prefix, &["update", "-qq"])?;
    let mut words = vec!["install", "-qq", "-y", "--no-install-recommends"];
    words.extend(&missing);
    apt(&prefix, &words)
}

/// Names of packages that a test needs and whose program is not there.
fn missing(table: &[Package], present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    table.iter().filter(|p| p.needed_by.is_some() && !present(p.program)).map(|p| p.name).collect()
}

/// How to run apt here: as root as it is, else by sudo without a password; `None` when neither goes.
fn privilege() -> Option<Vec<&'static str>> {
    let quiet = |program: &str, words: &[&str]| {
        let done = Command::new(program).args(words).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    if quiet("id", &["-u"]).as_deref() == Some("0") {
        return Some(Vec::new());
    }
    quiet("sudo", &["-n", "true"]).map(|_| vec!["sudo", "-n"])
}

fn apt(prefix: &[&str], words: &[&str]) -> Result<()> {
    let mut line: Vec<&str> = prefix.to_vec();
    line.push("apt-get");
    line.extend(words);
    let shown = line.join(" ");
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.status().with_context(|| format!("could not start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status}): see its lines above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Package] = &[
        Package { name: "first", program: "one", needed_by: Some("a test") },
        Package { name: "second", program: "two", needed_by: Some("a test") },
        Package { name: "third", program: "three", needed_by: None },
    ];

    #[test]
    fn only_what_a_test_needs_and_is_not_there_is_installed() {
        assert_eq!(missing(TABLE, |program| program == "one"), ["second"]);
        assert_eq!(missing(TABLE, |_| true), Vec::<&str>::new());
        assert_eq!(missing(TABLE, |_| false), ["first", "second"]);
    }
}
