//! The shared store: the ledger's rules as one Lua script for each operation, its state in Redis
//! or Valkey, so that any number of servers work on one truth. Proven equal to the ledger by
//! playing the same operations on both. Knows nothing of planning or workers' streams.

mod arguments;
mod connection;
mod health;
mod hints;
mod overview;
mod reads;
mod replies;
mod rows;
mod scale;
mod scripts;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::Client;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use volley_ledger::{Answer, Claim, Hint, LedgerOptions, Operation, Query, Reply, Stop, StopReply};
use volley_model::FleetVersion;

use crate::{Clock, Store, StoreError, StoreFuture, StoreStats};
use arguments::Arguments;
use connection::Connection;
use replies::Items;
use scripts::Scripts;

/// Hints a slow listener may lag behind before it loses some.
const HINTS_KEPT: usize = 1_024;
/// Longest name of a cell.
const CELL_BYTES_MAX: usize = 63;

/// How to reach a cell.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// As in `redis://user:password@host:6379/0` or `redis+unix:///run/redis.sock?db=1`.
    pub url: String,
    /// The cell: all its keys begin with `{volley:CELL}:`, so that they are kept together.
    pub cell: String,
    /// The ledger's limits and terms.
    pub ledger: LedgerOptions,
    /// A call that is not answered for so long is "unknown".
    pub call_timeout: Duration,
    /// How often everything is looked at even if no hint came.
    pub take_interval: Duration,
    /// The time of a test; the server's own clock when `None`.
    pub clock: Option<Clock>,
}

impl RedisOptions {
    /// A server, the cell `default`, and all else at its default.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            cell: "default".to_owned(),
            ledger: LedgerOptions::default(),
            call_timeout: Duration::from_secs(5),
            take_interval: Duration::from_secs(1),
            clock: None,
        }
    }
}

/// Why a cell was not opened.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    /// The URL is none.
    #[error("'{url}' is not the URL of a Redis server ({problem}); give one like redis://127.0.0.1:6379/0")]
    Url {
        /// Without its password.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The cell's name.
    #[error("'{cell}' is not a cell's name: give 1 to 63 letters, digits, '-', '_' or '.'")]
    Cell {
        /// What was given.
        cell: String,
    },
    /// Scripts need more.
    #[error("the server is version {found}; Redis or Valkey 7.0 or newer is needed")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// It may drop keys by itself.
    #[error("maxmemory-policy is '{policy}', which drops keys when memory is short; set it to noeviction")]
    Evicts {
        /// The policy.
        policy: String,
    },
    /// Another version of Volley was here.
    #[error("the cell's layout is version {found}, this program knows up to {known}; start a newer one")]
    Newer {
        /// In the store.
        found: u32,
        /// By this program.
        known: u32,
    },
    /// It cannot be reached or does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A cell in Redis or Valkey.
pub struct RedisStore {
    connection: Arc<Connection>,
    options: RedisOptions,
    hints: broadcast::Sender<Hint>,
    listening: JoinHandle<()>,
    warnings: Vec<String>,
    /// The connection in which the fleet was last known to be heard of in full.
    heard_in: AtomicU64,
    operations: AtomicU64,
    reads: AtomicU64,
}

impl RedisStore {
    /// Connects to a cell, after a check of the server.
    pub async fn open(options: RedisOptions) -> Result<Self, RedisOpenError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if options.cell.is_empty() || options.cell.len() > CELL_BYTES_MAX || !options.cell.bytes().all(good) {
            return Err(RedisOpenError::Cell { cell: options.cell });
        }
        let client = Client::open(options.url.as_str());
        let client = client
            .map_err(|error| RedisOpenError::Url { url: without_secret(&options.url), problem: error.to_string() })?;
        let prefix = format!("{{volley:{}}}:", options.cell);
        let meta_key = format!("{prefix}meta");
        let scripts = Scripts::new(&options.ledger);
        let connection = Arc::new(Connection::new(client, options.call_timeout, scripts, meta_key.clone()));
        let warnings = health::check(&connection, &meta_key).await?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let (hints, _) = broadcast::channel(HINTS_KEPT);
        let listening = tokio::spawn(hints::listen(Arc::clone(&connection), format!("{prefix}hints"), hints.clone()));
        Ok(Self {
            heard_in: AtomicU64::new(connection.made()),
            connection,
            options,
            hints,
            listening,
            warnings,
            operations: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        })
    }

    fn arguments(&self) -> Arguments {
        let mut arguments = Arguments::default();
        match &self.options.clock {
            Some(clock) => arguments.number(clock.now().0),
            None => arguments.text(""),
        };
        arguments
    }

    async fn operate(&self, mut operation: Operation) -> Result<Reply, StoreError> {
        self.operations.fetch_add(1, Ordering::Relaxed);
        if let Operation::Stop(op) = &operation {
            return Ok(Reply::Stop(self.stop(op).await?));
        }
        let made = self.connection.made();
        if let Operation::Claim(claim) = &mut operation {
            self.forget_fleet(claim, made);
        }
        let mut arguments = self.arguments();
        let name = arguments::of_operation(&operation, &mut arguments);
        let value = self.connection.run(name, &arguments.0).await?;
        Ok(replies::of_operation(&operation, value, &self.options.ledger)?)
    }

    /// The first claim after a lost connection loads the fleet anew: a server that was rolled back may have given
    /// versions that are known here to other changes.
    fn forget_fleet(&self, claim: &mut Claim, made: u64) {
        if self.heard_in.swap(made, Ordering::SeqCst) != made {
            claim.known = FleetVersion(0);
        }
    }

    /// A stop, as many calls as the group's size takes.
    async fn stop(&self, op: &Stop) -> Result<Result<StopReply, volley_ledger::NotFound>, StoreError> {
        let mut sum = StopReply::default();
        let mut from = 0;
        loop {
            let mut arguments = self.arguments();
            let name = arguments::stop(op, from, &mut arguments);
            let value = self.connection.run(name, &arguments.0).await?;
            let (reply, next) = match replies::stop(&mut Items::of(value).map_err(StoreError::from)?, op.target)? {
                Ok(reply) => reply,
                Err(not_found) => return Ok(Err(not_found)),
            };
            sum.finished += reply.finished;
            sum.stopping += reply.stopping;
            sum.already_finished += reply.already_finished;
            match next {
                Some(next) => from = next,
                None => return Ok(Ok(sum)),
            }
        }
    }
}

impl Store for RedisStore {
    fn apply(&self, operation: Operation) -> StoreFuture<'_, Reply> {
        Box::pin(self.operate(operation))
    }

    fn read(&self, query: Query) -> StoreFuture<'_, Answer> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Box::pin(self.answer(query))
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    fn backup(&self, _file: PathBuf) -> StoreFuture<'_, ()> {
        Box::pin(async {
            Err(StoreError::Unavailable {
                reason: "a cell in Redis is backed up with Redis' own means (BGSAVE, or a copy of its AOF)".to_owned(),
            })
        })
    }

    fn stats(&self) -> StoreStats {
        let operations = self.operations.load(Ordering::Relaxed);
        StoreStats { operations, reads: self.reads.load(Ordering::Relaxed), transactions: operations }
    }

    fn take_interval(&self) -> Option<Duration> {
        Some(self.options.take_interval)
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// A URL as it may be shown.
#[must_use]
pub fn without_secret(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        assert_eq!(without_secret("redis://me:secret@host:1/0"), "redis://***@host:1/0");
        assert_eq!(without_secret("redis://host:1/0"), "redis://host:1/0");
    }
}
