//! The database's layout, its version, and the way from every older version to this one.
//! Also how connections are opened. Knows nothing of what the rows mean.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

use super::error::DbError;

/// One step from a layout version to the next. Runs in the transaction that also raises the version.
pub(super) type Migration = fn(&Transaction<'_>) -> Result<(), DbError>;

/// The way from an empty file to the present layout: after step `n` (counted from 1) the layout is version `n`.
/// Steps are only ever added.
pub(super) const MIGRATIONS: &[Migration] = &[layout_1, layout_2, layout_3];

/// Marks a file as ours: "VLLY".
const APPLICATION_ID: i32 = 0x564C_4C59;
/// How long a call waits for another connection of this process (a checkpoint under a backup) before it fails.
const BUSY_WAIT: Duration = Duration::from_secs(10);
/// Page cache of the writer in KiB: the inner pages and the hot ends of the tables of a million containers.
const WRITER_CACHE_KIB: i32 = 32 * 1024;
/// Page cache of each reader in KiB.
const READER_CACHE_KIB: i32 = 4 * 1024;
/// The WAL is copied into the database at this many pages (16 MiB): fewer, larger checkpoints than SQLite's default.
const CHECKPOINT_PAGES: i32 = 4096;
/// A WAL that grew longer (under a long backup) is cut back to this.
const WAL_BYTES_KEPT: i64 = 64 << 20;
/// Prepared statements kept: more than there are.
const STATEMENTS_CACHED: usize = 64;

/// Positions are arrival and index in one integer (see `rows`): what is appended lands at the tables' ends, and a
/// group's containers are neighbours. Hot tables are rowid tables, which SQLite writes fastest. A group's fixed part
/// may be megabytes, so what changes about it has a table of its own.
const LAYOUT_1: &str = "
CREATE TABLE spec (hash BLOB PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE grp (
    arrival INTEGER PRIMARY KEY, id INTEGER NOT NULL, tenant TEXT NOT NULL, name TEXT, labels TEXT NOT NULL,
    runs BLOB NOT NULL, submitted_at INTEGER NOT NULL) STRICT;
CREATE TABLE grp_progress (
    arrival INTEGER PRIMARY KEY, finished INTEGER NOT NULL, succeeded INTEGER NOT NULL, pruned INTEGER NOT NULL)
    STRICT;
CREATE TABLE grp_mark (position INTEGER PRIMARY KEY, mark INTEGER NOT NULL) STRICT;
CREATE TABLE live (
    position INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, ready_at INTEGER NOT NULL, phase INTEGER,
    number INTEGER, nonce INTEGER, worker TEXT, epoch_number INTEGER, epoch_nonce INTEGER, gpus TEXT,
    assigned_at INTEGER, started_at INTEGER, stop TEXT) STRICT;
CREATE TABLE finished (
    position INTEGER PRIMARY KEY, finished_at INTEGER NOT NULL, code INTEGER, outcome TEXT, number INTEGER,
    nonce INTEGER, worker TEXT, gpus TEXT, assigned_at INTEGER, started_at INTEGER) STRICT;
CREATE TABLE key (
    tenant TEXT NOT NULL, key TEXT NOT NULL, grp INTEGER NOT NULL, count INTEGER NOT NULL, digest BLOB NOT NULL,
    until INTEGER NOT NULL, PRIMARY KEY (tenant, key)) STRICT, WITHOUT ROWID;
CREATE TABLE worker (
    id TEXT PRIMARY KEY, body TEXT NOT NULL, epoch_number INTEGER NOT NULL, epoch_nonce INTEGER NOT NULL,
    revision INTEGER NOT NULL, status TEXT NOT NULL, drain_until INTEGER, finished INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE pool (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE event (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
";

/// Tenants' limits and tokens. Both are few and read once, at the start.
const LAYOUT_2: &str = "
CREATE TABLE tenant (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE token (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
";

fn layout_2(transaction: &Transaction<'_>) -> Result<(), DbError> {
    Ok(transaction.execute_batch(LAYOUT_2)?)
}

fn layout_1(transaction: &Transaction<'_>) -> Result<(), DbError> {
    Ok(transaction.execute_batch(LAYOUT_1)?)
}

/// Bought machines, how pools do with their provisioners, and why a worker was cordoned by itself.
const LAYOUT_3: &str = "
CREATE TABLE machine (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE standing (pool TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
ALTER TABLE worker ADD COLUMN quarantine TEXT;
ALTER TABLE worker ADD COLUMN failing TEXT;
";

fn layout_3(transaction: &Transaction<'_>) -> Result<(), DbError> {
    Ok(transaction.execute_batch(LAYOUT_3)?)
}

/// Opens (and makes) the database for writing, brings its layout up to date, and makes sure that whatever it
/// contains is on disk.
pub(super) fn open_writer(file: &Path) -> Result<Connection, DbError> {
    let mut connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_WAIT)?;
    // Only an empty file takes this, so it comes before the first write.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    check_owner(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    migrate(&mut connection, MIGRATIONS)?;
    settle(&connection)?;
    Ok(connection)
}

/// Opens the database for reads beside the writer.
pub(super) fn open_reader(file: &Path) -> Result<Connection, DbError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(connection)
}

/// An empty file becomes ours; any other must be.
fn check_owner(connection: &Connection) -> Result<(), DbError> {
    let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (id, tables) {
        (APPLICATION_ID, _) => Ok(()),
        (0, 0) => Ok(connection.pragma_update(None, "application_id", APPLICATION_ID)?),
        _ => Err(DbError::Foreign),
    }
}

/// Copies the WAL into the database and syncs both. What a killed process wrote but did not sync, and what a failed
/// sync left in the system's cache only, would otherwise be read back and answered for without being on disk.
fn settle(connection: &Connection) -> Result<(), DbError> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy != 0 {
        return Err(DbError::Io(std::io::Error::other("readers kept the log from being settled")));
    }
    Ok(())
}

/// Runs the steps that the database lacks, all in one transaction.
fn migrate(connection: &mut Connection, steps: &[Migration]) -> Result<(), DbError> {
    let known = steps.len() as u32;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID",
    )?;
    let found: Option<u32> = read_meta(&transaction, "layout")?;
    let found = found.unwrap_or(0);
    if found > known {
        return Err(DbError::Newer { found, known });
    }
    for step in &steps[found as usize..] {
        step(&transaction)?;
    }
    if found < known {
        write_meta(&transaction, "layout", known)?;
    }
    Ok(transaction.commit()?)
}

/// A value of the table `meta`.
pub(super) fn read_meta<T: rusqlite::types::FromSql>(db: &Connection, key: &str) -> Result<Option<T>, DbError> {
    let mut statement = db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

/// Sets a value of the table `meta`.
pub(super) fn write_meta(db: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<(), DbError> {
    let mut statement = db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
    statement.execute(rusqlite::params![key, value])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn older_1(t: &Transaction<'_>) -> Result<(), DbError> {
        Ok(t.execute_batch("CREATE TABLE thing (id INTEGER PRIMARY KEY, size TEXT NOT NULL)")?)
    }

    fn older_2(t: &Transaction<'_>) -> Result<(), DbError> {
        Ok(t.execute_batch(
            "ALTER TABLE thing ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
             UPDATE thing SET bytes = CAST(size AS INTEGER) * 1024;
             ALTER TABLE thing DROP COLUMN size;",
        )?)
    }

    fn broken_3(t: &Transaction<'_>) -> Result<(), DbError> {
        t.execute_batch("DELETE FROM thing")?;
        Ok(t.execute_batch("SELECT no_such_column FROM thing")?)
    }

    fn layout(connection: &Connection) -> u32 {
        read_meta(connection, "layout").unwrap().unwrap()
    }

    #[test]
    fn an_older_layout_is_brought_up_to_date_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &[older_1]).unwrap();
        connection.execute("INSERT INTO thing VALUES (1, '7')", []).unwrap();
        assert_eq!(layout(&connection), 1);
        for _ in 0..2 {
            migrate(&mut connection, &[older_1, older_2]).unwrap();
            assert_eq!(layout(&connection), 2);
            let bytes: i64 = connection.query_row("SELECT bytes FROM thing", [], |row| row.get(0)).unwrap();
            assert_eq!(bytes, 7 * 1024, "the step ran exactly once");
        }
    }

    #[test]
    fn a_failed_step_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &[older_1]).unwrap();
        connection.execute("INSERT INTO thing VALUES (1, '7')", []).unwrap();
        migrate(&mut connection, &[older_1, older_2, broken_3]).unwrap_err();
        assert_eq!(layout(&connection), 1);
        let size: String = connection.query_row("SELECT size FROM thing", [], |row| row.get(0)).unwrap();
        assert_eq!(size, "7");
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &[older_1, older_2]).unwrap();
        let error = migrate(&mut connection, &[older_1]).unwrap_err();
        assert!(matches!(error, DbError::Newer { found: 2, known: 1 }), "{error}");
    }
}
