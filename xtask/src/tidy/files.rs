//! Rules about Rust files: how they open, how long they are, what they are called, and
//! which words must not be in them.

use std::path::Path;

use super::{Finding, TextFile, Tree};

/// Few files are longer; these are shown.
const LINES_WARN: usize = 400;
/// No file is longer.
const LINES_MAX: usize = 800;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "shared", "lib_utils"];

/// Crates without clock, environment, I/O and tasks.
const PURE_CRATES: &[&str] = &["crates/model", "crates/ledger", "crates/engine"];
/// What would break that, and why.
const IMPURE_WORDS: &[(&str, &str)] = &[
    ("std::time::Instant", "time is an argument"),
    ("std::time::SystemTime", "time is an argument"),
    ("Instant::now", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("std::env", "what the environment says is an argument"),
    ("std::fs", "no I/O"),
    ("std::net", "no I/O"),
    ("std::process", "no I/O"),
    ("std::thread", "no threads"),
    ("async fn", "no tasks"),
    ("tokio", "no tasks"),
    ("rand::", "randomness is an argument"),
    ("RandomState", "randomness is an argument"),
];
/// What each pure crate's root must say, so that clippy refuses loops in hash order.
const HASH_ORDER_LINT: &str = "clippy::iter_over_hash_type";

/// Every file begins by saying what it owns.
pub fn check_opening(tree: &Tree) -> Vec<Finding> {
    let silent = |file: &&TextFile| !file.text.starts_with("//!");
    let finding =
        |file: &TextFile| Finding::new(&file.path, 1, "begin with `//!`: what it owns, what it must not know");
    tree.rust.iter().filter(silent).map(finding).collect()
}

/// A file reads in one sitting.
pub fn check_length(tree: &Tree) -> Vec<Finding> {
    let long = |file: &TextFile| {
        let lines = file.text.lines().count();
        let problem = format!("{lines} lines: split it by what it owns (at most {LINES_MAX}, few over {LINES_WARN})");
        if lines <= LINES_WARN {
            None
        } else if lines <= LINES_MAX {
            Some(Finding::warning(&file.path, 0, problem))
        } else {
            Some(Finding::new(&file.path, 0, problem))
        }
    };
    tree.rust.iter().filter_map(long).collect()
}

/// Files and folders are named after what they own.
pub fn check_names(tree: &Tree) -> Vec<Finding> {
    let empty = |file: &&TextFile| {
        let mut names = file.path.components().map(|c| Path::new(c.as_os_str()).file_stem().unwrap_or_default());
        names.any(|name| EMPTY_NAMES.iter().any(|empty| name == *empty))
    };
    let finding = |file: &TextFile| Finding::new(&file.path, 0, "the name says nothing: name it after what it owns");
    tree.rust.iter().filter(empty).map(finding).collect()
}

/// What is committed is finished; what is not is an issue.
pub fn check_undone(tree: &Tree) -> Vec<Finding> {
    // Put together here, so that this file does not find itself.
    let words = [["TO", "DO"], ["FIX", "ME"], ["to", "do!"], ["unimple", "mented!"], ["dbg", "!("]].map(|w| w.concat());
    let mut findings = Vec::new();
    for file in &tree.rust {
        for (number, line) in file.text.lines().enumerate() {
            let found = words.iter().find(|word| contains_word(line, word));
            findings.extend(found.map(|word| Finding::new(&file.path, number + 1, format!("`{word}` is left in"))));
        }
    }
    findings
}

/// `model`, `ledger` and `engine` are values in, values out.
pub fn check_pure(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for crate_folder in PURE_CRATES {
        let sources = Path::new(crate_folder).join("src");
        let root_file = sources.join("lib.rs");
        for file in tree.rust.iter().filter(|f| f.path.starts_with(&sources)) {
            if file.path == root_file && !file.text.contains(HASH_ORDER_LINT) {
                findings.push(Finding::new(&file.path, 0, format!("must say `#![deny({HASH_ORDER_LINT})]`")));
            }
            findings.extend(impure_lines(file));
        }
        if tree.root.join(crate_folder).is_dir() && !tree.root.join(crate_folder).join("clippy.toml").is_file() {
            let problem = "must have a clippy.toml with what a pure crate may not call";
            findings.push(Finding::new(Path::new(crate_folder), 0, problem));
        }
    }
    findings
}

fn impure_lines(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let found = IMPURE_WORDS.iter().find(|(word, _)| contains_word(code, word));
        let finding = |(word, why): &(&str, &str)| {
            Finding::new(&file.path, number + 1, format!("`{word}` in a pure crate: {why}"))
        };
        findings.extend(found.map(finding));
    }
    findings
}

/// Whether `word` is in `line` with no letter, digit or underscore right before it, or right after it where it ends in one.
fn contains_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let ends_in_part = word.ends_with(part);
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = ends_in_part && line[at + word.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}
