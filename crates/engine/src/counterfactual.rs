//! What would have to change for a waiting container to start now: counterfactuals, found by
//! looking at the fleet and proven by the planner itself. Pure; it changes no view and decides
//! nothing. Knows nothing of stores or people.
//!
//! Each kind of change is the smallest of its kind: with a byte or a thousandth of a core more, a GPU more, or a
//! worker fewer, the planner would not place the container. A change of the container's own request leaves everything in
//! front of it where it is: that fits nowhere. A change of the fleet serves what is in front first.

use std::sync::Arc;

use volley_model::{
    BlockedShape, Bytes, Change, ClaimNumber, Claimed, ContainerId, CpuMilli, Epoch, FleetChanges, GPU_WHOLE, GpuKinds,
    GroupId, MORE_WORKERS_EXACT, Millis, Nonce, PoolName, PoolSelector, Resources, Revision, Score, SessionId, Shape,
    ShapeHash, Timestamp, Worker, WorkerId, WorkerStatus, WorkerView, feasible,
};

use crate::plan::KEPT_MAX;
use crate::view::Index;
use crate::{FleetView, PlanInput, plan};

/// Changes that are named: what a person reads.
pub const CHANGES_MAX: usize = 3;
/// More workers than this are no small change.
pub const MORE_WORKERS_MAX: u32 = 1_000;
/// Candidates of a kind that are held against the planner.
const TRIES_MAX: usize = 8;

/// A waiting container.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Where it can run.
    pub shape: &'a Shape,
    /// Its place in the order.
    pub score: Score,
    /// How many of its shape are in front of it.
    pub ahead: u64,
}

/// A change and where the container would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterfactual {
    /// What would have to be different.
    pub change: Change,
    /// Where the planner would put it; `None` on a worker that is not there.
    pub worker: Option<WorkerId>,
}

/// What can be said of a waiting container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counterfactuals {
    /// It fits as things are, there; then it only waits for its turn.
    pub fits_on: Option<WorkerId>,
    /// The cheapest changes under which it would start now, at most [`CHANGES_MAX`].
    pub changes: Vec<Counterfactual>,
}

/// What would have to change for a waiting container to start now. The view is to be of one server (`set_sessions` with one or none): parts are no reason to wait.
#[must_use]
pub fn counterfactuals(view: &FleetView, question: &Question<'_>) -> Counterfactuals {
    let view = &with_ahead(view, question);
    if let Some(worker) = stands(view, question.score, question.shape) {
        return Counterfactuals { fits_on: Some(worker), changes: Vec::new() };
    }
    let mut found = changes_of_request(view, question);
    found.extend(changes_of_fleet(view, question));
    found.sort_by_key(|found| found.change.cost(question.shape));
    found.truncate(CHANGES_MAX);
    Counterfactuals { fits_on: None, changes: found }
}

/// The view with what is in front of the container, of its shape, and nothing behind it; and with every mark taken at its word:
/// what is blocked fits nowhere, until the fleet changes.
fn with_ahead(view: &FleetView, question: &Question<'_>) -> FleetView {
    let mut view = view.clone();
    let (hash, version) = (question.shape.hash(), view.version());
    let mut changes = FleetChanges { version, more: !view.is_complete(), ..FleetChanges::default() };
    for blocked in view.blocked() {
        let count = if blocked.hash == hash { question.ahead } else { blocked.count };
        match count {
            0 => changes.unblocked.push(blocked.hash),
            count => changes.blocked.push(BlockedShape { count, at: version, ..blocked.clone() }),
        }
    }
    view.apply(&changes);
    view
}

/// Where the planner puts the container in a fleet that has changed, behind all that is in front of it.
fn stands_behind(view: &FleetView, question: &Question<'_>) -> Option<WorkerId> {
    // Claimed containers are served before heads of their score, and those of its own group in front of it have its score.
    let behind = u64::from(question.ahead > 0 && view.blocked_shape(question.shape.hash()).is_some());
    stands(view, Score(question.score.0 + behind), question.shape)
}

