//! What is larger than one call of a script may be: it goes on with a cursor, and comes out as if
//! it were one. Here a call touches three items.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use volley_ledger::{
    Answer, Attach, Claim, Commit, Heartbeat, OpenSession, Query, Stop, StopTarget, Submit, Sweep, TakeFrom,
};
use volley_model::{
    ClaimNumber, CommitNumber, DeliveryNumber, Epoch, FleetChanges, FleetVersion, GroupId, Nonce, Placement, Revision,
    SessionId, TenantName, Timestamp, WorkerId,
};
use volley_store::redis::{RedisOptions, RedisStore};
use volley_store::{Clock, Store, StoreExt};

use crate::bench::submission;
use crate::cell::{spec, worker};
use crate::redis_server::RedisServer;

const WORKERS: usize = 8;
const SESSION: SessionId = SessionId(7);

struct Cell {
    now: Arc<AtomicU64>,
    store: RedisStore,
    epochs: Vec<(WorkerId, Nonce, Epoch)>,
}

impl Cell {
    async fn open(server: &RedisServer) -> Self {
        let now = Arc::new(AtomicU64::new(1_000_000));
        let time = Arc::clone(&now);
        let clock = Clock::given(move || Timestamp(time.load(Ordering::SeqCst)));
        let options = RedisOptions { script_items_max: 3, clock: Some(clock), ..RedisOptions::new(&server.url()) };
        let store = RedisStore::open(options).await.expect("the server answers");
        store.call(OpenSession { session: SESSION, address: String::new() }).await.unwrap();
        let mut cell = Self { now, store, epochs: Vec::new() };
        for number in 0..WORKERS {
            let nonce = Nonce(number as u64 + 1);
            let worker = worker(&format!("w{number}"), 4);
            let id = worker.id.clone();
            let attach = Attach {
                session: SESSION,
                stream: nonce,
                replaces: None,
                worker,
                epoch: None,
                epoch_nonce: nonce,
                inventory: Vec::new(),
                affinities: Vec::new(),
            };
            let attached = cell.store.call(attach).await.unwrap().expect("nothing speaks against it");
            cell.epochs.push((id, nonce, attached.epoch));
        }
        cell
    }

    async fn submit(&self, group: u64, count: u32, tenant: &str) {
        let mut submission = submission(&[(&spec(), count)], None);
        submission.tenant = TenantName::new(tenant).expect("a good name");
        let submit = Submit { group: GroupId(group), submission, body_digest: 1 };
        self.store.call(submit).await.unwrap().expect("nothing speaks against it");
    }

    async fn claim(&self, number: u64, known: FleetVersion) -> volley_ledger::ClaimReply {
        let number = ClaimNumber(number);
        let claim = Claim { session: SESSION, number, containers_max: 100, known, changes_max: 100 };
        self.store.call(claim).await.unwrap().expect("the session lives")
    }

    async fn sound(&self) {
        let Answer::Audit(audit) = self.store.read(Query::Audit).await.unwrap() else { panic!("another answer") };
        assert_eq!(audit.violations, Vec::<String>::new());
    }
}

