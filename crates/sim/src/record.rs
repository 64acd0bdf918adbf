//! What happened, as a hash of all of it and the last lines in words, and what went wrong first.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Lines kept for a failure's report.
const LINES_KEPT: usize = 400;

/// A run that broke a law.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The law and what broke it.
    pub what: String,
    /// What happened before, the last lines of it.
    pub lines: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        f.write_str(&self.what)
    }
}

/// The record of a run; clones write to the same.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    started: Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    hasher: DefaultHasher,
    lines: VecDeque<String>,
    failure: Option<Failure>,
    count: u64,
    verbose: bool,
}

impl Record {
    pub(crate) fn new(verbose: bool) -> Self {
        let inner = Inner { verbose, ..Inner::default() };
        Self { started: Instant::now(), inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something that happened.
    pub(crate) fn note(&self, line: impl fmt::Display) {
        let line = format!("{:>10.3} {line}", self.started.elapsed().as_secs_f64());
        let mut inner = self.lock();
        inner.hasher.write(line.as_bytes());
        inner.count += 1;
        if inner.verbose {
            println!("{line}");
        }
        if inner.lines.len() == LINES_KEPT {
            inner.lines.pop_front();
        }
        inner.lines.push_back(line);
    }

    /// Notes the first thing that went wrong.
    pub(crate) fn fail(&self, what: impl fmt::Display) {
        let mut inner = self.lock();
        if inner.failure.is_none() {
            let lines = inner.lines.iter().cloned().collect();
            inner.failure = Some(Failure { what: what.to_string(), lines });
        }
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.lock().failure.clone()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.lock().hasher.finish()
    }

    pub(crate) fn count(&self) -> u64 {
        self.lock().count
    }
}
