//! The best solution of a small problem, by branch and bound: which containers can be served at all, in order of score,
//! and then for the least. Stops at a number of steps and gives the best that it found.

use super::problem::{Group, Problem, Solution, Value};

/// Most containers of a problem that is solved so.
pub(super) const CONTAINERS_MAX: u64 = 24;
/// Most machines that are there.
const THERE_MAX: u64 = 32;
/// Most offers.
const OFFERS_MAX: usize = 24;
/// Steps of all searches for one problem, at about a microsecond each.
const STEPS_MAX: u32 = 40_000;

/// Whether a problem is small enough.
pub(super) fn is_small(problem: &Problem) -> bool {
    let waiting: u64 = problem.runs.iter().map(|(_, count)| count).sum();
    let there: u64 = problem.there.iter().map(|there| there.count).sum();
    waiting <= CONTAINERS_MAX && there <= THERE_MAX && problem.offers.len() <= OFFERS_MAX
}

/// A better solution than the best known one; `None` when there is none, or the steps did not suffice to find it.
pub(super) fn improve(problem: &Problem, best: &Value, known: &Solution) -> Option<(Value, Solution)> {
    let mut search = Search::new(problem, best.clone());
    let wanted = search.served(known)?;
    search.best_only = true;
    search.run(&wanted);
    let groups = search.found?;
    Some(problem.solution(groups))
}