/// Where the planner puts a container of this shape, if anywhere.
fn stands(view: &FleetView, score: Score, shape: &Shape) -> Option<WorkerId> {
    let hash = shape.hash();
    let container = Claimed {
        container: ContainerId { group: GroupId(0), index: 0 },
        claim: ClaimNumber(0),
        shape: hash,
        score,
        since: Timestamp(0),
        fail_if_unplaceable: false,
    };
    let shapes: [(ShapeHash, Arc<Shape>); 1] = [(hash, Arc::new(shape.clone()))];
    let input = PlanInput {
        containers: &[container],
        shapes: &shapes,
        recheck: &[],
        session: SessionId(0),
        sessions: &[],
        now: Timestamp(0),
        hold_after: Millis(u64::MAX),
        hold_term: Millis(0),
        seed: 0,
    };
    plan(view, &input).placements.pop().map(|placed| placed.worker)
}

/// The first of these changes of the request that the planner agrees to.
fn first(view: &FleetView, question: &Question<'_>, changes: impl Iterator<Item = Change>) -> Option<Counterfactual> {
    changes.take(TRIES_MAX).find_map(|change| {
        let worker = stands(view, question.score, &change.changed(question.shape)?)?;
        Some(Counterfactual { change, worker: Some(worker) })
    })
}

fn changes_of_request(view: &FleetView, question: &Question<'_>) -> Vec<Counterfactual> {
    let shape = question.shape;
    let labels = shape.require_labels.keys().map(|key| Change::WithoutLabel { key: key.clone() });
    let mut found = Vec::new();
    found.extend(first(view, question, labels));
    found.extend(first(view, question, other_pools(view.index(), shape)));
    found.extend(first(view, question, other_kinds(view.index(), shape)));
    found.extend(first(view, question, fewer_gpus(view.index(), shape)));
    found.extend(less_resources(view, question));
    found
}

/// Pools other than the one that is required, the best first.
fn other_pools(index: &Index, shape: &Shape) -> impl Iterator<Item = Change> {
    let required = match &shape.pool {
        PoolSelector::Required(name) => Some(name),
        _ => None,
    };
    let names = index.pool_order.iter().map(|pool| &index.pools[*pool].pool.name);
    let others = names.filter(move |name| required.is_some_and(|required| required != *name));
    others.map(|name| Change::OtherPool { pool: name.clone() })
}

/// Kinds of GPUs that are there and not asked for, by name.
fn other_kinds(index: &Index, shape: &Shape) -> impl Iterator<Item = Change> + use<> {
    let asked = match shape.resources.gpu.as_ref().map(|gpu| &gpu.kinds) {
        Some(GpuKinds::Ordered(kinds)) => Some(kinds),
        _ => None,
    };
    let mut kinds: Vec<String> = Vec::new();
    if let Some(asked) = asked {
        kinds = index
            .lanes
            .iter()
            .flat_map(|lane| lane.gpus.iter())
            .filter(|kind| !asked.contains(kind))
            .cloned()
            .collect();
        kinds.sort();
        kinds.dedup();
    }
    kinds.into_iter().map(|kind| Change::OtherGpuKind { kind })
}

/// Fewer devices, or smaller parts of one, the largest first.
fn fewer_gpus(index: &Index, shape: &Shape) -> impl Iterator<Item = Change> + use<> {
    let mut changes = Vec::new();
    if let Some(gpu) = &shape.resources.gpu {
        if gpu.milli == GPU_WHOLE {
            changes.extend((1..gpu.count).rev().map(|count| Change::FewerGpus { count }));
        } else {
            let free = index.workers().filter(|worker| worker.is_ready()).flat_map(|worker| &worker.view.free.gpus);
            let mut parts: Vec<_> = free.copied().filter(|free| free.0 > 0 && *free < gpu.milli).collect();
            parts.sort_unstable();
            parts.dedup();
            changes.extend(parts.into_iter().rev().map(|milli| Change::SmallerGpuPart { milli }));
        }
    }
    changes.into_iter()
}

