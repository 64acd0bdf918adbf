//! The time of a scale plan for a large backlog, in memory.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use volley_engine::{FleetView, plan_scale};
use volley_model::{
    Demand, Epoch, FleetChanges, FleetVersion, Nonce, PoolVersion, ProvisionedMachine, Provisioning, Revision,
    ScaleState, Score, Shape, Stage, TenantName, Timestamp, Worker, WorkerId, WorkerStatus, WorkerView,
};

use super::{ScaleBench, ScaleRun, backlog};

/// Ready workers, nearly full, over all pools.
pub(super) const WORKERS: usize = 1_000;
/// Scores of one shape that a demand tells apart.
const RUNS: u64 = 64;
const NOW: Timestamp = Timestamp(1_000_000_000);
/// On their way, of each pool.
const BOOTING: u32 = backlog::IN_FLIGHT_MAX;

pub(super) fn run(options: &ScaleBench) -> ScaleRun {
    let (view, state) = scene(options);
    let mut times = Vec::new();
    // The first one warms the caches.
    for number in 0..=options.repetitions.max(1) {
        let started = Instant::now();
        let plan = black_box(plan_scale(black_box(&view), black_box(&state)));
        if number > 0 {
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        let unserved: u64 = plan.demand.iter().map(|outlook| outlook.unserved()).sum();
        assert_eq!((plan.demand.len(), unserved), (options.shapes, 0), "the whole backlog is served");
    }
    let ScaleBench { containers, shapes, pools, .. } = options;
    ScaleRun::of(&format!("plan of {containers} waiting in {shapes} shapes over {pools} pools"), "ms", 20.0, &times)
}

fn scene(options: &ScaleBench) -> (FleetView, ScaleState) {
    // In memory they may be bought: a plan that buys is the dearest.
    let pools: Vec<_> = (0..options.pools)
        .map(|number| {
            let mut pool = backlog::pool(number, true);
            pool.version = PoolVersion(1);
            let elastic = pool.elastic.as_mut().expect("it is elastic");
            (elastic.in_flight_max, elastic.per_minute_max) = (100_000, 100_000);
            pool
        })
        .collect();
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let pool = &pools[number % pools.len()];
        let machine = &pool.elastic.as_ref().expect("it is elastic").machine;
        let (capacity, labels) = (machine.capacity.clone(), machine.labels.clone());
        let mut free = capacity.all_free();
        // A little room on each, different on each.
        free.cpu.0 = free.cpu.0 * (number as u64 % 11) / 40;
        free.slots = 1 + number as u32 % 3;
        let id = WorkerId::new(&format!("worker-{number}")).expect("a good name");
        workers.push(WorkerView {
            free,
            worker: Arc::new(Worker { id, pool: pool.name.clone(), labels, capacity, notes: Vec::new() }),
            epoch: Epoch { number: 1, nonce: Nonce(7) },
            revision: Revision(1),
            status: WorkerStatus::Ready,
            affinities: Arc::default(),
            hold: None,
        });
    }
    let machines = pools.iter().flat_map(|pool| (0..BOOTING).map(move |number| booting(pool, number))).collect();
    let demand = (0..options.shapes).map(|shape| demand(options, shape)).collect();
    let at = FleetVersion(5);
    let state = ScaleState { now: NOW, at, demand, machines, ..ScaleState::default() };
    let mut view = FleetView::new();
    view.apply(&FleetChanges { reload: true, version: at, workers, pools, ..FleetChanges::default() });
    (view, state)
}

fn booting(pool: &volley_model::Pool, number: u32) -> ProvisionedMachine {
    let elastic = pool.elastic.as_ref().expect("it is elastic");
    let worker = WorkerId::new(&format!("{}-booting-{number}", pool.name)).expect("a good name");
    let record = Provisioning {
        worker,
        pool: pool.name.clone(),
        pool_version: pool.version,
        machine: Arc::new(elastic.machine.clone()),
        cost_per_hour: elastic.cost_per_hour,
        requested_at: NOW,
        boot_until: NOW.after(elastic.boot_limit),
        handle: None,
        stage: Stage::Booting,
    };
    ProvisionedMachine { record: Arc::new(record), worker: None }
}

/// Of many scores, as single submissions give, in turns with those of the other shapes.
fn demand(options: &ScaleBench, shape: usize) -> Demand {
    let definition = Arc::new(Shape::of(&TenantName::default(), &backlog::spec(shape)));
    let count = u64::from(backlog::part(options.containers, options.shapes, shape));
    let runs = (0..RUNS.min(count)).map(|run| {
        let part = count / RUNS + u64::from(run < count % RUNS);
        (Score(run * options.shapes as u64 + shape as u64), part)
    });
    let runs = runs.collect();
    Demand { hash: definition.hash(), shape: definition, since: Timestamp(1), runs }
}
