//! Small fleets, pools and demands for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_model::{
    Bytes, Capacity, Cost, CpuMilli, Demand, Elastic, Epoch, FleetChanges, FleetVersion, Machine, MachineWorker,
    Millis, MinFree, Nonce, OnUnplaceable, Pool, PoolName, PoolSelector, PoolStanding, PoolVersion, ProvisionedMachine,
    ProvisionerKind, Provisioning, Resources, Revision, ScaleState, Score, Shape, Stage, TenantName, Timestamp, Worker,
    WorkerId, WorkerStatus, WorkerView,
};

use super::super::{ScalePlan, plan_scale};
use crate::FleetView;

pub(super) const NOW: Timestamp = Timestamp(10_000_000);
/// Of every pool here.
pub(super) const IDLE: Millis = Millis::from_secs(300);

pub(super) fn pool_name(name: &str) -> PoolName {
    PoolName::new(name).expect("a good name")
}

/// Ten cores, 10 GiB, ten slots.
pub(super) fn machine() -> Machine {
    let capacity = Capacity { cpu: CpuMilli(10_000), memory: Bytes(10 << 30), slots: 10, gpus: Vec::new() };
    Machine { capacity, labels: BTreeMap::new() }
}

/// An elastic pool of up to a hundred machines.
pub(super) fn elastic(name: &str) -> Pool {
    let elastic = Elastic {
        provisioner: ProvisionerKind::Process,
        options: BTreeMap::new(),
        machine: machine(),
        min: 0,
        max: 100,
        min_free: MinFree::default(),
        cost_per_hour: Cost(1_000_000),
        boot_time: Millis(60_000),
        boot_limit: Millis(600_000),
        idle_timeout: IDLE,
        fallback_after: Millis(30_000),
        in_flight_max: 100,
        per_minute_max: 100,
    };
    Pool { elastic: Some(elastic), version: PoolVersion(1), ..Pool::with_defaults(pool_name(name)) }
}

/// A shape of so much CPU, for any pool.
pub(super) fn shape(cpu: u64) -> Shape {
    Shape {
        tenant: TenantName::default(),
        resources: Resources { cpu: CpuMilli(cpu), memory: Bytes(1 << 20), gpu: None },
        pool: PoolSelector::Any,
        require_labels: BTreeMap::new(),
        affinity: None,
        on_unplaceable: OnUnplaceable::Wait,
    }
}

/// Pools, workers and machines, and what waits.
#[derive(Default)]
pub(super) struct Scene {
    pub(super) pools: Vec<Pool>,
    pub(super) workers: Vec<WorkerView>,
    pub(super) state: ScaleState,
}

impl Scene {
    pub(super) fn of(pools: impl IntoIterator<Item = Pool>) -> Self {
        let state = ScaleState { now: NOW, at: FleetVersion(5), ..ScaleState::default() };
        Self { pools: pools.into_iter().collect(), workers: Vec::new(), state }
    }

    /// Changes the rules of the first pool.
    pub(super) fn rules(mut self, change: impl FnOnce(&mut Elastic)) -> Self {
        change(self.pools[0].elastic.as_mut().expect("the first pool is elastic"));
        self
    }

    /// So many wait, since a minute ago.
    pub(super) fn demand(self, count: u64, shape: &Shape, score: u64) -> Self {
        self.demand_since(count, shape, score, Timestamp(NOW.0 - 60_000))
    }

    pub(super) fn demand_since(mut self, count: u64, shape: &Shape, score: u64, since: Timestamp) -> Self {
        let (hash, shape) = (shape.hash(), Arc::new(shape.clone()));
        self.state.demand.push(Demand { hash, shape, since, runs: vec![(Score(score), count)] });
        self
    }

    /// Bought machines of a pool, at a stage.
    pub(super) fn bought(mut self, count: u32, pool: &str, stage: Stage) -> Self {
        for _ in 0..count {
            let worker = WorkerId::new(&format!("{pool}-{}", self.state.machines.len())).expect("a good name");
            let definition = self.pools.iter().find(|p| p.name.as_str() == pool).and_then(|p| p.elastic.as_ref());
            let machine = Arc::new(definition.expect("the pool is elastic").machine.clone());
            let record = Provisioning {
                worker: worker.clone(),
                pool: pool_name(pool),
                pool_version: PoolVersion(1),
                machine: Arc::clone(&machine),
                cost_per_hour: Cost(1_000_000),
                requested_at: Timestamp(NOW.0 - 10_000),
                boot_until: NOW.after(Millis(600_000)),
                handle: None,
                stage,
            };
            let known = (!stage.is_in_flight()).then(|| {
                self.workers.push(worker_of(&worker, pool, &machine));
                let idle_since = NOW;
                MachineWorker { status: WorkerStatus::Ready, containers: 0, idle_since, quarantined: false }
            });
            self.state.machines.push(ProvisionedMachine { record: Arc::new(record), worker: known });
        }
        self
    }

    /// Ready idle workers that nobody bought.
    pub(super) fn ready(mut self, count: u32, pool: &str) -> Self {
        for _ in 0..count {
            let worker = WorkerId::new(&format!("static-{}", self.workers.len())).expect("a good name");
            self.workers.push(worker_of(&worker, pool, &machine()));
        }
        self
    }

    /// Changes what is known of a bought machine's worker.
    pub(super) fn worker(mut self, number: usize, change: impl FnOnce(&mut MachineWorker)) -> Self {
        let machine = &mut self.state.machines[number];
        let known = machine.worker.as_mut().expect("it has registered");
        change(known);
        let view = self.workers.iter_mut().find(|view| view.worker.id == machine.record.worker);
        view.expect("the view knows it").status = known.status;
        self
    }

    pub(super) fn standing(mut self, pool: &str, change: impl FnOnce(&mut PoolStanding)) -> Self {
        let mut standing = PoolStanding::fresh(pool_name(pool));
        change(&mut standing);
        self.state.standings.push(standing);
        self
    }

    pub(super) fn view(&self) -> FleetView {
        let mut view = FleetView::new();
        view.apply(&FleetChanges {
            reload: true,
            version: self.state.at,
            workers: self.workers.clone(),
            pools: self.pools.clone(),
            ..FleetChanges::default()
        });
        view
    }

    pub(super) fn plan(&self) -> ScalePlan {
        plan_scale(&self.view(), &self.state)
    }

    /// Pool and count of what is bought.
    pub(super) fn buys(&self) -> Vec<(String, u32)> {
        self.plan().purchases.into_iter().map(|purchase| (purchase.pool.to_string(), purchase.count)).collect()
    }

    /// What is given up.
    pub(super) fn gives_up(&self) -> Vec<String> {
        self.plan().retirements.into_iter().map(|(worker, why)| format!("{worker} {why:?}")).collect()
    }
}

fn worker_of(id: &WorkerId, pool: &str, machine: &Machine) -> WorkerView {
    let (capacity, labels) = (machine.capacity.clone(), machine.labels.clone());
    WorkerView {
        free: capacity.all_free(),
        worker: Arc::new(Worker { id: id.clone(), pool: pool_name(pool), labels, capacity, notes: Vec::new() }),
        epoch: Epoch { number: 1, nonce: Nonce(7) },
        revision: Revision(1),
        status: WorkerStatus::Ready,
        affinities: Arc::default(),
        hold: None,
    }
}
