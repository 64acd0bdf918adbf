//! One case of a burst: starts the processes, lets the load run, asks what each side saw, and
//! checks that it is right before it becomes a figure.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;
use volley_model::ContainerId;

use super::clock::{Percentiles, rounded};
use super::counts::Counts;
use super::figures::{CpuTime, Memory, MemoryGrowth};
use super::load::{Load, Seen};
use super::outcome::run_of;
use super::processes::{own_cpu_ms, own_peak_rss};
use super::redis::Used;
use super::servers::{Running, Stage};
use super::{BurstBench, BurstCase, BurstError, BurstProgress, BurstRun, Programs, disk, scene};

/// Of more containers the server's record of events is not read.
const RECORD_CONTAINERS_MAX: usize = 200_000;

/// What one repetition gave.
pub(super) struct Repetition {
    pub(super) wall_ms: f64,
    pub(super) assigned: Option<Percentiles>,
    pub(super) started: Option<Percentiles>,
    pub(super) delivered: Percentiles,
    pub(super) finished: Percentiles,
    pub(super) lost: u64,
    pub(super) counts: Counts,
    pub(super) used: Resources,
}

/// What the processes have used, or used between two looks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Resources {
    pub(super) cpu: CpuTime,
    pub(super) redis: Used,
}

impl Resources {
    fn since(self, before: &Self) -> Self {
        let CpuTime { server, redis, workers, bench } = before.cpu;
        let cpu = CpuTime {
            server: self.cpu.server - server,
            redis: self.cpu.redis - redis,
            workers: self.cpu.workers - workers,
            bench: self.cpu.bench - bench,
        };
        Self { cpu, redis: self.redis.since(before.redis) }
    }
}

/// The processes of a case.
struct Scene<'a> {
    case: &'a BurstCase,
    running: Running,
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
    let mut scene = Scene::start(options, &case, dir.path(), programs).await?;
    let (repetitions, growth) = match options.rate {
        None => {
            let mut repetitions = Vec::new();
            // The first one warms the server.
            for number in 0..=options.repetitions.max(1) {
                if let (1, Some(redis)) = (number, &mut scene.running.redis) {
                    redis.begin()?;
                }
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
        Memory { server: scene.running.peak_rss(), workers: scene.running.workers.peak_rss(), bench: own_peak_rss() };
    let Scene { mut running, load, .. } = scene;
    let redis = running.redis.as_mut().map(|redis| redis.figures()).transpose()?;
    drop(load);
    running.end()?;
    let mut run = run_of(case, &repetitions, peak_rss_bytes, redis);
    (run.server_rss_bytes, run.fdatasync_ms_p50) = (growth, fdatasync_ms_p50);
    Ok(run)
}

impl<'a> Scene<'a> {
    async fn start(
        options: &BurstBench,
        case: &'a BurstCase,
        dir: &Path,
        programs: &dyn Programs,
    ) -> Result<Self, BurstError> {
        let stage = Stage {
            servers: options.servers,
            redis: options.redis.as_ref(),
            workers: case.workers,
            slots: case.slots_per_worker,
            shapes: case.shapes,
            run_for: options.run_for,
            registered_workers: options.registered_workers,
            spread: options.spread,
            observed: options.observed,
        };
        let running = Running::start(&stage, dir, programs).await?;
        let load = Load::connect(&running.urls()).await?;
        Ok(Self { case, running, load })
    }

    async fn burst(&mut self) -> Result<Repetition, BurstError> {
        let parts = scene::submissions(self.case.containers, self.case.shapes, self.case.submit);
        let (before, after, used) = (self.counts().await?, self.load.last_event(), self.used()?);
        let seen = self.load.burst(parts).await?;
        let used = self.used()?.since(&used);
        let counts = self.counts().await?.since(&before);
        self.repetition(seen, (counts, used), after).await
    }

    async fn sustain(
        &mut self,
        rate: super::Rate,
        progress: &mut impl FnMut(BurstProgress),
    ) -> Result<(Repetition, MemoryGrowth), BurstError> {
        let (before, used) = (self.counts().await?, self.used()?);
        let mut samples = Vec::new();
        let (case, server) = (self.case, &self.running);
        let told = |sent: u64, ended: u64| {
            samples.push(server.rss());
            let done = format!("{sent} sent, {ended} ended, the servers hold {} MB", server.rss() / 1_000_000);
            progress(BurstProgress::Went { case: case.clone(), done });
        };
        let seen = self.load.sustain(rate, (case.shapes, case.submit), told).await?;
        samples.push(self.running.rss());
        let used = self.used()?.since(&used);
        let counts = self.counts().await?.since(&before);
        let at = |part: usize| samples[(samples.len() - 1) * part / 4];
        let growth = MemoryGrowth { quarter: at(1), half: at(2), end: at(4) };
        Ok((self.repetition(seen, (counts, used), 0).await?, growth))
    }

    /// Joins what the client, the workers and the server saw.
    async fn repetition(
        &mut self,
        seen: Seen,
        (counts, used): (Counts, Resources),
        after: u64,
    ) -> Result<Repetition, BurstError> {
        let deliveries = self.running.workers.deliveries()?;
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
        let (mut assigned, mut started) = (None, None);
        if self.case.containers <= RECORD_CONTAINERS_MAX && lost == 0 {
            let record = self.load.record(after, once.len()).await?;
            let since = |(container, at_ms): (&ContainerId, &u64)| {
                Some((*at_ms as f64 - seen.groups.get(&container.group)?.at_ms).max(0.0))
            };
            assigned = Percentiles::of(record.assigned.iter().filter_map(since).collect());
            started = Percentiles::of(record.started.iter().filter_map(since).collect());
        }
        let begin = seen.groups.values().map(|sent| sent.at).min();
        let end = seen.ends.iter().map(|(_, at)| *at).max();
        let (Some(begin), Some(end)) = (begin, end) else { return Err(self.wrong("nothing ended".to_owned())) };
        let none = || self.wrong("nothing ended".to_owned());
        Ok(Repetition {
            wall_ms: end.since_ms(begin),
            assigned,
            started,
            delivered: Percentiles::of(delivered).ok_or_else(none)?,
            finished: Percentiles::of(finished).ok_or_else(none)?,
            lost,
            counts,
            used,
        })
    }

    fn used(&mut self) -> Result<Resources, BurstError> {
        let redis = self.running.redis.as_mut().map(|redis| redis.used()).transpose()?.unwrap_or_default();
        let cpu = CpuTime {
            server: self.running.cpu_ms(),
            redis: redis.cpu_ms,
            workers: self.running.workers.cpu_ms(),
            bench: own_cpu_ms(),
        };
        Ok(Resources { cpu, redis })
    }

    async fn counts(&self) -> Result<Counts, BurstError> {
        Ok(Counts::of(&self.running.get_each("/v1/stats").await?))
    }

    /// The server's own laws, past the measured time; they have to hold, and nothing may be under way.
    async fn audit(&self, lost: u64) -> Result<(), BurstError> {
        let audit = self.running.get("/v1/audit").await?;
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

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_default()
}
