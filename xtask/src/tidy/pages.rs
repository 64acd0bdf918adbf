//! Rules about documentation: it knows every crate, its links lead somewhere, decision
//! records are numbered and short, the changelog has a place for what is not released.

use std::path::{Component, Path, PathBuf};

use super::{Finding, TextFile, Tree};
use crate::docs::{LIMITS, PAGES};
use crate::limits;

const ARCHITECTURE: &str = "docs/architecture.md";
const DECISIONS: &str = "docs/decisions";
const CONTENTS: &str = "docs/SUMMARY.md";
const CHANGELOG: &str = "CHANGELOG.md";
/// A page.
const DECISION_LINES_MAX: usize = 60;

/// The architecture page has a section for every crate.
pub fn check_crates(tree: &Tree) -> Vec<Finding> {
    let page = Path::new(ARCHITECTURE);
    let Some(text) = markdown(tree, page) else {
        return vec![Finding::new(page, 0, "is missing")];
    };
    let folders = tree.manifests.iter().filter_map(|m| m.path.parent());
    let unknown = folders.filter(|folder| !text.contains(&format!("`{}`", folder.display())));
    let problem = |folder: &Path| format!("does not say what `{}` owns and must not know", folder.display());
    unknown.map(|folder| Finding::new(page, 0, problem(folder))).collect()
}

/// Decision records are numbered from 0001 without gaps and are at most a page.
pub fn check_decisions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (place, file) in tree.markdown.iter().filter(|f| f.path.starts_with(DECISIONS)).enumerate() {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        let number = format!("{:04}-", place + 1);
        if !name.starts_with(&number) {
            findings.push(Finding::new(&file.path, 0, format!("should begin with `{number}`")));
        }
        let lines = file.text.lines().count();
        if lines > DECISION_LINES_MAX {
            let problem = format!("{lines} lines: a decision is at most a page ({DECISION_LINES_MAX})");
            findings.push(Finding::new(&file.path, 0, problem));
        }
    }
    findings
}

/// Every page of the docs is in their table of contents; decision records are found through the architecture page.
pub fn check_contents(tree: &Tree) -> Vec<Finding> {
    let contents = Path::new(CONTENTS);
    let Some(text) = markdown(tree, contents) else { return vec![Finding::new(contents, 0, "is missing")] };
    let pages = tree.markdown.iter().map(|file| file.path.as_path());
    let pages = pages.filter(|path| path.parent() == Some(Path::new("docs")) && *path != contents);
    let missing = pages.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !text.contains(&format!("]({name})"))
    });
    missing.map(|path| Finding::new(path, 0, format!("is not in {CONTENTS}: add a line"))).collect()
}

/// Pages that are made from the code are as the code makes them.
pub fn check_made(tree: &Tree) -> Vec<Finding> {
    check_against(tree, PAGES.iter().map(|(path, page)| (Path::new(*path), page())))
}

/// The page of limits follows every constant of the source: that it lags behind is told and stops nobody.
pub fn check_limits(tree: &Tree) -> Vec<Finding> {
    let path = Path::new(LIMITS);
    let old = markdown(tree, path).is_none_or(|page| page != limits::page(tree));
    if old { vec![Finding::warning(path, 0, "is not up to date: run `cargo xtask docs`")] } else { vec![] }
}

fn check_against<'p>(tree: &Tree, pages: impl Iterator<Item = (&'p Path, String)>) -> Vec<Finding> {
    let old = pages.filter(|(path, page)| markdown(tree, path) != Some(page));
    old.map(|(path, _)| Finding::new(path, 0, "is not up to date: run `cargo xtask docs`")).collect()
}

/// Links to files of the tree.
pub fn check_links(tree: &Tree) -> Vec<Finding> {
    tree.markdown.iter().flat_map(|file| check_page_links(tree, file)).collect()
}

fn check_page_links(tree: &Tree, file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folder = file.path.parent().unwrap_or(Path::new(""));
    for (number, line) in file.text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let link = rest.split(')').next().unwrap_or_default();
            let (target, anchor) = link.split_once('#').map_or((link, None), |(target, anchor)| (target, Some(anchor)));
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = if target.is_empty() { file.path.clone() } else { normal(&folder.join(target)) };
            if !tree.root.join(&path).exists() {
                findings.push(Finding::new(&file.path, number + 1, format!("the link to '{target}' leads nowhere")));
            } else if let Some(anchor) = anchor
                && markdown(tree, &path).is_some_and(|page| !anchors(page).any(|found| found == anchor))
            {
                let problem = format!("'{target}' has no heading '#{anchor}'");
                findings.push(Finding::new(&file.path, number + 1, problem));
            }
        }
    }
    findings
}

/// Without `..`, as the tree's paths are.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// The ids that mdBook gives headings, code blocks left out.
fn anchors(page: &str) -> impl Iterator<Item = String> + '_ {
    let mut in_code = false;
    let headings = page.lines().filter(move |line| {
        in_code ^= line.trim_start().starts_with("```");
        !in_code && line.starts_with('#')
    });
    headings.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
            _ => None,
        });
        kept.collect()
    })
}

/// There is a changelog with a place for what is not released yet.
pub fn check_changelog(tree: &Tree) -> Vec<Finding> {
    let page = Path::new(CHANGELOG);
    match markdown(tree, page) {
        None => vec![Finding::new(page, 0, "is missing")],
        Some(text) if !text.lines().any(|line| line.trim() == "## Unreleased") => {
            vec![Finding::new(page, 0, "has no `## Unreleased`")]
        }
        Some(_) => vec![],
    }
}

fn markdown<'a>(tree: &'a Tree, path: &Path) -> Option<&'a str> {
    tree.markdown.iter().find(|f| f.path == path).map(|f| f.text.as_str())
}
