//! The last turns of this server that placed something, by the store's time of their commit: what a container's
//! time in its turn is taken from. In memory only; knows nothing of containers.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use volley_model::Timestamp;

/// Turns that are remembered: at a hundred a second, the last half minute; 100 KB.
const TURNS_MAX: usize = 4_096;

/// A turn that placed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turned {
    /// The store's time of its claim.
    pub claimed: Timestamp,
    /// The store's time of its commit: when what it placed was assigned.
    pub committed: Timestamp,
    /// Containers that it placed.
    pub placed: u32,
    /// From the claim to its answer, which is at `claimed`.
    pub claim: Duration,
    /// From there until the plan was made; the commit is the rest.
    pub plan: Duration,
}

/// The last turns, in order of time.
#[derive(Debug, Default)]
pub(crate) struct TurnLog(Mutex<VecDeque<Turned>>);

impl TurnLog {
    pub(crate) fn note(&self, turned: Turned) {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= TURNS_MAX {
            turns.pop_front();
        }
        turns.push_back(turned);
    }

    /// The turn that committed at this time. Of several within one millisecond the last, which is off by less than that.
    pub(crate) fn committed_at(&self, at: Timestamp) -> Option<Turned> {
        let turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = turns.partition_point(|turn| turn.committed <= at);
        turns.get(end.checked_sub(1)?).copied().filter(|turn| turn.committed == at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_found_by_its_commit_while_it_is_remembered() {
        let log = TurnLog::default();
        let (claim, plan) = (Duration::ZERO, Duration::ZERO);
        let turn = |number: u64| {
            let (claimed, committed) = (Timestamp(number), Timestamp(number + 5));
            Turned { claimed, committed, placed: 1, claim, plan }
        };
        for number in 0..2 * TURNS_MAX as u64 {
            log.note(turn(10 * number));
        }
        let last = 10 * (2 * TURNS_MAX as u64 - 1);
        assert_eq!(log.committed_at(Timestamp(last + 5)), Some(turn(last)));
        assert_eq!(log.committed_at(Timestamp(last + 4)), None);
        assert_eq!(log.committed_at(Timestamp(5)), None, "too long ago");
    }
}