/// Less CPU or less memory alone, or, where neither helps, less of both: the least that some worker lacks.
fn less_resources(view: &FleetView, question: &Question<'_>) -> Vec<Counterfactual> {
    let Resources { cpu, memory, .. } = question.shape.resources;
    let (mut less_cpu, mut less_memory, mut less_both) = (Vec::new(), Vec::new(), Vec::new());
    let index = view.index();
    for entry in index.workers().filter(|entry| entry.is_ready() && entry.view.free.slots > 0) {
        let free = &entry.view.free;
        let lacks = (cpu.saturating_sub(free.cpu), memory.saturating_sub(free.memory));
        // A request for nothing at all of what was asked for is another container.
        if (lacks.0.0 > 0 && lacks.0 == cpu) || (lacks.1.0 > 0 && lacks.1 == memory) {
            continue;
        }
        let serves = |resources: Resources| {
            let smaller = Shape { resources, ..question.shape.clone() };
            let held = entry.view.hold.as_ref().is_some_and(|hold| question.score >= hold.score);
            let gpus = smaller.resources.gpu.as_ref();
            let capacity = &entry.view.worker.capacity;
            !held
                && feasible(&smaller, &entry.view.worker, index.pools[entry.pool].pool.cpu_on_gpu).is_ok()
                && index.pools[entry.pool].pool.admits(&smaller).is_ok()
                && gpus.is_none_or(|gpu| capacity.choose_gpus(free, gpu).is_some())
        };
        let kind = match lacks {
            (CpuMilli(0), Bytes(0)) => continue,
            (_, Bytes(0)) => &mut less_cpu,
            (CpuMilli(0), _) => &mut less_memory,
            _ => &mut less_both,
        };
        let by = u128::from(lacks.0.0) * u128::from(memory.0.max(1)) + u128::from(lacks.1.0) * u128::from(cpu.0.max(1));
        let least = kind.last().is_none_or(|(least, _): &(u128, Change)| by < *least);
        let resources = || Resources {
            cpu: cpu.saturating_sub(lacks.0),
            memory: memory.saturating_sub(lacks.1),
            gpu: question.shape.resources.gpu.clone(),
        };
        if least && serves(resources()) {
            let Resources { cpu, memory, .. } = resources();
            kind.push((by, Change::LessResources { cpu_less: lacks.0, cpu, memory_less: lacks.1, memory }));
        }
    }
    let least = |kind: Vec<(u128, Change)>| first(view, question, kind.into_iter().rev().map(|(_, change)| change));
    let mut found: Vec<Counterfactual> = least(less_cpu).into_iter().collect();
    found.extend(least(less_memory));
    if found.is_empty() {
        found.extend(least(less_both));
    }
    found
}

fn changes_of_fleet(view: &FleetView, question: &Question<'_>) -> Vec<Counterfactual> {
    let before =
        view.blocked().filter(|blocked| blocked.best < question.score || blocked.hash == question.shape.hash());
    let in_front: u64 = before.map(|blocked| blocked.count).fold(0, u64::saturating_add);
    if in_front >= KEPT_MAX {
        // A plan keeps room for no more; and so many in front are no small matter.
        return Vec::new();
    }
    let mut found: Vec<Counterfactual> = uncordoned(view, question).into_iter().collect();
    let offers = offers(view.index(), question.shape);
    let more = offers.into_iter().filter_map(|(pool, machine)| more_workers(view, question, pool, &machine));
    found.extend(more.min_by_key(|found| found.change.cost(question.shape)));
    found
}

/// A change of one worker as the next version of the fleet.
fn changed(view: &FleetView, workers: Vec<WorkerView>, gone: Vec<WorkerId>) -> FleetChanges {
    let (version, more) = (view.version().next(), !view.is_complete());
    FleetChanges { version, more, workers, workers_gone: gone, ..FleetChanges::default() }
}

fn uncordoned(view: &FleetView, question: &Question<'_>) -> Option<Counterfactual> {
    let index = view.index();
    let could = |worker: &&WorkerView| {
        let cpu_on_gpu = index.pool(&worker.worker.pool).is_some_and(|pool| pool.pool.cpu_on_gpu);
        worker.status == WorkerStatus::Cordoned
            && feasible(question.shape, &worker.worker, cpu_on_gpu).is_ok()
            && worker.free.misfit(&question.shape.resources).is_none()
    };
    let mut candidates: Vec<WorkerView> = view.workers().filter(could).take(TRIES_MAX).cloned().collect();
    candidates.iter_mut().find_map(|candidate| {
        candidate.status = WorkerStatus::Ready;
        let mut back = view.clone();
        back.apply(&changed(view, vec![candidate.clone()], Vec::new()));
        let worker = stands_behind(&back, question)?;
        let change = Change::Uncordon { worker: candidate.worker.id.clone() };
        Some(Counterfactual { change, worker: Some(worker) })
    })
}

