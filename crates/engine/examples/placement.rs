//! Measures `plan`: nanoseconds per placement for fleets, shapes and batches of several sizes,
//! as medians. Run with `cargo run --release -p volley-engine --example placement`. Reports; asserts nothing
//! about time.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a measurement needs a clock")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use volley_engine::{FleetView, PlanInput, plan};
use volley_model::{
    BlockedShape, Bytes, Capacity, ClaimNumber, Claimed, ContainerId, CpuMilli, Epoch, FleetChanges, FleetVersion,
    GpuKinds, GpuMilli, GpuRequest, GroupId, Millis, Nonce, Placement, Pool, PoolName, Revision, Score, SessionId,
    Shape, ShapeHash, Spec, Strategy, TenantName, Timestamp, Worker, WorkerId, WorkerStatus, WorkerView,
};

/// A fast, poor source of numbers: the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Half full on average, each worker differently; every tenth has eight GPUs and is in another pool.
fn fleet(workers: usize, strategy: Strategy) -> FleetView {
    let mut numbers = Numbers(7);
    let pool = |name: &str| Pool { strategy, ..Pool::with_defaults(PoolName::new(name).expect("a name")) };
    let workers = (0..workers).map(|number| {
        let with_gpus = number % 10 == 9;
        let gpus = vec!["H100".to_owned(); if with_gpus { 8 } else { 0 }];
        let capacity = Capacity { cpu: CpuMilli(64_000), memory: Bytes(256 << 30), slots: 250, gpus };
        let mut free = capacity.all_free();
        free.cpu = CpuMilli(numbers.below(64) * 1000);
        free.memory = Bytes(numbers.below(256) << 30);
        for device in &mut free.gpus {
            *device = GpuMilli(numbers.below(2) * 1000);
        }
        let name = format!("worker-{number}");
        let pool = PoolName::new(if with_gpus { "gpu" } else { "cpu" }).expect("a name");
        let id = WorkerId::new(&name).expect("a name");
        let worker = Worker { id, pool, labels: BTreeMap::new(), capacity, notes: Vec::new() };
        WorkerView {
            worker: Arc::new(worker),
            epoch: Epoch { number: 1, nonce: Nonce(number as u64) },
            revision: Revision(1),
            status: WorkerStatus::Ready,
            free,
            affinities: Arc::default(),
            hold: None,
        }
    });
    let mut view = FleetView::new();
    view.apply(&FleetChanges {
        reload: true,
        version: FleetVersion(1),
        workers: workers.collect(),
        pools: vec![pool("cpu"), pool("gpu")],
        ..FleetChanges::default()
    });
    view
}

/// Every eighth shape asks for a GPU.
fn shapes(count: usize) -> Vec<(ShapeHash, Arc<Shape>)> {
    let shape = |number: usize| {
        let mut spec = Spec::of_command("true", &[]);
        spec.resources.cpu = CpuMilli(100 + 37 * (number as u64 % 101));
        spec.resources.memory = Bytes((64 << 20) + (((number as u64 * 53) % 4093) << 20));
        if number % 8 == 7 {
            let kinds = GpuKinds::Ordered(vec!["A100".to_owned(), "H100".to_owned()]);
            spec.resources.gpu = Some(GpuRequest { kinds, count: 1, milli: GpuMilli(1000) });
        }
        let shape = Arc::new(Shape::of(&TenantName::default(), &spec));
        (shape.hash(), shape)
    };
    (0..count).map(shape).collect()
}

/// `same_score`: one mixed group; else as many single submissions, shapes taking turns.
fn containers(count: usize, shapes: &[(ShapeHash, Arc<Shape>)], same_score: bool) -> Vec<Claimed> {
    let claimed = |number: usize| Claimed {
        container: ContainerId { group: GroupId(1), index: number as u32 },
        claim: ClaimNumber(1),
        shape: shapes[number % shapes.len()].0,
        score: Score(if same_score { 1 } else { number as u64 }),
        since: Timestamp(0),
        fail_if_unplaceable: false,
    };
    (0..count).map(claimed).collect()
}

fn input<'a>(containers: &'a [Claimed], shapes: &'a [(ShapeHash, Arc<Shape>)], seed: u64) -> PlanInput<'a> {
    PlanInput {
        containers,
        shapes,
        recheck: &[],
        session: SessionId(1),
        sessions: &[SessionId(1)],
        now: Timestamp(0),
        hold_after: Millis(30_000),
        hold_term: Millis(30_000),
        seed,
    }
}