fn names(fleet: &FleetChanges) -> Vec<String> {
    let mut names: Vec<_> = fleet.workers.iter().map(|view| view.worker.id.to_string()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_fleet_is_loaded_whole_and_changes_come_with_more() {
    let server = RedisServer::start(&[]);
    let cell = Cell::open(&server).await;
    let whole = cell.claim(1, FleetVersion(0)).await.fleet;
    let all: Vec<String> = (0..WORKERS).map(|number| format!("w{number}")).collect();
    assert_eq!((names(&whole), whole.reload, whole.more), (all.clone(), true, false));
    let Answer::Fleet(again) = cell.store.read(Query::Fleet { known: FleetVersion(0), max: 1 }).await.unwrap() else {
        panic!("another answer")
    };
    assert_eq!(*again, whole);
    let part = cell.claim(2, FleetVersion(1)).await.fleet;
    assert_eq!((part.reload, part.more, part.workers.len() + part.pools.len()), (false, true, 3));
    let Answer::Workers { workers, more } = cell.store.read(Query::Workers { after: None, max: 100 }).await.unwrap()
    else {
        panic!("another answer")
    };
    assert_eq!((workers.len(), more), (WORKERS, false));
}

#[tokio::test]
async fn after_a_gap_every_lease_is_renewed_before_any_can_end() {
    let server = RedisServer::start(&[]);
    let cell = Cell::open(&server).await;
    cell.store.call(Sweep { session: None, items_max: 100 }).await.unwrap();
    cell.now.fetch_add(3_600_000, Ordering::SeqCst);
    let swept = cell.store.call(Sweep { session: None, items_max: 100 }).await.unwrap();
    assert_eq!((swept.workers_lost.len(), swept.sessions_ended), (0, 0), "an outage kills nobody");
    let beat = Heartbeat { session: SESSION, workers: cell.epochs.clone() };
    let beaten = cell.store.call(beat).await.unwrap();
    assert_eq!((beaten.session_alive, beaten.workers), (true, vec![true; WORKERS]));
    // Time passes with sweeps: then they are lost, some at a time.
    let mut lost = 0;
    for _ in 0..30 {
        cell.now.fetch_add(5_000, Ordering::SeqCst);
        while {
            let swept = cell.store.call(Sweep { session: None, items_max: 100 }).await.unwrap();
            assert!(swept.workers_lost.len() <= 3, "{swept:?}");
            lost += swept.workers_lost.len();
            swept.more
        } {}
    }
    assert_eq!(lost, WORKERS);
    cell.sound().await;
}

#[tokio::test]
async fn a_group_is_stopped_listed_and_found_whole() {
    let server = RedisServer::start(&[]);
    let cell = Cell::open(&server).await;
    for (group, tenant) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")] {
        cell.submit(group, 10, tenant).await;
    }
    let Answer::Tenants { tenants, more } = cell.store.read(Query::Tenants { after: None, max: 10 }).await.unwrap()
    else {
        panic!("another answer")
    };
    assert_eq!((tenants.len(), more, tenants.iter().map(|tenant| tenant.waiting).sum::<u64>()), (5, false, 50));
    cell.sound().await;
    // Groups of others do not hide it.
    let scope = Some(TenantName::new("e").unwrap());
    let all_begin_so = GroupId(5).to_string()[..10].to_owned();
    let Answer::Prefix(found) = cell.store.read(Query::Prefix(all_begin_so, scope)).await.unwrap() else {
        panic!("another answer")
    };
    assert_eq!(found.len(), 1, "{found:?}");
    let stop = Stop { target: StopTarget::Group(GroupId(1)), tenant: None, force: false };
    assert_eq!(cell.store.call(stop).await.unwrap().unwrap().finished, 10);
    cell.sound().await;
}

#[tokio::test]
async fn deliveries_of_many_workers_are_all_taken() {
    let server = RedisServer::start(&[]);
    let cell = Cell::open(&server).await;
    cell.submit(1, WORKERS as u32, "a").await;
    let claimed = cell.claim(1, FleetVersion(0)).await;
    let place = |(container, (worker, nonce, epoch)): (&volley_model::Claimed, &(WorkerId, Nonce, Epoch))| Placement {
        container: container.container,
        claim: container.claim,
        worker: worker.clone(),
        epoch: *epoch,
        revision: Revision(1),
        gpus: Vec::new(),
        nonce: *nonce,
    };
    let placements = claimed.containers.iter().zip(&cell.epochs).map(place).collect();
    let commit = Commit { session: SESSION, number: CommitNumber(1), placements, ..Commit::default() };
    let reply = cell.store.call(commit).await.unwrap().unwrap();
    assert!(reply.placements.iter().all(Result::is_ok), "{reply:?}");
    let from = |(worker, stream, _): &(WorkerId, Nonce, Epoch)| TakeFrom {
        worker: worker.clone(),
        stream: *stream,
        after: DeliveryNumber(0),
    };
    let Answer::Take(taken) = cell.store.read(Query::Take(cell.epochs.iter().map(from).collect())).await.unwrap()
    else {
        panic!("another answer")
    };
    assert_eq!(taken.iter().map(|taken| taken.deliveries.len()).collect::<Vec<_>>(), vec![1; WORKERS]);
    cell.sound().await;
}
