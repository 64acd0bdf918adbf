//! All that is left to chance, from one seed.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A seeded source of chance; clones draw from the same.
#[derive(Debug, Clone)]
pub(crate) struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub(crate) fn number(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    /// From a range that is not empty.
    pub(crate) fn within(&self, range: Range<u64>) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random_range(range)
    }

    pub(crate) fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// True in so many of a thousand cases.
    pub(crate) fn per_mille(&self, cases: u64) -> bool {
        self.within(0..1_000) < cases
    }

    /// An index below `count`, which is not 0.
    pub(crate) fn index(&self, count: usize) -> usize {
        self.within(0..count as u64) as usize
    }
}
