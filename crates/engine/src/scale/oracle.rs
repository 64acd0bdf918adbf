//! The exact optimum of a small problem by trying everything, and random problems to hold the solver against: for tests
//! and for `volley bench scale`. Shares nothing with the solver but the problem and the aims. Its cost triples with every
//! container: at most [`CONTAINERS_MAX`].

use volley_model::{Bytes, Capacity, CpuMilli, Free, GPU_WHOLE, GpuKinds, GpuMilli, GpuRequest, Resources};

use super::problem::{Kind, Offer, Problem, Solution, There};

/// Most containers of a problem.
pub const CONTAINERS_MAX: usize = 12;

/// How the solver's answers compare with the optimum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trial {
    /// Problems solved.
    pub rounds: u64,
    /// Of these, with some demand that must be bought for.
    pub with_purchases: u64,
    /// Same containers served, same preference of pools, same cost, same number of machines.
    pub optimal: u64,
    /// One machine more than the optimum.
    pub one_above: u64,
    /// More than one machine more.
    pub more_above: u64,
    /// A container is unserved that the optimum serves.
    pub unserved: u64,
}

/// Solves random problems of up to [`CONTAINERS_MAX`] containers, three pools, two resources and GPUs; round `n` of a seed
/// is always the same.
#[must_use]
pub fn trial(seed: u64, rounds: u64) -> Trial {
    let mut trial = Trial::default();
    for round in 0..rounds {
        let problem = random_problem(seed.wrapping_add(round));
        let ours = outcome_of(&problem, &super::solve::solve(&problem));
        let best = optimum(&problem);
        trial.rounds += 1;
        trial.with_purchases += u64::from(best.machines > 0);
        trial.optimal += u64::from(ours == best);
        trial.unserved += u64::from(ours.served != best.served);
        if ours.served == best.served {
            let above = ours.machines.saturating_sub(best.machines);
            trial.one_above += u64::from(above == 1);
            trial.more_above += u64::from(above > 1);
        }
    }
    trial
}

/// What counts of a solution. Containers are bits, the best score the highest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) served: u32,
    pub(super) lower: Vec<u64>,
    pub(super) cost: u64,
    pub(super) machines: u64,
}

/// The shape of each container, the best score first.
fn containers(problem: &Problem) -> Vec<usize> {
    problem.runs.iter().flat_map(|(shape, count)| std::iter::repeat_n(*shape, *count as usize)).collect()
}

/// A solution as an outcome; a wrong one (something does not fit, or a limit is broken) is a panic.
pub(super) fn outcome_of(problem: &Problem, solution: &Solution) -> Outcome {
    let count = containers(problem).len();
    let ranks = problem.ranks();
    let mut outcome = Outcome { served: 0, lower: vec![0; ranks.saturating_sub(1)], cost: 0, machines: 0 };
    let mut place = count;
    for (served, (_, waiting)) in solution.served.iter().zip(&problem.runs) {
        for number in 0..*waiting {
            place -= 1;
            outcome.served |= u32::from(number < *served) << place;
        }
    }
    let mut bought = vec![0; problem.offers.len()];
    let mut placed = vec![0; problem.shapes.len()];
    for group in &solution.groups {
        let mut items = Vec::new();
        for (shape, count) in &group.content {
            assert!(problem.serves(*shape, group.kind), "a machine got what it cannot serve");
            items.extend(std::iter::repeat_n(*shape, *count as usize));
            placed[*shape] += count * group.count;
        }
        let capacity = &problem.kinds[group.kind].capacity;
        assert!(fits(problem, capacity, &group.before, &items), "a machine got more than fits: {group:?}");
        let Some(offer) = group.offer else { continue };
        bought[offer] += group.count;
        outcome.cost += problem.offers[offer].cost * group.count;
        outcome.machines += group.count;
        let rank = problem.offers[offer].rank;
        if rank > 0 {
            outcome.lower[ranks - 1 - rank] += items.len() as u64 * group.count;
        }
    }
    for (bought, offer) in bought.iter().zip(&problem.offers) {
        assert!(*bought <= offer.most, "more was bought than may be");
    }
    let mut served = vec![0; problem.shapes.len()];
    for (count, (shape, _)) in solution.served.iter().zip(&problem.runs) {
        served[*shape] += count;
    }
    assert_eq!(placed, served, "what is served is placed");
    outcome
}

type Price = (Vec<u64>, u64, u64);

