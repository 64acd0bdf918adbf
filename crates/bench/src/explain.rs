//! `bench explain`: how good expected starts are (in simulation, where what really came is known), and what asking costs: an
//! explanation among many that wait, and `/metrics` of a large fleet, over HTTP from a real server. Knows nothing of the command
//! line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use volley_ledger::{Attach, CloseSession, LedgerOptions, OpenSession, Submit};
use volley_model::{
    Bytes, Capacity, CpuMilli, GroupId, Millis, Nonce, PoolName, Run, SessionId, Spec, Submission, TenantName, Worker,
    WorkerId,
};
use volley_sim::{Basis, Guess, expected_starts};
use volley_store::StoreExt;
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore};
use volley_wire::access::ServerAccess;
use volley_wire::client::Client;

use crate::burst::processes::ServerProcess;
use crate::burst::{BurstError, Programs, StorePlace};
use crate::{Measure, Report, Runs, Spread};

/// Attachments under way: so many share a transaction.
const AT_A_TIME: usize = 256;
/// What waits is looked at in this time.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What each worker offers, and what each container asks for: more.
const OFFERED: CpuMilli = CpuMilli(2_000);
const ASKED: CpuMilli = CpuMilli(3_000);

/// What to run.
#[derive(Debug, Clone)]
pub struct ExplainBench {
    /// Simulated cells, each ten minutes of virtual time.
    pub seeds: u64,
    /// The first one's seed.
    pub first_seed: u64,
    /// Containers that wait at the real server.
    pub containers: u32,
    /// Distinct shapes among them.
    pub shapes: u32,
    /// Its workers; nobody is there.
    pub workers: u32,
    /// Their pools.
    pub pools: u32,
    /// Of each request.
    pub repetitions: usize,
    /// Where the store's directory is made.
    pub dir: PathBuf,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainRun {
    /// Simulated cells.
    pub seeds: u64,
    /// Questions about waiting containers that were answered with a time.
    pub told: u64,
    /// Questions to which the answer was "unknown".
    pub unknown: u64,
    /// Of those told: within 25 % or 2 s of what came, in percent.
    pub near_percent: f64,
    /// Of those told: too early by more than that, in percent.
    pub too_early_percent: f64,
    /// Half of those told were off by less.
    pub off_ms_median: f64,
    /// The same by what it was told from.
    #[serde(default)]
    pub by_basis: Vec<ByBasis>,
    /// Containers that waited at the real server.
    pub containers: u32,
    /// Distinct shapes among them.
    pub shapes: u32,
    /// Its workers.
    pub workers: u32,
    /// Their pools.
    pub pools: u32,
    /// One explanation, from request to the whole answer.
    pub explain_ms: Spread,
    /// `/metrics`, likewise.
    pub metrics_ms: Spread,
    /// Its text.
    pub metrics_bytes: u64,
    /// `/v1/overview`, likewise: what `volley watch` asks for.
    pub overview_ms: Spread,
}

/// Expected starts that were told from one basis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ByBasis {
    /// Its name.
    pub basis: String,
    /// How many were told from it.
    pub told: u64,
    /// As of [`ExplainRun::near_percent`].
    pub near_percent: f64,
    /// As of [`ExplainRun::too_early_percent`].
    pub too_early_percent: f64,
}

impl ByBasis {
    fn all(told: &[Guess]) -> Vec<Self> {
        let of = |basis: Basis| {
            let guesses: Vec<&Guess> = told.iter().filter(|guess| guess.basis == basis).collect();
            (!guesses.is_empty()).then(|| Self {
                basis: basis.name().to_owned(),
                told: guesses.len() as u64,
                near_percent: percent(guesses.iter().copied(), Guess::is_near),
                too_early_percent: percent(guesses.iter().copied(), Guess::is_too_early),
            })
        };
        Basis::ALL.into_iter().filter_map(of).collect()
    }
}

fn percent<'g>(guesses: impl ExactSizeIterator<Item = &'g Guess>, of: fn(&Guess) -> bool) -> f64 {
    let all = guesses.len().max(1);
    (guesses.filter(|guess| of(guess)).count() as f64 * 1_000.0 / all as f64).round() / 10.0
}

impl std::fmt::Display for ExplainRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seeds, containers, shapes, workers, pools, .. } = self;
        write!(f, "{seeds} cells; {containers} waiting, {shapes} shapes, {workers} workers, {pools} pools")
    }
}

impl ExplainRun {
    /// Of [`ExplainRun::cells`].
    pub const HEADER: &[&str] = &[
        "cells",
        "told",
        "unknown",
        "near %",
        "by basis",
        "too early %",
        "off ms",
        "waiting",
        "workers",
        "pools",
        "explain ms",
        "metrics ms",
        "metrics bytes",
        "overview ms",
    ];

