//! `bench engine`: what a plan costs, in memory. The view is kept as a server keeps it: what a
//! plan placed is booked, and the next claim's changes bring the same workers again, with what
//! ended there meanwhile. Only `plan` is timed; every plan is held against the truth outside of
//! that time. Knows nothing of stores and servers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use volley_engine::{FleetView, Plan, PlanInput, plan};
use volley_model::{
    ClaimNumber, Claimed, ContainerId, FleetChanges, FleetVersion, GroupId, Millis, Nonce, Placement, Score, SessionId,
    Shape, ShapeHash, Strategy, Timestamp,
};

mod fleet;
mod truth;

use crate::{Measure, Report, Runs, Spread, Submit};
pub use truth::WrongPlan;
use truth::{Live, Truth};

/// Containers that live at a time, per worker: few enough that half-full fleets take them all.
const LIVE_PER_WORKER: usize = 2;

/// What to measure: each fleet with each count of shapes, batch, strategy and way to submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineBench {
    /// Sizes of fleets.
    pub workers: Vec<usize>,
    /// Counts of distinct shapes.
    pub shapes: Vec<usize>,
    /// Containers planned together.
    pub batches: Vec<usize>,
    /// Of all pools.
    pub strategies: Vec<Strategy>,
    /// How the containers came.
    pub submits: Vec<Submit>,
    /// Containers of one repetition, at least a batch.
    pub containers: usize,
    /// At least so many repetitions of each run.
    pub repetitions_min: usize,
    /// Each run is repeated for so long.
    pub run_time: Duration,
    /// The same seed gives the same fleets, containers and plans.
    pub seed: u64,
}

impl Default for EngineBench {
    /// The runs that are published; about a minute and a half.
    fn default() -> Self {
        Self {
            workers: vec![1_000, 10_000, 100_000],
            shapes: vec![1, 16, 64, 10_000],
            batches: vec![20, 100, 1_000],
            strategies: vec![Strategy::Pack, Strategy::Spread],
            submits: vec![Submit::Single],
            containers: 10_000,
            repetitions_min: 5,
            run_time: Duration::from_secs(1),
            seed: 7,
        }
    }
}

/// What was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineCase {
    /// In the fleet.
    pub workers: usize,
    /// Planned in one repetition.
    pub containers: usize,
    /// Distinct ones.
    pub shapes: usize,
    /// Containers of one plan.
    pub batch: usize,
    /// Of all pools.
    pub strategy: Strategy,
    /// How the containers came.
    pub submit: Submit,
}

impl fmt::Display for EngineCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, containers, shapes, batch, strategy, submit } = self;
        write!(f, "{workers} workers, {shapes} shapes, {containers} containers by {batch}, ")?;
        write!(f, "{}, {}", strategy_word(*strategy), submit.word())
    }
}

fn strategy_word(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Pack => "pack",
        Strategy::Spread => "spread",
    }
}

/// One case and its figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineRun {
    /// What was run.
    #[serde(flatten)]
    pub case: EngineCase,
    /// The time of all plans of a repetition over the containers placed: the median repetition.
    pub ns_per_placement: f64,
    /// The best repetition.
    pub ns_per_placement_min: f64,
    /// The worst one.
    pub ns_per_placement_max: f64,
    /// From the median.
    pub placements_per_s: u64,
    /// Median time to keep the view fresh (booking, changes of placements and of ends), over the containers placed.
    pub view_ns_per_placement: f64,
    /// Containers of one repetition that found no room.
    pub unplaced: usize,
    /// How often.
    pub repetitions: usize,
}

impl EngineRun {
    /// Of [`EngineRun::cells`].
    pub const HEADER: &[&str] = &[
        "workers",
        "shapes",
        "batch",
        "strategy",
        "submit",
        "ns/placement",
        "spread",
        "placements/s",
        "view ns",
        "unplaced",
        "repetitions",
    ];

