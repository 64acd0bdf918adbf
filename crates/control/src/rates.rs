//! How fast work was placed lately, by this server: what an expected start is told from. Bounded; knows nothing of turns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use volley_model::{GpuKinds, Millis, PoolSelector, Shape, Timestamp};

/// What is older says nothing about now.
const WINDOW: Millis = Millis::from_secs(300);
/// So many placements make a rate; more of the past is not looked at.
const PLACED_ENOUGH: u64 = 100;
/// Lanes that are remembered; those placed longest ago are forgotten first.
const LANES_MAX: usize = 1_024;
/// Turns of one lane that are remembered.
const TURNS_MAX: usize = 256;

/// What waits for the same room, as far as its wishes tell: shapes of one lane are served in one order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    pool: PoolSelector,
    labels: BTreeMap<String, String>,
    gpus: Option<GpuKinds>,
}

impl Lane {
    pub(crate) fn of(shape: &Shape) -> Self {
        let gpus = shape.resources.gpu.as_ref().map(|gpu| gpu.kinds.clone());
        Self { pool: shape.pool.clone(), labels: shape.require_labels.clone(), gpus }
    }
}

/// Placements by lane.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    lanes: Mutex<BTreeMap<Lane, VecDeque<(Timestamp, u64)>>>,
}

impl Rates {
    /// A turn placed so many of each.
    pub(crate) fn note(&self, now: Timestamp, placed: impl Iterator<Item = (Lane, u64)>) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        for (lane, count) in placed {
            let turns = lanes.entry(lane).or_default();
            match turns.back_mut() {
                // Two shapes of one lane, in one turn.
                Some((at, before)) if *at == now => *before += count,
                _ => turns.push_back((now, count)),
            }
            while turns.len() > TURNS_MAX || turns.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) {
                turns.pop_front();
            }
        }
        while lanes.len() > LANES_MAX {
            let oldest = lanes.iter().min_by_key(|(_, turns)| turns.back().map(|(at, _)| *at));
            let Some(oldest) = oldest.map(|(lane, _)| lane.clone()) else { break };
            lanes.remove(&oldest);
        }
    }

    /// How many of a lane were placed lately, and in what time up to now; `None` when nothing can be told from it. The
    /// turn at the beginning of that time is left out: it was the end of an earlier wait.
    pub(crate) fn of(&self, lane: &Lane, now: Timestamp) -> Option<(u64, Millis)> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turns = lanes.get(lane)?.iter().rev().filter(|(at, _)| now.since(*at) <= WINDOW);
        let mut placed = 0;
        let mut rate = None;
        let mut newer = turns.next()?;
        for older in turns {
            placed += newer.1;
            rate = Some((placed, now.since(older.0)));
            if placed >= PLACED_ENOUGH {
                break;
            }
            newer = older;
        }
        rate.filter(|(_, over)| over.0 > 0)
    }
}

#[cfg(test)]
mod tests {
    use volley_model::{Spec, TenantName};

    use super::*;

    fn lane(label: u64) -> Lane {
        let mut shape = Shape::of(&TenantName::default(), &Spec::of_command("true", &[]));
        shape.require_labels.insert("of".to_owned(), label.to_string());
        Lane::of(&shape)
    }

    fn of(turns: &[(u64, u64)], now: u64) -> Option<(u64, Millis)> {
        let rates = Rates::default();
        for (at, count) in turns {
            rates.note(Timestamp(*at), [(lane(1), *count)].into_iter());
        }
        rates.of(&lane(1), Timestamp(now))
    }

    #[test]
    fn a_rate_needs_two_turns_within_the_window() {
        assert_eq!(of(&[], 10), None);
        assert_eq!(of(&[(1_000, 50)], 9_000), None, "one turn is no rate");
        assert_eq!(of(&[(1_000, 50), (5_000, 4), (9_000, 4)], 9_000), Some((8, Millis(8_000))));
        assert_eq!(of(&[(1_000, 50), (400_000, 4)], 400_000), None, "the first is too long ago");
        assert_eq!(of(&[(1_000, 1), (1_000, 1), (3_000, 2), (3_000, 2)], 5_000), Some((4, Millis(4_000))));
    }

    #[test]
    fn what_is_long_past_does_not_count_when_the_present_is_enough() {
        let turns: Vec<(u64, u64)> =
            (0..20).map(|second| (1_000 + second * 1_000, if second < 10 { 1 } else { 50 })).collect();
        assert_eq!(of(&turns, 20_000), Some((100, Millis(2_000))));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rates = Rates::default();
        for number in 0..2 * LANES_MAX as u64 {
            rates.note(Timestamp(number), [(lane(number), 1)].into_iter());
        }
        let lanes = rates.lanes.lock().unwrap();
        assert_eq!((lanes.len(), lanes.contains_key(&lane(0))), (LANES_MAX, false));
    }
}
