//! Rows of what was submitted: specs, groups, client keys. Knows nothing of containers.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};
use volley_ledger::change::{StoredGroup, StoredKey, StoredProgress};
use volley_model::{ArrivalNumber, GroupId, Spec, SpecHash, TenantName, Timestamp};

use super::{DbError, Done, Position, bits, from_json, json, name, number, text};

/// Writes a spec.
pub(in crate::embedded) fn put_spec(db: &Connection, hash: SpecHash, spec: &Spec) -> Done {
    let mut statement = db.prepare_cached("INSERT OR REPLACE INTO spec (hash, body) VALUES (?1, ?2)")?;
    statement.execute(params![hash.0.to_be_bytes(), json(spec)])?;
    Ok(())
}

/// Forgets a spec.
pub(in crate::embedded) fn remove_spec(db: &Connection, hash: SpecHash) -> Done {
    db.prepare_cached("DELETE FROM spec WHERE hash = ?1")?.execute([hash.0.to_be_bytes()])?;
    Ok(())
}

pub(in crate::embedded) const SELECT_SPEC: &str = "SELECT hash, body FROM spec";

/// From [`SELECT_SPEC`].
pub(in crate::embedded) fn spec_from(row: &Row<'_>) -> Result<(SpecHash, Arc<Spec>), DbError> {
    let hash = u128::from_be_bytes(row.get(0)?);
    Ok((SpecHash(hash), from_json("spec", text("spec", row, 1)?)?))
}

/// Bytes of one run of a group: hash and count.
const RUN_BYTES: usize = 20;

fn runs_bytes(runs: &[(SpecHash, u32)]) -> Vec<u8> {
    runs.iter().flat_map(|(hash, count)| hash.0.to_be_bytes().into_iter().chain(count.to_be_bytes())).collect()
}

fn runs_from(bytes: &[u8]) -> Result<Vec<(SpecHash, u32)>, DbError> {
    if !bytes.len().is_multiple_of(RUN_BYTES) {
        return Err(DbError::record("grp", "runs are cut off"));
    }
    let run = |run: &[u8]| {
        let (hash, count) = run.split_at(16);
        let hash = u128::from_be_bytes(hash.try_into().expect("split at 16"));
        (SpecHash(hash), u32::from_be_bytes(count.try_into().expect("20 less 16")))
    };
    Ok(bytes.chunks_exact(RUN_BYTES).map(run).collect())
}

/// Writes the fixed part of a group.
pub(in crate::embedded) fn put_group(db: &Connection, group: &StoredGroup) -> Done {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO grp (arrival, id, tenant, name, labels, runs, submitted_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    statement.execute(params![
        bits(group.arrival.0),
        bits(group.id.0),
        group.tenant.as_str(),
        group.name,
        json(&group.labels),
        runs_bytes(&group.runs),
        bits(group.submitted_at.0),
    ])?;
    Ok(())
}

/// Writes a group's counts.
pub(in crate::embedded) fn put_progress(db: &Connection, arrival: ArrivalNumber, progress: &StoredProgress) -> Done {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO grp_progress (arrival, finished, succeeded, pruned) VALUES (?1, ?2, ?3, ?4)",
    )?;
    statement.execute(params![bits(arrival.0), progress.finished, progress.succeeded, progress.pruned])?;
    Ok(())
}

/// Writes how far a run is materialised. Its position is that of a container whose index is the run's.
pub(in crate::embedded) fn put_mark(db: &Connection, run: Position, mark: u32) -> Done {
    let mut statement = db.prepare_cached("INSERT OR REPLACE INTO grp_mark (position, mark) VALUES (?1, ?2)")?;
    statement.execute(params![bits(run.0), mark])?;
    Ok(())
}

/// Forgets a group.
pub(in crate::embedded) fn remove_group(db: &Connection, arrival: ArrivalNumber) -> Done {
    db.prepare_cached("DELETE FROM grp WHERE arrival = ?1")?.execute([bits(arrival.0)])?;
    db.prepare_cached("DELETE FROM grp_progress WHERE arrival = ?1")?.execute([bits(arrival.0)])?;
    let mut marks = db.prepare_cached("DELETE FROM grp_mark WHERE position >= ?1 AND position < ?2")?;
    marks.execute(Position::bounds(arrival))?;
    Ok(())
}

pub(in crate::embedded) const SELECT_GROUP: &str =
    "SELECT arrival, id, tenant, name, labels, runs, submitted_at, coalesce(finished, 0), coalesce(succeeded, 0),
     coalesce(pruned, 0) FROM grp LEFT JOIN grp_progress USING (arrival) ORDER BY arrival";

/// From [`SELECT_GROUP`]; the marks of its runs are still at zero.
pub(in crate::embedded) fn group_from(row: &Row<'_>) -> Result<StoredGroup, DbError> {
    let runs = row.get_ref(5)?.as_blob().map_err(|error| DbError::record("grp", error))?;
    let runs = runs_from(runs)?;
    Ok(StoredGroup {
        id: GroupId(number(row, 1)?),
        arrival: ArrivalNumber(number(row, 0)?),
        tenant: name::<TenantName>("grp", text("grp", row, 2)?)?,
        name: row.get(3)?,
        labels: from_json("grp", text("grp", row, 4)?)?,
        submitted_at: Timestamp(number(row, 6)?),
        materialised: vec![0; runs.len()],
        runs,
        finished: row.get(7)?,
        succeeded: row.get(8)?,
        pruned: row.get(9)?,
    })
}

pub(in crate::embedded) const SELECT_MARK: &str = "SELECT position, mark FROM grp_mark ORDER BY position";

/// From [`SELECT_MARK`]: the group's arrival, the run's index in the group, the mark.
pub(in crate::embedded) fn mark_from(row: &Row<'_>) -> Result<(ArrivalNumber, u32, u32), DbError> {
    let position = Position::from_row(row)?;
    Ok((position.arrival(), position.index(), row.get(1)?))
}

/// Writes a client key.
pub(in crate::embedded) fn put_key(db: &Connection, key: &StoredKey) -> Done {
    let mut statement = db.prepare_cached(
        "INSERT OR REPLACE INTO key (tenant, key, grp, count, digest, until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let digest = key.body_digest.to_be_bytes();
    statement.execute(params![
        key.tenant.as_str(),
        key.key,
        bits(key.group.0),
        key.count,
        digest,
        bits(key.until.0)
    ])?;
    Ok(())
}

/// Forgets a client key.
pub(in crate::embedded) fn remove_key(db: &Connection, tenant: &TenantName, key: &str) -> Done {
    db.prepare_cached("DELETE FROM key WHERE tenant = ?1 AND key = ?2")?.execute([tenant.as_str(), key])?;
    Ok(())
}

pub(in crate::embedded) const SELECT_KEY: &str =
    "SELECT tenant, key, grp, count, digest, until FROM key ORDER BY tenant, key";

/// From [`SELECT_KEY`].
pub(in crate::embedded) fn key_from(row: &Row<'_>) -> Result<StoredKey, DbError> {
    Ok(StoredKey {
        tenant: name("key", text("key", row, 0)?)?,
        key: row.get(1)?,
        group: GroupId(number(row, 2)?),
        count: row.get(3)?,
        body_digest: u128::from_be_bytes(row.get(4)?),
        until: Timestamp(number(row, 5)?),
    })
}