/// What one more worker of each pool could offer: the pool's machine, or else what its largest worker offers.
fn offers(index: &Index, shape: &Shape) -> Vec<(PoolName, Worker)> {
    let new = |pool: &PoolName| (WorkerId::new("more").expect("a good name"), pool.clone());
    let mut offers = Vec::new();
    let pools = index.pool_order.iter().map(|pool| &index.pools[*pool]);
    for entry in pools.filter(|pool| pool.pool.admits(shape).is_ok()) {
        let serves = |worker: &Worker| feasible(shape, worker, entry.pool.cpu_on_gpu).is_ok();
        let machine = entry.pool.elastic.as_ref().map(|elastic| {
            let (id, pool) = new(&entry.pool.name);
            let (labels, capacity) = (elastic.machine.labels.clone(), elastic.machine.capacity.clone());
            Worker { id, pool, labels, capacity, notes: Vec::new() }
        });
        let known = entry.classes.iter().map(|class| &index.classes[*class]).filter(|class| class.workers > 0);
        let known = known.map(|class| &*class.sample).filter(|worker| serves(worker));
        let known = known.max_by_key(|worker| (worker.capacity.cpu, worker.capacity.memory, worker.capacity.slots));
        let offered = match machine {
            Some(machine) => Some(machine).filter(serves),
            None => known.cloned(),
        };
        offers.extend(offered.map(|worker| (entry.pool.name.clone(), worker)));
    }
    offers.truncate(TRIES_MAX);
    offers
}

/// The fewest more workers of a pool with which the container starts. With some packings a fleet of more workers serves what is
/// in front worse; so small numbers are tried one by one, and only large ones by halving.
fn more_workers(view: &FleetView, question: &Question<'_>, pool: PoolName, like: &Worker) -> Option<Counterfactual> {
    let mut more = More { view: view.clone(), like, count: 0 };
    let enough = match (1..=MORE_WORKERS_EXACT).find(|count| more.serve(*count, question)) {
        Some(count) => count,
        None => more.fewest_above(MORE_WORKERS_EXACT, question)?,
    };
    let (capacity, labels) = (like.capacity.clone(), like.labels.clone());
    Some(Counterfactual { change: Change::MoreWorkers { pool, count: enough, capacity, labels }, worker: None })
}

/// A view with some workers more.
struct More<'a> {
    view: FleetView,
    like: &'a Worker,
    count: u32,
}

impl More<'_> {
    fn fewest_above(&mut self, mut too_few: u32, question: &Question<'_>) -> Option<u32> {
        let mut enough = too_few;
        while !self.serve(enough, question) {
            if enough >= MORE_WORKERS_MAX {
                return None;
            }
            too_few = enough;
            enough = (enough * 2).min(MORE_WORKERS_MAX);
        }
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            if self.serve(middle, question) {
                enough = middle;
            } else {
                too_few = middle;
            }
        }
        Some(enough)
    }

    fn serve(&mut self, count: u32, question: &Question<'_>) -> bool {
        let added = (self.count..count).map(|number| new_worker(self.like, number)).collect();
        let gone = (count..self.count).map(name).collect();
        let changes = changed(&self.view, added, gone);
        self.view.apply(&changes);
        self.count = count;
        stands_behind(&self.view, question).is_some()
    }
}

fn name(number: u32) -> WorkerId {
    WorkerId::new(&format!("one-more.{number}")).expect("a good name")
}

/// An idle worker that is not there.
pub(crate) fn new_worker(like: &Worker, number: u32) -> WorkerView {
    WorkerView {
        worker: Arc::new(Worker { id: name(number), ..like.clone() }),
        epoch: Epoch { number: 1, nonce: Nonce(0) },
        revision: Revision(1),
        status: WorkerStatus::Ready,
        free: like.capacity.all_free(),
        affinities: Arc::default(),
        hold: None,
    }
}
