//! The change feed: one entry per worker, pool and blocked shape (its last version), not a
//! log. A removed record leaves a tombstone; purging tombstones raises a floor.

use std::collections::{BTreeMap, BTreeSet};

use volley_model::{FleetVersion, PoolName, ShapeHash, WorkerId};

/// What the feed speaks of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FeedKey {
    Worker(WorkerId),
    Pool(PoolName),
    Shape(ShapeHash),
}

/// The feed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feed {
    at: BTreeMap<FeedKey, FleetVersion>,
    order: BTreeMap<FleetVersion, FeedKey>,
    tombstones: BTreeSet<FleetVersion>,
    floor: FleetVersion,
}

impl Feed {
    /// After a restart nobody's version means anything: all reload.
    pub(crate) fn restored(version: FleetVersion) -> Self {
        Self { floor: version, ..Self::default() }
    }

    /// A record changed (or was removed) at `version`, the newest one.
    pub(crate) fn touch(&mut self, key: FeedKey, version: FleetVersion, removed: bool, tombstones_max: usize) {
        if let Some(old) = self.at.insert(key.clone(), version) {
            self.order.remove(&old);
            self.tombstones.remove(&old);
        }
        self.order.insert(version, key);
        if removed {
            self.tombstones.insert(version);
            while self.tombstones.len() > tombstones_max {
                let oldest = self.tombstones.pop_first().expect("more than none");
                let key = self.order.remove(&oldest).expect("law: a tombstone is in the feed");
                self.at.remove(&key);
                self.floor = self.floor.max(oldest);
            }
        }
    }

    /// Whether a caller that knows the fleet up to `known` must load it anew.
    pub(crate) fn must_reload(&self, known: FleetVersion) -> bool {
        known == FleetVersion(0) || known < self.floor
    }

    /// Entries after `known`, oldest first.
    pub(crate) fn since(&self, known: FleetVersion) -> impl Iterator<Item = (FleetVersion, &FeedKey)> {
        self.order.range(known.next()..).map(|(version, key)| (*version, key))
    }

    pub(crate) fn contains(&self, key: &FeedKey) -> bool {
        self.at.contains_key(key)
    }

    /// How many entries, and how many of them are tombstones.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.order.len(), self.tombstones.len())
    }
}