/// The median time of `rounds` in nanoseconds.
fn median(rounds: usize, mut round: impl FnMut(u64)) -> u64 {
    let mut times: Vec<u64> = (0..rounds as u64)
        .map(|seed| {
            let begin = Instant::now();
            round(seed);
            begin.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn measure(view: &FleetView, batch: usize, shapes: &[(ShapeHash, Arc<Shape>)], same_score: bool) -> (u64, usize) {
    let containers = containers(batch, shapes, same_score);
    let used = &shapes[..shapes.len().min(batch)];
    let mut placed = 0;
    let time = median((40_000 / batch).clamp(9, 401), |seed| {
        placed = plan(view, &input(&containers, used, seed)).placements.len();
    });
    (time, placed)
}

fn main() {
    println!(
        "{:>8} {:>8} {:>6} {:>7} {:>8} {:>7} {:>13}",
        "workers", "strategy", "batch", "shapes", "scores", "placed", "ns/placement"
    );
    for workers in [1_000, 10_000, 100_000] {
        for strategy in [Strategy::Pack, Strategy::Spread] {
            let view = fleet(workers, strategy);
            for batch in [20, 100, 1_000] {
                for (count, same_score) in
                    [(1, true), (16, true), (16, false), (64, true), (64, false), (10_000, false)]
                {
                    let shapes = shapes(count);
                    let (time, placed) = measure(&view, batch, &shapes, same_score);
                    let (strategy, scores) = (format!("{strategy:?}"), if same_score { "one" } else { "each" });
                    let each = time / (placed.max(1) as u64);
                    println!("{workers:>8} {strategy:>8} {batch:>6} {count:>7} {scores:>8} {placed:>7} {each:>13}");
                }
            }
        }
    }
    blocked();
    updates();
}

/// A turn beside a hundred thousand blocked containers of three shapes, whose marks are fresh or old.
fn blocked() {
    for stale in [false, true] {
        let mut view = fleet(10_000, Strategy::Pack);
        let mut spec = Spec::of_command("true", &[]);
        let large = |cpu: u64| {
            spec.resources.cpu = CpuMilli(cpu);
            let shape = Arc::new(Shape::of(&TenantName::default(), &spec));
            let (hash, best, since) = (shape.hash(), Score(0), Timestamp(0));
            BlockedShape { hash, shape, count: 33_333, best, since, at: FleetVersion(if stale { 0 } else { 1 }) }
        };
        let blocked = [63_500, 63_600, 63_700].map(large).to_vec();
        view.apply(&FleetChanges { version: FleetVersion(2), blocked, ..FleetChanges::default() });
        let shapes = shapes(1);
        let containers: Vec<Claimed> = containers(1_000, &shapes, false)
            .into_iter()
            .map(|c| Claimed { score: Score(c.score.0 + 1), ..c })
            .collect();
        let time = median(99, |seed| {
            std::hint::black_box(plan(&view, &input(&containers, &shapes, seed)));
        });
        println!(
            "beside 100,000 blocked containers (marks {}): {} ns/placement",
            if stale { "old" } else { "fresh" },
            time / 1000
        );
    }
}

/// What a changed worker costs the view.
fn updates() {
    for workers in [1_000, 100_000] {
        let mut view = fleet(workers, Strategy::Pack);
        let resources = shapes(1)[0].1.resources.clone();
        let ids: Vec<(WorkerId, Epoch)> = view.workers().map(|w| (w.worker.id.clone(), w.epoch)).collect();
        let mut numbers = Numbers(3);
        let time = median(99, |_| {
            for _ in 0..1_000 {
                let (worker, epoch) = ids[numbers.below(ids.len() as u64) as usize].clone();
                let container = ContainerId { group: GroupId(1), index: 0 };
                let (claim, revision) = (ClaimNumber(1), Revision(1));
                let placement = Placement { container, claim, worker, epoch, revision, gpus: vec![], nonce: Nonce(0) };
                view.reserve_committed(&placement, &resources);
            }
        });
        println!("{workers} workers: {} ns per worker booked", time / 1000);
    }
}
