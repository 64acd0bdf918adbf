//! One case of a burst: starts the processes, lets the load run, asks what each side saw, and
//! checks that it is right before it becomes a figure.

use std::collections::HashSet;
use std::path::Path;

use http::Method;
use serde_json::Value;
use volley_model::ContainerId;
use volley_wire::access::ServerAccess;
use volley_wire::client::Client;

use super::clock::{Percentiles, rounded};
use super::figures::{BatchSize, CpuTime, Memory, MemoryGrowth};
use super::load::{Load, Seen};
use super::processes::{ServerProcess, WorkersProcess, own_cpu_ms, own_peak_rss};
use super::{BurstBench, BurstCase, BurstError, BurstProgress, BurstRun, Programs, SimulatedWorkers, disk, scene};
use crate::Spread;

/// Of more containers the server's record of events is not read.
const RECORD_CONTAINERS_MAX: usize = 200_000;

/// What one repetition gave.
struct Repetition {
    wall_ms: f64,
    assigned: Option<Percentiles>,
    delivered: Percentiles,
    finished: Percentiles,
    lost: u64,
    counts: Counts,
    cpu: CpuTime,
}

/// What the server counts, between two looks.
#[derive(Debug, Clone, Default)]
struct Counts {
    batches: u64,
    claims: u64,
    claims_idle: u64,
    commits: u64,
    refused: u64,
    reloads: u64,
    store_calls: u64,
    transactions: u64,
    sizes: Vec<BatchSize>,
}

/// The processes of a case.
struct Scene<'a> {
    case: &'a BurstCase,
    server: ServerProcess,
    workers: WorkersProcess,
    http: Client,
    load: Load,
}

pub(super) async fn measure(
    options: &BurstBench,
    case: BurstCase,
    programs: &dyn Programs,
    progress: &mut impl FnMut(BurstProgress),
) -> Result<BurstRun, BurstError> {
    let failed = |problem| BurstError::Directory { dir: options.dir.clone(), problem };
    let dir = tempfile::tempdir_in(&options.dir).map_err(failed)?;
    let fdatasync_ms_p50 = rounded(disk::fdatasync_ms_p50(dir.path()).map_err(failed)?);
    let mut scene = Scene::start(&case, dir.path(), programs).await?;
    let (repetitions, growth) = match options.rate {
        None => {
            let mut repetitions = Vec::new();
            // The first one warms the server.
            for number in 0..=options.repetitions.max(1) {
                let repetition = scene.burst().await?;
                let done = format!("burst {number} of {}: {:.1} ms", options.repetitions, repetition.wall_ms);
                progress(BurstProgress::Went { case: case.clone(), done });
                repetitions.push(repetition);
            }
            repetitions.remove(0);
            (repetitions, None)
        }
        Some(rate) => {
            let (repetition, growth) = scene.sustain(rate, progress).await?;
            (vec![repetition], Some(growth))
        }
    };
    scene.audit(repetitions.iter().map(|repetition| repetition.lost).sum()).await?;
    let peak_rss_bytes =
        Memory { server: scene.server.peak_rss(), workers: scene.workers.peak_rss(), bench: own_peak_rss() };
    let Scene { server, workers, load, .. } = scene;
    drop((load, workers));
    server.end();
    let mut run = run_of(case, &repetitions, peak_rss_bytes);
    (run.server_rss_bytes, run.fdatasync_ms_p50) = (growth, fdatasync_ms_p50);
    Ok(run)
}

impl<'a> Scene<'a> {
    async fn start(case: &'a BurstCase, dir: &Path, programs: &dyn Programs) -> Result<Self, BurstError> {
        let server = ServerProcess::start(programs, &dir.join("data"))?;
        let workers = SimulatedWorkers {
            server: server.url.clone(),
            workers: case.workers,
            slots: case.slots_per_worker,
            shapes: case.shapes,
        };
        let workers = WorkersProcess::start(programs, &workers)?;
        let http = Client::new(&ServerAccess::open(&server.url));
        let http = http.map_err(|error| BurstError::Server(error.to_string()))?;
        let load = Load::connect(&server.url).await?;
        Ok(Self { case, server, workers, http, load })
    }

    async fn burst(&mut self) -> Result<Repetition, BurstError> {
        let parts = scene::submissions(self.case.containers, self.case.shapes, self.case.submit);
        let (before, after, cpu) = (self.counts().await?, self.load.last_event(), self.cpu());
        let seen = self.load.burst(parts).await?;
        let cpu = since(self.cpu(), cpu);
        let counts = self.counts().await?.since(&before);
        self.repetition(seen, (counts, cpu), after).await
    }

