//! The plan of how many workers there are to be: demand that fits nothing ready and nothing on its way -> machines to buy
//! and machines to give up. Pure: time is an argument.
//!
//! # What is bought
//!
//! Demand is what waits in blocked shapes: it was looked at and nothing ready had room. What a server has claimed, and
//! what was refused and is planned again, is not in it. From the demand goes what fits on ready workers after all (their
//! marks are older than their room), on machines on their way, whoever bought them, and one container for each hold:
//! room is about to be freed for it. For the rest machines are bought, by these aims in this order:
//!
//! 1. containers are served in order of score;
//! 2. as few of them as possible go to machines of pools with a lower priority;
//! 3. the cost per hour of what is bought is least;
//! 4. the number of machines is least.
//!
//! Small problems are solved exactly, large ones by the best of several packings (`solve`). A shape counts for a pool only
//! when a machine of it could serve it (by its definition, or by what the last one really offered when that was less), and
//! for a pool of lower priority only when it has waited for `fallback_after` of every better one that could. A pool that
//! is at its limits, waits after a failure or is in quarantine sells nothing meanwhile, and stops no other pool.
//! Then machines are bought up to every pool's `min` and `min_free`.
//!
//! # What is given up
//!
//! Workers that ran nothing for the pool's idle timeout, those idle longest first, as long as `min` and `min_free` hold
//! without them and nothing waits that could run on them. That, and that what is warm is kept by the same numbers that
//! buy it, is the hysteresis: what was bought is not given up before it was idle for a whole timeout, and what is given
//! up leaves no gap that would be bought for. Also machines that did not register in time, whose worker was lost, that
//! their owner drained, or that were quarantined.

use volley_model::{Cost, PoolName, RetireCause, ScaleState, ShapeHash, WorkerId};

use crate::FleetView;

mod blend;
mod exact;
mod give_up;
pub mod oracle;
mod pack;
mod picture;
pub(crate) mod problem;
mod prospects;
pub(crate) mod solve;

pub use prospects::{PoolProspect, Prospect, prospects};

use picture::Picture;

/// What to buy and what to give up: an immutable value that says why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScalePlan {
    /// At most one for each pool, by name.
    pub purchases: Vec<Purchase>,
    /// By worker.
    pub retirements: Vec<(WorkerId, RetireCause)>,
    /// Demand by shape, in order of its best score, and how much of it is served by what.
    pub demand: Vec<ShapeOutlook>,
}

/// Machines of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    /// Of this pool.
    pub pool: PoolName,
    /// How many.
    pub count: u32,
    /// Of these: for `min` and `min_free`, not for anything that waits.
    pub warm: u32,
    /// Of one.
    pub cost_per_hour: Cost,
    /// Containers that these machines serve, by shape.
    pub serves: Vec<(ShapeHash, u64)>,
}

/// What becomes of a shape's waiting containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeOutlook {
    /// Which shape.
    pub shape: ShapeHash,
    /// How many wait.
    pub waiting: u64,
    /// Of these: there is room on ready workers, or it is held for them.
    pub fit_ready: u64,
    /// Of these: there is room on machines on their way.
    pub fit_booting: u64,
    /// Of these: by this plan's purchases.
    pub bought_for: u64,
}

impl ShapeOutlook {
    /// How many nothing serves for now.
    #[must_use]
    pub fn unserved(&self) -> u64 {
        self.waiting.saturating_sub(self.fit_ready + self.fit_booting + self.bought_for)
    }
}

impl ScalePlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.purchases.is_empty() && self.retirements.is_empty()
    }

    /// Of all purchases.
    #[must_use]
    pub fn cost_per_hour(&self) -> Cost {
        let costs = self.purchases.iter().map(|purchase| purchase.cost_per_hour.times(u64::from(purchase.count)));
        costs.fold(Cost(0), Cost::plus)
    }
}

/// Plans. View and state must be of one instant: what was placed or registered in between would be bought for again.
#[must_use]
pub fn plan_scale(view: &FleetView, state: &ScaleState) -> ScalePlan {
    let picture = Picture::of(view, state);
    let solution = solve::solve(&picture.problem);
    let mut plan = ScalePlan { demand: picture.outlook(&solution), ..ScalePlan::default() };
    let mut headroom = picture.headroom(&solution);
    plan.purchases = picture.purchases(&solution, &mut headroom);
    plan.retirements = give_up::retirements(&picture, &mut headroom, &plan.purchases);
    plan
}

#[cfg(test)]
mod tests;
