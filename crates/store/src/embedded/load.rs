//! Everything the ledger needs to go on, read from the database. Knows nothing of what the
//! ledger does with it.

use std::collections::HashMap;

use rusqlite::{Connection, Row};
use volley_ledger::Stored;
use volley_ledger::change::Counters;
use volley_model::{ArrivalNumber, ContainerId, EventNumber, GroupId, Timestamp};

use super::batch::Known;
use super::error::DbError;
use super::{rows, schema};

/// All rows of a query, converted.
pub(super) fn all<T>(
    db: &Connection,
    select: &str,
    mut convert: impl FnMut(&Row<'_>) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    let mut statement = db.prepare_cached(select)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(convert(row)?);
    }
    Ok(all)
}

/// All that the ledger needs, and what the writer knows of the tables.
pub(super) fn load(db: &Connection) -> Result<(Stored, Known), DbError> {
    let counters: Option<String> = schema::read_meta(db, "counters")?;
    let counters = counters.map(|text| serde_json::from_str::<Counters>(&text));
    let counters = counters.transpose().map_err(|error| DbError::record("meta", error))?.unwrap_or_default();
    let floor: Option<i64> = schema::read_meta(db, "events_floor")?;
    let mut groups = all(db, rows::SELECT_GROUP, rows::group_from)?;
    let places: HashMap<ArrivalNumber, usize> = groups.iter().enumerate().map(|(i, g)| (g.arrival, i)).collect();
    let ids: HashMap<ArrivalNumber, GroupId> = groups.iter().map(|group| (group.arrival, group.id)).collect();
    for (arrival, run, mark) in all(db, rows::SELECT_MARK, rows::mark_from)? {
        let place = places.get(&arrival).copied();
        let slot = place.and_then(|place| groups[place].materialised.get_mut(run as usize));
        *slot.ok_or_else(|| DbError::record("grp_mark", "its group or run is missing"))? = mark;
    }
    let live = all(db, rows::SELECT_LIVE, |row| rows::live_from(row, |arrival| ids.get(&arrival).copied()))?;
    let finished = all(db, "SELECT finished_at, position FROM finished", |row| finished_from(row, &ids))?;
    let workers = all(db, rows::SELECT_WORKER, rows::worker_from)?;
    let known = Known {
        arrivals: groups.iter().map(|group| (group.id, group.arrival)).collect(),
        workers: workers.iter().map(|stored| (stored.worker.id.clone(), stored.worker.clone())).collect(),
    };
    let stored = Stored {
        counters,
        specs: all(db, rows::SELECT_SPEC, rows::spec_from)?,
        groups,
        live,
        finished,
        keys: all(db, rows::SELECT_KEY, rows::key_from)?,
        workers,
        pools: all(db, rows::SELECT_POOL, rows::pool_from)?,
        tenants: all(db, rows::SELECT_TENANT, rows::tenant_from)?,
        tokens: all(db, rows::SELECT_TOKEN, rows::token_from)?,
        machines: all(db, rows::SELECT_MACHINE, rows::machine_from)?,
        standings: all(db, rows::SELECT_STANDING, rows::standing_from)?,
        events_floor: EventNumber(floor.map_or(1, i64::cast_unsigned)),
    };
    Ok((stored, known))
}

fn finished_from(row: &Row<'_>, ids: &HashMap<ArrivalNumber, GroupId>) -> Result<(Timestamp, ContainerId), DbError> {
    let position = rows::Position(row.get::<_, i64>(1)?.cast_unsigned());
    let group = ids.get(&position.arrival()).copied();
    let group = group.ok_or_else(|| DbError::record("finished", "its group is missing"))?;
    let at = Timestamp(row.get::<_, i64>(0)?.cast_unsigned());
    Ok((at, ContainerId { group, index: position.index() }))
}