    async fn sustain(
        &mut self,
        rate: super::Rate,
        progress: &mut impl FnMut(BurstProgress),
    ) -> Result<(Repetition, MemoryGrowth), BurstError> {
        let (before, cpu) = (self.counts().await?, self.cpu());
        let mut samples = Vec::new();
        let (case, server) = (self.case, &self.server);
        let told = |sent: u64, ended: u64| {
            samples.push(server.rss());
            let done = format!("{sent} sent, {ended} ended, the server holds {} MB", server.rss() / 1_000_000);
            progress(BurstProgress::Went { case: case.clone(), done });
        };
        let seen = self.load.sustain(rate, (case.shapes, case.submit), told).await?;
        samples.push(self.server.rss());
        let cpu = since(self.cpu(), cpu);
        let counts = self.counts().await?.since(&before);
        let at = |part: usize| samples[(samples.len() - 1) * part / 4];
        let growth = MemoryGrowth { quarter: at(1), half: at(2), end: at(4) };
        Ok((self.repetition(seen, (counts, cpu), 0).await?, growth))
    }

    /// Joins what the client, the workers and the server saw.
    async fn repetition(
        &mut self,
        seen: Seen,
        (counts, cpu): (Counts, CpuTime),
        after: u64,
    ) -> Result<Repetition, BurstError> {
        let deliveries = self.workers.deliveries()?;
        let mut once: HashSet<ContainerId> = HashSet::with_capacity(seen.ends.len());
        let (mut finished, mut delivered) = (Vec::new(), Vec::new());
        for (container, at) in &seen.ends {
            let Some(sent) = seen.groups.get(&container.group).filter(|sent| container.index < sent.count) else {
                return Err(self.wrong(format!("{container} ended and was never submitted")));
            };
            if !once.insert(*container) {
                return Err(self.wrong(format!("{container} ended twice")));
            }
            let Some(came) = deliveries.get(container) else {
                return Err(self.wrong(format!("{container} ended and no worker had it")));
            };
            finished.push(at.since_ms(sent.at));
            delivered.push(came.since_ms(sent.at));
        }
        let lost = seen.sent - once.len() as u64;
        let assigned = if self.case.containers <= RECORD_CONTAINERS_MAX && lost == 0 {
            let assigned = self.load.assigned_ms(after, once.len()).await?;
            let since = |(container, at_ms): (&ContainerId, &u64)| {
                Some((*at_ms as f64 - seen.groups.get(&container.group)?.at_ms).max(0.0))
            };
            Percentiles::of(assigned.iter().filter_map(since).collect())
        } else {
            None
        };
        let begin = seen.groups.values().map(|sent| sent.at).min();
        let end = seen.ends.iter().map(|(_, at)| *at).max();
        let (Some(begin), Some(end)) = (begin, end) else { return Err(self.wrong("nothing ended".to_owned())) };
        let none = || self.wrong("nothing ended".to_owned());
        Ok(Repetition {
            wall_ms: end.since_ms(begin),
            assigned,
            delivered: Percentiles::of(delivered).ok_or_else(none)?,
            finished: Percentiles::of(finished).ok_or_else(none)?,
            lost,
            counts,
            cpu,
        })
    }

    fn cpu(&self) -> CpuTime {
        CpuTime { server: self.server.cpu_ms(), workers: self.workers.cpu_ms(), bench: own_cpu_ms() }
    }

    async fn get(&self, path: &str) -> Result<Value, BurstError> {
        self.http.json(Method::GET, path, None).await.map_err(|error| BurstError::Server(error.to_string()))
    }

    async fn counts(&self) -> Result<Counts, BurstError> {
        Ok(Counts::of(&self.get("/v1/stats").await?))
    }

    /// The server's own laws, past the measured time; they have to hold, and nothing may be under way.
    async fn audit(&self, lost: u64) -> Result<(), BurstError> {
        let audit = self.get("/v1/audit").await?;
        if audit["ok"] != true {
            return Err(self.wrong(format!("the server's audit finds: {}", audit["violations"])));
        }
        if lost == 0 && audit["accepted"].as_u64() != Some(number(&audit, "finished") + number(&audit, "pruned")) {
            return Err(self.wrong(format!("all ended, and the server says otherwise: {audit}")));
        }
        Ok(())
    }

    fn wrong(&self, problem: String) -> BurstError {
        BurstError::Wrong { case: self.case.to_string(), problem }
    }
}

fn since(now: CpuTime, before: CpuTime) -> CpuTime {
    let CpuTime { server, workers, bench } = before;
    CpuTime { server: now.server - server, workers: now.workers - workers, bench: now.bench - bench }
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_default()
}

