//! Events that are in memory no more: read by pages, on the threads that have time for it, so that
//! thousands who begin at the first event do not make the writer wait. Knows nothing of tenants.

use rusqlite::Connection;
use volley_ledger::Event;
use volley_model::EventNumber;

use super::error::DbError;
use super::event_codec;

/// At most `max` events after a number, and up to another.
pub(super) fn read(db: &Connection, after: EventNumber, last: EventNumber, max: usize) -> Result<Vec<Event>, DbError> {
    let mut events = Vec::new();
    // The row that holds the event asked for may begin before it.
    let mut statement = db.prepare_cached(
        "SELECT body FROM event WHERE first >= coalesce((SELECT max(first) FROM event WHERE first <= ?1), 0)
         ORDER BY first",
    )?;
    let mut rows = statement.query([after.next().0.min(i64::MAX as u64).cast_signed()])?;
    while events.len() < max
        && let Some(row) = rows.next()?
    {
        let bytes = row.get_ref(0)?.as_blob().map_err(|error| DbError::record("event", error))?;
        let decoded = event_codec::decode(bytes).map_err(|error| DbError::record("event", error))?;
        events.extend(decoded.into_iter().filter(|event| event.number > after && event.number <= last));
    }
    events.truncate(max);
    Ok(events)
}
