//! A server's picture of the fleet, kept by the change feed alone, held against the truth.

use std::collections::BTreeMap;

use volley_ledger::{Claim, Ledger, OpenSession, Request};
use volley_model::{
    BlockedShape, ClaimNumber, FleetChanges, FleetVersion, Pool, PoolName, SessionId, ShapeHash, WorkerId, WorkerView,
};

/// What a server knows.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    pub version: FleetVersion,
    pub workers: BTreeMap<WorkerId, WorkerView>,
    pub pools: BTreeMap<PoolName, Pool>,
    pub blocked: BTreeMap<ShapeHash, BlockedShape>,
}

impl Mirror {
    pub fn apply(&mut self, changes: &FleetChanges) {
        if changes.reload {
            *self = Self::default();
        }
        self.version = changes.version;
        self.workers.extend(changes.workers.iter().map(|view| (view.worker.id.clone(), view.clone())));
        self.pools.extend(changes.pools.iter().map(|pool| (pool.name.clone(), pool.clone())));
        self.blocked.extend(changes.blocked.iter().map(|shape| (shape.hash, shape.clone())));
        self.workers.retain(|id, _| !changes.workers_gone.contains(id));
        self.pools.retain(|name, _| !changes.pools_gone.contains(name));
        self.blocked.retain(|hash, _| !changes.unblocked.contains(hash));
    }

    /// Equal to what a server that knows nothing is told.
    pub fn check(&self, ledger: &Ledger) {
        let truth = full(ledger);
        assert_eq!(self.workers, truth.workers, "the feed tells every change of a worker");
        assert_eq!(self.pools, truth.pools, "the feed tells every change of a pool");
        let told =
            |mirror: &Self| -> Vec<_> { mirror.blocked.values().map(|b| (b.hash, b.count, b.best, b.at)).collect() };
        assert_eq!(told(self), told(&truth), "the feed tells which shapes are blocked");
    }
}

/// The whole fleet, as a new server on a copy of the ledger is told.
pub fn full(ledger: &Ledger) -> Mirror {
    let mut copy = ledger.clone();
    let (session, now) = (SessionId(u64::MAX), copy.counters().now);
    copy.apply(now, OpenSession { session, address: String::new() }.into_operation());
    let claim = Claim { session, number: ClaimNumber(1), containers_max: 0, known: FleetVersion(0), changes_max: 1 };
    let reply = Claim::from_reply(copy.apply(now, claim.into_operation()).0).expect("its own reply");
    let mut mirror = Mirror::default();
    mirror.apply(&reply.expect("the session is open").fleet);
    mirror
}
