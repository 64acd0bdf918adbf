//! A disk that runs full, for real: a small tmpfs in a mount namespace of its own, so that
//! nothing is left behind. What adds is refused before it is applied; what is under way goes
//! on; when even that fails, nothing acknowledged is lost, and all is well when there is room.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use volley_ledger::{Answer, Audit, ListQuery, Query, Report, Stop, StopTarget, Submit};
use volley_model::{Bytes, GroupId, Spec};
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore};
use volley_store::{Store, StoreError, StoreExt};

use crate::bench::submission;
use crate::cell::spec;

const SMALL_DISK: &str = "VOLLEY_TEST_SMALL_DISK";
const RESERVE: Bytes = Bytes(8 << 20);

/// Runs the tests of a small disk where there is one: in a namespace with a tmpfs of 40 MiB.
#[test]
fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let root = fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0).unwrap();
    let namespace: &[&str] = if root { &["--mount"] } else { &["--map-root-user", "--mount"] };
    let script = "mount -t tmpfs -o size=40m tmpfs \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(namespace).args(["sh", "-c", script]).arg(dir.path()).arg(test);
    command.args(["--exact", "full_disk::on_a_small_disk", "--include-ignored", "--nocapture"]);
    let done = command.env(SMALL_DISK, dir.path()).output().expect("unshare of util-linux is there");
    let said = String::from_utf8_lossy(&done.stdout);
    let erred = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}\n{erred}");
}

/// About 100 KiB each, none like another.
fn large_spec(number: u64) -> Spec {
    let mut spec = spec();
    spec.args = vec![format!("{number}-{}", "x".repeat(100_000))];
    spec
}

fn submit(number: u64) -> Submit {
    let submission = submission(&[(&large_spec(number), 2)], Some(&format!("key{number}")));
    Submit { group: GroupId(number), submission, body_digest: number.into() }
}

async fn audit(store: &EmbeddedStore) -> Audit {
    match store.read(Query::Audit).await.unwrap() {
        Answer::Audit(audit) => *audit,
        other => panic!("another answer: {other:?}"),
    }
}

#[test]
#[ignore = "a_full_disk_loses_nothing starts it where there is a small disk"]
#[allow(clippy::disallowed_methods, reason = "a test's own arguments come from its environment")]
fn on_a_small_disk() {
    let dir = PathBuf::from(std::env::var(SMALL_DISK).expect("started by a_full_disk_loses_nothing"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run_full(dir));
}

async fn run_full(dir: PathBuf) {
    let data = dir.join("data");
    let open = |disk_free_min| {
        let options = EmbeddedOptions { disk_free_min, ..EmbeddedOptions::new(data.clone()) };
        EmbeddedStore::open(options).unwrap()
    };
    let store = open(RESERVE);
    let (mut accepted, refused) = submit_until_refused(&store, 0).await;
    assert!(matches!(&refused, StoreError::Unavailable { reason } if reason.contains("free some space")), "{refused}");
    assert!(accepted > 20, "{accepted} groups in 32 MiB");
    // What adds nothing goes on in the reserve.
    let target = StopTarget::Group(GroupId(1));
    let stop = Stop { target, tenant: None, force: false };
    assert_eq!(store.call(stop).await.unwrap().unwrap().finished, 2);
    drop(store);
    // Without a reserve, and with the rest of the disk somebody else's to the last byte: a write fails half-way.
    let store = open(Bytes(0));
    fs::write(dir.join("filler"), vec![1; 64 << 20]).unwrap_err();
    let (more, failed) = submit_until_refused(&store, accepted).await;
    accepted = more;
    assert!(matches!(failed, StoreError::Unknown { .. }), "{failed}");
    let message = Report { session: volley_model::SessionId(1), messages: Vec::new() };
    // Nothing to write: it may or may not be answered, but not wrongly.
    assert!(store.call(message).await.map_or(true, |verdicts| verdicts.is_empty()));
    fs::remove_file(dir.join("filler")).unwrap();
    let again = store.call(submit(accepted + 1)).await.unwrap().unwrap();
    assert_eq!((again.group, again.count), (GroupId(accepted + 1), 2), "the same request, the same answer");
    let counts = audit(&store).await;
    assert_eq!(counts.violations, Vec::<String>::new());
    assert_eq!((counts.accepted, counts.finished), (2 * (accepted + 1), 2));
    drop(store);
    let store = open(RESERVE);
    assert_eq!(audit(&store).await, counts, "what was acknowledged is on disk");
    match store.read(Query::List(ListQuery { group: Some(GroupId(1)), max: 10, ..ListQuery::default() })).await {
        Ok(Answer::List(page)) => assert!(page.containers.iter().all(|record| record.finished_at.is_some())),
        other => panic!("another answer: {other:?}"),
    }
}

/// Submits after number `accepted`; gives the last accepted one, and why the next was not.
async fn submit_until_refused(store: &EmbeddedStore, mut accepted: u64) -> (u64, StoreError) {
    loop {
        match store.call(submit(accepted + 1)).await {
            Ok(reply) => assert!(!reply.unwrap().repeated),
            Err(refused) => return (accepted, refused),
        }
        accepted += 1;
        assert!(accepted < 1_000, "40 MiB never end");
    }
}
