//! Small fleets and bursts for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_model::{
    BlockedShape, Bytes, Capacity, ClaimNumber, Claimed, ContainerId, CpuMilli, Epoch, FleetChanges, FleetVersion,
    GpuKinds, GpuMilli, GpuRequest, GroupId, HoldView, Millis, Nonce, OnUnplaceable, Pool, PoolName, PoolSelector,
    Resources, Revision, Score, SessionId, Shape, ShapeHash, TenantName, Timestamp, Worker, WorkerId, WorkerStatus,
    WorkerView,
};

use crate::{FleetView, Plan, PlanInput, plan};

pub(super) const NOW: Timestamp = Timestamp(1_000_000);
pub(super) const HOLD_AFTER: Millis = Millis(30_000);
/// The version of every scene's view.
pub(super) const AT: FleetVersion = FleetVersion(50);

pub(super) fn pool_name(name: &str) -> PoolName {
    PoolName::new(name).expect("a good name")
}

/// A ready, idle worker of 10 cores, 10 GiB and 100 slots in pool `default`.
pub(super) fn worker(name: &str) -> WorkerView {
    let capacity = Capacity { cpu: CpuMilli(10_000), memory: Bytes(10 << 30), slots: 100, gpus: Vec::new() };
    let id = WorkerId::new(name).expect("a good name");
    let (pool, labels, notes) = (PoolName::default(), BTreeMap::new(), Vec::new());
    WorkerView {
        free: capacity.all_free(),
        worker: Arc::new(Worker { id, pool, labels, capacity, notes }),
        epoch: Epoch { number: 1, nonce: Nonce(7) },
        revision: Revision(3),
        status: WorkerStatus::Ready,
        affinities: Arc::default(),
        hold: None,
    }
}

/// Changes of a worker, one after the other.
pub(super) trait With: Sized {
    fn with(self, change: impl FnOnce(&mut Self)) -> Self;
    fn pool(self, name: &str) -> Self;
    fn label(self, key: &str, value: &str) -> Self;
    fn gpus(self, kinds: &[&str]) -> Self;
    fn used_cpu(self, cpu: u64) -> Self;
    fn affinity(self, key: &str) -> Self;
    fn hold(self, shape: &Shape, score: u64) -> Self;
}

impl With for WorkerView {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn pool(self, name: &str) -> Self {
        self.with(|view| Arc::make_mut(&mut view.worker).pool = pool_name(name))
    }

    fn label(self, key: &str, value: &str) -> Self {
        self.with(|view| {
            Arc::make_mut(&mut view.worker).labels.insert(key.to_owned(), value.to_owned());
        })
    }

    fn gpus(self, kinds: &[&str]) -> Self {
        self.with(|view| {
            Arc::make_mut(&mut view.worker).capacity.gpus = kinds.iter().map(|kind| (*kind).to_owned()).collect();
            view.free.gpus = vec![GpuMilli(1000); kinds.len()];
        })
    }

    fn used_cpu(self, cpu: u64) -> Self {
        self.with(|view| view.free.cpu = view.free.cpu.saturating_sub(CpuMilli(cpu)))
    }

    fn affinity(self, key: &str) -> Self {
        self.with(|view| Arc::make_mut(&mut view.affinities).push(key.to_owned()))
    }

    fn hold(self, shape: &Shape, score: u64) -> Self {
        let until = NOW.after(Millis(1));
        self.with(|view| view.hold = Some(HoldView { shape: shape.hash(), score: Score(score), until }))
    }
}

/// A shape of so much CPU, for any pool.
pub(super) fn shape(cpu: u64) -> Shape {
    Shape {
        tenant: TenantName::default(),
        resources: Resources { cpu: CpuMilli(cpu), memory: Bytes(0), gpu: None },
        pool: PoolSelector::Any,
        require_labels: BTreeMap::new(),
        affinity: None,
        on_unplaceable: OnUnplaceable::Wait,
    }
}

/// A shape that asks for whole GPUs, or a part of one.
pub(super) fn gpu_shape(kinds: &[&str], count: u16, milli: u64) -> Shape {
    let kinds = match kinds {
        [] => GpuKinds::Any,
        kinds => GpuKinds::Ordered(kinds.iter().map(|kind| (*kind).to_owned()).collect()),
    };
    let mut shape = shape(100);
    shape.resources.gpu = Some(GpuRequest { kinds, count, milli: GpuMilli(milli) });
    shape
}

