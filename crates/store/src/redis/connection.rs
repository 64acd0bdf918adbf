//! The connection to the server: made when it is needed, given up at the first doubt, made again
//! with backoff. A call is sent once; whether it arrived is not guessed. Knows no operations.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::scripts::{Name, Scripts};
use crate::StoreError;

/// Calls under way; more wait at their callers.
const CALLS_UNDER_WAY_MAX: usize = 1_024;
/// Wait before the second attempt to connect; doubles with each.
const BACKOFF: Duration = Duration::from_millis(50);
/// The longest wait: an operator who started the server again should not have to wait for us.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A way to the server.
pub(super) struct Connection {
    client: Client,
    config: AsyncConnectionConfig,
    scripts: Scripts,
    /// The key that all scripts are given.
    meta_key: String,
    state: Mutex<State>,
    under_way: Semaphore,
    /// How often a connection was made. Whoever sees another number than before has missed something.
    made: AtomicU64,
}

#[derive(Default)]
struct State {
    connection: Option<(u64, MultiplexedConnection)>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Connection {
    pub(super) fn new(client: Client, call_timeout: Duration, scripts: Scripts, meta_key: String) -> Self {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(call_timeout))
            .set_response_timeout(Some(call_timeout));
        let under_way = Semaphore::new(CALLS_UNDER_WAY_MAX);
        Self { client, config, scripts, meta_key, state: Mutex::default(), under_way, made: AtomicU64::new(0) }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Connections made so far.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }

    /// The connection there is, or a new one. Fails when the server cannot be reached now.
    async fn get(&self) -> Result<(u64, MultiplexedConnection), StoreError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok(connection.clone());
        }
        if let Some(at) = state.not_before {
            tokio::time::sleep_until(at).await;
        }
        match self.client.get_multiplexed_async_connection_with_config(&self.config).await {
            Ok(connection) => {
                let number = self.made.fetch_add(1, Ordering::SeqCst) + 1;
                *state = State { connection: Some((number, connection.clone())), ..State::default() };
                Ok((number, connection))
            }
            Err(error) => {
                state.failures += 1;
                state.not_before = Some(Instant::now() + backoff(state.failures));
                Err(StoreError::Unavailable { reason: format!("Redis cannot be reached: {error}") })
            }
        }
    }

    /// Whoever used this connection could not trust it any more.
    async fn give_up(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.connection.as_ref().is_some_and(|(of, _)| *of == number) {
            state.connection = None;
        }
    }

    /// Runs a script once. "Unknown" when it was sent and not answered.
    pub(super) async fn run(&self, name: Name, arguments: &[Vec<u8>]) -> Result<Value, StoreError> {
        let _permit = self.under_way.acquire().await.map_err(|_| StoreError::Closed)?;
        let (number, mut connection) = self.get().await?;
        let source = self.scripts.get(name);
        let mut loaded = false;
        loop {
            let hash = match source.hash.get() {
                Some(hash) => hash,
                None => self.load(number, &mut connection, name).await?,
            };
            let mut command = redis::cmd(if Scripts::reads(name) { "EVALSHA_RO" } else { "EVALSHA" });
            command.arg(hash).arg(1).arg(&self.meta_key).arg(arguments);
            let error = match command.query_async(&mut connection).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) && !loaded {
                // It was not run: the server was started again, or its scripts were flushed.
                self.load(number, &mut connection, name).await?;
                loaded = true;
                continue;
            }
            return Err(self.failed(number, error).await);
        }
    }

    async fn load(
        &self,
        number: u64,
        connection: &mut MultiplexedConnection,
        name: Name,
    ) -> Result<&String, StoreError> {
        let source = self.scripts.get(name);
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&source.text);
        match command.query_async::<String>(connection).await {
            Ok(hash) => Ok(source.hash.get_or_init(|| hash)),
            Err(error) => {
                self.failed(number, error.clone()).await;
                Err(StoreError::Unavailable { reason: format!("Redis took not the script {name:?}: {error}") })
            }
        }
    }

    /// Loads all scripts, so that the first calls of each do not wait for it.
    pub(super) async fn load_scripts(&self) -> Result<(), StoreError> {
        for name in Scripts::names() {
            let (number, mut connection) = self.get().await?;
            self.load(number, &mut connection, name).await?;
        }
        Ok(())
    }

    /// A plain command that changes nothing.
    pub(super) async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, StoreError> {
        let (number, mut connection) = self.get().await?;
        match command.query_async(&mut connection).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(match self.failed(number, error).await {
                StoreError::Unknown { reason } => StoreError::Unavailable { reason },
                other => other,
            }),
        }
    }

    /// What an error means for the caller. Anything but the server's own refusal ends the connection.
    async fn failed(&self, number: u64, error: RedisError) -> StoreError {
        let reason = error.to_string();
        match error.kind() {
            ErrorKind::Server(kind) => {
                // Not the server that writes: after a failover the name leads to another.
                if matches!(kind, ServerErrorKind::ReadOnly | ServerErrorKind::Moved | ServerErrorKind::MasterDown) {
                    self.give_up(number).await;
                }
                StoreError::Unavailable { reason: format!("Redis refused: {reason}") }
            }
            // OOM, NOPERM, MISCONF and the like: refused before anything was written.
            ErrorKind::Extension if is_refusal(error.code()) => {
                StoreError::Unavailable { reason: format!("Redis refused: {reason}") }
            }
            _ => {
                self.give_up(number).await;
                StoreError::Unknown { reason: format!("no answer from Redis: {reason}") }
            }
        }
    }
}

fn is_refusal(code: Option<&str>) -> bool {
    matches!(code, Some("OOM" | "MISCONF" | "NOPERM" | "NOAUTH" | "NOREPLICAS" | "BUSY" | "LOADING"))
}

/// Half of the wait and a random part of the other half: servers that lost the same Redis do not come back at once.
fn backoff(failures: u32) -> Duration {
    let wait = BACKOFF.saturating_mul(1 << (failures - 1).min(6)).min(BACKOFF_MAX);
    let random = RandomState::new().build_hasher().finish() % 1_000;
    wait / 2 + (wait / 2).mul_f64(random as f64 / 1_000.0)
}
