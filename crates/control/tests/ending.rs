//! A server that is told to end: the turn that is under way is finished, and claims go back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, broadcast};
use volley_control::{AnsweredReport, Control, Delivery, Options, Profile};
use volley_ledger::{Answer, Hint, ListQuery, Operation, Query, Reply, Taken};
use volley_model::{
    Bytes, Capacity, ContainerState, CpuMilli, Nonce, PoolName, Spec, SubmissionBody, TenantName, Worker, WorkerId,
};
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore};
use volley_store::{Store, StoreFuture, StoreStats};

/// The embedded store, with commits that wait until they are let go.
struct SlowCommits {
    store: EmbeddedStore,
    /// Commits that came.
    came: Semaphore,
    /// Those that may go on.
    may: Semaphore,
}

impl Store for SlowCommits {
    fn apply(&self, operation: Operation) -> StoreFuture<'_, Reply> {
        let commit = matches!(operation, Operation::Commit(_));
        Box::pin(async move {
            if commit {
                self.came.add_permits(1);
                self.may.acquire().await.expect("it is never closed").forget();
            }
            self.store.apply(operation).await
        })
    }

    fn read(&self, query: Query) -> StoreFuture<'_, Answer> {
        self.store.read(query)
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.store.hints()
    }

    fn backup(&self, file: PathBuf) -> StoreFuture<'_, ()> {
        self.store.backup(file)
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }
}

/// Workers that are told nothing: theirs is not what is looked at.
struct Nobody;

impl Delivery for Nobody {
    fn deliver(&self, _: Vec<Taken>) {}
    fn answer(&self, _: &WorkerId, _: Nonce, _: Vec<AnsweredReport>) {}
    fn heartbeat(&self, _: &WorkerId, _: Nonce, _: u64, _: bool) {}
    fn close(&self, _: &WorkerId, _: Nonce) {}
}

async fn states(store: &SlowCommits) -> Vec<ContainerState> {
    let query = ListQuery { max: 10, ..ListQuery::default() };
    let Ok(Answer::List(page)) = store.read(Query::List(query)).await else { panic!("a list was asked for") };
    page.containers.iter().map(|record| record.state).collect()
}

/// A server with one worker whose turn with one container has come to its commit.
async fn in_a_turn(dir: &std::path::Path) -> (Arc<SlowCommits>, Arc<Control>) {
    let store = EmbeddedStore::open(EmbeddedOptions::new(dir.to_owned())).expect("an empty folder");
    let store = Arc::new(SlowCommits { store, came: Semaphore::new(0), may: Semaphore::new(0) });
    let options = Options::of_profile(Profile::Auto);
    let control = Control::start(Arc::clone(&store) as Arc<_>, Arc::new(Nobody), options).await.expect("it starts");
    let capacity = Capacity { cpu: CpuMilli(1_000), memory: Bytes(1 << 30), slots: 1, gpus: Vec::new() };
    let (id, pool) = (WorkerId::new("w").expect("a name"), PoolName::new("p").expect("a name"));
    let worker = Worker { id, pool, labels: BTreeMap::new(), capacity, notes: Vec::new() };
    control.attach(worker, control.nonce(), None, (Vec::new(), Vec::new())).await.expect("a good worker");
    let body = SubmissionBody::Count { spec: Spec::of_command("true", &[]), count: 1 };
    let submission = body.check(TenantName::default(), None, None, BTreeMap::new()).expect("a good body");
    let digest = submission.digest();
    control.submit(submission, digest).await.expect("there is room");
    store.came.acquire().await.expect("it is never closed").forget();
    (store, control)
}

#[tokio::test]
async fn the_turn_under_way_is_finished_when_the_server_ends() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (store, control) = in_a_turn(dir.path()).await;
    let ending = tokio::spawn({
        let control = Arc::clone(&control);
        async move { control.shutdown().await }
    });
    // One thread: the other task has run up to its first wait.
    tokio::task::yield_now().await;
    assert_eq!(states(&store).await, [ContainerState::Claimed]);
    store.may.add_permits(1);
    ending.await.expect("it ends");
    assert_eq!(states(&store).await, [ContainerState::Assigned]);
}

#[tokio::test]
async fn claims_of_a_turn_that_cannot_finish_go_back() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (store, control) = in_a_turn(dir.path()).await;
    tokio::time::timeout(Duration::from_secs(60), control.shutdown()).await.expect("it does not wait for ever");
    assert_eq!(states(&store).await, [ContainerState::Queued]);
}
