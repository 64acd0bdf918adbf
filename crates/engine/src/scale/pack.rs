//! Packing by groups of alike machines: what costs is how many different machines there are, not how many machines or
//! containers. One pass gives one candidate; `solve` makes several and takes the best.

use volley_model::Free;

use super::problem::{Group, Problem};
use crate::room::Scale;

/// Which machine is bought for a shape, among those of the best rank that serve it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Choice {
    /// The least cost for each container of the shape.
    CostEach,
    /// The least cost for all that are left of the shape.
    CostAll,
    /// That takes most of it.
    Largest,
    /// That costs least.
    Cheapest,
}

pub(super) struct Packing<'a> {
    problem: &'a Problem,
    pub(super) groups: Vec<Group>,
    /// How many may still be bought of each offer.
    pub(super) left: Vec<u64>,
    /// Of each kind.
    scales: Vec<Scale>,
}

impl<'a> Packing<'a> {
    pub(super) fn new(problem: &'a Problem, groups: Vec<Group>) -> Self {
        let mut left: Vec<u64> = problem.offers.iter().map(|offer| offer.most).collect();
        for group in &groups {
            if let Some(offer) = group.offer {
                left[offer] = left[offer].saturating_sub(group.count);
            }
        }
        let scales = problem.kinds.iter().map(|kind| Scale::of(&kind.capacity)).collect();
        Self { problem, groups, left, scales }
    }

    /// Puts as many of a shape as fit onto machines that are there, the fullest first. Returns how many are left.
    pub(super) fn place(&mut self, shape: usize, mut count: u64) -> u64 {
        let request = &self.problem.shapes[shape];
        // But for devices, which only trying tells.
        let takes = |group: &Group| self.problem.serves(shape, group.kind) && group.free.misfit(request).is_none();
        let mut order: Vec<usize> = (0..self.groups.len()).filter(|g| takes(&self.groups[*g])).collect();
        let room = |group: &Group| self.scales[group.kind].free_share(&group.free);
        order.sort_by_cached_key(|g| (self.groups[*g].offer.is_some(), room(&self.groups[*g]), *g));
        for place in order {
            if count == 0 {
                break;
            }
            let group = &mut self.groups[place];
            let capacity = &self.problem.kinds[group.kind].capacity;
            let mut free = group.free.clone();
            let each = capacity.reserve_times(&mut free, request, count);
            if each == 0 {
                continue;
            }
            let whole = (count / each).min(group.count);
            let rest = group.clone();
            group.count = whole;
            group.free = free;
            group.add(shape, each);
            count -= whole * each;
            self.split(rest, whole, shape, &mut count);
        }
        self.groups.retain(|group| group.count > 0);
        count
    }

    /// What a group has beyond the `whole` machines that were filled: one that takes the odd rest, and the others.
    fn split(&mut self, mut rest: Group, whole: u64, shape: usize, count: &mut u64) {
        rest.count -= whole;
        if rest.count > 0 && *count > 0 {
            let mut odd = Group { count: 1, ..rest.clone() };
            let capacity = &self.problem.kinds[odd.kind].capacity;
            let taken = capacity.reserve_times(&mut odd.free, &self.problem.shapes[shape], *count);
            if taken > 0 {
                odd.add(shape, taken);
                *count -= taken;
                rest.count -= 1;
                self.groups.push(odd);
            }
        }
        if rest.count > 0 {
            self.groups.push(rest);
        }
    }

    /// Buys for what is left of a shape and places it. Returns how many are left.
    pub(super) fn buy(&mut self, shape: usize, mut count: u64, choice: Choice) -> u64 {
        while count > 0 {
            let Some((offer, each)) = self.choose(shape, count, choice) else { break };
            let kind = self.problem.offers[offer].kind;
            let free = self.problem.kinds[kind].capacity.all_free();
            let machines = count.div_ceil(each).min(self.left[offer]);
            self.left[offer] -= machines;
            let group =
                Group { kind, offer: Some(offer), count: machines, before: free.clone(), free, content: Vec::new() };
            self.groups.push(group);
            count = self.place(shape, count);
        }
        count
    }

    /// An offer for a shape, and how many of it one machine takes.
    fn choose(&self, shape: usize, count: u64, choice: Choice) -> Option<(usize, u64)> {
        let problem = self.problem;
        let offers = problem.offers.iter().enumerate();
        let open = offers.filter(|(o, offer)| self.left[*o] > 0 && problem.serves(shape, offer.kind));
        let sized = open.filter_map(|(o, offer)| {
            let capacity = &problem.kinds[offer.kind].capacity;
            let each = capacity.reserve_times(&mut capacity.all_free(), &problem.shapes[shape], count);
            (each > 0).then_some((o, offer, each))
        });
        let key = |(o, offer, each): &(usize, &super::problem::Offer, u64)| {
            let cost = u128::from(offer.cost);
            let all = cost * u128::from(count.div_ceil(*each));
            // In fixed point: thousandths of a millionth.
            let one = cost * 1_000 / u128::from(*each);
            let order = match choice {
                Choice::CostEach => (one, all),
                Choice::CostAll => (all, one),
                Choice::Largest => (u128::from(u64::MAX - each), all),
                Choice::Cheapest => (cost, all),
            };
            (offer.rank, order, u64::MAX - each, *o)
        };
        sized.min_by_key(key).map(|(o, _, each)| (o, each))
    }

    /// Gives each bought machine's contents to the cheapest offer that holds them and is not less preferred.
    pub(super) fn downsize(&mut self) {
        for place in 0..self.groups.len() {
            let group = &self.groups[place];
            let Some(old) = group.offer else { continue };
            let (rank, cost) = (self.problem.offers[old].rank, self.problem.offers[old].cost);
            let offers = self.problem.offers.iter().enumerate();
            let better = offers.filter(|(o, offer)| offer.rank <= rank && offer.cost < cost && self.left[*o] > 0);
            let mut better: Vec<usize> = better.map(|(o, _)| o).collect();
            better.sort_by_key(|o| (self.problem.offers[*o].cost, *o));
            for new in better {
                let Some(free) = self.holds(new, &self.groups[place].content) else { continue };
                let kind = self.problem.offers[new].kind;
                let moved = self.groups[place].count.min(self.left[new]);
                self.left[new] -= moved;
                self.left[old] += moved;
                let before = self.problem.kinds[kind].capacity.all_free();
                let content = self.groups[place].content.clone();
                self.groups[place].count -= moved;
                self.groups.push(Group { kind, offer: Some(new), count: moved, free, before, content });
                if self.groups[place].count == 0 {
                    break;
                }
            }
        }
        self.groups.retain(|group| group.count > 0);
    }

    /// What is free of an offer's machine with these contents; `None` when they do not fit.
    fn holds(&self, offer: usize, content: &[(usize, u64)]) -> Option<Free> {
        let kind = self.problem.offers[offer].kind;
        let capacity = &self.problem.kinds[kind].capacity;
        let mut free = capacity.all_free();
        let fits = content.iter().all(|(shape, count)| {
            self.problem.serves(*shape, kind)
                && capacity.reserve_times(&mut free, &self.problem.shapes[*shape], *count) == *count
        });
        fits.then_some(free)
    }
}
