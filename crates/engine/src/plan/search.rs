//! One search through a lane in a strategy's order, resumable: what was passed once is never
//! looked at again. Among equally full workers it starts at a point that the seed chooses and
//! goes round.

use volley_model::Strategy;

use crate::lane::{Entry, Lane, Pos, Slot};
use crate::room::Room;

/// A worker found, with what ranks it among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) slot: Slot,
    share: u32,
    /// The tie's distance from the seed's point.
    turn: u64,
}

impl Found {
    pub(super) fn of(entry: &Entry, start: u64) -> Self {
        Self { slot: entry.slot, share: entry.share, turn: entry.tie.wrapping_sub(start) }
    }

    /// The free share.
    pub(super) fn share(&self) -> u32 {
        self.share
    }

    /// Smaller goes first.
    pub(super) fn rank(&self, strategy: Strategy) -> (u32, u64) {
        match strategy {
            Strategy::Pack => (self.share, self.turn),
            Strategy::Spread => (u32::MAX - self.share, self.turn),
        }
    }

    /// The better of two.
    pub(super) fn better(a: Option<Self>, b: Option<Self>, strategy: Strategy) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.rank(strategy) < a.rank(strategy) { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

/// What a search looks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) need: Room,
    pub(super) strategy: Strategy,
    /// No worker with a smaller free share has room.
    pub(super) least_share: u32,
    /// The seed's point among ties.
    pub(super) start: u64,
    /// Stop at workers that rank behind this free share.
    pub(super) limit: Option<u32>,
}

/// Entries of one free share, gone round from `middle` to `high`, then from `low` to `middle`.
#[derive(Debug, Clone, Copy)]
struct Ring {
    share: u32,
    low: Pos,
    middle: Pos,
    high: Pos,
    at: Pos,
    wrapped: bool,
}

/// How far a search has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Cursor {
    #[default]
    Fresh,
    In(Place),
    Done,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Place(Ring);

impl Cursor {
    /// The best worker that covers the need and is accepted. The cursor stays on it. What is not accepted once
    /// must never be accepted later.
    pub(super) fn find(&mut self, lane: &Lane, query: &Query, mut accept: impl FnMut(&Entry) -> bool) -> Option<Found> {
        if matches!(self, Cursor::Fresh) {
            let first = match query.strategy {
                Strategy::Pack => next_ring(lane, query, lane.lower_bound(query.least_share, 0), &mut accept),
                Strategy::Spread => next_ring(lane, query, lane.end(), &mut accept),
            };
            *self = first.map_or(Cursor::Done, |ring| Cursor::In(Place(ring)));
        }
        while let Cursor::In(Place(ring)) = self {
            let beyond = |limit: u32| match query.strategy {
                Strategy::Pack => ring.share > limit,
                Strategy::Spread => ring.share < limit,
            };
            if query.limit.is_some_and(beyond) {
                return None;
            }
            if let Some(pos) = ring.find(lane, query, &mut accept) {
                return Some(Found::of(lane.get(pos), query.start));
            }
            let from = match query.strategy {
                Strategy::Pack => ring.high,
                Strategy::Spread => ring.low,
            };
            match next_ring(lane, query, from, &mut accept) {
                Some(next) => *ring = next,
                None => *self = Cursor::Done,
            }
        }
        None
    }
}

impl Ring {
    fn find(&mut self, lane: &Lane, query: &Query, accept: &mut impl FnMut(&Entry) -> bool) -> Option<Pos> {
        if !self.wrapped {
            if let Some(pos) = lane.first_fit(self.at, self.high, &query.need, &mut *accept) {
                self.at = pos;
                return Some(pos);
            }
            self.wrapped = true;
            self.at = self.low;
        }
        let pos = lane.first_fit(self.at, self.middle, &query.need, accept);
        self.at = pos.unwrap_or(self.middle);
        pos
    }
}

/// The ring of the next entry that fits, upwards from `from` or downwards below it.
fn next_ring(lane: &Lane, query: &Query, from: Pos, accept: &mut impl FnMut(&Entry) -> bool) -> Option<Ring> {
    let (hit, low, high) = match query.strategy {
        Strategy::Pack => {
            let hit = lane.first_fit(from, lane.end(), &query.need, accept)?;
            let share = lane.get(hit).share;
            let next = lane.after(hit);
            let alone = next == lane.end() || lane.get(next).share != share;
            (hit, hit, if alone { next } else { lane.lower_bound(share + 1, 0) })
        }
        Strategy::Spread => {
            let hit = lane.last_fit(lane.start(), from, &query.need, accept)?;
            (hit, lane.lower_bound(lane.get(hit).share, 0), lane.after(hit))
        }
    };
    let share = lane.get(hit).share;
    let alone = lane.after(low) == high;
    let middle = if alone { low } else { lane.lower_bound(share, query.start).clamp(low, high) };
    Some(Ring { share, low, middle, high, at: middle, wrapped: false })
}