    /// As a row of a table.
    #[must_use]
    pub fn cells(&self) -> Vec<String> {
        vec![
            self.case.workers.to_string(),
            self.case.shapes.to_string(),
            self.case.batch.to_string(),
            strategy_word(self.case.strategy).to_owned(),
            self.case.submit.word().to_owned(),
            format!("{:.0}", self.ns_per_placement),
            format!("{:.0} to {:.0}", self.ns_per_placement_min, self.ns_per_placement_max),
            self.placements_per_s.to_string(),
            format!("{:.0}", self.view_ns_per_placement),
            self.unplaced.to_string(),
            self.repetitions.to_string(),
        ]
    }

    pub(crate) fn measures(&self) -> Vec<Measure> {
        let (median, min, max) = (self.ns_per_placement, self.ns_per_placement_min, self.ns_per_placement_max);
        vec![Measure { name: "ns_per_placement", spread: Spread { median, min, max } }]
    }
}

/// Measures; `progress` is told of each run as it ends. An error means that the engine made a wrong plan.
pub fn engine(options: &EngineBench, mut progress: impl FnMut(&EngineRun)) -> Result<Report, WrongPlan> {
    let mut runs = Vec::new();
    for workers in &options.workers {
        for strategy in &options.strategies {
            let mut bench = Bench::new(fleet::workers(*workers, options.seed), *strategy, options.seed);
            for shapes in &options.shapes {
                let definitions = fleet::shapes(*shapes);
                for batch in &options.batches {
                    for submit in &options.submits {
                        let (workers, shapes, batch) = (*workers, *shapes, *batch);
                        let containers = options.containers.max(batch);
                        let case =
                            EngineCase { workers, containers, shapes, batch, strategy: *strategy, submit: *submit };
                        let run = bench.run(case, &definitions, options)?;
                        progress(&run);
                        runs.push(run);
                    }
                }
            }
        }
    }
    Ok(Report::of(obtained(options), Runs::Engine(runs)))
}

fn obtained(options: &EngineBench) -> String {
    format!(
        "the engine's plan alone, in memory, on one thread: no store, no network. Fleets of three pools (80 % CPU \
         workers, 10 % with 8 H100, 10 % with 4 A10G), on average half full; one shape in eight asks for GPUs, one in \
         five for a label. Between plans the view takes what was placed and what ended. Every plan was checked for \
         capacity outside of the time. At least {} repetitions and {} ms for each run, seed {}; medians.",
        options.repetitions_min,
        options.run_time.as_millis(),
        options.seed
    )
}

/// A fleet on which runs are made; after each repetition it is as it was.
struct Bench {
    truth: Truth,
    view: FleetView,
    version: FleetVersion,
    seed: u64,
    live: VecDeque<Live>,
}

/// The times of one repetition.
#[derive(Default)]
struct Times {
    plan: Duration,
    view: Duration,
    placed: usize,
    unplaced: usize,
}

impl Bench {
    fn new(workers: Vec<volley_model::WorkerView>, strategy: Strategy, seed: u64) -> Self {
        let (mut view, version) = (FleetView::new(), FleetVersion(1));
        let pools = fleet::pools(strategy);
        view.apply(&FleetChanges { reload: true, version, workers: workers.clone(), pools, ..FleetChanges::default() });
        Self { truth: Truth::new(workers), view, version, seed, live: VecDeque::new() }
    }

    fn run(
        &mut self,
        case: EngineCase,
        shapes: &[(ShapeHash, Arc<Shape>)],
        options: &EngineBench,
    ) -> Result<EngineRun, WrongPlan> {
        let containers = containers(case, shapes);
        // The first one warms the caches.
        self.repeat(case, &containers, shapes, 0)?;
        let (mut plans, mut views, mut unplaced) = (Vec::new(), Vec::new(), 0);
        let begin = Instant::now();
        while plans.len() < options.repetitions_min.max(1) || begin.elapsed() < options.run_time {
            let times = self.repeat(case, &containers, shapes, plans.len() as u64)?;
            let each = |time: Duration| time.as_nanos() as f64 / times.placed.max(1) as f64;
            plans.push(each(times.plan));
            views.push(each(times.view));
            unplaced = times.unplaced;
        }
        self.truth.check_view(&self.view)?;
        let Spread { median, min, max } = Spread::of(&plans);
        Ok(EngineRun {
            case,
            ns_per_placement: rounded(median),
            ns_per_placement_min: rounded(min),
            ns_per_placement_max: rounded(max),
            placements_per_s: (1e9 / median) as u64,
            view_ns_per_placement: rounded(Spread::of(&views).median),
            unplaced,
            repetitions: plans.len(),
        })
    }

