//! `bench idle`: what servers, store and workers use while a backlog waits that fits nowhere.
//! Nobody may poll it. Knows nothing of the command line.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use volley_model::{CpuMilli, Millis, Spec};
use volley_wire::convert;
use volley_wire::proto::SubmitRequest;

use super::clock::rounded;
use super::counts::Counts;
use super::figures::CpuTime;
use super::load::Load;
use super::processes::own_cpu_ms;
use super::servers::{Running, Stage};
use super::{BurstError, Programs, RedisServer};
use crate::{Measure, Report, Runs, Spread};

/// Nothing was placed, and no claim or commit made, for so long: it has settled.
const SETTLED: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// It has to settle in so long.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// More CPU than a simulated worker has.
const CPU: CpuMilli = CpuMilli(1_000_000);

/// What to run.
#[derive(Debug, Clone)]
pub struct IdleBench {
    /// Containers that fit nowhere.
    pub containers: u32,
    /// Distinct shapes among them.
    pub shapes: u32,
    /// Simulated workers.
    pub workers: usize,
    /// How long is looked at.
    pub seconds: u64,
    /// Server processes.
    pub servers: usize,
    /// The Redis that they share; the embedded store when `None`.
    pub redis: Option<RedisServer>,
    /// Where the stores' directories are made.
    pub dir: PathBuf,
}

/// Processor time in percent of one core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdleRun {
    /// That waited.
    pub containers: u32,
    /// Distinct ones among them.
    pub shapes: u32,
    /// Simulated ones.
    pub workers: usize,
    /// Server processes.
    pub servers: usize,
    /// Which one.
    pub store: String,
    /// Looked at.
    pub seconds: u64,
    /// Of all servers.
    pub servers_percent: f64,
    /// Of Redis; 0 for an embedded store, which is in its server.
    pub redis_percent: f64,
    /// Of the simulated workers, all in one process.
    pub workers_percent: f64,
    /// Claims of all servers in that time.
    pub claims: u64,
    /// Calls of the store in that time, of all servers.
    pub store_calls: u64,
}

impl IdleRun {
    /// Of [`IdleRun::cells`].
    pub const HEADER: &[&str] =
        &["blocked", "shapes", "workers", "servers", "store", "redis %", "servers %", "workers %", "claims", "calls/s"];

    /// As a row of a table.
    #[must_use]
    pub fn cells(&self) -> Vec<String> {
        vec![
            self.containers.to_string(),
            self.shapes.to_string(),
            format!("{} simulated", self.workers),
            self.servers.to_string(),
            self.store.clone(),
            format!("{:.2}", self.redis_percent),
            format!("{:.2}", self.servers_percent),
            format!("{:.2}", self.workers_percent),
            self.claims.to_string(),
            format!("{:.1}", self.store_calls as f64 / self.seconds.max(1) as f64),
        ]
    }
}

impl std::fmt::Display for IdleRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { containers, shapes, workers, servers, store, .. } = self;
        write!(f, "{containers} blocked, {shapes} shapes, {workers} simulated workers, {servers} servers, {store}")
    }
}

impl IdleRun {
    pub(crate) fn measures(&self) -> Vec<Measure> {
        let once = |figure: f64| Spread { median: figure, min: figure, max: figure };
        vec![
            Measure { name: "redis_percent", spread: once(self.redis_percent) },
            Measure { name: "servers_percent", spread: once(self.servers_percent) },
        ]
    }
}

