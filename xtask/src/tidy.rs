//! `cargo xtask tidy`: the rules of the house that no compiler checks. Each rule is a pure
//! look at a tree; none of them changes a file.

mod dependencies;
mod files;
mod pages;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Something that a rule found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Relative to the workspace.
    pub path: String,
    /// From 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and what would be right.
    pub problem: String,
    /// Whether tidy fails for it.
    pub fails: bool,
}

impl Finding {
    fn new(path: &Path, line: usize, problem: impl Into<String>) -> Self {
        Self { path: path.display().to_string(), line, problem: problem.into(), fails: true }
    }

    fn warning(path: &Path, line: usize, problem: impl Into<String>) -> Self {
        Self { fails: false, ..Self::new(path, line, problem) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.fails { "error" } else { "warning" };
        match self.line {
            0 => write!(f, "{kind}: {}: {}", self.path, self.problem),
            line => write!(f, "{kind}: {}:{line}: {}", self.path, self.problem),
        }
    }
}

/// A text file of the tree.
pub struct TextFile {
    /// Relative to the workspace.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// A rule: its name, and what it finds in a tree.
type Rule = (&'static str, fn(&Tree) -> Vec<Finding>);

/// All rules.
const RULES: &[Rule] = &[
    ("dependencies point one way", dependencies::check_direction),
    ("pure crates are pure", files::check_pure),
    ("files say what they own", files::check_opening),
    ("files read in one sitting", files::check_length),
    ("names name a concept", files::check_names),
    ("nothing is left undone", files::check_undone),
    ("docs know every crate", pages::check_crates),
    ("decisions are numbered and short", pages::check_decisions),
    ("the table of contents is whole", pages::check_contents),
    ("made pages are up to date", pages::check_made),
    ("the page of limits is up to date", pages::check_limits),
    ("links lead somewhere", pages::check_links),
    ("the changelog is kept", pages::check_changelog),
];

/// What the rules look at.
pub struct Tree {
    /// The workspace.
    pub root: PathBuf,
    /// Rust files, by path.
    pub rust: Vec<TextFile>,
    /// Markdown files, by path.
    pub markdown: Vec<TextFile>,
    /// Manifests of the workspace's packages, by path.
    pub manifests: Vec<TextFile>,
}

/// Checks the workspace and prints what was found; an error when a rule is broken.
pub fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let (mut passed, mut failed) = (0, 0);
    for (name, rule) in RULES {
        let findings = rule(&tree);
        for finding in &findings {
            println!("{finding}");
        }
        if findings.iter().any(|f| f.fails) {
            println!("rule broken: {name}");
            failed += 1;
        } else {
            passed += 1;
        }
    }
    println!("tidy: {passed} passed, {failed} failed");
    if failed > 0 {
        bail!("tidy found broken rules");
    }
    Ok(())
}

impl Tree {
    /// Reads all text that the rules look at.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { root: root.to_owned(), rust: vec![], markdown: vec![], manifests: vec![] };
        tree.read_folder(Path::new(""))?;
        for files in [&mut tree.rust, &mut tree.markdown, &mut tree.manifests] {
            files.sort_by(|a, b| a.path.cmp(&b.path));
        }
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path) -> Result<()> {
        let full = self.root.join(folder);
        for entry in std::fs::read_dir(&full).with_context(|| format!("cannot list {}", full.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            let path = folder.join(&name);
            if entry.file_type()?.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    self.read_folder(&path)?;
                }
                continue;
            }
            let files = match path.extension().and_then(|e| e.to_str()) {
                Some("rs") => &mut self.rust,
                Some("md") => &mut self.markdown,
                Some("toml") if name == "Cargo.toml" && folder != Path::new("") => &mut self.manifests,
                _ => continue,
            };
            let text = std::fs::read_to_string(entry.path())
                .with_context(|| format!("cannot read {}", entry.path().display()))?;
            files.push(TextFile { path, text });
        }
        Ok(())
    }
}
