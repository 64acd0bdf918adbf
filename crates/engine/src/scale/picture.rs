//! From the fleet view and the scale state to the small model, and from its solution back to pools and shapes.

use std::collections::{BTreeMap, BTreeSet};

use volley_model::{
    Capacity, Demand, Elastic, Free, Machine, MinFree, Pool, PoolName, PoolStanding, ProvisionedMachine, ScaleState,
    Shape, Stage, WorkerId, WorkerStatus, WorkerView, feasible,
};

use super::problem::{Kind, Offer, Problem, Solution, There};
use super::{Purchase, ShapeOutlook};
use crate::FleetView;

/// Everything that a plan looks at, in the order in which it looks.
pub(super) struct Picture<'a> {
    pub(super) view: &'a FleetView,
    pub(super) state: &'a ScaleState,
    /// Best score first.
    pub(super) demand: Vec<&'a Demand>,
    pub(super) pools: Vec<PoolPicture<'a>>,
    pub(super) problem: Problem,
    /// Of each kind of the problem.
    origins: Vec<Origin>,
    /// Containers of each shape for which room is held.
    held: Vec<u64>,
    /// The pool of each offer: a place in `pools`.
    offered_by: Vec<usize>,
}

/// An elastic pool.
pub(super) struct PoolPicture<'a> {
    pub(super) pool: &'a Pool,
    pub(super) elastic: &'a Elastic,
    pub(super) standing: Option<&'a PoolStanding>,
    /// What a machine of it really offers, as far as is known.
    pub(super) machine: Machine,
    /// All its machines and workers, whatever they do.
    pub(super) machines: u32,
    pub(super) in_flight: u32,
    /// Ready, or on their way.
    pub(super) usable: u32,
}

/// What machines of a kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Ready workers, of an elastic pool or of none.
    Ready(Option<usize>),
    /// On their way.
    Booting(usize),
    /// For sale.
    Offer(usize),
}

/// What is free in each elastic pool once all that the plan serves is placed: ready, or on its way.
pub(super) type Headroom = Vec<MinFree>;

/// Kind, and what is free: CPU, memory, slots, each device.
type Room = (usize, u64, u64, u32, Vec<u64>);

impl<'a> Picture<'a> {
    pub(super) fn of(view: &'a FleetView, state: &'a ScaleState) -> Self {
        let mut demand: Vec<&Demand> = state.demand.iter().filter(|demand| demand.count() > 0).collect();
        demand.sort_by_key(|demand| (demand.runs.first().map(|(score, _)| *score), demand.hash));
        let pools = pools(view, state);
        let held = vec![0; demand.len()];
        let problem = Problem {
            shapes: demand.iter().map(|demand| demand.shape.resources.clone()).collect(),
            ..Problem::default()
        };
        let mut picture =
            Self { view, state, demand, pools, problem, origins: Vec::new(), held, offered_by: Vec::new() };
        picture.add_holds();
        picture.add_runs();
        picture.add_ready();
        picture.add_booting();
        picture.add_offers();
        picture
    }

    fn add_holds(&mut self) {
        for worker in self.view.index().workers().filter(|worker| worker.is_ready()) {
            let Some(hold) = worker.view.hold.as_ref().filter(|hold| hold.until > self.state.now) else { continue };
            if let Some(shape) = self.demand.iter().position(|demand| demand.hash == hold.shape) {
                self.held[shape] = (self.held[shape] + 1).min(self.demand[shape].count());
            }
        }
    }

    /// What waits, less what room is held for, in one order of score.
    fn add_runs(&mut self) {
        let mut runs = Vec::new();
        for (shape, demand) in self.demand.iter().enumerate() {
            let mut held = self.held[shape];
            for (score, count) in &demand.runs {
                let kept = held.min(*count);
                held -= kept;
                if *count > kept {
                    runs.push((*score, shape, count - kept));
                }
            }
        }
        runs.sort_by_key(|(score, shape, _)| (*score, *shape));
        self.problem.runs = runs.into_iter().map(|(_, shape, count)| (shape, count)).collect();
    }

