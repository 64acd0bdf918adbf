//! Each rule against a small tree that keeps it and one that breaks it.

use std::path::Path;

use super::*;

/// Writes a tree, runs a rule, and gives the paths and lines of what fails.
fn check(rule: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<(String, usize)> {
    let root = tempfile::tempdir().expect("a temporary folder");
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("files lie in folders")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    let tree = Tree::read(root.path()).expect("the tree reads");
    rule(&tree).into_iter().filter(|f| f.fails).map(|f| (f.path, f.line)).collect()
}

fn manifest(name: &str, rest: &str) -> String {
    format!("[package]\nname = \"{name}\"\n\n{rest}")
}

fn at(path: &str, line: usize) -> (String, usize) {
    (path.to_owned(), line)
}

#[test]
fn dependencies_point_one_way() {
    let cases: &[(&str, &str, &str, usize)] = &[
        ("crates/ledger/Cargo.toml", "volley-ledger", "[dependencies]\nvolley-model.workspace = true\n", 0),
        ("crates/ledger/Cargo.toml", "volley-ledger", "[dependencies]\nvolley-store.workspace = true\n", 1),
        ("crates/ledger/Cargo.toml", "volley-ledger", "[dev-dependencies]\nvolley-store.workspace = true\n", 1),
        ("crates/ledger/Cargo.toml", "volley-ledger", "[dependencies]\ntokio.workspace = true\n", 1),
        ("crates/control/Cargo.toml", "volley-control", "[dependencies]\nvolley-wire.workspace = true\n", 1),
        ("crates/control/Cargo.toml", "volley-control", "[dev-dependencies]\nvolley-wire.workspace = true\n", 0),
        ("crates/api/Cargo.toml", "volley-api", "[build-dependencies]\nvolley-store.workspace = true\n", 1),
        ("crates/api/Cargo.toml", "volley-api", "[dependencies]\nanyhow = \"1\"\n", 1),
        ("crates/cli/Cargo.toml", "volley-cli", "[dependencies]\nanyhow = \"1\"\nvolley-api.workspace = true\n", 0),
        ("crates/other/Cargo.toml", "volley-other", "", 1),
        ("crates/place/Cargo.toml", "volley-cli", "", 1),
    ];
    for (path, name, rest, expected) in cases {
        let found = check(dependencies::check_direction, &[(path, &manifest(name, rest))]);
        assert_eq!(found.len(), *expected, "{name} with {rest:?}: {found:?}");
    }
}

#[test]
fn files_say_what_they_own() {
    let files = [("crates/a/src/good.rs", "//! Owns.\n"), ("crates/a/src/bad.rs", "// Owns.\n")];
    assert_eq!(check(files::check_opening, &files), [at("crates/a/src/bad.rs", 1)]);
}

#[test]
fn files_are_not_too_long() {
    let (short, long) = ("//\n".repeat(800), "//\n".repeat(801));
    let files = [("a/short.rs", short.as_str()), ("a/long.rs", long.as_str())];
    assert_eq!(check(files::check_length, &files), [at("a/long.rs", 0)]);
}

#[test]
fn names_name_a_concept() {
    let files = [("a/utils.rs", ""), ("a/common/good.rs", ""), ("a/manager_of_leases.rs", ""), ("a/leases.rs", "")];
    assert_eq!(check(files::check_names, &files), [at("a/common/good.rs", 0), at("a/utils.rs", 0)]);
}

#[test]
fn nothing_is_left_undone() {
    let marks = ["TO", "DO: later\n"].concat();
    let call = ["fn f() {\n    to", "do!()\n}\n"].concat();
    let files = [("a/marks.rs", marks.as_str()), ("a/call.rs", call.as_str()), ("a/fine.rs", "// mastodons\n")];
    assert_eq!(check(files::check_undone, &files), [at("a/call.rs", 2), at("a/marks.rs", 1)]);
}

#[test]
fn pure_crates_are_pure() {
    let root = "#![deny(clippy::iter_over_hash_type)]\n";
    let files = [
        ("crates/model/clippy.toml", ""),
        ("crates/model/src/lib.rs", root),
        ("crates/model/src/clock.rs", "fn f() {\n    std::time::Instant::now();\n}\n"),
        ("crates/model/src/words.rs", "// std::env is not read here\nlet operand::X = brand::Y;\n"),
        ("crates/model/src/task.rs", "async fn f() {}\n"),
        ("crates/engine/clippy.toml", ""),
        ("crates/engine/src/lib.rs", "//! No lint.\n"),
        ("crates/ledger/src/lib.rs", root),
        ("crates/store/src/lib.rs", "std::env::var\n"),
    ];
    let expected = [
        at("crates/model/src/clock.rs", 2),
        at("crates/model/src/task.rs", 1),
        at("crates/ledger", 0),
        at("crates/engine/src/lib.rs", 0),
    ];
    assert_eq!(check(files::check_pure, &files), expected);
}

#[test]
fn docs_know_every_crate() {
    let manifests = [("crates/a/Cargo.toml", "[package]"), ("crates/b/Cargo.toml", "[package]")];
    let page = at("docs/architecture.md", 0);
    assert_eq!(check(pages::check_crates, &manifests), std::slice::from_ref(&page));
    let mut files = manifests.to_vec();
    files.push(("docs/architecture.md", "### `crates/a`\n"));
    assert_eq!(check(pages::check_crates, &files), [page]);
    files.push(("docs/architecture.md", "### `crates/a`\n### `crates/b`\n"));
    assert_eq!(check(pages::check_crates, &files), []);
}

#[test]
fn decisions_are_numbered_and_short() {
    let long = "line\n".repeat(61);
    let files = [
        ("docs/decisions/0001-first.md", "short\n"),
        ("docs/decisions/0003-gap.md", "short\n"),
        ("docs/decisions/0004-long.md", long.as_str()),
    ];
    let expected = [
        at("docs/decisions/0003-gap.md", 0),
        at("docs/decisions/0004-long.md", 0),
        at("docs/decisions/0004-long.md", 0),
    ];
    assert_eq!(check(pages::check_decisions, &files), expected);
}

#[test]
fn the_contents_are_whole() {
    let summary = ("docs/SUMMARY.md", "- [A](a.md)\n");
    assert_eq!(check(pages::check_contents, &[("docs/a.md", "")]), [at("docs/SUMMARY.md", 0)]);
    assert_eq!(check(pages::check_contents, &[summary, ("docs/a.md", ""), ("docs/decisions/0001-a.md", "")]), []);
    assert_eq!(check(pages::check_contents, &[summary, ("docs/a.md", ""), ("docs/b.md", "")]), [at("docs/b.md", 0)]);
}

#[test]
fn links_lead_somewhere() {
    let page = "[a](other.md) [b](https://example.org/x) [c](#here)\n[d](missing.md#part)\n";
    let files = [("docs/page.md", page), ("docs/other.md", "")];
    assert_eq!(check(pages::check_links, &files), [at("docs/page.md", 1), at("docs/page.md", 2)]);
}

#[test]
fn anchors_are_headings_as_mdbook_names_them() {
    let page = "# Of `this`, and that\n[a](other.md#two-words) [b](#of-this-and-that) [c](decisions/x.md)\n";
    let other = "```sh\n# in code\n```\n## Two words\n[d](page.md#in-code) [e](../docs/other.md#in-code)\n";
    let files = [("docs/page.md", page), ("docs/other.md", other), ("docs/decisions/x.md", "[f](../page.md#f)\n")];
    let found = check(pages::check_links, &files);
    assert_eq!(found, [at("docs/decisions/x.md", 1), at("docs/other.md", 5), at("docs/other.md", 5)]);
}

#[test]
fn the_books_settings_are_what_mdbook_reads() {
    let settings: toml::Table = toml::from_str(include_str!("../../../docs/book.toml")).expect("TOML");
    assert_eq!(settings["book"]["src"].as_str(), Some("."), "SUMMARY.md lies beside it");
    assert!(settings["book"]["title"].is_str() && settings["build"]["build-dir"].is_str());
}

#[test]
fn the_changelog_is_kept() {
    assert_eq!(check(pages::check_changelog, &[("a.md", "")]), [at("CHANGELOG.md", 0)]);
    assert_eq!(check(pages::check_changelog, &[("CHANGELOG.md", "# Changelog\n")]), [at("CHANGELOG.md", 0)]);
    assert_eq!(check(pages::check_changelog, &[("CHANGELOG.md", "# Changelog\n\n## Unreleased\n")]), []);
}

#[test]
fn this_repository_has_all_its_rooms_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let tree = Tree::read(root).expect("the tree reads");
    assert_eq!(dependencies::check_direction(&tree), []);
}
