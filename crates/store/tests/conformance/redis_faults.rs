//! What can go wrong between a store and a real redis-server: scripts that are flushed, a server
//! that is killed and started again, one that stands still, one that is out of memory, settings
//! that may lose data, a layout of a newer version, and two servers on one cell.

use std::time::Duration;

use volley_ledger::{
    Answer, Audit, Claim, Commit, Hint, OpenSession, Query, Report, Stop, StopTarget, Submit, SubmitReply,
};
use volley_model::{ClaimNumber, CommitNumber, FleetVersion, GroupId, SessionId};
use volley_store::redis::{RedisOpenError, RedisOptions, RedisStore};
use volley_store::{Store, StoreError, StoreExt};

use crate::bench::submission;
use crate::cell::spec;
use crate::redis_server::RedisServer;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

async fn open(server: &RedisServer) -> RedisStore {
    let options = RedisOptions { call_timeout: Duration::from_secs(2), ..RedisOptions::new(&server.url()) };
    RedisStore::open(options).await.expect("the server answers")
}

fn submit(group: u64, count: u32) -> Submit {
    let submission = submission(&[(&spec(), count)], Some(&format!("key{group}")));
    Submit { group: GroupId(group), submission, body_digest: 1 }
}

async fn accept(store: &RedisStore, group: u64, count: u32) -> SubmitReply {
    store.call(submit(group, count)).await.expect("the server answers").expect("nothing speaks against it")
}

async fn audit(store: &RedisStore) -> Audit {
    match store.read(Query::Audit).await.expect("the server answers") {
        Answer::Audit(audit) => *audit,
        other => panic!("another answer: {other:?}"),
    }
}

fn claim(session: SessionId, number: u64, containers_max: u32, known: u64) -> Claim {
    Claim { session, number: ClaimNumber(number), containers_max, known: FleetVersion(known), changes_max: 10 }
}

/// Lua's bounds (200 local variables, 60 upvalues) and slips of the pen show here, by the script's name.
#[tokio::test]
async fn a_server_takes_every_script() {
    let server = RedisServer::start(&[]);
    let store = open(&server).await;
    store.load_scripts().await.expect("each is one that it can run");
}