    /// Ready workers on which something of the demand fits.
    fn add_ready(&mut self) {
        let index = self.view.index();
        let least = self.least();
        let mut kinds: BTreeMap<usize, usize> = BTreeMap::new();
        let mut rooms: BTreeMap<Room, (Free, u64)> = BTreeMap::new();
        for worker in index.workers().filter(|worker| worker.is_ready() && worker.view.hold.is_none()) {
            let free = &worker.view.free;
            if free.slots == 0 || free.cpu.0 < least.0 || free.memory.0 < least.1 || self.demand.is_empty() {
                continue;
            }
            let kind = *kinds.entry(worker.class).or_insert_with(|| {
                let sample = &index.classes[worker.class].sample;
                let pool = &index.pools[worker.pool].pool;
                let admits = |shape: &Shape| pool.admits(shape).is_ok();
                let serves = |shape: &Shape| admits(shape) && feasible(shape, sample, pool.cpu_on_gpu).is_ok();
                self.problem.kinds.push(Kind {
                    capacity: sample.capacity.clone(),
                    serves: self.demand.iter().map(|demand| serves(&demand.shape)).collect(),
                });
                self.origins.push(Origin::Ready(number_of(&self.pools, &pool.name)));
                self.problem.kinds.len() - 1
            });
            let gpus = free.gpus.iter().map(|milli| milli.0).collect();
            let room = (kind, free.cpu.0, free.memory.0, free.slots, gpus);
            rooms.entry(room).or_insert_with(|| (free.clone(), 0)).1 += 1;
        }
        for ((kind, ..), (free, count)) in rooms {
            self.problem.there.push(There { kind, free, count });
        }
    }

    /// The least CPU and memory that anything asks for.
    fn least(&self) -> (u64, u64) {
        let cpu = self.problem.shapes.iter().map(|shape| shape.cpu.0).min();
        let memory = self.problem.shapes.iter().map(|shape| shape.memory.0).min();
        (cpu.unwrap_or(0), memory.unwrap_or(0))
    }

    /// Machines on their way: all free. Those whose worker the view knows are workers.
    fn add_booting(&mut self) {
        let mut alike: Vec<(usize, Machine, u64)> = Vec::new();
        for machine in booting(self.view, self.state) {
            let Some(number) = self.pool_number(&machine.record.pool) else { continue };
            let offers = real(&machine.record.machine, self.pools[number].standing);
            match alike.iter_mut().find(|(pool, other, _)| *pool == number && *other == offers) {
                Some((.., count)) => *count += 1,
                None => alike.push((number, offers, 1)),
            }
        }
        for (number, machine, count) in alike {
            let pool = self.pools[number].pool;
            let serves = |demand: &&Demand| pool.machine_serves(&machine, &demand.shape).is_ok();
            let serves = self.demand.iter().map(serves).collect();
            let (kind, free) = (self.problem.kinds.len(), machine.capacity.all_free());
            self.problem.kinds.push(Kind { capacity: machine.capacity, serves });
            self.origins.push(Origin::Booting(number));
            self.problem.there.push(There { kind, free, count });
        }
    }

