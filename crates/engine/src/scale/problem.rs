//! The small model that a scale plan is solved on: shapes, machines that are there, machines that may be bought, all
//! under dense numbers; and what makes one solution better than another. Knows no pools, workers or containers.

use std::cmp::Ordering;

use volley_model::{Capacity, Free, Resources};

/// What is to be solved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problem {
    /// What a container of each shape needs.
    pub(crate) shapes: Vec<Resources>,
    /// Shape and count of what waits, the best score first.
    pub(crate) runs: Vec<(usize, u64)>,
    /// Kinds of machines.
    pub(crate) kinds: Vec<Kind>,
    /// Machines that are there or on their way.
    pub(crate) there: Vec<There>,
    /// Machines that may be bought.
    pub(crate) offers: Vec<Offer>,
}

/// Machines that offer the same.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) capacity: Capacity,
    /// Whether each shape may run on it.
    pub(crate) serves: Vec<bool>,
}

/// Alike machines with the same room.
#[derive(Debug, Clone)]
pub(crate) struct There {
    pub(crate) kind: usize,
    pub(crate) free: Free,
    pub(crate) count: u64,
}

/// A machine that may be bought.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) kind: usize,
    /// 0 for the pools with the highest priority, and so on.
    pub(crate) rank: usize,
    pub(crate) cost: u64,
    /// How many may be bought at most.
    pub(crate) most: u64,
}

/// Alike machines after the solution: with the same contents.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) kind: usize,
    /// The offer that it was bought from.
    pub(crate) offer: Option<usize>,
    pub(crate) count: u64,
    /// What is free of one of them, now and before.
    pub(crate) free: Free,
    pub(crate) before: Free,
    /// How many containers of each shape one of them got: shape and count.
    pub(crate) content: Vec<(usize, u64)>,
}

/// How a problem is solved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Solution {
    /// Of each run, how many are served.
    pub(crate) served: Vec<u64>,
    /// All machines.
    pub(crate) groups: Vec<Group>,
}

/// What makes a solution good: compared field by field, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    /// More of a better score first.
    served: Vec<u64>,
    /// Containers that go to bought machines of the least preferred pools, then of the next ones; the most preferred
    /// do not count. Fewer is better.
    lower: Vec<u64>,
    /// Of what is bought, per hour. Less is better.
    pub(crate) cost: u128,
    /// How many are bought. Fewer is better.
    pub(crate) machines: u64,
}

impl Ord for Value {
    /// The better one is less.
    fn cmp(&self, other: &Self) -> Ordering {
        let served = other.served.cmp(&self.served);
        served
            .then_with(|| self.lower.cmp(&other.lower))
            .then(self.cost.cmp(&other.cost))
            .then(self.machines.cmp(&other.machines))
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Value {
    /// The same price for serving these.
    pub(super) fn serving(self, served: Vec<u64>) -> Self {
        if served == self.served {
            return self;
        }
        // More is served than before: any price is better.
        Self { served, lower: vec![u64::MAX; self.lower.len()], cost: u128::MAX, machines: u64::MAX }
    }

    pub(super) fn spending(self, lower: Vec<u64>, cost: u128, machines: u64) -> Self {
        Self { served: self.served, lower, cost, machines }
    }

    /// Whether this much is less than what this solution spends.
    pub(super) fn could_spend_less(&self, lower: &[u64], cost: u128, machines: u64) -> bool {
        (lower, cost, machines) < (self.lower.as_slice(), self.cost, self.machines)
    }
}

impl Problem {
    pub(crate) fn serves(&self, shape: usize, kind: usize) -> bool {
        self.kinds[kind].serves[shape]
    }

    /// How many ranks there are.
    pub(crate) fn ranks(&self) -> usize {
        self.offers.iter().map(|offer| offer.rank + 1).max().unwrap_or(0)
    }

    /// Containers that wait, of each shape.
    pub(crate) fn waiting(&self) -> Vec<u64> {
        let mut waiting = vec![0; self.shapes.len()];
        for (shape, count) in &self.runs {
            waiting[*shape] += count;
        }
        waiting
    }

    /// The machines that are there, as groups without contents.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let group = |there: &There| Group {
            kind: there.kind,
            offer: None,
            count: there.count,
            free: there.free.clone(),
            before: there.free.clone(),
            content: Vec::new(),
        };
        self.there.iter().map(group).collect()
    }

    /// Of what is served of each shape, the best scores are.
    pub(crate) fn spread(&self, served_of_shape: &[u64]) -> Vec<u64> {
        let mut left = served_of_shape.to_vec();
        let served = |(shape, count): &(usize, u64)| {
            let served = left[*shape].min(*count);
            left[*shape] -= served;
            served
        };
        self.runs.iter().map(served).collect()
    }

    /// How good groups are.
    pub(crate) fn solution(&self, mut groups: Vec<Group>) -> (Value, Solution) {
        groups.retain(|group| group.count > 0 && (group.offer.is_none() || !group.content.is_empty()));
        let mut of_shape = vec![0; self.shapes.len()];
        let ranks = self.ranks();
        let mut lower = vec![0; ranks.saturating_sub(1)];
        let (mut cost, mut machines) = (0_u128, 0);
        for group in &groups {
            for (shape, count) in &group.content {
                of_shape[*shape] += count * group.count;
            }
            let Some(offer) = group.offer.map(|offer| &self.offers[offer]) else { continue };
            cost += u128::from(offer.cost) * u128::from(group.count);
            machines += group.count;
            if offer.rank > 0 {
                let contained: u64 = group.content.iter().map(|(_, count)| count).sum();
                lower[ranks - 1 - offer.rank] += contained * group.count;
            }
        }
        let served = self.spread(&of_shape);
        (Value { served: served.clone(), lower, cost, machines }, Solution { served, groups })
    }
}

impl Solution {
    /// How many of each offer are bought.
    pub(crate) fn bought(&self, offers: usize) -> Vec<u64> {
        let mut bought = vec![0; offers];
        for group in &self.groups {
            if let Some(offer) = group.offer {
                bought[offer] += group.count;
            }
        }
        bought
    }
}

impl Group {
    pub(crate) fn add(&mut self, shape: usize, count: u64) {
        match self.content.iter_mut().find(|(s, _)| *s == shape) {
            Some((_, old)) => *old += count,
            None => self.content.push((shape, count)),
        }
    }
}
