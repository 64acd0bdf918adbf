//! Writes that fail, at each place there is, once or for a while: the answer is "unknown" or
//! "not now", the store opens and loads its file again, the same request gives what it would
//! have given, and nothing acknowledged is lost or done twice.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use volley_ledger::{
    Answer, Attach, Audit, Claim, CloseSession, Commit, Event, EventKind, OpenSession, Order, Progress, Query, Report,
    Request, Stop, StopTarget, Submit, Sweep, TakeFrom, Verdict, WorkerMessage,
};
use volley_model::{
    ClaimNumber, CommitNumber, ContainerId, ContainerState, DeliveryNumber, Epoch, EventNumber, FleetVersion, GroupId,
    Nonce, Placement, SessionId,
};
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore, Faults};
use volley_store::{Store, StoreError, StoreExt};

use crate::bench::submission;
use crate::cell::{DONE, spec, worker};

/// Calls to the store before a request that keeps failing is a bug.
const TRIES_MAX: usize = 50;

/// A client, a server and a worker in one, who send again whatever was not answered.
struct Driver {
    store: EmbeddedStore,
    numbers: u64,
    /// Answers that said "unknown" or "not now".
    unanswered: u64,
}

impl Driver {
    async fn call<R: Request + Clone>(&mut self, request: R) -> R::Reply
    where
        R::Reply: Send,
    {
        for _ in 0..TRIES_MAX {
            match self.store.call(request.clone()).await {
                Ok(reply) => return reply,
                Err(StoreError::Unknown { .. } | StoreError::Unavailable { .. }) => self.unanswered += 1,
                Err(error @ StoreError::NoCopy { .. }) => panic!("no backup was asked for: {error}"),
                Err(StoreError::Closed) => panic!("the store's thread ended"),
            }
        }
        panic!("the store does not come back");
    }