    /// What may be bought now.
    fn add_offers(&mut self) {
        let mut priorities: BTreeSet<i16> = BTreeSet::new();
        let mut open = Vec::new();
        let could = |pool: &PoolPicture<'_>| {
            let serves = |demand: &&Demand| pool.pool.machine_serves(&pool.machine, &demand.shape).is_ok();
            self.demand.iter().map(serves).collect::<Vec<bool>>()
        };
        // Asked once for each pool and shape: it is most of what a picture costs.
        let could: Vec<Vec<bool>> = self.pools.iter().map(could).collect();
        for (number, pool) in self.pools.iter().enumerate() {
            let most = pool.most(self.state);
            let comes_first = |(other, could): &(&PoolPicture<'_>, &Vec<bool>), shape: usize| {
                could[shape] && other.comes_before(pool, self.demand[shape], self.state.now)
            };
            let opens = |shape: usize| {
                could[number][shape] && !self.pools.iter().zip(&could).any(|better| comes_first(&better, shape))
            };
            let serves: Vec<bool> = (0..self.demand.len()).map(opens).collect();
            if most > 0 && serves.contains(&true) {
                priorities.insert(pool.pool.priority);
                open.push((number, most, serves));
            }
        }
        for (number, most, serves) in open {
            let pool = &self.pools[number];
            let rank = priorities.iter().rev().position(|p| *p == pool.pool.priority).expect("it was put in");
            let kind = self.problem.kinds.len();
            self.problem.kinds.push(Kind { capacity: pool.machine.capacity.clone(), serves });
            let cost = pool.elastic.cost_per_hour.0;
            self.origins.push(Origin::Offer(number));
            self.problem.offers.push(Offer { kind, rank, cost, most: u64::from(most) });
            self.offered_by.push(number);
        }
    }

    /// What becomes of each shape.
    pub(super) fn outlook(&self, solution: &Solution) -> Vec<ShapeOutlook> {
        let mut outlooks: Vec<ShapeOutlook> = (self.demand.iter().zip(&self.held))
            .map(|(demand, held)| ShapeOutlook {
                shape: demand.hash,
                waiting: demand.count(),
                fit_ready: *held,
                fit_booting: 0,
                bought_for: 0,
            })
            .collect();
        for group in &solution.groups {
            for (shape, count) in &group.content {
                let outlook = &mut outlooks[*shape];
                let count = count * group.count;
                match self.origins[group.kind] {
                    Origin::Ready(_) => outlook.fit_ready += count,
                    Origin::Booting(_) => outlook.fit_booting += count,
                    Origin::Offer(_) => outlook.bought_for += count,
                }
            }
        }
        outlooks
    }

    /// What is free in each pool when all is placed.
    pub(super) fn headroom(&self, solution: &Solution) -> Headroom {
        let mut headroom: Headroom = self.pools.iter().map(|_| MinFree::default()).collect();
        if self.pools.is_empty() {
            return headroom;
        }
        for worker in self.view.index().workers().filter(|worker| worker.is_ready() && worker.view.hold.is_none()) {
            if let Some(number) = self.pool_number(&worker.view.worker.pool) {
                headroom[number].add(&worker.view.free);
            }
        }
        for machine in booting(self.view, self.state) {
            if let Some(number) = self.pool_number(&machine.record.pool) {
                let offers = real(&machine.record.machine, self.pools[number].standing);
                headroom[number].add(&offers.capacity.all_free());
            }
        }
        for group in &solution.groups {
            let (Origin::Ready(Some(number)) | Origin::Booting(number) | Origin::Offer(number)) =
                self.origins[group.kind]
            else {
                continue;
            };
            for _ in 0..group.count {
                if group.offer.is_none() {
                    headroom[number].remove(&group.before);
                }
                headroom[number].add(&group.free);
            }
        }
        headroom
    }

    pub(super) fn pool_number(&self, name: &PoolName) -> Option<usize> {
        number_of(&self.pools, name)
    }

    /// What is bought: for what waits, then to keep each pool's least number and room. Adds the latter to `headroom`.
    pub(super) fn purchases(&self, solution: &Solution, headroom: &mut Headroom) -> Vec<Purchase> {
        let mut purchases = Vec::new();
        let bought = solution.bought(self.problem.offers.len());
        for (number, pool) in self.pools.iter().enumerate() {
            let offer = self.offered_by.iter().position(|by| *by == number);
            let for_demand = offer.map_or(0, |offer| bought[offer] as u32);
            let left = pool.most(self.state).saturating_sub(for_demand);
            let warm = pool.warm(pool.usable + for_demand, left, &mut headroom[number]);
            if for_demand + warm == 0 {
                continue;
            }
            let serves = offer.map_or_else(Vec::new, |offer| self.served_by(solution, offer));
            let (name, cost_per_hour) = (pool.pool.name.clone(), pool.elastic.cost_per_hour);
            purchases.push(Purchase { pool: name, count: for_demand + warm, warm, cost_per_hour, serves });
        }
        purchases.sort_by(|a, b| a.pool.cmp(&b.pool));
        purchases
    }

    fn served_by(&self, solution: &Solution, offer: usize) -> Vec<(volley_model::ShapeHash, u64)> {
        let mut counts = vec![0; self.demand.len()];
        for group in solution.groups.iter().filter(|group| group.offer == Some(offer)) {
            for (shape, count) in &group.content {
                counts[*shape] += count * group.count;
            }
        }
        let served = self.demand.iter().zip(counts).filter(|(_, count)| *count > 0);
        served.map(|(demand, count)| (demand.hash, count)).collect()
    }
}