/// Measures. Needs a tokio runtime with I/O and time.
pub async fn idle(options: &IdleBench, programs: &dyn Programs) -> Result<Report, BurstError> {
    let failed = |problem| BurstError::Directory { dir: options.dir.clone(), problem };
    let dir = tempfile::tempdir_in(&options.dir).map_err(failed)?;
    let stage = Stage {
        servers: options.servers,
        redis: options.redis.as_ref(),
        workers: options.workers,
        slots: 2,
        shapes: 1,
        run_for: Millis(0),
        registered_workers: 0,
        spread: false,
        observed: false,
    };
    let mut running = Running::start(&stage, dir.path(), programs).await?;
    Load::connect(&running.urls()).await?.submit(submissions(options)).await?;
    settle(&running).await?;
    let (counts, cpu) = (counts(&running).await?, cpu(&mut running)?);
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let (then, cpu_then) = (self::counts(&running).await?, self::cpu(&mut running)?);
    let counts = then.since(&counts);
    check(&running, options).await?;
    running.end()?;
    let percent = |now: f64, before: f64| rounded((now - before) / 10.0 / options.seconds.max(1) as f64);
    let run = IdleRun {
        containers: options.containers,
        shapes: options.shapes,
        workers: options.workers,
        servers: options.servers,
        store: if options.redis.is_some() { "redis" } else { "embedded" }.to_owned(),
        seconds: options.seconds,
        servers_percent: percent(cpu_then.server, cpu.server),
        redis_percent: percent(cpu_then.redis, cpu.redis),
        workers_percent: percent(cpu_then.workers, cpu.workers),
        claims: counts.claims,
        store_calls: counts.store_calls,
    };
    Ok(Report::of(obtained(options), Runs::Idle(vec![run])))
}

fn submissions(options: &IdleBench) -> Vec<SubmitRequest> {
    let shapes = options.shapes.clamp(1, options.containers.max(1));
    let part = |shape: u32| options.containers / shapes + u32::from(shape < options.containers % shapes);
    let request = |shape: u32| {
        let mut spec = Spec::of_command("true", &[]);
        spec.resources.cpu = CpuMilli(CPU.0 + u64::from(shape));
        SubmitRequest {
            specs: vec![convert::spec_to(&spec)],
            count: Some(part(shape).into()),
            ..SubmitRequest::default()
        }
    };
    (0..shapes).map(request).collect()
}

async fn counts(running: &Running) -> Result<Counts, BurstError> {
    Ok(Counts::of(&running.get_each("/v1/stats").await?))
}

fn cpu(running: &mut Running) -> Result<CpuTime, BurstError> {
    let redis = running.redis.as_mut().map(|redis| redis.used()).transpose()?.unwrap_or_default();
    Ok(CpuTime {
        server: running.cpu_ms(),
        redis: redis.cpu_ms,
        workers: running.workers.cpu_ms(),
        bench: own_cpu_ms(),
    })
}

/// Until turns have stopped.
async fn settle(running: &Running) -> Result<(), BurstError> {
    let begin = std::time::Instant::now();
    let (mut last, mut since) = (None, begin);
    while begin.elapsed() < SETTLE_MAX {
        let counts = counts(running).await?;
        let now = (counts.claims - counts.claims_idle, counts.commits);
        if last != Some(now) {
            (last, since) = (Some(now), std::time::Instant::now());
        } else if since.elapsed() > SETTLED {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(BurstError::Server(format!("it did not settle in {} s", SETTLE_MAX.as_secs())))
}

/// All wait still, and the laws hold.
async fn check(running: &Running, options: &IdleBench) -> Result<(), BurstError> {
    let audit = running.get("/v1/audit").await?;
    if audit["ok"] == true && audit["queued"].as_u64() == Some(options.containers.into()) {
        return Ok(());
    }
    let case = format!("{} containers that fit nowhere", options.containers);
    Err(BurstError::Wrong { case, problem: format!("the server says: {audit}") })
}

fn obtained(options: &IdleBench) -> String {
    let store = options.redis.as_ref().map_or("its embedded store".to_owned(), RedisServer::words);
    format!(
        "real server processes on {store}; simulated workers: real agents on streams of their own, in one other process, \
         which send their heartbeats and have nothing to do; containers that ask for more than any worker has. Measured \
         when turns had stopped for {} s; percent are of one core; all processes share the machine.",
        SETTLED.as_secs()
    )
}