impl Counts {
    fn of(stats: &Value) -> Self {
        let (turns, store) = (&stats["turns"], &stats["store"]);
        let size = |size: &Value| BatchSize { up_to: size["up_to"].as_u64(), batches: number(size, "batches") };
        Self {
            batches: number(turns, "batches"),
            claims: number(turns, "claims"),
            claims_idle: number(turns, "claims_idle"),
            commits: number(turns, "commits"),
            refused: number(turns, "refused"),
            reloads: number(turns, "reloads"),
            store_calls: number(store, "operations") + number(store, "reads"),
            transactions: number(store, "transactions"),
            sizes: turns["sizes"].as_array().into_iter().flatten().map(size).collect(),
        }
    }

    fn since(mut self, before: &Self) -> Self {
        self.batches -= before.batches;
        self.claims -= before.claims;
        self.claims_idle -= before.claims_idle;
        self.commits -= before.commits;
        self.refused -= before.refused;
        self.reloads -= before.reloads;
        self.store_calls -= before.store_calls;
        self.transactions -= before.transactions;
        for size in &mut self.sizes {
            let then = before.sizes.iter().find(|then| then.up_to == size.up_to);
            size.batches -= then.map_or(0, |then| then.batches);
        }
        self.sizes.retain(|size| size.batches > 0);
        self
    }
}

fn run_of(case: BurstCase, repetitions: &[Repetition], peak_rss_bytes: Memory) -> BurstRun {
    let of = |figure: fn(&Repetition) -> f64| Spread::of(&repetitions.iter().map(figure).collect::<Vec<_>>());
    let count = |figure: fn(&Repetition) -> f64| of(figure).median.round() as u64;
    let wall = of(|r| r.wall_ms);
    let p99 = of(|r| r.finished.p99);
    let assigned: Vec<Percentiles> = repetitions.iter().filter_map(|r| r.assigned).collect();
    let finished: Vec<Percentiles> = repetitions.iter().map(|r| r.finished).collect();
    let delivered: Vec<Percentiles> = repetitions.iter().map(|r| r.delivered).collect();
    let calls = of(|r| {
        let Counts { claims, claims_idle, commits, batches, .. } = r.counts;
        (claims - claims_idle + commits) as f64 / batches.max(1) as f64
    });
    BurstRun {
        containers_per_s: (case.containers as f64 * 1e3 / wall.median) as u64,
        wall_ms: rounded(wall.median),
        wall_ms_min: rounded(wall.min),
        wall_ms_max: rounded(wall.max),
        submit_to_assigned_ms: (!assigned.is_empty()).then(|| medians(&assigned)),
        submit_to_delivered_ms: medians(&delivered),
        submit_to_finished_ms: medians(&finished),
        submit_to_finished_p99_ms_min_max: [rounded(p99.min), rounded(p99.max)],
        batches: count(|r| r.counts.batches as f64),
        batch_sizes: sizes(repetitions),
        turn_calls_per_batch: rounded(calls.median),
        claims_idle: count(|r| r.counts.claims_idle as f64),
        store_calls: count(|r| r.counts.store_calls as f64),
        transactions: count(|r| r.counts.transactions as f64),
        refusals: count(|r| r.counts.refused as f64),
        fleet_reloads: count(|r| r.counts.reloads as f64),
        lost: repetitions.iter().map(|r| r.lost).sum(),
        cpu_ms: CpuTime {
            server: rounded(of(|r| r.cpu.server).median),
            workers: rounded(of(|r| r.cpu.workers).median),
            bench: rounded(of(|r| r.cpu.bench).median),
        },
        peak_rss_bytes,
        server_rss_bytes: None,
        fdatasync_ms_p50: 0.0,
        repetitions: repetitions.len(),
        case,
    }
}

fn medians(of: &[Percentiles]) -> Percentiles {
    let median =
        |figure: fn(&Percentiles) -> f64| rounded(Spread::of(&of.iter().map(figure).collect::<Vec<_>>()).median);
    Percentiles { p50: median(|p| p.p50), p99: median(|p| p.p99), max: median(|p| p.max) }
}

fn sizes(repetitions: &[Repetition]) -> Vec<BatchSize> {
    let mut sizes: Vec<BatchSize> = Vec::new();
    for size in repetitions.iter().flat_map(|repetition| &repetition.counts.sizes) {
        match sizes.iter_mut().find(|known| known.up_to == size.up_to) {
            Some(known) => known.batches += size.batches,
            None => sizes.push(*size),
        }
    }
    sizes.sort_by_key(|size| size.up_to.unwrap_or(u64::MAX));
    sizes
}
