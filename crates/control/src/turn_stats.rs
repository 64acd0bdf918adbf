//! Counts of turns since the server's start, for the bench and for people. Knows nothing of
//! how a turn goes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sizes of batches are counted by powers of two, up to this one and above.
const SIZES: usize = 15;
/// Of so many turns the times are kept: some seconds of a busy server.
const RECENT_MAX: usize = 256;

/// What one turn that wrote something took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnTimes {
    /// Containers that were planned.
    pub containers: u64,
    /// From the claim to its answer.
    pub claim: Duration,
    /// In memory, between the two calls.
    pub plan: Duration,
    /// From the commit to its answer.
    pub commit: Duration,
}

/// Counts of turns since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TurnStats {
    /// Turns that placed something.
    pub batches: u64,
    /// Containers placed.
    pub placed: u64,
    /// Most containers placed by one turn.
    pub largest: u64,
    /// Placements refused at commit.
    pub refused: u64,
    /// Store calls: claims, one for each turn.
    pub claims: u64,
    /// Of these: claims after which there was nothing to commit.
    pub claims_idle: u64,
    /// Store calls: commits, one for each turn that has something to write.
    pub commits: u64,
    /// Fleet views made anew: the first one, and after whatever made the changes unknown.
    pub reloads: u64,
    /// Batches of 1, 2, up to 4, up to 8 containers and so on; the last counts all that are larger.
    pub sizes: [u64; SIZES],
    /// The last turns that wrote something, oldest first.
    pub recent: VecDeque<TurnTimes>,
}

impl TurnStats {
    /// How many containers a batch of `sizes[index]` has at most; `None` for the last, which has no bound.
    #[must_use]
    pub fn size_up_to(index: usize) -> Option<u64> {
        (index + 1 < SIZES).then(|| 1 << index)
    }

    fn count_batch(&mut self, placed: u64) {
        self.batches += 1;
        self.placed += placed;
        self.largest = self.largest.max(placed);
        let index = placed.next_power_of_two().trailing_zeros() as usize;
        self.sizes[index.min(SIZES - 1)] += 1;
    }
}

/// Written by the turn, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct TurnCounts {
    stats: Mutex<TurnStats>,
}

impl TurnCounts {
    fn lock(&self) -> MutexGuard<'_, TurnStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> TurnStats {
        self.lock().clone()
    }

    /// A claim was answered.
    pub(crate) fn on_claim(&self, reload: bool) {
        let mut stats = self.lock();
        stats.claims += 1;
        stats.reloads += u64::from(reload);
    }

    /// The last claim brought nothing to commit.
    pub(crate) fn on_idle(&self) {
        self.lock().claims_idle += 1;
    }

    /// A commit was answered.
    pub(crate) fn on_commit(&self, placed: usize, refused: usize, times: TurnTimes) {
        let mut stats = self.lock();
        if stats.recent.len() == RECENT_MAX {
            stats.recent.pop_front();
        }
        stats.recent.push_back(times);
        stats.commits += 1;
        stats.refused += refused as u64;
        if placed > 0 {
            stats.count_batch(placed as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_by_their_size() {
        let counts = TurnCounts::default();
        for placed in [1, 2, 3, 4, 5, 1_000, 1_000_000, 0] {
            counts.on_commit(placed, 1, TurnTimes::default());
        }
        let stats = counts.stats();
        assert_eq!((stats.batches, stats.commits, stats.refused, stats.largest), (7, 8, 8, 1_000_000));
        let counted = |up_to: u64| {
            let index = (0..SIZES).find(|index| TurnStats::size_up_to(*index) == Some(up_to)).unwrap();
            stats.sizes[index]
        };
        assert_eq!([1, 2, 4, 8, 1024].map(counted), [1, 1, 2, 1, 1]);
        assert_eq!(stats.recent.len(), 8);
        assert_eq!((stats.sizes[SIZES - 1], TurnStats::size_up_to(SIZES - 1)), (1, None));
    }
}
