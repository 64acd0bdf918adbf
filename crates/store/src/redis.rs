//! The shared store: the ledger's rules as one Lua script for each operation, its state in Redis
//! or Valkey, so that any number of servers work on one truth. Proven equal to the ledger by
//! playing the same operations on both. Knows nothing of planning or workers' streams.

mod arguments;
mod audit;
mod connection;
mod health;
mod hints;
mod overview;
mod reads;
mod replies;
mod rows;
mod scale;
mod scripts;
mod sliced;
mod words;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use redis::{Client, ClientTlsConfig, TlsCertificates};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use volley_ledger::{Answer, Claim, Hint, LedgerOptions, Operation, Query, Reply};
use volley_model::FleetVersion;

use crate::{Clock, Store, StoreError, StoreFuture, StoreStats};
use arguments::Arguments;
use connection::Connection;
use health::Health;
use hints::Listener;
pub use scripts::SCRIPT_ITEMS_MAX;
use scripts::Scripts;

/// Hints a slow listener may lag behind before it loses some.
const HINTS_KEPT: usize = 1_024;
/// Longest name of a cell.
const CELL_BYTES_MAX: usize = 63;

/// Whom to trust, and what to show, where the URL begins with `rediss://`; all PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Certificates of who may have signed the server's; those of the system when `None`.
    pub ca: Option<Vec<u8>>,
    /// A certificate and its key, for a server that asks its clients for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// A key is nobody's to see.
impl std::fmt::Debug for RedisTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ca, identity } = self;
        f.debug_struct("RedisTls").field("ca", &ca.is_some()).field("identity", &identity.is_some()).finish()
    }
}

/// How to reach a cell.
#[derive(Clone)]
pub struct RedisOptions {
    /// As in `redis://user:password@host:6379/0`, `rediss://...` (TLS) or `redis+unix:///run/redis.sock?db=1`.
    pub url: String,
    /// For `rediss://`.
    pub tls: RedisTls,
    /// The cell: all its keys begin with `{volley:CELL}:`, so that they are kept together.
    pub cell: String,
    /// The ledger's limits and terms.
    pub ledger: LedgerOptions,
    /// A call that is not answered for so long is "unknown".
    pub call_timeout: Duration,
    /// How often everything is looked at even if no hint came.
    pub take_interval: Duration,
    /// Most items that one call of a script touches; more take several calls.
    pub script_items_max: u32,
    /// How often the server's settings are looked at.
    pub settings_interval: Duration,
    /// The time of a test; the server's own clock when `None`.
    pub clock: Option<Clock>,
}

impl RedisOptions {
    /// A server, the cell `default`, and all else at its default.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            tls: RedisTls::default(),
            cell: "default".to_owned(),
            ledger: LedgerOptions::default(),
            call_timeout: Duration::from_secs(5),
            take_interval: Duration::from_secs(1),
            script_items_max: SCRIPT_ITEMS_MAX,
            settings_interval: Duration::from_secs(15),
            clock: None,
        }
    }
}