    /// As a row of a table.
    #[must_use]
    pub fn cells(&self) -> Vec<String> {
        let by_basis = self.by_basis.iter().map(|by| format!("{} {:.1} of {}", by.basis, by.near_percent, by.told));
        let by_basis: Vec<String> = by_basis.collect();
        let spread = |spread: Spread| format!("{:.1} ({:.1} to {:.1})", spread.median, spread.min, spread.max);
        vec![
            self.seeds.to_string(),
            self.told.to_string(),
            self.unknown.to_string(),
            format!("{:.1}", self.near_percent),
            by_basis.join(", "),
            format!("{:.1}", self.too_early_percent),
            format!("{:.0}", self.off_ms_median),
            self.containers.to_string(),
            self.workers.to_string(),
            self.pools.to_string(),
            spread(self.explain_ms),
            spread(self.metrics_ms),
            self.metrics_bytes.to_string(),
            spread(self.overview_ms),
        ]
    }

    pub(crate) fn measures(&self) -> Vec<Measure> {
        let once = |figure: f64| Spread { median: figure, min: figure, max: figure };
        vec![
            Measure { name: "explain_ms", spread: self.explain_ms },
            Measure { name: "metrics_ms", spread: self.metrics_ms },
            Measure { name: "off_ms_median", spread: once(self.off_ms_median) },
        ]
    }
}

fn failed(what: &'static str) -> impl Fn(String) -> BurstError {
    move |problem| BurstError::Process { what, problem }
}

/// Measures. Needs a tokio runtime with I/O and time, whose thread may be kept from it.
pub async fn explain(options: &ExplainBench, programs: &dyn Programs) -> Result<Report, BurstError> {
    let (seeds, first) = (options.seeds, options.first_seed);
    // It brings a runtime of its own, in virtual time.
    let simulated = tokio::task::spawn_blocking(move || simulated(first, seeds)).await;
    let (told, unknown) = simulated.map_err(|error| failed("the simulation")(error.to_string()))??;
    let off: Vec<f64> = told.iter().map(|guess| guess.said.0.abs_diff(guess.was.0) as f64).collect();
    let asked = asked(options, programs).await?;
    let run = ExplainRun {
        seeds,
        told: told.len() as u64,
        unknown,
        near_percent: percent(told.iter(), Guess::is_near),
        too_early_percent: percent(told.iter(), Guess::is_too_early),
        by_basis: ByBasis::all(&told),
        off_ms_median: if off.is_empty() { 0.0 } else { Spread::of(&off).median },
        containers: options.containers,
        shapes: options.shapes,
        workers: options.workers,
        pools: options.pools,
        explain_ms: asked.explain,
        metrics_ms: asked.metrics,
        metrics_bytes: asked.metrics_bytes,
        overview_ms: asked.overview,
    };
    let obtained = "expected starts: cells in virtual time (real servers' and workers' code, up to three kinds of work whose \
        spans vary between half and one and a half of the usual), always a little too small for what comes; a waiting container is asked \
        about every two seconds, and held against when it was placed; near is within 25 % or 2 s. Times: a real server on its \
        embedded store, over HTTP on this machine, from request to the whole answer, one at a time."
        .to_owned();
    Ok(Report::of(obtained, Runs::Explain(vec![run])))
}

fn simulated(first: u64, seeds: u64) -> Result<(Vec<Guess>, u64), BurstError> {
    let (mut told, mut unknown) = (Vec::new(), 0);
    for seed in first..first + seeds {
        let guesses = expected_starts(seed).map_err(|failure| failed("the simulation")(failure.what.clone()))?;
        told.extend(guesses.told);
        unknown += guesses.unknown;
    }
    Ok((told, unknown))
}

/// What requests took.
struct Asked {
    explain: Spread,
    metrics: Spread,
    metrics_bytes: u64,
    overview: Spread,
}

