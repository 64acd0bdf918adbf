//! The stores under test behind one face: operations at a given time, reads, and an end that
//! every process may meet at any moment. Knows no cases.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use volley_ledger::{Answer, LedgerOptions, Operation, Query, Reply};
use volley_model::Timestamp;
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore, OpenError};
use volley_store::redis::{RedisOptions, RedisStore};
use volley_store::{Clock, Store};

use crate::model::Model;
use crate::redis_server::RedisServer;

/// A store under test.
pub enum Subject {
    Bare(Box<Model>),
    Stored(Box<Stored>),
}

type StoreFuture = Pin<Box<dyn Future<Output = Arc<dyn Store>>>>;

/// A store with state outside of this process' memory.
pub struct Stored {
    runtime: Runtime,
    now: Arc<AtomicU64>,
    store: Option<Arc<dyn Store>>,
    reopen: Box<dyn Fn() -> StoreFuture>,
    reopen_always: bool,
}

impl Subject {
    pub fn bare(options: LedgerOptions) -> Self {
        Self::Bare(Box::new(Model::new(options)))
    }

    /// Real files.
    pub fn sqlite(options: LedgerOptions) -> Self {
        Self::sqlite_with(options, false)
    }

    /// Real files, closed and opened again after every durable operation.
    pub fn sqlite_reopened(options: LedgerOptions) -> Self {
        Self::sqlite_with(options, true)
    }

    fn sqlite_with(ledger: LedgerOptions, reopen_always: bool) -> Self {
        let dir: TempDir = tempfile::tempdir().expect("a temporary folder");
        let now = Arc::new(AtomicU64::new(0));
        let time = Arc::clone(&now);
        let open = move || -> StoreFuture {
            let time = Arc::clone(&time);
            let clock = Clock::given(move || Timestamp(time.load(Ordering::SeqCst)));
            let options = EmbeddedOptions { ledger: ledger.clone(), clock, ..EmbeddedOptions::new(dir.path().into()) };
            Box::pin(async { Arc::new(opened(options)) as Arc<dyn Store> })
        };
        Self::stored(now, Box::new(open), reopen_always)
    }

    /// A cell of its own on the test's own server. Opened again it is as it was: another server's view of it.
    pub fn redis(ledger: LedgerOptions) -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let time = Arc::clone(&now);
        let (server, cell) = RedisServer::cell();
        let open = move || -> StoreFuture {
            let time = Arc::clone(&time);
            let clock = Clock::given(move || Timestamp(time.load(Ordering::SeqCst)));
            let (ledger, cell) = (ledger.clone(), cell.clone());
            let options = RedisOptions { ledger, cell, clock: Some(clock), ..RedisOptions::new(&server.url()) };
            Box::pin(async { Arc::new(RedisStore::open(options).await.expect("the server answers")) as Arc<dyn Store> })
        };
        Self::stored(now, Box::new(open), false)
    }

    fn stored(now: Arc<AtomicU64>, reopen: Box<dyn Fn() -> StoreFuture>, reopen_always: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let store = runtime.block_on(reopen());
        Self::Stored(Box::new(Stored { runtime, now, store: Some(store), reopen, reopen_always }))
    }

    pub fn apply(&mut self, now: Timestamp, operation: Operation) -> Reply {
        match self {
            Self::Bare(model) => model.apply(now, operation),
            Self::Stored(stored) => {
                stored.now.store(now.0, Ordering::SeqCst);
                let reopen = stored.reopen_always && is_durable(&operation);
                let store = stored.store.as_ref().expect("open");
                let reply = stored.runtime.block_on(store.apply(operation)).expect("nothing fails here");
                if reopen {
                    self.restart();
                }
                reply
            }
        }
    }

    pub fn read(&mut self, query: Query) -> Answer {
        match self {
            Self::Bare(model) => model.read(query),
            Self::Stored(stored) => {
                let store = stored.store.as_ref().expect("open");
                stored.runtime.block_on(store.read(query)).expect("nothing fails here")
            }
        }
    }

    /// The store ends and comes back with what it had written.
    pub fn restart(&mut self) {
        match self {
            Self::Bare(model) => model.restart(),
            Self::Stored(stored) => {
                // The old one must be gone first: it holds the files.
                stored.store = None;
                stored.store = Some(stored.runtime.block_on((stored.reopen)()));
            }
        }
    }
}

/// Whether an operation's effects outlive the process. Claims, heartbeats and leases do not.
pub fn is_durable(operation: &Operation) -> bool {
    !matches!(
        operation,
        Operation::Claim(_) | Operation::Heartbeat(_) | Operation::OpenSession(_) | Operation::LeadScaling(_)
    )
}

/// Tries of [`opened`], a millisecond apart.
const OPEN_TRIES: u32 = 10_000;

/// Another test of this process may be about to start a server: until that is done, its child holds a copy of every
/// descriptor, the lock's among them.
fn opened(options: EmbeddedOptions) -> EmbeddedStore {
    for _ in 1..OPEN_TRIES {
        match EmbeddedStore::open(options.clone()) {
            Err(OpenError::InUse { .. }) => std::thread::sleep(Duration::from_millis(1)),
            other => return other.expect("the files open"),
        }
    }
    EmbeddedStore::open(options).expect("the files open")
}
