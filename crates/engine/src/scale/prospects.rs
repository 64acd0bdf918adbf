//! Whether machines of a pool could be bought for a shape, and why not: for the plan, and for people.

use std::fmt;

use volley_model::{Cost, Demand, Infeasible, Millis, PoolName, ScaleState, Timestamp};

use super::picture::{Picture, PoolPicture};
use crate::FleetView;

/// Whether a pool's machines could be bought for a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prospect {
    /// Yes, now.
    Open,
    /// Its workers come by themselves.
    Static,
    /// No machine of it could ever serve the shape.
    Never(Infeasible),
    /// A better pool comes first.
    After {
        /// Which.
        pool: PoolName,
        /// For so long.
        until: Timestamp,
    },
    /// It has as many machines as it may.
    AtMax {
        /// Its limit.
        max: u32,
    },
    /// So many are on their way already.
    InFlight {
        /// Its limit.
        limit: u32,
    },
    /// So many were bought in this minute.
    MinuteLimit {
        /// Its limit.
        limit: u32,
    },
    /// Its last purchase failed.
    Backoff {
        /// Nothing is bought before.
        until: Timestamp,
        /// In words.
        failure: String,
    },
    /// Too many purchases in a row failed.
    Quarantined {
        /// Then one machine is tried.
        until: Timestamp,
        /// The last failure in words.
        failure: String,
    },
}

impl fmt::Display for Prospect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Prospect::Open => f.write_str("machines can be bought"),
            Prospect::Static => f.write_str("its workers come by themselves; none can be bought"),
            Prospect::Never(why) => write!(f, "no machine of it could ever serve this: {why}"),
            Prospect::After { pool, .. } => write!(f, "comes after pool {pool}, which has the higher priority"),
            Prospect::AtMax { max } => write!(f, "at its maximum of {max} machines"),
            Prospect::InFlight { limit } => write!(f, "{limit} machines are on their way, which is its limit"),
            Prospect::MinuteLimit { limit } => {
                write!(f, "{limit} machines were bought this minute, which is its limit")
            }
            Prospect::Backoff { failure, .. } => write!(f, "waits after a failure: {failure}"),
            Prospect::Quarantined { failure, .. } => write!(f, "in quarantine after failures in a row: {failure}"),
        }
    }
}

/// A pool and what can be hoped of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolProspect {
    /// Which pool.
    pub pool: PoolName,
    /// Whether it can be bought from for the shape.
    pub prospect: Prospect,
    /// Machines on their way.
    pub in_flight: u32,
    /// The longest that one of them has been on its way since.
    pub since: Option<Timestamp>,
    /// From purchase to registration: learnt, or as configured.
    pub boot_time: Option<Millis>,
    /// Of one machine.
    pub cost_per_hour: Option<Cost>,
}

/// What can be hoped of each pool for a shape, by pool.
#[must_use]
pub fn prospects(view: &FleetView, state: &ScaleState, demand: &Demand) -> Vec<PoolProspect> {
    let picture = Picture::of(view, state);
    let mut found = Vec::new();
    for pool in view.pools() {
        let number = picture.pool_number(&pool.name);
        let elastic = number.map(|number| &picture.pools[number]);
        let prospect = match elastic {
            None => Prospect::Static,
            Some(elastic) => match prospect(elastic, &picture.pools, demand, state.now) {
                Prospect::Open => elastic.limited(state),
                other => other,
            },
        };
        let mine = state.machines.iter().filter(|machine| machine.record.pool == pool.name);
        let on_way = mine.filter(|machine| machine.record.stage.is_in_flight());
        found.push(PoolProspect {
            pool: pool.name.clone(),
            prospect,
            in_flight: elastic.map_or(0, |elastic| elastic.in_flight),
            since: on_way.map(|machine| machine.record.requested_at).min(),
            boot_time: elastic.map(|e| e.standing.and_then(|s| s.boot_time).unwrap_or(e.elastic.boot_time)),
            cost_per_hour: elastic.map(|e| e.elastic.cost_per_hour),
        });
    }
    found
}

/// Whether a pool is the one to buy from for a shape, its limits aside.
pub(super) fn prospect(pool: &PoolPicture<'_>, pools: &[PoolPicture<'_>], demand: &Demand, now: Timestamp) -> Prospect {
    if let Err(why) = pool.pool.machine_serves(&pool.machine, &demand.shape) {
        return Prospect::Never(why);
    }
    let better = pools.iter().filter(|other| other.comes_before(pool, demand, now));
    let serves = better.filter(|other| other.pool.machine_serves(&other.machine, &demand.shape).is_ok());
    let waits = serves.map(|other| (demand.since.after(other.elastic.fallback_after), other));
    match waits.max_by_key(|(until, other)| (*until, &other.pool.name)) {
        Some((until, other)) => Prospect::After { pool: other.pool.name.clone(), until },
        None => Prospect::Open,
    }
}

impl PoolPicture<'_> {
    /// Whether a demand that both could serve still waits for this pool, and not yet for the other.
    pub(super) fn comes_before(&self, other: &PoolPicture<'_>, demand: &Demand, now: Timestamp) -> bool {
        self.pool.priority > other.pool.priority
            && self.elastic.max > 0
            && demand.since.after(self.elastic.fallback_after) > now
    }

    /// Which limit keeps it from being bought from now.
    fn limited(&self, state: &ScaleState) -> Prospect {
        let elastic = self.elastic;
        if let Some(standing) = self.standing {
            let failure = standing.last_failure.clone().unwrap_or_default();
            let blocked = self.most(state) == 0 && standing.failures > 0;
            if standing.quarantined && blocked {
                return Prospect::Quarantined { until: standing.retry_at, failure };
            }
            if state.now < standing.retry_at {
                return Prospect::Backoff { until: standing.retry_at, failure };
            }
        }
        if self.machines >= elastic.max {
            return Prospect::AtMax { max: elastic.max };
        }
        if self.in_flight >= elastic.in_flight_max {
            return Prospect::InFlight { limit: elastic.in_flight_max };
        }
        if self.most(state) == 0 {
            return Prospect::MinuteLimit { limit: elastic.per_minute_max };
        }
        Prospect::Open
    }
}
