//! The embedded store: the ledger in memory, SQLite on disk, one thread that owns both.
//! Acknowledged means on disk. Knows nothing of planning or workers' streams.

mod backup;
mod batch;
mod directory;
mod disk;
mod error;
mod event_codec;
mod faults;
mod load;
mod old_events;
mod readers;
mod rows;
mod schema;
mod tail;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{broadcast, mpsc, oneshot};
use volley_ledger::{Answer, EventPage, Hint, LedgerOptions, Operation, Query, Reply};
use volley_model::{Bytes, EventNumber};

pub use error::OpenError;
pub use faults::{Faults, Place};

use crate::{Clock, Store, StoreError, StoreFuture, StoreStats};
use directory::DataDirectory;
use readers::Readers;
use tail::Tail;
use writer::{Counts, Request, Writer};

/// Calls that wait for the writer; more wait at the caller.
const CALLS_WAITING_MAX: usize = 16_384;
/// Most events of one page.
const EVENTS_PAGE_MAX: u32 = 10_000;
/// Hints a slow listener may lag behind before it loses some.
const HINTS_KEPT: usize = 1_024;

/// How to open a data directory.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The data directory; made when missing.
    pub dir: PathBuf,
    /// The ledger's limits and terms.
    pub ledger: LedgerOptions,
    /// With less free on the disk, what adds is refused.
    pub disk_free_min: Bytes,
    /// What time it is.
    pub clock: Clock,
    /// Where writes are made to fail, by tests.
    pub faults: Faults,
}

impl EmbeddedOptions {
    /// A directory with all else at its default: 64 MiB of the disk are kept in reserve.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            ledger: LedgerOptions::default(),
            disk_free_min: Bytes(64 << 20),
            clock: Clock::system(),
            faults: Faults::default(),
        }
    }
}

/// The ledger plus SQLite. Ends its threads when dropped.
pub struct EmbeddedStore {
    calls: Option<mpsc::Sender<Request>>,
    readers: Arc<Readers>,
    hints: broadcast::Sender<Hint>,
    counts: Arc<Counts>,
    tail: Arc<Tail>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens (and makes) a data directory; everything acknowledged before is there.
    pub fn open(options: EmbeddedOptions) -> Result<Self, OpenError> {
        let directory = DataDirectory::open(&options.dir)?;
        let file = directory.database();
        let (hints, _) = broadcast::channel(HINTS_KEPT);
        let counts = Arc::new(Counts::default());
        let tail = Arc::new(Tail::default());
        let writer = Writer::open(directory, options, hints.clone(), Arc::clone(&counts), Arc::clone(&tail))
            .map_err(|error| error.into_open(file.clone()))?;
        let failed = |error: std::io::Error| OpenError::Failed { file: file.clone(), problem: error.to_string() };
        let readers = Arc::new(Readers::start(&file).map_err(failed)?);
        let (sender, receiver) = mpsc::channel(CALLS_WAITING_MAX);
        let thread = std::thread::Builder::new().name("volley-store".to_owned());
        let thread = thread.spawn(move || writer.run(receiver)).map_err(failed)?;
        Ok(Self { calls: Some(sender), readers, hints, counts, tail, thread: Some(thread) })
    }

    async fn send<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let calls = self.calls.as_ref().expect("there until dropped");
        calls.send(request(answer)).await.map_err(|_| StoreError::Closed)?;
        let lost = || StoreError::Unknown { reason: "the store's thread ended".to_owned() };
        answered.await.unwrap_or_else(|_| Err(lost()))
    }

    /// A page of events that are not all in memory.
    async fn old_events(&self, after: EventNumber, max: usize) -> Result<EventPage, StoreError> {
        let last = self.tail.bounds().1;
        let mut events = self.readers.run(move |db| old_events::read(db, after, last, max)).await?;
        // Some may have been pruned meanwhile: they are passed over, as in memory.
        let (oldest, last) = self.tail.bounds();
        let seen = events.last().map_or(after, |event| event.number);
        events.retain(|event| event.number >= oldest);
        Ok(EventPage { events, oldest, last, seen })
    }
}

impl Store for EmbeddedStore {
    fn apply(&self, operation: Operation) -> StoreFuture<'_, Reply> {
        Box::pin(self.send(move |answer| Request::Apply(Box::new(operation), answer)))
    }

    fn read(&self, query: Query) -> StoreFuture<'_, Answer> {
        let Query::Events { after, max, scope } = query else {
            return Box::pin(self.send(move |answer| Request::Read(query, answer)));
        };
        Box::pin(async move {
            let max = max.min(EVENTS_PAGE_MAX) as usize;
            let page = match self.tail.page(after, max) {
                Some(page) => page,
                None => self.old_events(after, max).await?,
            };
            match scope {
                None => {
                    self.counts.on_read();
                    Ok(Answer::Events(page))
                }
                Some(tenant) => self.send(move |answer| Request::Show(page, tenant, answer)).await,
            }
        })
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    fn backup(&self, file: PathBuf) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let name = file.display().to_string();
            let copied = self.readers.run(move |db| Ok(backup::write(db, &file)));
            copied.await?.map_err(|error| match error {
                backup::BackupError::Exists | backup::BackupError::Io(_) => {
                    StoreError::NoCopy { file: name, problem: error.to_string() }
                }
                _ => StoreError::Unavailable { reason: format!("no copy in {name}: {error}") },
            })
        })
    }

    fn stats(&self) -> StoreStats {
        self.counts.stats()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was answered as "unknown" already.
            let _ = thread.join();
        }
    }
}