/// Sends the same request until it is answered.
async fn until_answered<R: volley_ledger::Request + Clone>(store: &RedisStore, request: R) -> R::Reply
where
    R::Reply: Send,
{
    let asking = async {
        loop {
            match store.call(request.clone()).await {
                Ok(reply) => return reply,
                Err(StoreError::Unknown { .. } | StoreError::Unavailable { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the store comes back")
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again() {
    let server = RedisServer::start(&[]);
    let store = open(&server).await;
    accept(&store, 1, 3).await;
    server.cli(&["SCRIPT", "FLUSH"]);
    accept(&store, 2, 3).await;
    assert_eq!(audit(&store).await.accepted, 6);
}

#[tokio::test]
async fn a_killed_server_that_comes_back_has_all_that_was_acknowledged() {
    let mut server = RedisServer::start(ALWAYS);
    let store = open(&server).await;
    assert_eq!(store.warnings(), Vec::<String>::new());
    let session = SessionId(7);
    store.call(OpenSession { session, address: String::new() }).await.unwrap();
    accept(&store, 1, 5).await;
    let claimed = store.call(claim(session, 1, 2, 0)).await.unwrap().unwrap();
    server.kill();
    assert!(store.call(submit(2, 5)).await.is_err(), "nobody answers");
    server.start_again();
    let again = until_answered(&store, submit(2, 5)).await.unwrap();
    assert_eq!((again.group, again.count), (GroupId(2), 5));
    assert!(until_answered(&store, submit(1, 5)).await.unwrap().repeated, "law 6");
    // Claims are kept here: the session goes on where it was, and the fleet is loaded anew once.
    let replayed = until_answered(&store, claim(session, 1, 2, 0)).await.unwrap();
    assert_eq!(replayed, claimed);
    let version = claimed.fleet.version.0;
    let next = store.call(claim(session, 2, 2, version)).await.unwrap().unwrap();
    assert!(!next.fleet.reload || version == 0, "once is enough");
    let counts = audit(&store).await;
    assert_eq!((counts.accepted, counts.claimed, counts.violations.as_slice()), (10, 4, &[][..]));
}

#[tokio::test]
async fn a_lost_connection_forces_one_reload_of_the_fleet() {
    let server = RedisServer::start(&[]);
    let store = open(&server).await;
    let session = SessionId(7);
    store.call(OpenSession { session, address: String::new() }).await.unwrap();
    accept(&store, 1, 5).await;
    let first = store.call(claim(session, 1, 1, 0)).await.unwrap().unwrap();
    // So that there is a version to know.
    let mark = volley_model::BlockedMark {
        shape: first.containers[0].shape,
        at: first.fleet.version,
        reasons: vec![volley_model::WaitReason::NoWorkers],
    };
    let commit = Commit { session, number: CommitNumber(1), blocked: vec![mark], ..Commit::default() };
    let version = store.call(commit).await.unwrap().unwrap().version;
    let known = store.call(claim(session, 2, 1, version.0)).await.unwrap().unwrap();
    assert!(!known.fleet.reload);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let reloaded = until_answered(&store, claim(session, 3, 1, version.0)).await.unwrap();
    // The call that met the cut connection may have been answered before the cut was seen.
    let reloaded = match reloaded.fleet.reload {
        true => reloaded,
        false => until_answered(&store, claim(session, 4, 1, version.0)).await.unwrap(),
    };
    assert!(reloaded.fleet.reload, "whatever was known is not trusted");
    let next = store.call(claim(session, 5, 1, reloaded.fleet.version.0)).await.unwrap().unwrap();
    assert!(!next.fleet.reload, "once");
}

#[tokio::test]
async fn a_server_that_stands_still_gives_unknown_and_goes_on() {
    let server = RedisServer::start(&[]);
    let store = open(&server).await;
    accept(&store, 1, 1).await;
    server.signal("STOP");
    let error = store.call(submit(2, 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    server.signal("CONT");
    let reply = until_answered(&store, submit(2, 1)).await.unwrap();
    // Whether the first one arrived is not known, and does not matter.
    assert_eq!((reply.group, reply.count), (GroupId(2), 1));
    assert_eq!(audit(&store).await.accepted, 2);
}

#[tokio::test]
async fn when_memory_is_short_what_adds_is_refused_and_the_rest_goes_on() {
    let server = RedisServer::start(&[]);
    let store = open(&server).await;
    let session = SessionId(7);
    store.call(OpenSession { session, address: String::new() }).await.unwrap();
    accept(&store, 1, 5).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = store.call(submit(2, 5)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable { reason } if reason.contains("OOM")), "{error}");
    assert_eq!(store.call(claim(session, 1, 2, 0)).await.unwrap().unwrap().containers.len(), 2);
    store.call(Report { session, messages: Vec::new() }).await.unwrap();
    let stop = Stop { target: StopTarget::Group(GroupId(1)), tenant: None, force: true };
    assert_eq!(store.call(stop).await.unwrap().unwrap().finished, 5);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    accept(&store, 2, 5).await;
    let counts = audit(&store).await;
    assert_eq!((counts.accepted, counts.finished, counts.violations.as_slice()), (10, 5, &[][..]));
}

#[tokio::test]
async fn a_server_that_may_forget_is_refused_or_warned_of() {
    let server = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]);
    let refused = RedisStore::open(RedisOptions::new(&server.url())).await.err().expect("it may drop keys");
    assert!(matches!(&refused, RedisOpenError::Evicts { policy } if policy == "allkeys-lru"), "{refused}");
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let store = open(&server).await;
    assert!(store.warnings()[0].contains("appendonly is off"), "{:?}", store.warnings());
    server.cli(&["HSET", "{volley:default}:meta", "layout", "2"]);
    let refused = RedisStore::open(RedisOptions::new(&server.url())).await.err().expect("it is newer");
    assert!(matches!(refused, RedisOpenError::Newer { found: 2, known: 1 }), "{refused}");
    for url in ["http://here", "redis://", "nonsense"] {
        let refused = RedisStore::open(RedisOptions::new(url)).await.err().expect("no such URL");
        assert!(matches!(refused, RedisOpenError::Url { .. } | RedisOpenError::Store(_)), "{url}: {refused}");
    }
    let cell = RedisOptions { cell: "a b".to_owned(), ..RedisOptions::new(&server.url()) };
    assert!(matches!(RedisStore::open(cell).await.err(), Some(RedisOpenError::Cell { .. })));
}

#[tokio::test]
async fn two_servers_share_a_cell_and_hear_of_each_other() {
    let server = RedisServer::start(&[]);
    let (one, other) = (open(&server).await, open(&server).await);
    let mut hints = other.hints();
    // Told when the subscription stands.
    let first = tokio::time::timeout(PATIENCE, hints.recv()).await.expect("a subscription").unwrap();
    assert_eq!(first, Hint::Ready { containers: 0 });
    accept(&one, 1, 5).await;
    let ready = async { while hints.recv().await.unwrap() != (Hint::Ready { containers: 5 }) {} };
    tokio::time::timeout(PATIENCE, ready).await.expect("the other hears of it");
    for (store, session) in [(&one, 1), (&other, 2)] {
        store.call(OpenSession { session: SessionId(session), address: String::new() }).await.unwrap();
    }
    let of_one = one.call(claim(SessionId(1), 1, 3, 0)).await.unwrap().unwrap();
    let of_other = other.call(claim(SessionId(2), 1, 9, 0)).await.unwrap().unwrap();
    assert_eq!((of_one.containers.len(), of_other.containers.len()), (3, 2), "nothing is claimed twice");
    assert_eq!(of_other.sessions, [SessionId(1), SessionId(2)]);
    assert_eq!(audit(&one).await, audit(&other).await);
}
