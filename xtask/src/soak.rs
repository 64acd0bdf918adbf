//! `cargo xtask soak`: the seeded tests, with many more rounds than a normal run has and with
//! seeds nobody has seen. Knows which tests take seeds, nothing of what they do.

use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// A kind of seeded test. It reads its first seed from `VOLLEY_SEED` and how many from `rounds_variable`.
struct Kind {
    name: &'static str,
    /// The words after `cargo test`; those after `--` belong to the test program.
    words: &'static [&'static str],
    rounds_variable: &'static str,
    rounds: u64,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "ledger",
        words: &["--package", "volley-ledger", "--test", "ledger", "--", "properties::all_laws", "--nocapture"],
        rounds_variable: "VOLLEY_SEQUENCES",
        rounds: 100_000,
    },
    Kind {
        name: "simulation",
        words: &["--package", "volley-sim", "--test", "simulation", "--", "everything_accepted", "--nocapture"],
        rounds_variable: "VOLLEY_ROUNDS",
        rounds: 5_000,
    },
    // On a real redis-server, or on what VOLLEY_REDIS_SERVER names.
    Kind {
        name: "redis-differential",
        words: &[
            "--package",
            "volley-store",
            "--test",
            "conformance",
            "--",
            "redis_is_the_ledger_after",
            "--nocapture",
        ],
        rounds_variable: "VOLLEY_SEQUENCES",
        rounds: 20_000,
    },
    Kind {
        name: "scale-race",
        words: &["--package", "volley-control", "--test", "scale_race", "--", "racing_servers", "--nocapture"],
        rounds_variable: "VOLLEY_RACES",
        rounds: 200,
    },
    // Its cases are new each time, whatever the seed; a failure prints the input that it was shrunk to.
    Kind {
        name: "decoders",
        words: &["--package", "volley-model", "--package", "volley-wire", "--test", "decoders"],
        rounds_variable: "PROPTEST_CASES",
        rounds: 20_000,
    },
    Kind {
        name: "drills",
        words: &["--package", "volley-cli", "--test", "e2e", "--", "drills::", "--nocapture", "--test-threads", "2"],
        rounds_variable: "VOLLEY_DRILLS",
        rounds: 50,
    },
    Kind {
        name: "metrics",
        words: &["--package", "volley-cli", "--test", "metrics", "--", "random_runs", "--nocapture"],
        rounds_variable: "VOLLEY_ROUNDS",
        rounds: 100,
    },
    Kind {
        name: "redis-drills",
        words: &[
            "--package",
            "volley-cli",
            "--test",
            "e2e",
            "--",
            "redis_drills::",
            "--nocapture",
            "--test-threads",
            "1",
        ],
        rounds_variable: "VOLLEY_REDIS_DRILLS",
        rounds: 5,
    },
    // Each of its cases opens a store on disk.
    Kind {
        name: "damage",
        words: &["--package", "volley-store", "--test", "damaged"],
        rounds_variable: "PROPTEST_CASES",
        rounds: 5_000,
    },
];

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    kind: Option<String>,
    rounds: Option<u64>,
    seed: Option<u64>,
}

/// Runs one kind, or all.
pub fn run(root: &Path, words: &[&str]) -> Result<()> {
    let asked = parse(words)?;
    let kinds: Vec<&Kind> = match &asked.kind {
        None => KINDS.iter().collect(),
        Some(name) => vec![KINDS.iter().find(|kind| kind.name == name).with_context(|| unknown(name))?],
    };
    let seed = match asked.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
    };
    let mut failed = Vec::new();
    for kind in kinds {
        let rounds = asked.rounds.unwrap_or(kind.rounds);
        println!("== {}: {rounds} rounds from seed {seed}", kind.name);
        let started = Instant::now();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.arg("test").args(kind.words).current_dir(root);
        let status =
            command.env("VOLLEY_SEED", seed.to_string()).env(kind.rounds_variable, rounds.to_string()).status()?;
        let outcome = if status.success() { "ok" } else { "FAILED" };
        println!("== {}: {outcome} after {:.1} s", kind.name, started.elapsed().as_secs_f64());
        if !status.success() {
            failed.push(kind.name);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {} (seed {seed})", failed.join(", ")) }
}

fn unknown(name: &str) -> String {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    format!("there is no kind '{name}'; give one of: {}", names.join(", "))
}

fn parse(words: &[&str]) -> Result<Asked> {
    let mut asked = Asked::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let number = |value: Option<&&str>| -> Result<u64> {
            let value = value.with_context(|| format!("{word}: give a number"))?;
            value.parse().with_context(|| format!("{word}: '{value}' is not a number"))
        };
        match *word {
            "--rounds" => asked.rounds = Some(number(words.next())?),
            "--seed" => asked.seed = Some(number(words.next())?),
            name if !name.starts_with('-') && asked.kind.is_none() => asked.kind = Some(name.to_owned()),
            other => bail!("'{other}' is not expected: cargo xtask soak [--rounds N] [--seed S] [KIND]"),
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_or_refused() {
        let asked = parse(&["--rounds", "3", "ledger", "--seed", "7"]).unwrap();
        assert_eq!(asked, Asked { kind: Some("ledger".to_owned()), rounds: Some(3), seed: Some(7) });
        assert_eq!(parse(&[]).unwrap(), Asked::default());
        for bad in [&["--rounds"][..], &["--seed", "x"], &["--fast"], &["ledger", "simulation"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(run(Path::new("."), &["nothing"]).unwrap_err().to_string().contains("simulation"));
    }
}