impl PoolPicture<'_> {
    /// How many machines may be bought now.
    pub(super) fn most(&self, state: &ScaleState) -> u32 {
        let elastic = self.elastic;
        let by_max = elastic.max.saturating_sub(self.machines);
        let by_flight = elastic.in_flight_max.saturating_sub(self.in_flight);
        let most = by_max.min(by_flight);
        let Some(standing) = self.standing else { return most.min(elastic.per_minute_max) };
        if state.now < standing.retry_at {
            return 0;
        }
        let most = most.min(standing.left_in_minute(elastic.per_minute_max, state.now));
        // One machine shows whether a pool in quarantine is well again.
        if standing.quarantined { most.min(1_u32.saturating_sub(self.in_flight)) } else { most }
    }

    /// How many more are needed for the pool's least number and least room, at most `left`.
    fn warm(&self, usable: u32, left: u32, headroom: &mut MinFree) -> u32 {
        let machine = self.machine.capacity.all_free();
        let mut warm = 0;
        while warm < left && (usable + warm < self.elastic.min || !headroom.covers(&self.elastic.min_free)) {
            warm += 1;
            headroom.add(&machine);
        }
        warm
    }
}

fn number_of(pools: &[PoolPicture<'_>], name: &PoolName) -> Option<usize> {
    pools.iter().position(|pool| pool.pool.name == *name)
}

/// What a machine really offers: its definition, or less when the last one registered with less.
fn real(machine: &Machine, standing: Option<&PoolStanding>) -> Machine {
    let Some(offered) = standing.and_then(|standing| standing.offered.as_ref()) else { return machine.clone() };
    let defined = &machine.capacity;
    let capacity = Capacity {
        cpu: defined.cpu.min(offered.cpu),
        memory: defined.memory.min(offered.memory),
        slots: defined.slots.min(offered.slots),
        gpus: if offered.gpus.len() < defined.gpus.len() { offered.gpus.clone() } else { defined.gpus.clone() },
    };
    Machine { capacity, labels: machine.labels.clone() }
}

/// Machines on their way whose worker the view does not know.
fn booting<'a>(view: &'a FleetView, state: &'a ScaleState) -> impl Iterator<Item = &'a ProvisionedMachine> {
    state.machines.iter().filter(|machine| {
        let record = &machine.record;
        record.stage.is_in_flight() && state.now < record.boot_until && view.worker(&record.worker).is_none()
    })
}

/// Elastic pools by name.
fn pools<'a>(view: &'a FleetView, state: &'a ScaleState) -> Vec<PoolPicture<'a>> {
    let mut pools: Vec<PoolPicture<'a>> = Vec::new();
    for pool in view.pools() {
        let Some(elastic) = &pool.elastic else { continue };
        let standing = state.standings.iter().find(|standing| standing.pool == pool.name);
        let machine = real(&elastic.machine, standing);
        pools.push(PoolPicture { pool, elastic, standing, machine, machines: 0, in_flight: 0, usable: 0 });
    }
    if pools.is_empty() {
        return pools;
    }
    let name = |pool: &PoolPicture<'a>| -> &'a PoolName { &pool.pool.name };
    let by_name: BTreeMap<&PoolName, usize> = pools.iter().enumerate().map(|(n, p)| (name(p), n)).collect();
    let mut recorded: BTreeSet<&WorkerId> = BTreeSet::new();
    for machine in &state.machines {
        recorded.insert(&machine.record.worker);
        let Some(number) = by_name.get(&machine.record.pool) else { continue };
        let pool = &mut pools[*number];
        pool.machines += 1;
        pool.in_flight += u32::from(machine.record.stage.is_in_flight());
        let known = view.worker(&machine.record.worker);
        let usable = match machine.record.stage {
            Stage::Requested | Stage::Booting => true,
            Stage::Registered { .. } => known.is_some_and(is_usable),
            Stage::Draining { .. } | Stage::Destroying { .. } => false,
        };
        pool.usable += u32::from(usable);
    }
    for worker in view.index().workers().map(|entry| &entry.view) {
        let Some(number) = by_name.get(&worker.worker.pool) else { continue };
        if !recorded.contains(&worker.worker.id) && worker.status != WorkerStatus::Lost {
            pools[*number].machines += 1;
            pools[*number].usable += u32::from(is_usable(worker));
        }
    }
    pools
}

fn is_usable(worker: &WorkerView) -> bool {
    worker.status == WorkerStatus::Ready
}
