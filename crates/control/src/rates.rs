//! How fast each shape was placed lately, by this server: what an expected start is told from. Bounded; knows nothing of turns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use volley_model::{Millis, ShapeHash, Timestamp};

/// What is older says nothing about now.
const WINDOW: Millis = Millis::from_secs(300);
/// Shapes that are remembered; those placed longest ago are forgotten first.
const SHAPES_MAX: usize = 1_024;
/// Turns of one shape that are remembered.
const TURNS_MAX: usize = 256;

/// Placements by shape.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    shapes: Mutex<BTreeMap<ShapeHash, VecDeque<(Timestamp, u64)>>>,
}

impl Rates {
    /// A turn placed so many of each shape.
    pub(crate) fn note(&self, now: Timestamp, placed: &BTreeMap<ShapeHash, u64>) {
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        for (shape, count) in placed {
            let turns = shapes.entry(*shape).or_default();
            turns.push_back((now, *count));
            while turns.len() > TURNS_MAX || turns.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) {
                turns.pop_front();
            }
        }
        while shapes.len() > SHAPES_MAX {
            let oldest =
                shapes.iter().min_by_key(|(_, turns)| turns.back().map(|(at, _)| *at)).map(|(shape, _)| *shape);
            let Some(oldest) = oldest else { break };
            shapes.remove(&oldest);
        }
    }

    /// How many of a shape were placed since the first that is remembered, that one's turn left out (it was the end of
    /// an earlier wait), and how long ago that was; `None` when nothing can be told from it.
    pub(crate) fn of(&self, shape: ShapeHash, now: Timestamp) -> Option<(u64, Millis)> {
        let shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = shapes.get(&shape)?.iter().filter(|(at, _)| now.since(*at) <= WINDOW);
        let mut turns = turns.copied();
        let (first, _) = turns.next()?;
        let placed: u64 = turns.map(|(_, count)| count).sum();
        (placed > 0 && now > first).then(|| (placed, now.since(first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(turns: &[(u64, u64)], now: u64) -> Option<(u64, Millis)> {
        let rates = Rates::default();
        for (at, count) in turns {
            rates.note(Timestamp(*at), &BTreeMap::from([(ShapeHash(1), *count)]));
        }
        rates.of(ShapeHash(1), Timestamp(now))
    }

    #[test]
    fn a_rate_needs_two_turns_within_the_window() {
        assert_eq!(of(&[], 10), None);
        assert_eq!(of(&[(1_000, 50)], 9_000), None, "one turn is no rate");
        assert_eq!(of(&[(1_000, 50), (5_000, 4), (9_000, 4)], 9_000), Some((8, Millis(8_000))));
        assert_eq!(of(&[(1_000, 50), (400_000, 4)], 400_000), None, "the first is too long ago");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rates = Rates::default();
        for shape in 0..2 * SHAPES_MAX as u64 {
            rates.note(Timestamp(shape), &BTreeMap::from([(ShapeHash(shape), 1)]));
        }
        let shapes = rates.shapes.lock().unwrap();
        assert_eq!((shapes.len(), shapes.contains_key(&ShapeHash(0))), (SHAPES_MAX, false));
    }
}
