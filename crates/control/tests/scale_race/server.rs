//! A server that can be killed: its loops on a runtime of their own, which ends between two instructions of theirs, as a
//! process does. Its session stays open in the store until its lease ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::broadcast;
use volley_control::ledger::{Answer, Hint, LedgerOptions, Operation, Query, Reply, Taken};
use volley_control::pools::Provisioners;
use volley_control::{AnsweredReport, Control, Delivery, Options, Profile, ScaleOptions};
use volley_model::{Millis, Nonce, WorkerId};
use volley_store::redis::{RedisOptions, RedisStore};
use volley_store::{Store, StoreFuture, StoreStats};

use crate::cloud::{Cloud, CloudOf};

/// When a server dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    BeforeRecord,
    AfterRecord,
    BeforeMade,
    AfterMade,
    BeforeNoted,
    Never,
}

pub const MOMENTS: [Moment; 5] =
    [Moment::BeforeRecord, Moment::AfterRecord, Moment::BeforeMade, Moment::AfterMade, Moment::BeforeNoted];

/// The moment at which one life of a server ends.
pub struct Doom {
    moment: Moment,
    /// Such moments that pass before.
    left: AtomicU32,
    pub dead: AtomicBool,
}

impl Doom {
    pub fn new(moment: Moment, passes: u32) -> Self {
        Self { moment, left: AtomicU32::new(passes), dead: AtomicBool::new(false) }
    }

    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// Whoever calls this after the end is never heard of again.
    pub async fn at(&self, moment: Moment) {
        if moment == self.moment {
            let passes = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if !passes {
                self.dead.store(true, Ordering::SeqCst);
            }
        }
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

/// A store whose caller may die on the way to it or on the way back.
struct DoomedStore {
    store: RedisStore,
    doom: Arc<Doom>,
}

impl Store for DoomedStore {
    fn apply(&self, operation: Operation) -> StoreFuture<'_, Reply> {
        Box::pin(async move {
            let (before, after) = match &operation {
                Operation::Provision(_) => (Moment::BeforeRecord, Moment::AfterRecord),
                Operation::NoteMachines(_) => (Moment::BeforeNoted, Moment::Never),
                _ => return self.store.apply(operation).await,
            };
            self.doom.at(before).await;
            let reply = self.store.apply(operation).await;
            if after != Moment::Never {
                self.doom.at(after).await;
            }
            reply
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

    fn take_interval(&self) -> Option<Duration> {
        self.store.take_interval()
    }
}

/// Workers of these tests take what they are given and say nothing.
struct Silent;

impl Delivery for Silent {
    fn deliver(&self, _: Vec<Taken>) {}
    fn answer(&self, _: &WorkerId, _: Nonce, _: Vec<AnsweredReport>) {}
    fn heartbeat(&self, _: &WorkerId, _: Nonce, _: u64, _: bool) {}
    fn close(&self, _: &WorkerId, _: Nonce) {}
}

/// Short leases: nobody buys for as long when a leader dies. Workers, which say nothing, are not lost meanwhile.
pub fn redis(url: &str, cell: &str) -> RedisOptions {
    let (scale_lease, session_lease) = (Millis(400), Millis(1_500));
    let ledger =
        LedgerOptions { scale_lease, session_lease, worker_lease: Millis::from_secs(3600), ..LedgerOptions::default() };
    RedisOptions { cell: cell.to_owned(), ledger, take_interval: Duration::from_millis(200), ..RedisOptions::new(url) }
}

/// One life of a server.
pub struct Server {
    runtime: Runtime,
    pub control: Arc<Control>,
    pub doom: Arc<Doom>,
}

impl Server {
    pub fn start(options: &RedisOptions, cloud: &Arc<Cloud>, doom: Doom) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let doom = Arc::new(doom);
        let process = Arc::new(CloudOf { cloud: Arc::clone(cloud), doom: Arc::clone(&doom) });
        let scale = ScaleOptions {
            interval: Duration::from_millis(50),
            list_interval: Duration::from_millis(150),
            ..ScaleOptions::new(Provisioners::with_process(process, "http://127.0.0.1:1"))
        };
        let sweep_interval = Duration::from_millis(100);
        let settings = Options { scale: Some(scale), sweep_interval, ..Options::of_profile(Profile::Auto) };
        let control = runtime.block_on(async {
            let store = RedisStore::open(options.clone()).await.expect("the redis-server answers");
            let store = Arc::new(DoomedStore { store, doom: Arc::clone(&doom) });
            Control::start(store, Arc::new(Silent), settings).await.expect("a server starts")
        });
        Self { runtime, control, doom }
    }

    pub fn is_dead(&self) -> bool {
        self.doom.dead.load(Ordering::SeqCst)
    }

    /// Something asked of it from outside.
    pub fn ask<T>(&self, asked: impl Future<Output = T>) -> T {
        self.runtime.block_on(asked)
    }

    /// As by `kill -9`: nothing is closed, nothing is given back.
    pub fn kill(self) {
        self.runtime.shutdown_background();
    }
}