/// The best outcome there is.
pub(super) fn optimum(problem: &Problem) -> Outcome {
    let items = containers(problem);
    let masks = 1_usize << items.len();
    let ranks = problem.ranks();
    let nothing: Price = (vec![0; ranks.saturating_sub(1)], 0, 0);
    let mut on_there = vec![false; masks];
    on_there[0] = true;
    for there in &problem.there {
        let fit = fitting(problem, &items, there.kind, &there.free);
        for _ in 0..there.count {
            let next = (0..masks).map(|mask| submasks(mask).any(|part| fit[part] && on_there[mask ^ part]));
            on_there = next.collect();
        }
    }
    let mut best: Vec<Option<Price>> = on_there.iter().map(|on| on.then(|| nothing.clone())).collect();
    for offer in &problem.offers {
        let machines = machines_for(problem, &items, offer);
        let mut next: Vec<Option<Price>> = vec![None; masks];
        for (mask, next) in next.iter_mut().enumerate() {
            for part in submasks(mask).filter(|part| machines[*part] <= offer.most) {
                let Some((lower, cost, bought)) = &best[mask ^ part] else { continue };
                let mut lower = lower.clone();
                if offer.rank > 0 {
                    lower[ranks - 1 - offer.rank] += u64::from(part.count_ones());
                }
                let price = (lower, cost + offer.cost * machines[part], bought + machines[part]);
                if next.as_ref().is_none_or(|best| price < *best) {
                    *next = Some(price);
                }
            }
        }
        best = next;
    }
    let (served, price) = best
        .into_iter()
        .enumerate()
        .filter_map(|(mask, price)| Some((mask, price?)))
        .next_back()
        .expect("nothing fits");
    let (lower, cost, machines) = price;
    Outcome { served: served as u32, lower, cost, machines }
}

/// All parts of a set, itself and the empty one included.
fn submasks(mask: usize) -> impl Iterator<Item = usize> {
    let mut next = Some(mask);
    std::iter::from_fn(move || {
        let part = next?;
        next = (part > 0).then(|| (part - 1) & mask);
        Some(part)
    })
}

/// The containers of a set.
fn of_mask(items: &[usize], mask: usize) -> Vec<usize> {
    let count = items.len();
    (0..count).filter(|place| mask >> (count - 1 - place) & 1 == 1).map(|place| items[place]).collect()
}

/// For each set of containers, whether one machine with this room takes it.
fn fitting(problem: &Problem, items: &[usize], kind: usize, free: &Free) -> Vec<bool> {
    let capacity = &problem.kinds[kind].capacity;
    let takes = |mask| {
        let items = of_mask(items, mask);
        items.iter().all(|shape| problem.serves(*shape, kind)) && fits(problem, capacity, free, &items)
    };
    (0..1 << items.len()).map(takes).collect()
}

/// For each set of containers, how many machines of an offer it takes.
fn machines_for(problem: &Problem, items: &[usize], offer: &Offer) -> Vec<u64> {
    let fit = fitting(problem, items, offer.kind, &problem.kinds[offer.kind].capacity.all_free());
    let mut machines = vec![u64::MAX; fit.len()];
    machines[0] = 0;
    for mask in 1..fit.len() {
        let parts = submasks(mask).filter(|part| *part > 0 && fit[*part]);
        let more = parts.map(|part| machines[mask ^ part].saturating_add(1)).min();
        machines[mask] = more.unwrap_or(u64::MAX);
    }
    machines
}

/// Whether containers fit together, however their devices are chosen.
fn fits(problem: &Problem, capacity: &Capacity, free: &Free, items: &[usize]) -> bool {
    let needs = |of: fn(&Resources) -> u64| items.iter().map(|shape| of(&problem.shapes[*shape])).sum::<u64>();
    if needs(|r| r.cpu.0) > free.cpu.0 || needs(|r| r.memory.0) > free.memory.0 || items.len() as u32 > free.slots {
        return false;
    }
    let requests: Vec<&GpuRequest> = items.iter().filter_map(|shape| problem.shapes[*shape].gpu.as_ref()).collect();
    let mut devices: Vec<u64> = free.gpus.iter().map(|milli| milli.0).collect();
    devices_fit(capacity, &requests, &mut devices)
}