async fn asked(options: &ExplainBench, programs: &dyn Programs) -> Result<Asked, BurstError> {
    let here = |problem| BurstError::Directory { dir: options.dir.clone(), problem };
    let dir = tempfile::tempdir_in(&options.dir).map_err(here)?;
    let group = filled(options, dir.path()).await?;
    let server = ServerProcess::start(programs, &StorePlace::Folder(dir.path().to_owned()))?;
    let client =
        Client::new(&ServerAccess::open(&server.url)).map_err(|error| BurstError::Server(error.to_string()))?;
    let begin = Instant::now();
    loop {
        let overview = client.json(Method::GET, "/v1/overview", None).await;
        let overview = overview.map_err(|error| BurstError::Server(error.to_string()))?;
        if overview["blocked_containers"] == options.containers {
            break;
        }
        if begin.elapsed() > LOOKED_AT_WITHIN {
            return Err(failed("the server")(format!("not all that waits was looked at: {overview}")));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let repetitions = options.repetitions.max(1) as u32;
    // Spread over the whole queue, and over the shapes.
    let step = (options.containers / repetitions).max(1);
    let paths =
        (0..repetitions).map(|number| format!("/v1/containers/{group}-{}/explain", number * step % options.containers));
    let (explain, _) = timed(&client, paths).await?;
    let (metrics, metrics_bytes) = timed(&client, (0..repetitions).map(|_| "/metrics".to_owned())).await?;
    let (overview, _) = timed(&client, (0..repetitions).map(|_| "/v1/overview?max=100".to_owned())).await?;
    server.end();
    Ok(Asked { explain, metrics, metrics_bytes, overview })
}

/// Milliseconds of each request, and the largest answer.
async fn timed(client: &Client, paths: impl Iterator<Item = String>) -> Result<(Spread, u64), BurstError> {
    let (mut times, mut largest) = (Vec::new(), 0);
    for path in paths {
        let begin = Instant::now();
        let answer = client.bytes(Method::GET, &path, None).await;
        let answer = answer.map_err(|error| BurstError::Server(format!("{path}: {error}")))?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        largest = largest.max(answer.len() as u64);
    }
    Ok((Spread::of(&times), largest))
}

/// Makes a store in a directory, with all that waits and all workers; the group that waits.
async fn filled(options: &ExplainBench, dir: &Path) -> Result<GroupId, BurstError> {
    let failed = |problem: String| failed("the store")(problem);
    let ledger = LedgerOptions {
        worker_lease: Millis::from_secs(24 * 3_600),
        backlog_max: u64::from(options.containers).max(LedgerOptions::default().backlog_max),
        ..LedgerOptions::default()
    };
    let opened = EmbeddedStore::open(EmbeddedOptions { ledger, ..EmbeddedOptions::new(dir.to_owned()) });
    let store = Arc::new(opened.map_err(|error| failed(error.to_string()))?);
    let session = SessionId(1);
    store
        .call(OpenSession { session, address: "bench".to_owned() })
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut calls = JoinSet::new();
    for number in 0..options.workers {
        while calls.len() >= AT_A_TIME {
            joined(calls.join_next().await)?;
        }
        let (store, attach) = (Arc::clone(&store), attach(session, number, options.pools));
        calls.spawn(async move {
            let attached = store.call(attach).await.map_err(|error| error.to_string())?;
            attached.map(drop).map_err(|refusal| format!("{refusal:?}"))
        });
    }
    while let Some(ended) = calls.join_next().await {
        joined(Some(ended))?;
    }
    let group = GroupId(0x1234_5678_9abc_def0);
    let submission = submission(options);
    let submit = Submit { group, body_digest: submission.digest(), submission };
    let accepted = store.call(submit).await.map_err(|error| failed(error.to_string()))?;
    accepted.map_err(|refusal| failed(format!("{refusal:?}")))?;
    store.call(CloseSession { session }).await.map_err(|error| failed(error.to_string()))?;
    Ok(group)
}

fn joined(ended: Option<Result<Result<(), String>, tokio::task::JoinError>>) -> Result<(), BurstError> {
    match ended {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(problem))) => Err(failed("the store")(problem)),
        Some(Err(error)) => Err(failed("the store")(error.to_string())),
    }
}

fn attach(session: SessionId, number: u32, pools: u32) -> Attach {
    let worker = Worker {
        id: WorkerId::new(&format!("registered-{number}")).expect("a name of letters and digits"),
        pool: PoolName::new(&format!("pool-{}", number % pools.max(1))).expect("a name of letters and digits"),
        labels: BTreeMap::new(),
        capacity: Capacity { cpu: OFFERED, memory: Bytes(8 << 30), slots: 64, gpus: Vec::new() },
        notes: Vec::new(),
    };
    let nonce = Nonce(u64::from(number) + 1);
    Attach {
        session,
        stream: nonce,
        replaces: None,
        worker,
        epoch: None,
        epoch_nonce: nonce,
        inventory: Vec::new(),
        affinities: Vec::new(),
    }
}

/// Containers that fit nowhere, a little more memory for each shape.
fn submission(options: &ExplainBench) -> Submission {
    let shapes = options.shapes.clamp(1, options.containers);
    let run = |number: u32| {
        let mut spec = Spec::of_command("true", &[]);
        spec.resources.cpu = ASKED;
        spec.resources.memory = Bytes(u64::from(number + 1) << 20);
        let count = options.containers / shapes + u32::from(number < options.containers % shapes);
        Run { spec: Arc::new(spec), count }
    };
    let runs = (0..shapes).map(run).collect();
    Submission { tenant: TenantName::default(), client_key: None, name: None, labels: BTreeMap::new(), runs }
}