    /// Plans all containers, batch by batch, and lets all of them end.
    fn repeat(
        &mut self,
        case: EngineCase,
        containers: &[Claimed],
        shapes: &[(ShapeHash, Arc<Shape>)],
        repetition: u64,
    ) -> Result<Times, WrongPlan> {
        let mut times = Times::default();
        let live_max = LIVE_PER_WORKER * case.workers;
        for (number, batch) in containers.chunks(case.batch).enumerate() {
            // Batches are cut so that a count of shapes that is smaller is in each, and each is in one once.
            let first = number * case.batch;
            let used = if shapes.len() <= case.batch { shapes } else { &window(shapes, first, batch.len()) };
            let input = input(batch, used, self.seed ^ repetition);
            let begin = Instant::now();
            let plan = plan(&self.view, &input);
            times.plan += begin.elapsed();
            times.placed += plan.placements.len();
            times.unplaced += batch.len() - plan.placements.len();
            let placed = self.truth.accept(&plan, batch, used)?;
            let ended = (self.live.len() + placed.len()).saturating_sub(live_max).min(self.live.len());
            let ended: Vec<Live> = self.live.drain(..ended).collect();
            times.view += self.refresh(&plan, &placed, &ended);
            self.live.extend(placed);
        }
        let ended: Vec<Live> = self.live.drain(..).collect();
        times.view += self.refresh(&Plan::default(), &[], &ended);
        Ok(times)
    }

    /// What a server does to its view after a commit, and with the next claim.
    fn refresh(&mut self, plan: &Plan, placed: &[Live], ended: &[Live]) -> Duration {
        let placements: Vec<(Placement, Arc<Shape>)> = plan
            .placements
            .iter()
            .zip(placed)
            .map(|(planned, live)| (placement(planned), live.shape.clone()))
            .collect();
        self.version = self.version.next();
        let changes =
            FleetChanges { version: self.version, workers: self.truth.end(placed, ended), ..FleetChanges::default() };
        let begin = Instant::now();
        for (placement, shape) in &placements {
            self.view.reserve_committed(placement, &shape.resources);
        }
        self.view.apply(&changes);
        begin.elapsed()
    }
}

/// To a tenth.
fn rounded(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

/// `count` shapes from number `first` on, round and round.
fn window(shapes: &[(ShapeHash, Arc<Shape>)], first: usize, count: usize) -> Vec<(ShapeHash, Arc<Shape>)> {
    (first..first + count).map(|number| shapes[number % shapes.len()].clone()).collect()
}

fn containers(case: EngineCase, shapes: &[(ShapeHash, Arc<Shape>)]) -> Vec<Claimed> {
    let claimed = |number: usize| Claimed {
        container: ContainerId { group: GroupId(1), index: number as u32 },
        claim: ClaimNumber(1),
        shape: shapes[number % shapes.len()].0,
        score: Score(if case.submit == Submit::Batch { 1 } else { number as u64 }),
        since: Timestamp(0),
        fail_if_unplaceable: false,
    };
    (0..case.containers).map(claimed).collect()
}

fn input<'a>(containers: &'a [Claimed], shapes: &'a [(ShapeHash, Arc<Shape>)], seed: u64) -> PlanInput<'a> {
    PlanInput {
        containers,
        shapes,
        recheck: &[],
        session: SessionId(1),
        sessions: &[SessionId(1)],
        now: Timestamp(0),
        hold_after: Millis(10_000),
        hold_term: Millis(30_000),
        seed,
    }
}

fn placement(planned: &volley_engine::Planned) -> Placement {
    Placement {
        container: planned.container.container,
        claim: planned.container.claim,
        worker: planned.worker.clone(),
        epoch: planned.epoch,
        revision: planned.revision,
        gpus: planned.gpus.clone(),
        nonce: Nonce(0),
    }
}