    async fn read(&mut self, query: Query) -> Answer {
        for _ in 0..TRIES_MAX {
            match self.store.read(query.clone()).await {
                Ok(answer) => return answer,
                Err(_) => self.unanswered += 1,
            }
        }
        panic!("the store does not come back");
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The whole life of a few containers. Every acknowledgement is held against what comes after.
    async fn drive(&mut self) {
        let submit = |group| Submit { group, submission: submission(&[(&spec(), 3)], Some("key")), body_digest: 1 };
        let accepted = self.call(submit(GroupId(11))).await.expect("a new key");
        assert_eq!((accepted.group, accepted.count), (GroupId(11), 3), "whether it was known already or not");
        let mut epoch = None;
        for _ in 0..TRIES_MAX {
            let audit = self.audit().await;
            assert_eq!((audit.accepted, audit.violations.as_slice()), (3, &[][..]), "what was acknowledged is there");
            if audit.finished == 3 {
                let again = self.call(submit(GroupId(12))).await.expect("the same body");
                assert_eq!((again.group, again.repeated), (GroupId(11), true), "law 6");
                return;
            }
            let session = SessionId(self.number());
            self.call(OpenSession { session, address: String::new() }).await;
            self.turn(session, &mut epoch).await;
            // What a refusal left claimed goes back.
            self.call(CloseSession { session }).await;
        }
        panic!("law 11: the backlog does not drain");
    }

    async fn audit(&mut self) -> Audit {
        match self.read(Query::Audit).await {
            Answer::Audit(audit) => *audit,
            other => panic!("another answer: {other:?}"),
        }
    }

    /// One turn of a new session, up to where a restart of the store ends it.
    async fn turn(&mut self, session: SessionId, epoch: &mut Option<Epoch>) {
        let (stream, epoch_nonce) = (Nonce(self.number()), Nonce(self.number()));
        let worker = worker("w", 2);
        let replaces = match self.read(Query::Servers { worker: Some(worker.id.clone()) }).await {
            Answer::Servers(servers) => servers.holder.map(|(_, stream)| stream),
            other => panic!("another answer: {other:?}"),
        };
        let (inventory, affinities) = (Vec::new(), Vec::new());
        let attach = Attach { session, worker, stream, replaces, epoch: *epoch, epoch_nonce, inventory, affinities };
        let Ok(attached) = self.call(attach).await else { return };
        *epoch = Some(attached.epoch);
        let claim =
            Claim { session, number: ClaimNumber(1), containers_max: 2, known: FleetVersion(0), changes_max: 10 };
        let Ok(claimed) = self.call(claim).await else { return };
        let Some(view) = claimed.fleet.workers.first() else { return };
        let placements = claimed.containers.iter().map(|claimed| Placement {
            container: claimed.container,
            claim: claimed.claim,
            worker: view.worker.id.clone(),
            epoch: view.epoch,
            revision: view.revision,
            gpus: Vec::new(),
            nonce: Nonce(1_000 + u64::from(claimed.container.index)),
        });
        let commit = Commit { session, number: CommitNumber(1), placements: placements.collect(), ..Commit::default() };
        if self.call(commit).await.is_err() {
            return;
        }
        let from = TakeFrom { worker: view.worker.id.clone(), stream, after: DeliveryNumber(0) };
        let Answer::Take(taken) = self.read(Query::Take(vec![from])).await else { panic!("another answer") };
        for delivery in &taken[0].deliveries {
            let Order::Start { container, attempt, .. } = delivery.order else { panic!("nothing was stopped") };
            for progress in [Progress::Running, Progress::Ended(DONE)] {
                let (worker, epoch) = (view.worker.id.clone(), attached.epoch);
                let message = WorkerMessage { worker, epoch, container, attempt, progress: progress.clone() };
                let verdicts = self.call(Report { session, messages: vec![message] }).await;
                // An end whose first answer was lost has happened: the second is told to forget it.
                assert!(verdicts == [Verdict::Keep] || self.finished(container).await, "{progress:?}");
            }
        }
        self.call(Sweep { session: None, items_max: 10 }).await;
        let target = StopTarget::Group(GroupId(99));
        assert!(self.call(Stop { target, tenant: None, force: false }).await.is_err());
    }

    async fn finished(&mut self, id: ContainerId) -> bool {
        match self.read(Query::Container(id, None)).await {
            Answer::Container(record) => record.is_some_and(|record| record.state == ContainerState::Finished),
            other => panic!("another answer: {other:?}"),
        }
    }
}

/// Drives a new store in `dir` with `fails` asked at every place; gives how often it was not answered.
fn drive(dir: &Path, fails: impl Fn(u64) -> bool + Send + Sync + 'static) -> (u64, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let faults = Faults::new(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        fails(number).then(|| io::Error::other("injected: the sync failed"))
    });
    let options = EmbeddedOptions { faults, ..EmbeddedOptions::new(dir.to_owned()) };
    let mut driver = Driver { store: EmbeddedStore::open(options).unwrap(), numbers: 0, unanswered: 0 };
    runtime.block_on(driver.drive());
    let before = runtime.block_on(driver.audit());
    let unanswered = driver.unanswered;
    drop(driver);
    // What it acknowledged is what another process finds in the file.
    let store = EmbeddedStore::open(EmbeddedOptions::new(dir.to_owned())).unwrap();
    let mut driver = Driver { store, numbers: 0, unanswered: 0 };
    assert_eq!(runtime.block_on(driver.audit()), before);
    check_events(&runtime.block_on(driver.read(Query::Events { after: EventNumber(0), max: 10_000, scope: None })));
    (asked.load(Ordering::SeqCst), unanswered)
}

fn check_events(answer: &Answer) {
    let Answer::Events(page) = answer else { panic!("another answer: {answer:?}") };
    let numbers: Vec<u64> = page.events.iter().map(|event| event.number.0).collect();
    assert_eq!(numbers, (1..=page.last.0).collect::<Vec<_>>(), "no gap and no repeat");
    let finished = |event: &&Event| matches!(event.kind, EventKind::Container { outcome: Some(_), .. });
    assert_eq!(page.events.iter().filter(finished).count(), 3, "law 4: one end each");
}

#[test]
fn a_write_that_fails_anywhere_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (places, unanswered) = drive(dir.path(), |_| false);
    assert_eq!(unanswered, 0);
    assert!(places > 20, "{places} places are too few to tell");
    for fault in 0..places {
        let dir = tempfile::tempdir().unwrap();
        let (_, unanswered) = drive(dir.path(), move |number| number == fault);
        assert!(unanswered > 0, "fault {fault} of {places} was seen by nobody");
    }
}

#[test]
fn a_disk_that_fails_for_a_while_or_now_and_then_loses_and_doubles_nothing() {
    for from in (0..30).step_by(3) {
        let dir = tempfile::tempdir().unwrap();
        drive(dir.path(), move |number| (from..from + 5).contains(&number));
    }
    // Four places are one transaction and one reload: with every third failing nothing could ever be written.
    for every in [5, 7, 11] {
        let dir = tempfile::tempdir().unwrap();
        drive(dir.path(), move |number| number < 200 && number % every == every - 1);
    }
}
