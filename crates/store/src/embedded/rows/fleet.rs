//! Rows of workers, pools and bought machines. Knows nothing of containers.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};
use volley_ledger::change::StoredWorker;
use volley_model::{Epoch, Nonce, Pool, PoolName, PoolStanding, Provisioning, Revision, Timestamp, Worker, WorkerId};

use super::{DbError, Done, bits, from_json, json, number, number_maybe, text, time_maybe};

/// Writes a worker with what it is.
pub(in crate::embedded) fn put_worker(db: &Connection, stored: &StoredWorker) -> Done {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO worker
         (id, epoch_number, epoch_nonce, revision, status, drain_until, finished, quarantine, failing, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    statement.execute(params![
        stored.worker.id.as_str(),
        stored.epoch.number,
        bits(stored.epoch.nonce.0),
        bits(stored.revision.0),
        json(&stored.status),
        time_maybe(stored.drain_until),
        bits(stored.finished),
        stored.quarantine,
        failing(stored),
        json(&stored.worker),
    ])?;
    Ok(())
}

/// Writes what changes often about a worker whose row has the rest.
pub(in crate::embedded) fn put_worker_numbers(db: &Connection, stored: &StoredWorker) -> Done {
    let mut statement = db.prepare_cached(
        "UPDATE worker SET epoch_number = ?2, epoch_nonce = ?3, revision = ?4, status = ?5, drain_until = ?6,
         finished = ?7, quarantine = ?8, failing = ?9 WHERE id = ?1",
    )?;
    let updated = statement.execute(params![
        stored.worker.id.as_str(),
        stored.epoch.number,
        bits(stored.epoch.nonce.0),
        bits(stored.revision.0),
        json(&stored.status),
        time_maybe(stored.drain_until),
        bits(stored.finished),
        stored.quarantine,
        failing(stored),
    ])?;
    if updated == 1 { Ok(()) } else { Err(DbError::record("worker", "the row to change is missing")) }
}

/// Most workers fail nothing: then it is null.
fn failing(stored: &StoredWorker) -> Option<String> {
    (!stored.failing.is_empty()).then(|| json(&stored.failing))
}

/// Forgets a worker.
pub(in crate::embedded) fn remove_worker(db: &Connection, worker: &WorkerId) -> Done {
    db.prepare_cached("DELETE FROM worker WHERE id = ?1")?.execute([worker.as_str()])?;
    Ok(())
}

pub(in crate::embedded) const SELECT_WORKER: &str =
    "SELECT epoch_number, epoch_nonce, revision, status, drain_until, finished, body, quarantine, failing
     FROM worker ORDER BY id";

/// From [`SELECT_WORKER`].
pub(in crate::embedded) fn worker_from(row: &Row<'_>) -> Result<StoredWorker, DbError> {
    Ok(StoredWorker {
        worker: from_json::<Worker>("worker", text("worker", row, 6)?)?,
        epoch: Epoch { number: row.get(0)?, nonce: Nonce(number(row, 1)?) },
        revision: Revision(number(row, 2)?),
        status: from_json("worker", text("worker", row, 3)?)?,
        drain_until: number_maybe(row, 4)?.map(Timestamp),
        finished: number(row, 5)?,
        quarantine: row.get(7)?,
        failing: match row.get_ref(8)? {
            rusqlite::types::ValueRef::Null => Vec::new(),
            _ => from_json("worker", text("worker", row, 8)?)?,
        },
    })
}

/// Writes a pool.
pub(in crate::embedded) fn put_pool(db: &Connection, pool: &Pool) -> Done {
    let mut statement = db.prepare_cached("INSERT OR REPLACE INTO pool (name, body) VALUES (?1, ?2)")?;
    statement.execute([pool.name.as_str(), &json(pool)])?;
    Ok(())
}

/// Forgets a pool, and how it did.
pub(in crate::embedded) fn remove_pool(db: &Connection, pool: &PoolName) -> Done {
    db.prepare_cached("DELETE FROM pool WHERE name = ?1")?.execute([pool.as_str()])?;
    db.prepare_cached("DELETE FROM standing WHERE pool = ?1")?.execute([pool.as_str()])?;
    Ok(())
}

pub(in crate::embedded) const SELECT_POOL: &str = "SELECT body FROM pool ORDER BY name";

/// From [`SELECT_POOL`].
pub(in crate::embedded) fn pool_from(row: &Row<'_>) -> Result<Pool, DbError> {
    from_json("pool", text("pool", row, 0)?)
}

/// Writes a bought machine.
pub(in crate::embedded) fn put_machine(db: &Connection, record: &Provisioning) -> Done {
    let mut statement = db.prepare_cached("INSERT OR REPLACE INTO machine (id, body) VALUES (?1, ?2)")?;
    statement.execute([record.worker.as_str(), &json(record)])?;
    Ok(())
}

/// Forgets a machine.
pub(in crate::embedded) fn remove_machine(db: &Connection, id: &WorkerId) -> Done {
    db.prepare_cached("DELETE FROM machine WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

pub(in crate::embedded) const SELECT_MACHINE: &str = "SELECT body FROM machine ORDER BY id";

/// From [`SELECT_MACHINE`].
pub(in crate::embedded) fn machine_from(row: &Row<'_>) -> Result<Arc<Provisioning>, DbError> {
    from_json("machine", text("machine", row, 0)?)
}

/// Writes how a pool does with its provisioner.
pub(in crate::embedded) fn put_standing(db: &Connection, standing: &PoolStanding) -> Done {
    let mut statement = db.prepare_cached("INSERT OR REPLACE INTO standing (pool, body) VALUES (?1, ?2)")?;
    statement.execute([standing.pool.as_str(), &json(standing)])?;
    Ok(())
}

pub(in crate::embedded) const SELECT_STANDING: &str = "SELECT body FROM standing ORDER BY pool";

/// From [`SELECT_STANDING`].
pub(in crate::embedded) fn standing_from(row: &Row<'_>) -> Result<PoolStanding, DbError> {
    from_json("standing", text("standing", row, 0)?)
}