struct Search<'a> {
    problem: &'a Problem,
    steps: u32,
    /// To beat.
    best: Value,
    /// Any way to serve all of them ends the search, or the best way.
    best_only: bool,
    found: Option<Vec<Group>>,
    machines: Vec<Group>,
    left: Vec<u64>,
    /// Containers of lower ranks, cost and machines bought so far.
    spent: (Vec<u64>, u128, u64),
    /// The cheapest machine per unit of each resource, as a cost and an amount.
    cheapest: [(u128, u128); 2],
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem, best: Value) -> Self {
        let mut machines = Vec::new();
        for group in problem.groups() {
            machines.extend((0..group.count).map(|_| Group { count: 1, ..group.clone() }));
        }
        Self {
            problem,
            steps: 0,
            best,
            best_only: false,
            found: None,
            machines,
            left: problem.offers.iter().map(|offer| offer.most).collect(),
            spent: (vec![0; problem.ranks().saturating_sub(1)], 0, 0),
            cheapest: cheapest(problem),
        }
    }

    /// How many of each shape can be served, the best scores first; `None` when the steps did not suffice.
    fn served(&mut self, known: &Solution) -> Option<Vec<u64>> {
        let problem = self.problem;
        let all = problem.waiting();
        if known.served.iter().zip(&problem.runs).all(|(served, (_, count))| served == count) || self.can(&all)? {
            return Some(all);
        }
        let mut wanted = vec![0; all.len()];
        for (run, (shape, count)) in problem.runs.iter().enumerate() {
            for number in 1..=*count {
                wanted[*shape] += 1;
                // As far as nothing was given up, the known solution is the proof.
                let proven = known.served[..run].iter().zip(&problem.runs).all(|(s, (_, c))| s == c)
                    && known.served[run] >= number;
                if !proven && !self.can(&wanted)? {
                    wanted[*shape] -= 1;
                    break;
                }
            }
        }
        Some(wanted)
    }

    /// Whether all of these can be served together.
    fn can(&mut self, wanted: &[u64]) -> Option<bool> {
        self.found = None;
        self.run(wanted);
        let can = self.found.take().is_some();
        (can || self.steps < STEPS_MAX).then_some(can)
    }

    fn run(&mut self, wanted: &[u64]) {
        let mut items: Vec<usize> = Vec::new();
        let mut shapes: Vec<usize> = (0..wanted.len()).filter(|shape| wanted[*shape] > 0).collect();
        shapes.sort_by_key(|shape| std::cmp::Reverse((crate::plan::size(&self.problem.shapes[*shape]), *shape)));
        for shape in shapes {
            items.extend(std::iter::repeat_n(shape, wanted[shape] as usize));
        }
        if self.best_only {
            let served = self.problem.spread(wanted);
            self.best = self.best.clone().serving(served);
        }
        self.place(&items, 0);
    }

    fn place(&mut self, items: &[usize], first: usize) {
        let Some((shape, rest)) = items.split_first() else { return self.reached() };
        self.steps += 1;
        if self.steps >= STEPS_MAX || self.is_over(items) || (!self.best_only && self.found.is_some()) {
            return;
        }
        let again = rest.first() == Some(shape);
        for machine in first..self.machines.len() {
            let alike = |other: &Group| {
                let group = &self.machines[machine];
                (other.kind, other.offer, &other.free) == (group.kind, group.offer, &group.free)
            };
            // Of machines that are alike the first stands for all.
            if !self.problem.serves(*shape, self.machines[machine].kind)
                || self.machines[first..machine].iter().any(alike)
            {
                continue;
            }
            self.put(machine, *shape, rest, if again { machine } else { 0 });
        }
        self.open(*shape, rest, again);
    }

    /// Puts one container onto a machine, and goes on.
    fn put(&mut self, machine: usize, shape: usize, rest: &[usize], first: usize) {
        let problem = self.problem;
        let group = &mut self.machines[machine];
        let capacity = &problem.kinds[group.kind].capacity;
        let before = group.free.clone();
        if capacity.reserve_times(&mut group.free, &problem.shapes[shape], 1) == 0 {
            return;
        }
        group.content.push((shape, 1));
        let rank = group.offer.map_or(0, |offer| problem.offers[offer].rank);
        let lower = (rank > 0).then(|| problem.ranks() - 1 - rank);
        if let Some(place) = lower {
            self.spent.0[place] += 1;
        }
        self.place(rest, first);
        if let Some(place) = lower {
            self.spent.0[place] -= 1;
        }
        let group = &mut self.machines[machine];
        group.content.pop();
        group.free = before;
    }

    /// Buys a machine for one container, and goes on.
    fn open(&mut self, shape: usize, rest: &[usize], again: bool) {
        let problem = self.problem;
        let mut offers: Vec<usize> = (0..problem.offers.len()).collect();
        offers.sort_by_key(|o| (problem.offers[*o].rank, problem.offers[*o].cost, *o));
        for number in offers {
            let offer = &problem.offers[number];
            if self.left[number] == 0 || !problem.serves(shape, offer.kind) {
                continue;
            }
            let free = problem.kinds[offer.kind].capacity.all_free();
            let (kind, offer_cost) = (offer.kind, u128::from(offer.cost));
            self.machines.push(Group {
                kind,
                offer: Some(number),
                count: 1,
                before: free.clone(),
                free,
                content: Vec::new(),
            });
            self.left[number] -= 1;
            self.spent.1 += offer_cost;
            self.spent.2 += 1;
            let machine = self.machines.len() - 1;
            self.put(machine, shape, rest, if again { machine } else { 0 });
            self.spent.1 -= offer_cost;
            self.spent.2 -= 1;
            self.left[number] += 1;
            self.machines.pop();
        }
    }

    /// Everything is placed.
    fn reached(&mut self) {
        if self.best_only {
            let (lower, cost, machines) = self.spent.clone();
            if !self.best.could_spend_less(&lower, cost, machines) {
                return;
            }
            self.best = self.best.clone().spending(lower, cost, machines);
        }
        let mut groups = self.machines.clone();
        for group in &mut groups {
            let content = std::mem::take(&mut group.content);
            content.into_iter().for_each(|(shape, count)| group.add(shape, count));
        }
        self.found = Some(groups);
    }

    /// Whether nothing better can come of this.
    fn is_over(&self, items: &[usize]) -> bool {
        if !self.best_only {
            return false;
        }
        let (lower, cost, machines) = &self.spent;
        let (more_cost, more_machines) = self.least_more(items);
        !self.best.could_spend_less(lower, cost + more_cost, machines + more_machines)
    }

    /// What the rest costs at the least: what is not free must be bought at the best price of each resource.
    fn least_more(&self, items: &[usize]) -> (u128, u64) {
        let mut need = [0_u128; 2];
        for shape in items {
            need[0] += u128::from(self.problem.shapes[*shape].cpu.0);
            need[1] += u128::from(self.problem.shapes[*shape].memory.0);
        }
        for group in &self.machines {
            need[0] = need[0].saturating_sub(u128::from(group.free.cpu.0));
            need[1] = need[1].saturating_sub(u128::from(group.free.memory.0));
        }
        let costs = need.iter().zip(&self.cheapest).map(|(need, (cost, amount))| (need * cost).checked_div(*amount));
        let cost = costs.flatten().max().unwrap_or(0);
        (cost, u64::from(need.iter().any(|need| *need > 0)))
    }
}

/// Of each of CPU and memory, the offer with the best price.
fn cheapest(problem: &Problem) -> [(u128, u128); 2] {
    let amounts = problem.offers.iter().map(|offer| {
        let capacity = &problem.kinds[offer.kind].capacity;
        (u128::from(offer.cost), [u128::from(capacity.cpu.0), u128::from(capacity.memory.0)])
    });
    let mut best = [(0, 0); 2];
    for (cost, amounts) in amounts {
        for (best, amount) in best.iter_mut().zip(amounts) {
            if amount > 0 && (best.1 == 0 || cost * best.1 < best.0 * amount) {
                *best = (cost, amount);
            }
        }
    }
    best
}
