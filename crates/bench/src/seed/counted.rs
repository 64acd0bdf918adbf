//! A store that counts the calls it passes on, by kind. Knows nothing of what they say.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use volley_ledger::{Answer, Hint, Operation, Query, Reply};
use volley_store::embedded::EmbeddedStore;
use volley_store::{Store, StoreFuture, StoreStats};

/// Calls so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls {
    pub(super) claims: u64,
    pub(super) commits: u64,
    /// Containers placed by each commit that placed some.
    pub(super) batches: Vec<u64>,
    /// Operations and reads of whatever kind.
    pub(super) all: u64,
}

impl Calls {
    /// Without those made before.
    pub(super) fn since(self, before: &Self) -> Self {
        Self {
            claims: self.claims - before.claims,
            commits: self.commits - before.commits,
            batches: self.batches[before.batches.len()..].to_vec(),
            all: self.all - before.all,
        }
    }
}

/// The embedded store, counted.
pub(super) struct CountedStore {
    store: Arc<EmbeddedStore>,
    calls: Mutex<Calls>,
}

impl CountedStore {
    pub(super) fn new(store: Arc<EmbeddedStore>) -> Self {
        Self { store, calls: Mutex::default() }
    }

    pub(super) fn calls(&self) -> Calls {
        self.counts().clone()
    }

    fn counts(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for CountedStore {
    fn apply(&self, operation: Operation) -> StoreFuture<'_, Reply> {
        let mut calls = self.counts();
        calls.all += 1;
        match &operation {
            Operation::Claim(_) => calls.claims += 1,
            Operation::Commit(commit) => {
                calls.commits += 1;
                calls.batches.extend(Some(commit.placements.len() as u64).filter(|placed| *placed > 0));
            }
            _ => {}
        }
        drop(calls);
        self.store.apply(operation)
    }

    fn read(&self, query: Query) -> StoreFuture<'_, Answer> {
        self.counts().all += 1;
        self.store.read(query)
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.store.hints()
    }

    fn backup(&self, file: PathBuf) -> StoreFuture<'_, ()> {
        self.store.backup(file)
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn take_interval(&self) -> Option<std::time::Duration> {
        self.store.take_interval()
    }

    fn warnings(&self) -> Vec<String> {
        self.store.warnings()
    }
}
