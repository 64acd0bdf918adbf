//! Files that are not what was written: the store opens them or says what is wrong. It never
//! panics, and what it opened it can read.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use rusqlite::Connection;
use rusqlite::types::Value;
use volley_ledger::{
    Answer, Attach, Claim, Commit, ListQuery, OpenSession, Query, Report, Stop, StopTarget, Submit, WorkerMessage,
};
use volley_model::{
    Bytes, Capacity, ClaimNumber, CommitNumber, ContainerId, CpuMilli, EventNumber, FleetVersion, GroupId, Nonce,
    Outcome, Placement, PoolName, Progress, Revision, SessionId, Spec, SubmissionBody, TenantName, Worker, WorkerId,
};
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore};
use volley_store::{Store, StoreError, StoreExt};

fn open(dir: &Path) -> Result<EmbeddedStore, volley_store::embedded::OpenError> {
    EmbeddedStore::open(EmbeddedOptions::new(dir.to_owned()))
}

/// A store in which everything occurs: groups, containers in all states, a worker, a key, events.
async fn fill(dir: &Path) {
    let store = open(dir).unwrap();
    let session = SessionId(5);
    store.call(OpenSession { session, address: "here".to_owned() }).await.unwrap();
    let capacity = Capacity { cpu: CpuMilli(4_000), memory: Bytes(8 << 30), slots: 8, gpus: vec!["H100".to_owned()] };
    let (id, pool) = (WorkerId::new("w").unwrap(), PoolName::new("p").unwrap());
    let worker = Worker { id: id.clone(), pool, labels: BTreeMap::new(), capacity, notes: Vec::new() };
    let (stream, epoch_nonce) = (Nonce(2), Nonce(3));
    let (inventory, affinities) = (Vec::new(), Vec::new());
    let attach = Attach { session, worker, stream, replaces: None, epoch: None, epoch_nonce, inventory, affinities };
    let epoch = store.call(attach).await.unwrap().unwrap().epoch;
    let mut spec = Spec::of_command("true", &["a"]);
    spec.env.insert("A".to_owned(), "b".to_owned());
    for (group, count) in [(7, 6), (8, 1_000)] {
        let body = SubmissionBody::Count { spec: spec.clone(), count };
        let submission = body.check(TenantName::default(), Some(format!("key{group}")), None, BTreeMap::new()).unwrap();
        let (group, body_digest) = (GroupId(group), submission.digest());
        store.call(Submit { group, submission, body_digest }).await.unwrap().unwrap();
    }
    let (number, known) = (ClaimNumber(1), FleetVersion(0));
    let claim = Claim { session, number, containers_max: 6, known, changes_max: 10 };
    let claimed = store.call(claim).await.unwrap().unwrap().containers;
    let place = |claimed: &volley_model::Claimed| Placement {
        container: claimed.container,
        claim: claimed.claim,
        worker: id.clone(),
        epoch,
        revision: Revision(1),
        gpus: Vec::new(),
        nonce: Nonce(11),
    };
    let placements = claimed.iter().take(5).map(place).collect();
    let commit = Commit { session, number: CommitNumber(1), placements, ..Commit::default() };
    let attempts = store.call(commit).await.unwrap().unwrap().placements;
    let exited = Outcome::Exited { code: 3, signal: None };
    let said = [Progress::Accepted, Progress::Running, Progress::Ended(exited), Progress::Running];
    let message = |((claimed, attempt), progress): ((&volley_model::Claimed, _), Progress)| WorkerMessage {
        worker: id.clone(),
        epoch,
        container: claimed.container,
        attempt,
        progress,
    };
    let attempts = claimed.iter().zip(attempts.into_iter().map(Result::unwrap));
    let messages = attempts.zip(said).map(message).collect();
    store.call(Report { session, messages }).await.unwrap();
    let target = StopTarget::Container(ContainerId { group: GroupId(7), index: 3 });
    store.call(Stop { target, tenant: None, force: false }).await.unwrap().unwrap();
}

/// Opens what is there and reads all of it.
async fn read_all(dir: &Path) {
    let Ok(store) = open(dir) else { return };
    let mut queries =
        vec![Query::Audit, Query::Pools, Query::Events { after: EventNumber(0), max: 1_000, scope: None }];
    queries.push(Query::List(ListQuery { max: 100, ..ListQuery::default() }));
    queries.push(Query::Workers { after: None, max: 100 });
    queries.extend((0..7).map(|index| Query::Container(ContainerId { group: GroupId(7), index }, None)));
    for query in queries {
        match store.read(query.clone()).await {
            Ok(Answer::Audit(audit)) => assert_eq!(audit.violations, Vec::<String>::new(), "seen when it was opened"),
            Ok(_) | Err(StoreError::Unavailable { .. }) => {}
            Err(error) => panic!("{query:?}: {error}"),
        }
    }
}

fn copy_of(filled: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(filled).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn database(dir: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "db")).expect("one database")
}

/// All columns of all tables.
fn columns(db: &Connection) -> Vec<(String, String)> {
    let mut tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut columns = Vec::new();
    for table in tables {
        let mut info = db.prepare(&format!("PRAGMA table_info({table})")).unwrap();
        let names: Vec<String> = info.query_map([], |row| row.get(1)).unwrap().map(Result::unwrap).collect();
        columns.extend(names.into_iter().map(|name| (table.clone(), name)));
    }
    columns
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        (-3i64..1_000).prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Real),
        any::<String>().prop_map(Value::Text),
        prop::sample::select(vec!["{}", "[]", "null", "\"\"", "0", "-1", "w", "{\"Client\":1}"])
            .prop_map(|text| Value::Text(text.to_owned())),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Blob),
    ]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
}

/// Cases of a normal run; each opens a store on disk.
const CASES: u32 = 150;

/// How many are tried; `cargo xtask soak` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().expect("PROPTEST_CASES is a number"))
}

#[test]
fn rows_with_something_else_in_them_are_refused_or_read() {
    let filled = tempfile::tempdir().unwrap();
    runtime().block_on(fill(filled.path()));
    let columns = columns(&Connection::open(database(filled.path())).unwrap());
    assert!(columns.len() > 30, "{columns:?}");
    let case = (any::<Index>(), values());
    let outcome = runner(cases()).run(&case, |(which, value)| {
        let (table, column) = which.get(&columns);
        let dir = copy_of(filled.path());
        {
            let db = Connection::open(database(dir.path())).unwrap();
            // A constraint may keep the row as it is.
            let _ = db.execute(&format!("UPDATE OR IGNORE {table} SET {column} = ?1"), [&value]);
        }
        runtime().block_on(read_all(dir.path()));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn files_with_other_bytes_in_them_are_refused_or_read() {
    let filled = tempfile::tempdir().unwrap();
    runtime().block_on(fill(filled.path()));
    let case = (prop::collection::vec((any::<Index>(), any::<u8>()), 1..50), any::<Option<Index>>());
    let outcome = runner(cases()).run(&case, |(edits, cut)| {
        let dir = copy_of(filled.path());
        let file = database(dir.path());
        let mut bytes = std::fs::read(&file).unwrap();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&file, bytes).unwrap();
        runtime().block_on(read_all(dir.path()));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