/// Never with a password.
impl std::fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, tls, cell, .. } = self;
        let mut shown = f.debug_struct("RedisOptions");
        shown.field("url", &without_secret(url)).field("tls", tls).field("cell", cell).finish_non_exhaustive()
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
    tasks: [JoinHandle<()>; 2],
    health: Arc<Health>,
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
        let client = client(&options)
            .map_err(|error| RedisOpenError::Url { url: without_secret(&options.url), problem: error.to_string() })?;
        let prefix = format!("{{volley:{}}}:", options.cell);
        let meta_key = format!("{prefix}meta");
        let scripts = Scripts::new(&options.ledger, options.script_items_max.max(1));
        let connection = Arc::new(Connection::new(client, options.call_timeout, scripts, meta_key.clone()));
        let health = Arc::new(health::check(&connection, &meta_key).await?);
        let (hints, _) = broadcast::channel(HINTS_KEPT);
        let listener = Listener {
            connection: Arc::clone(&connection),
            channel: format!("{prefix}hints"),
            meta_key,
            hints: hints.clone(),
            health: Arc::clone(&health),
        };
        let watching = health::watch(Arc::clone(&connection), Arc::clone(&health), options.settings_interval);
        let tasks = [tokio::spawn(hints::listen(listener)), tokio::spawn(watching)];
        Ok(Self {
            heard_in: AtomicU64::new(connection.made()),
            connection,
            options,
            hints,
            tasks,
            health,
            operations: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        })
    }

    /// Loads all scripts into the server, which says of each whether it can run it; else the first call of each does.
    pub async fn load_scripts(&self) -> Result<(), StoreError> {
        self.connection.load_scripts().await
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
        if let (Operation::Submit(_), Some(refusal)) = (&operation, self.health.refusal()) {
            return Err(refusal);
        }
        if let Operation::Stop(op) = &operation {
            return Ok(Reply::Stop(self.stop(op).await?));
        }
        if let Operation::Sweep(op) = &operation {
            return Ok(Reply::Sweep(self.sweep(op).await?));
        }
        if let Operation::Heartbeat(op) = &operation {
            return Ok(Reply::Heartbeat(self.heartbeat(op).await?));
        }
        let made = self.connection.made();
        if let Operation::Claim(claim) = &mut operation {
            self.forget_fleet(claim, made);
        }
        let mut arguments = self.arguments();
        let name = arguments::of_operation(&operation, &mut arguments);
        let value = self.connection.run(name, &arguments.0).await?;
        let mut reply = replies::of_operation(&operation, value, &self.options.ledger)?;
        if let Reply::Claim(Ok(claimed)) = &mut reply {
            claimed.fleet = self.whole_reload(std::mem::take(&mut claimed.fleet)).await?;
        }
        Ok(reply)
    }

    fn items_max(&self) -> u32 {
        self.options.script_items_max.max(1)
    }

    /// The first claim after a lost connection loads the fleet anew: a server that was rolled back may have given
    /// versions that are known here to other changes.
    fn forget_fleet(&self, claim: &mut Claim, made: u64) {
        if self.heard_in.swap(made, Ordering::SeqCst) != made {
            claim.known = FleetVersion(0);
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

    fn incarnation(&self) -> u64 {
        self.health.incarnation()
    }

    fn warnings(&self) -> Vec<String> {
        self.health.warnings()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Connects to nothing yet.
fn client(options: &RedisOptions) -> redis::RedisResult<Client> {
    static PROVIDER: Once = Once::new();
    // redis-rs takes the process' one. Somebody else may have chosen it: that is as good.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let RedisTls { ca, identity } = options.tls.clone();
    if ca.is_none() && identity.is_none() {
        return Client::open(options.url.as_str());
    }
    let client_tls = identity.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    Client::build_with_tls(options.url.as_str(), TlsCertificates { client_tls, root_cert: ca })
}

/// A URL as it may be shown: without user and password, wherever they stand in it.
#[must_use]
pub fn without_secret(url: &str) -> String {
    let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query)));
    let shown = match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    };
    let Some(query) = query else { return shown };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name @ ("user" | "pass"), _)) => format!("{name}=***"),
        _ => pair.to_owned(),
    });
    format!("{shown}?{}", pairs.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        assert_eq!(without_secret("redis://me:secret@host:1/0"), "redis://***@host:1/0");
        assert_eq!(without_secret("redis://host:1/0"), "redis://host:1/0");
        assert_eq!(
            without_secret("redis+unix:///run/redis.sock?db=1&user=me&pass=a@b"),
            "redis+unix:///run/redis.sock?db=1&user=***&pass=***"
        );
        let options = RedisOptions::new("redis://me:secret@host:1/0");
        assert!(!format!("{options:?}").contains("secret"), "{options:?}");
    }
}
