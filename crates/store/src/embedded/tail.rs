//! The newest events in memory: whoever follows them reads here, and neither waits for the
//! writer nor makes it wait. Holds only what is durable. Knows nothing of rows or tenants.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use volley_ledger::{Event, EventPage};
use volley_model::EventNumber;

/// Events held: what 4,000 containers make, far more than passes between two reads of a follower.
const EVENTS_MAX: usize = 20_000;

/// Shared between the writer, which adds, and readers.
#[derive(Debug, Default)]
pub(super) struct Tail {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Without gaps; the last one is the last that was given out.
    events: VecDeque<Event>,
    oldest: EventNumber,
    last: EventNumber,
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew after the last event of a database that was loaded.
    pub(super) fn reset(&self, oldest: EventNumber, last: EventNumber) {
        *self.lock() = Inner { events: VecDeque::new(), oldest, last };
    }

    /// Takes in events that are durable now, and the oldest number that is still kept.
    pub(super) fn extend(&self, events: Vec<Event>, oldest: EventNumber) {
        let mut inner = self.lock();
        inner.oldest = oldest;
        inner.last = events.last().map_or(inner.last, |event| event.number);
        inner.events.extend(events);
        let surplus = inner.events.len().saturating_sub(EVENTS_MAX);
        inner.events.drain(..surplus);
    }

    /// The oldest event that is kept, here or in the database, and the last.
    pub(super) fn bounds(&self) -> (EventNumber, EventNumber) {
        let inner = self.lock();
        (inner.oldest, inner.last)
    }

    /// A page, when all of it is here.
    pub(super) fn page(&self, after: EventNumber, max: usize) -> Option<EventPage> {
        let inner = self.lock();
        let (oldest, last) = (inner.oldest, inner.last);
        let first = inner.events.front().map_or(last.next(), |event| event.number);
        let skipped = after.next().0.checked_sub(first.0)?;
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(inner.events.len());
        let page = inner.events.range(skipped..).take(max);
        let mut events: Vec<Event> = page.cloned().collect();
        let seen = events.last().map_or(after, |event| event.number);
        events.retain(|event| event.number >= oldest);
        Some(EventPage { events, oldest, last, seen })
    }
}

#[cfg(test)]
mod tests {
    use volley_ledger::EventKind;
    use volley_model::{PoolName, Timestamp};

    use super::*;

    fn events(numbers: std::ops::RangeInclusive<u64>) -> Vec<Event> {
        let kind = EventKind::Pool { pool: PoolName::default(), removed: false };
        numbers.map(|number| Event { number: EventNumber(number), at: Timestamp(0), kind: kind.clone() }).collect()
    }

    fn numbers(tail: &Tail, after: u64, max: usize) -> Option<(Vec<u64>, u64, u64)> {
        let page = tail.page(EventNumber(after), max)?;
        Some((page.events.iter().map(|event| event.number.0).collect(), page.seen.0, page.last.0))
    }

    #[test]
    fn a_page_is_whole_or_not_from_here() {
        let tail = Tail::default();
        tail.reset(EventNumber(3), EventNumber(10));
        assert_eq!(numbers(&tail, 9, 5), None, "10 is in the database only");
        assert_eq!(numbers(&tail, 10, 5), Some((vec![], 10, 10)));
        tail.extend(events(11..=13), EventNumber(3));
        assert_eq!(numbers(&tail, 9, 5), None);
        assert_eq!(numbers(&tail, 10, 2), Some((vec![11, 12], 12, 13)));
        assert_eq!(numbers(&tail, 12, 5), Some((vec![13], 13, 13)));
        assert_eq!(numbers(&tail, 99, 5), Some((vec![], 99, 13)));
        tail.extend(vec![], EventNumber(13));
        assert_eq!(numbers(&tail, 10, 5), Some((vec![13], 13, 13)), "what is pruned is passed over");
    }

    #[test]
    fn it_is_bounded() {
        let tail = Tail::default();
        tail.reset(EventNumber(1), EventNumber(0));
        let more = EVENTS_MAX as u64 + 5;
        tail.extend(events(1..=more), EventNumber(1));
        assert_eq!(numbers(&tail, 4, 1), None);
        assert_eq!(numbers(&tail, 5, 1), Some((vec![6], 6, more)));
        assert_eq!(tail.lock().events.len(), EVENTS_MAX);
    }
}