/// A fleet, what is claimed, and what is blocked.
#[derive(Debug, Clone, Default)]
pub(super) struct Scene {
    pub(super) workers: Vec<WorkerView>,
    pub(super) pools: Vec<Pool>,
    pub(super) containers: Vec<Claimed>,
    pub(super) shapes: Vec<(ShapeHash, Arc<Shape>)>,
    pub(super) blocked: Vec<BlockedShape>,
    pub(super) recheck: Vec<ShapeHash>,
    pub(super) sessions: Vec<SessionId>,
    pub(super) seed: u64,
}

impl Scene {
    pub(super) fn of(workers: impl IntoIterator<Item = WorkerView>) -> Self {
        Self { workers: workers.into_iter().collect(), sessions: vec![SessionId(1)], ..Self::default() }
    }

    pub(super) fn pool(mut self, name: &str, change: impl FnOnce(&mut Pool)) -> Self {
        let mut pool = Pool::with_defaults(pool_name(name));
        change(&mut pool);
        self.pools.push(pool);
        self
    }

    /// Claims `count` containers of a shape with one score, waiting since now.
    pub(super) fn claim(self, count: u32, shape: &Shape, score: u64) -> Self {
        self.claim_since(count, shape, score, NOW)
    }

    pub(super) fn claim_since(mut self, count: u32, shape: &Shape, score: u64, since: Timestamp) -> Self {
        let hash = shape.hash();
        if !self.shapes.iter().any(|(known, _)| *known == hash) {
            self.shapes.push((hash, Arc::new(shape.clone())));
        }
        let first = self.containers.len() as u32;
        self.containers.extend((first..first + count).map(|index| Claimed {
            container: ContainerId { group: GroupId(score), index },
            claim: ClaimNumber(1),
            shape: hash,
            score: Score(score),
            since,
            fail_if_unplaceable: false,
        }));
        self
    }

    /// Claimed containers fail when no pool could ever serve them.
    pub(super) fn failing(mut self) -> Self {
        self.containers.iter_mut().for_each(|claimed| claimed.fail_if_unplaceable = true);
        self
    }

    /// `count` of a shape are blocked since `at`.
    pub(super) fn block(mut self, count: u64, shape: &Shape, best: u64, at: u64) -> Self {
        let (hash, shape, best, since) = (shape.hash(), Arc::new(shape.clone()), Score(best), NOW);
        self.blocked.push(BlockedShape { hash, shape, count, best, since, at: FleetVersion(at) });
        self
    }

    pub(super) fn recheck(mut self, shape: &Shape) -> Self {
        self.recheck.push(shape.hash());
        self
    }

    pub(super) fn view(&self) -> FleetView {
        let mut view = FleetView::new();
        view.apply(&FleetChanges {
            reload: true,
            version: AT,
            workers: self.workers.clone(),
            pools: self.pools.clone(),
            blocked: self.blocked.clone(),
            ..FleetChanges::default()
        });
        view
    }

    pub(super) fn input(&self) -> PlanInput<'_> {
        PlanInput {
            containers: &self.containers,
            shapes: &self.shapes,
            recheck: &self.recheck,
            session: SessionId(1),
            sessions: &self.sessions,
            now: NOW,
            hold_after: HOLD_AFTER,
            hold_term: Millis(60_000),
            seed: self.seed,
        }
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.view(), &self.input())
    }
}

/// Where containers went: worker and how many, by name.
pub(super) fn spread_of(plan: &Plan) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for placed in &plan.placements {
        *counts.entry(placed.worker.to_string()).or_default() += 1;
    }
    counts
}

/// The workers in the order in which they got containers.
pub(super) fn names(plan: &Plan) -> Vec<String> {
    plan.placements.iter().map(|placed| placed.worker.to_string()).collect()
}

/// `[("a", 2)]` as [`spread_of`] gives it.
pub(super) fn counts(expected: &[(&str, u32)]) -> BTreeMap<String, u32> {
    expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}