fn devices_fit(capacity: &Capacity, requests: &[&GpuRequest], devices: &mut [u64]) -> bool {
    let Some((request, rest)) = requests.split_first() else { return true };
    let will_do = |kind: &String| match &request.kinds {
        GpuKinds::Any => true,
        GpuKinds::Ordered(kinds) => kinds.contains(kind),
    };
    if request.milli < GPU_WHOLE {
        return (0..devices.len()).any(|device| {
            if !will_do(&capacity.gpus[device]) || devices[device] < request.milli.0 {
                return false;
            }
            devices[device] -= request.milli.0;
            let fit = devices_fit(capacity, rest, devices);
            devices[device] += request.milli.0;
            fit
        });
    }
    let mut kinds: Vec<&String> = capacity.gpus.iter().filter(|kind| will_do(kind)).collect();
    kinds.sort();
    kinds.dedup();
    kinds.into_iter().any(|kind| {
        let whole = |device: &usize| capacity.gpus[*device] == *kind && devices[*device] == GPU_WHOLE.0;
        let chosen: Vec<usize> = (0..devices.len()).filter(whole).take(usize::from(request.count)).collect();
        if chosen.len() < usize::from(request.count) {
            return false;
        }
        chosen.iter().for_each(|device| devices[*device] = 0);
        let fit = devices_fit(capacity, rest, devices);
        chosen.iter().for_each(|device| devices[*device] = GPU_WHOLE.0);
        fit
    })
}

/// A sequence of numbers from a seed (splitmix64, Steele, Lea and Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A random problem: what a seed says, always the same.
pub(super) fn random_problem(seed: u64) -> Problem {
    let mut numbers = Numbers(seed.wrapping_mul(0xD129_0B21_3A5F_0C47));
    let mut problem = Problem::default();
    let with_gpus = numbers.below(3) == 0;
    for _ in 0..=numbers.below(5) {
        let gpu = (with_gpus && numbers.below(2) == 0).then(|| random_gpu(&mut numbers));
        let (cpu, memory) = (CpuMilli(500 * (1 + numbers.below(8))), Bytes((1 + numbers.below(8)) << 29));
        problem.shapes.push(Resources { cpu, memory, gpu });
    }
    let mut waiting = 1 + numbers.below(CONTAINERS_MAX as u64);
    while waiting > 0 {
        let count = (1 + numbers.below(4)).min(waiting);
        problem.runs.push((numbers.below(problem.shapes.len() as u64) as usize, count));
        waiting -= count;
    }
    for _ in 0..numbers.below(3) {
        let kind = random_kind(&mut numbers, &mut problem, with_gpus);
        let mut free = problem.kinds[kind].capacity.all_free();
        free.cpu = CpuMilli(free.cpu.0 * numbers.below(4) / 3);
        problem.there.push(There { kind, free, count: 1 + numbers.below(2) });
    }
    let ranks = 1 + numbers.below(2) as usize;
    for number in 0..=numbers.below(3) as usize {
        let kind = random_kind(&mut numbers, &mut problem, with_gpus);
        let capacity = &problem.kinds[kind].capacity;
        let size = capacity.cpu.0 / 1000 + (capacity.memory.0 >> 30) + 20 * capacity.gpus.len() as u64;
        let cost = size * 10 + numbers.below(20);
        let most = if numbers.below(3) == 0 { 1 + numbers.below(3) } else { 100 };
        problem.offers.push(Offer { kind, rank: number % ranks, cost, most });
    }
    problem
}

fn random_gpu(numbers: &mut Numbers) -> GpuRequest {
    let kinds = match numbers.below(3) {
        0 => GpuKinds::Any,
        1 => GpuKinds::Ordered(vec!["A".to_owned()]),
        _ => GpuKinds::Ordered(vec!["B".to_owned(), "A".to_owned()]),
    };
    match numbers.below(3) {
        0 => GpuRequest { kinds, count: 1, milli: GpuMilli(250 * (1 + numbers.below(3))) },
        _ => GpuRequest { kinds, count: 1 + numbers.below(2) as u16, milli: GPU_WHOLE },
    }
}

fn random_kind(numbers: &mut Numbers, problem: &mut Problem, with_gpus: bool) -> usize {
    let kind = if numbers.below(2) == 0 { "A" } else { "B" };
    let gpus = if with_gpus { [0, 1, 2, 4][numbers.below(4) as usize] } else { 0 };
    let capacity = Capacity {
        cpu: CpuMilli(1000 * (2 + numbers.below(10))),
        memory: Bytes((2 + numbers.below(10)) << 30),
        slots: 2 + numbers.below(10) as u32,
        gpus: vec![kind.to_owned(); gpus],
    };
    let free = capacity.all_free();
    let could = |resources: &Resources| capacity.reserve_times(&mut free.clone(), resources, 1) == 1;
    let serves = problem.shapes.iter().map(|resources| could(resources) && numbers.below(8) > 0).collect();
    problem.kinds.push(Kind { capacity, serves });
    problem.kinds.len() - 1
}
