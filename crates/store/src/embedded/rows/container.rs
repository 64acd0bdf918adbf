//! Rows of containers, live and finished. Knows nothing of groups but the way to their id.

use rusqlite::{Connection, Row, params};
use volley_ledger::change::{StoredAttempt, StoredFinished, StoredLive, StoredPhase};
use volley_model::{ArrivalNumber, Attempt, ContainerId, Epoch, GroupId, Nonce, Outcome, Timestamp, WorkerId};

use super::{
    DbError, Done, Position, bits, from_json, gpus_from, gpus_text, json, name, number, number_maybe, text, text_maybe,
    time_maybe,
};

/// Writes a live container.
pub(in crate::embedded) fn put_live(db: &Connection, position: Position, live: &StoredLive) -> Done {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO live (position, attempts, ready_at, phase, number, nonce, worker, epoch_number,
         epoch_nonce, gpus, assigned_at, started_at, stop)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    let attempt = live.attempt.as_ref();
    let phase = attempt.map(|attempt| match attempt.phase {
        StoredPhase::Assigned => 0,
        StoredPhase::Starting => 1,
        StoredPhase::Running => 2,
    });
    statement.execute(params![
        bits(position.0),
        live.attempts,
        bits(live.ready_at.0),
        phase,
        attempt.map(|a| a.attempt.number),
        attempt.map(|a| bits(a.attempt.nonce.0)),
        attempt.map(|a| a.worker.as_str()),
        attempt.map(|a| a.epoch.number),
        attempt.map(|a| bits(a.epoch.nonce.0)),
        attempt.and_then(|a| gpus_text(&a.gpus)),
        attempt.map(|a| bits(a.assigned_at.0)),
        attempt.and_then(|a| time_maybe(a.started_at)),
        attempt.and_then(|a| a.stop.as_ref()).map(json),
    ])?;
    Ok(())
}

/// Forgets a live container.
pub(in crate::embedded) fn remove_live(db: &Connection, position: Position) -> Done {
    db.prepare_cached("DELETE FROM live WHERE position = ?1")?.execute([bits(position.0)])?;
    Ok(())
}

pub(in crate::embedded) const SELECT_LIVE: &str =
    "SELECT position, attempts, ready_at, phase, number, nonce, worker, epoch_number,
     epoch_nonce, gpus, assigned_at, started_at, stop FROM live ORDER BY position";

/// From [`SELECT_LIVE`]; `group` finds the id of an arrival.
pub(in crate::embedded) fn live_from(
    row: &Row<'_>,
    group: impl FnOnce(ArrivalNumber) -> Option<GroupId>,
) -> Result<StoredLive, DbError> {
    let position = Position::from_row(row)?;
    let group = group(position.arrival()).ok_or_else(|| DbError::record("live", "its group is missing"))?;
    let phase = match row.get::<_, Option<u8>>(3)? {
        None => None,
        Some(0) => Some(StoredPhase::Assigned),
        Some(1) => Some(StoredPhase::Starting),
        Some(2) => Some(StoredPhase::Running),
        Some(other) => return Err(DbError::record("live", format!("phase {other} is not known"))),
    };
    let attempt = phase.map(|phase| {
        Ok::<_, DbError>(StoredAttempt {
            attempt: Attempt { number: row.get(4)?, nonce: Nonce(number(row, 5)?) },
            worker: name::<WorkerId>("live", text("live", row, 6)?)?,
            epoch: Epoch { number: row.get(7)?, nonce: Nonce(number(row, 8)?) },
            gpus: gpus_from("live", text_maybe("live", row, 9)?)?,
            phase,
            assigned_at: Timestamp(number(row, 10)?),
            started_at: number_maybe(row, 11)?.map(Timestamp),
            stop: text_maybe("live", row, 12)?.map(|text| from_json("live", text)).transpose()?,
        })
    });
    Ok(StoredLive {
        id: ContainerId { group, index: position.index() },
        attempts: row.get(1)?,
        ready_at: Timestamp(number(row, 2)?),
        attempt: attempt.transpose()?,
    })
}

/// Writes a finished container.
pub(in crate::embedded) fn put_finished(db: &Connection, position: Position, finished: &StoredFinished) -> Done {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO finished (position, finished_at, code, outcome, number, nonce, worker, gpus,
         assigned_at, started_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    // By far the most end with a plain exit code: those need no JSON.
    let (code, outcome) = match &finished.outcome {
        Outcome::Exited { code, signal: None } => (Some(*code), None),
        other => (None, Some(json(other))),
    };
    statement.execute(params![
        bits(position.0),
        bits(finished.finished_at.0),
        code,
        outcome,
        finished.attempt.map(|a| a.number),
        finished.attempt.map(|a| bits(a.nonce.0)),
        finished.worker.as_ref().map(WorkerId::as_str),
        gpus_text(&finished.gpus),
        time_maybe(finished.assigned_at),
        time_maybe(finished.started_at),
    ])?;
    Ok(())
}

/// Forgets a finished container.
pub(in crate::embedded) fn remove_finished(db: &Connection, position: Position) -> Done {
    db.prepare_cached("DELETE FROM finished WHERE position = ?1")?.execute([bits(position.0)])?;
    Ok(())
}

/// Columns for [`finished_from`], in the order of their positions from `?1` up to but without `?2`.
pub(in crate::embedded) const SELECT_FINISHED: &str =
    "SELECT position, finished_at, code, outcome, number, nonce, worker, gpus, assigned_at, started_at
     FROM finished WHERE position >= ?1 AND position < ?2 ORDER BY position";

/// From [`SELECT_FINISHED`]; the reader knows the group.
pub(in crate::embedded) fn finished_from(row: &Row<'_>, group: GroupId) -> Result<StoredFinished, DbError> {
    let outcome = match (row.get::<_, Option<i32>>(2)?, text_maybe("finished", row, 3)?) {
        (Some(code), None) => Outcome::Exited { code, signal: None },
        (None, Some(text)) => from_json("finished", text)?,
        _ => return Err(DbError::record("finished", "it has no outcome, or two")),
    };
    let attempt = match (row.get::<_, Option<u32>>(4)?, number_maybe(row, 5)?) {
        (Some(number), Some(nonce)) => Some(Attempt { number, nonce: Nonce(nonce) }),
        _ => None,
    };
    Ok(StoredFinished {
        id: ContainerId { group, index: Position::from_row(row)?.index() },
        outcome,
        attempt,
        worker: text_maybe("finished", row, 6)?.map(|text| name("finished", text)).transpose()?,
        gpus: gpus_from("finished", text_maybe("finished", row, 7)?)?,
        assigned_at: number_maybe(row, 8)?.map(Timestamp),
        started_at: number_maybe(row, 9)?.map(Timestamp),
        finished_at: Timestamp(number(row, 1)?),
    })
}

/// Bounds of [`SELECT_FINISHED`] as SQLite takes them.
pub(in crate::embedded) fn position_bounds(from: Position, to: Position) -> [i64; 2] {
    [bits(from.0), bits(to.0)]
}
