//! Everything the ledger needs to go on, read from the database. Knows nothing of what the
//! ledger does with it.

use std::collections::HashMap;

use rusqlite::{Connection, Row};
use volley_ledger::change::Counters;
use volley_model::{ArrivalNumber, EventNumber, GroupId};

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
