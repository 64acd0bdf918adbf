//! The direction of dependencies: the table of the design, held against the manifests.

use std::path::Path;

use super::{Finding, TextFile, Tree};

/// Which crates of the workspace each crate may use, and whether it is pure: a pure crate
/// takes its outside dependencies from [`PURE_OUTSIDE`] only.
struct Room {
    name: &'static str,
    may_use: &'static [&'static str],
    pure: bool,
}

const ROOMS: &[Room] = &[
    Room { name: "volley-model", may_use: &[], pure: true },
    Room { name: "volley-ledger", may_use: &["volley-model"], pure: true },
    Room { name: "volley-engine", may_use: &["volley-model"], pure: true },
    // Whoever counts is handed its counters.
    Room { name: "volley-metrics", may_use: &[], pure: false },
    Room { name: "volley-store", may_use: &["volley-model", "volley-ledger", "volley-metrics"], pure: false },
    Room { name: "volley-pools", may_use: &["volley-model"], pure: false },
    Room { name: "volley-wire", may_use: &["volley-model"], pure: false },
    // The store speaks in the ledger's operations, so control names them too.
    Room {
        name: "volley-control",
        may_use: &["volley-model", "volley-ledger", "volley-metrics", "volley-engine", "volley-store", "volley-pools"],
        pure: false,
    },
    Room {
        name: "volley-api",
        may_use: &["volley-model", "volley-metrics", "volley-control", "volley-wire"],
        pure: false,
    },
    Room { name: "volley-agent", may_use: &["volley-model", "volley-metrics", "volley-wire"], pure: false },
    // It may use what it measures.
    Room {
        name: "volley-bench",
        may_use: &[
            "volley-model",
            "volley-ledger",
            "volley-engine",
            "volley-store",
            "volley-wire",
            "volley-control",
            "volley-agent",
            "volley-sim",
        ],
        pure: false,
    },
    // It runs what production runs, with virtual time and faults between the parts.
    Room {
        name: "volley-sim",
        may_use: &[
            "volley-model",
            "volley-ledger",
            "volley-store",
            "volley-wire",
            "volley-control",
            "volley-api",
            "volley-agent",
        ],
        pure: false,
    },
    Room { name: "volley-traces", may_use: &["volley-model", "volley-wire", "volley-control"], pure: false },
    Room {
        name: "volley-cli",
        may_use: &[
            "volley-model",
            "volley-ledger",
            "volley-engine",
            "volley-store",
            "volley-traces",
            "volley-pools",
            "volley-wire",
            "volley-control",
            "volley-api",
            "volley-agent",
            "volley-bench",
        ],
        pure: false,
    },
    // The page of all metrics is made from the code.
    Room { name: "xtask", may_use: &["volley-metrics"], pure: false },
];

/// What a pure crate may use from outside, tests included.
const PURE_OUTSIDE: &[&str] = &["proptest", "serde", "serde_json", "sha2", "thiserror"];
/// Errors without a type belong to programs, not to libraries.
const ANYHOW_ROOMS: &[&str] = &["volley-cli", "xtask"];

/// Every manifest against the table.
pub fn check_direction(tree: &Tree) -> Vec<Finding> {
    tree.manifests.iter().flat_map(check_manifest).collect()
}

fn check_manifest(manifest: &TextFile) -> Vec<Finding> {
    let path = &manifest.path;
    let table: toml::Table = match manifest.text.parse() {
        Ok(table) => table,
        Err(error) => return vec![Finding::new(path, 0, format!("not a manifest: {error}"))],
    };
    let name = table.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str()).unwrap_or_default();
    let Some(room) = ROOMS.iter().find(|r| r.name == name) else {
        let problem =
            format!("crate '{name}' is not in the table of xtask/src/tidy/dependencies.rs: add what it may use");
        return vec![Finding::new(path, 0, problem)];
    };
    let mut findings = check_place(path, room);
    for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
        let Some(used) = table.get(section).and_then(|s| s.as_table()) else { continue };
        let names = used.keys().map(String::as_str);
        findings.extend(names.filter_map(|used| check_use(path, room, section, used)));
    }
    findings
}

/// The folder is the crate's name less `volley-`.
fn check_place(path: &Path, room: &Room) -> Vec<Finding> {
    let Some(short) = room.name.strip_prefix("volley-") else { return vec![] };
    if path == Path::new("crates").join(short).join("Cargo.toml") {
        return vec![];
    }
    vec![Finding::new(path, 0, format!("crate '{}' belongs in crates/{short}", room.name))]
}

fn check_use(path: &Path, room: &Room, section: &str, used: &str) -> Option<Finding> {
    let problem = if used.starts_with("volley-") {
        // A test may build a fuller world than its crate knows; a pure crate's may not.
        let test_only = section == "dev-dependencies" && !room.pure;
        (!test_only && !room.may_use.contains(&used)).then(|| {
            let may = if room.may_use.is_empty() { "nothing of ours".to_owned() } else { room.may_use.join(", ") };
            format!("{} must not use {used}; it may use {may}", room.name)
        })
    } else if room.pure && !PURE_OUTSIDE.contains(&used) {
        Some(format!("{} is pure and must not use {used}", room.name))
    } else if used == "anyhow" && !ANYHOW_ROOMS.contains(&room.name) {
        Some(format!("{} must not use anyhow: give its errors a type", room.name))
    } else {
        None
    };
    problem.map(|problem| Finding::new(path, 0, problem))
}
