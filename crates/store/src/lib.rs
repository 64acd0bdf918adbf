//! Where the ledger's state is kept. The [`Store`] trait is small; typed calls are in
//! [`StoreExt`]. `embedded` is the ledger plus SQLite. Knows nothing of planning, wire
//! formats or workers' streams.

mod clock;
pub mod embedded;
mod measured;
pub mod redis;

pub use measured::MeasuredStore;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::broadcast;
use volley_ledger::{Answer, Hint, Operation, Query, Reply, Request};

pub use clock::Clock;

/// A future of the store, boxed so that stores can be chosen at run time.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why the store could not answer. What the operation itself refuses is in its reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It may or may not have happened: send the same again (same key, same number).
    #[error("the outcome is unknown ({reason}); send the same request again")]
    Unknown {
        /// What went wrong.
        reason: String,
    },
    /// It did not happen: the store cannot take it now.
    #[error("the store cannot take this now: {reason}")]
    Unavailable {
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// There is no copy in the file that was named.
    #[error("no copy in {file}: {problem}")]
    NoCopy {
        /// Where it should have been.
        file: String,
        /// What is wrong and how to mend it.
        problem: String,
    },
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
}

/// Keeps the ledger's state. An answer means durable.
pub trait Store: Send + Sync + 'static {
    /// One operation.
    fn apply(&self, operation: Operation) -> StoreFuture<'_, Reply>;

    /// One read.
    fn read(&self, query: Query) -> StoreFuture<'_, Answer>;

    /// Wake-ups, given only after what they speak of is durable. A lagging receiver loses some.
    fn hints(&self) -> broadcast::Receiver<Hint>;

    /// Writes a consistent copy to a new file, while running.
    fn backup(&self, file: std::path::PathBuf) -> StoreFuture<'_, ()>;

    /// Calls and their times so far, for the bench and metrics.
    fn stats(&self) -> StoreStats;

    /// How often everything is to be looked at even if no hint came; `None` for a store whose hints do not get lost.
    fn take_interval(&self) -> Option<Duration> {
        None
    }

    /// Another number whenever the state is found to be kept by another process than before, which may not know all that
    /// was acknowledged: what workers hold is to be compared with it again.
    fn incarnation(&self) -> u64 {
        0
    }

    /// What can be lost by how the store is set up, in words, and what was; empty when nothing acknowledged can.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Counters of a store since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Operations applied.
    pub operations: u64,
    /// Reads answered.
    pub reads: u64,
    /// Durable transactions.
    pub transactions: u64,
}

/// Typed calls.
pub trait StoreExt: Store {
    /// One operation with its typed reply.
    fn call<R: Request>(&self, request: R) -> impl Future<Output = Result<R::Reply, StoreError>> + Send
    where
        R::Reply: Send,
    {
        let reply = self.apply(request.into_operation());
        async move {
            let reply = reply.await?;
            Ok(R::from_reply(reply).expect("a store answers an operation with its own reply"))
        }
    }
}

impl<S: Store + ?Sized> StoreExt for S {}
