//! From repetitions to the figures of a run. Pure.

use super::clock::{Percentiles, rounded};
use super::counts::{Counts, turn_figures};
use super::figures::{BatchSize, CpuTime, Memory};
use super::measure::Repetition;
use super::redis::RedisFigures;
use super::{BurstCase, BurstRun};
use crate::Spread;

pub(super) fn run_of(
    case: BurstCase,
    repetitions: &[Repetition],
    peak_rss_bytes: Memory,
    redis: Option<RedisFigures>,
) -> BurstRun {
    let of = |figure: fn(&Repetition) -> f64| Spread::of(&repetitions.iter().map(figure).collect::<Vec<_>>());
    let count = |figure: fn(&Repetition) -> f64| of(figure).median.round() as u64;
    let wall = of(|r| r.wall_ms);
    let p99 = of(|r| r.finished.p99);
    let assigned: Vec<Percentiles> = repetitions.iter().filter_map(|r| r.assigned).collect();
    let started: Vec<Percentiles> = repetitions.iter().filter_map(|r| r.started).collect();
    let finished: Vec<Percentiles> = repetitions.iter().map(|r| r.finished).collect();
    let delivered: Vec<Percentiles> = repetitions.iter().map(|r| r.delivered).collect();
    let calls = of(|r| {
        let Counts { claims, claims_idle, commits, .. } = r.counts;
        let turns = claims - claims_idle;
        (turns + commits) as f64 / turns.max(1) as f64
    });
    let tried = |r: &Repetition| r.counts.placed + r.counts.refused;
    let (refused, tried) =
        (repetitions.iter().map(|r| r.counts.refused).sum::<u64>(), repetitions.iter().map(tried).sum::<u64>());
    let turns: Vec<_> = repetitions.iter().flat_map(|r| r.counts.turns()).collect();
    let each = |used: fn(&Repetition) -> f64| rounded(of(used).median / case.containers.max(1) as f64);
    let redis = redis.map(|redis| RedisFigures {
        cpu_us_per_container: each(|r| r.used.redis.cpu_ms * 1e3),
        main_thread_us_per_container: each(|r| r.used.redis.main_thread_ms * 1e3),
        commands_per_container: each(|r| r.used.redis.commands as f64),
        ..redis
    });
    BurstRun {
        containers_per_s: (case.containers as f64 * 1e3 / wall.median) as u64,
        wall_ms: rounded(wall.median),
        wall_ms_min: rounded(wall.min),
        wall_ms_max: rounded(wall.max),
        submit_to_assigned_ms: (!assigned.is_empty()).then(|| medians(&assigned)),
        submit_to_delivered_ms: medians(&delivered),
        submit_to_started_ms: (!started.is_empty()).then(|| medians(&started)),
        submit_to_finished_ms: medians(&finished),
        submit_to_finished_p99_ms_min_max: [rounded(p99.min), rounded(p99.max)],
        batches: count(|r| r.counts.batches as f64),
        batch_sizes: sizes(repetitions),
        turn_calls_per_batch: rounded(calls.median),
        turn: turn_figures(&turns),
        claims_idle: count(|r| r.counts.claims_idle as f64),
        store_calls: count(|r| r.counts.store_calls as f64),
        transactions: count(|r| r.counts.transactions as f64),
        refusals: count(|r| r.counts.refused as f64),
        refusals_percent: rounded(refused as f64 * 100.0 / tried.max(1) as f64),
        fleet_reloads: count(|r| r.counts.reloads as f64),
        lost: repetitions.iter().map(|r| r.lost).sum(),
        cpu_ms: CpuTime {
            server: rounded(of(|r| r.used.cpu.server).median),
            redis: rounded(of(|r| r.used.cpu.redis).median),
            workers: rounded(of(|r| r.used.cpu.workers).median),
            bench: rounded(of(|r| r.used.cpu.bench).median),
        },
        peak_rss_bytes,
        server_rss_bytes: None,
        fdatasync_ms_p50: 0.0,
        redis,
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
