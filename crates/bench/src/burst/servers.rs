//! The servers of a case, their store, and the simulated workers on them: started together, ended
//! in the right order. Knows nothing of what is measured.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use volley_model::Millis;
use volley_wire::access::ServerAccess;
use volley_wire::client::Client;

use super::processes::{ServerProcess, WorkersProcess};
use super::redis::{RedisServer, RunningRedis};
use super::{BurstError, Programs, SimulatedWorkers, StorePlace, registered};

/// What a case runs on.
pub(super) struct Stage<'a> {
    pub(super) servers: usize,
    pub(super) redis: Option<&'a RedisServer>,
    pub(super) workers: usize,
    pub(super) slots: u32,
    pub(super) shapes: usize,
    pub(super) run_for: Millis,
    pub(super) registered_workers: u32,
    pub(super) spread: bool,
    pub(super) observed: bool,
}

/// As a monitoring system would, and more often.
const OBSERVED_EVERY: Duration = Duration::from_secs(1);

/// All that runs beside the bench, in the order in which it ends.
pub(super) struct Running {
    pub(super) workers: WorkersProcess,
    servers: Vec<(ServerProcess, Client)>,
    pub(super) redis: Option<RunningRedis>,
    /// End with it.
    _observers: JoinSet<()>,
}

/// Reads `/metrics` of each server, again and again.
fn observe(servers: &[(ServerProcess, Client)]) -> JoinSet<()> {
    let mut observers = JoinSet::new();
    for (_, client) in servers {
        let client = client.clone();
        observers.spawn(async move {
            loop {
                // Told by the bench itself when the server is gone.
                let _ = client.bytes(Method::GET, "/metrics", None).await;
                tokio::time::sleep(OBSERVED_EVERY).await;
            }
        });
    }
    observers
}

impl Running {
    pub(super) async fn start(stage: &Stage<'_>, dir: &Path, programs: &dyn Programs) -> Result<Self, BurstError> {
        let redis = stage.redis.map(|server| RunningRedis::start(server, dir)).transpose()?;
        let mut servers = Vec::new();
        for number in 0..stage.servers.max(1) {
            let place = match &redis {
                None => StorePlace::Folder(dir.join(format!("data{number}"))),
                Some(redis) => StorePlace::Redis { url: redis.url.clone(), cell: redis.cell.clone() },
            };
            let server = ServerProcess::start(programs, &place)?;
            let client = Client::new(&ServerAccess::open(&server.url)).map_err(refused)?;
            servers.push((server, client));
        }
        if let (Some(redis), 1..) = (&redis, stage.registered_workers) {
            registered::register(&redis.url, &redis.cell, stage.registered_workers).await?;
        }
        let urls = servers.iter().map(|(server, _)| server.url.clone()).collect();
        let Stage { workers, slots, shapes, run_for, .. } = *stage;
        let workers =
            WorkersProcess::start(programs, &SimulatedWorkers { servers: urls, workers, slots, shapes, run_for })?;
        let observers = if stage.observed { observe(&servers) } else { JoinSet::new() };
        let running = Self { workers, servers, redis, _observers: observers };
        if stage.spread {
            let pool = json!({ "name": "default", "strategy": "spread" });
            let client = &running.servers[0].1;
            client.json(Method::PUT, "/v1/pools/default", Some(&pool)).await.map_err(refused)?;
        }
        Ok(running)
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(|(server, _)| server.url.clone()).collect()
    }

    /// Of each server.
    pub(super) async fn get_each(&self, path: &str) -> Result<Vec<Value>, BurstError> {
        let mut answers = Vec::new();
        for (_, client) in &self.servers {
            answers.push(client.json(Method::GET, path, None).await.map_err(refused)?);
        }
        Ok(answers)
    }

    /// What any server answers alike.
    pub(super) async fn get(&self, path: &str) -> Result<Value, BurstError> {
        self.servers[0].1.json(Method::GET, path, None).await.map_err(refused)
    }

    /// A change asked of the first server.
    pub(super) async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, BurstError> {
        self.servers[0].1.json(method, path, Some(body)).await.map_err(refused)
    }

    /// Of all servers together.
    pub(super) fn cpu_ms(&self) -> f64 {
        self.servers.iter().map(|(server, _)| server.cpu_ms()).sum()
    }

    /// Of all servers together.
    pub(super) fn rss(&self) -> u64 {
        self.servers.iter().map(|(server, _)| server.rss()).sum()
    }

    /// Of all servers together.
    pub(super) fn peak_rss(&self) -> u64 {
        self.servers.iter().map(|(server, _)| server.peak_rss()).sum()
    }

    pub(super) fn end(self) -> Result<(), BurstError> {
        let Self { workers, servers, redis, _observers } = self;
        drop((_observers, workers));
        for (server, _) in servers {
            server.end();
        }
        redis.map_or(Ok(()), RunningRedis::end)
    }
}

fn refused(error: impl std::fmt::Display) -> BurstError {
    BurstError::Server(error.to_string())
}
