//! A store in a test: maps that change sets are applied to. It refuses what a correct ledger
//! never writes. Knows nothing of the ledger's own state.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_ledger::change::{Counters, StoredFinished, StoredGroup, StoredKey, StoredLive, StoredWorker};
use volley_ledger::{Change, ChangeSet, Event, Stored};
use volley_model::{
    ContainerId, EventNumber, GroupId, Pool, PoolName, PoolStanding, Provisioning, Spec, SpecHash, Tenant, TenantName,
    Timestamp, Token, TokenId, WorkerId,
};

/// What is durable.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub counters: Counters,
    pub specs: BTreeMap<SpecHash, Arc<Spec>>,
    pub groups: BTreeMap<GroupId, StoredGroup>,
    pub live: BTreeMap<ContainerId, StoredLive>,
    pub finished: BTreeMap<ContainerId, StoredFinished>,
    pub keys: BTreeMap<(TenantName, String), StoredKey>,
    pub workers: BTreeMap<WorkerId, StoredWorker>,
    pub pools: BTreeMap<PoolName, Pool>,
    pub tenants: BTreeMap<TenantName, Tenant>,
    pub tokens: BTreeMap<TokenId, Token>,
    pub machines: BTreeMap<WorkerId, Arc<Provisioning>>,
    pub standings: BTreeMap<PoolName, PoolStanding>,
    pub events: BTreeMap<EventNumber, Event>,
    pub floor: EventNumber,
    /// Changes written so far.
    pub writes: u64,
}

impl Disk {
    pub fn apply(&mut self, set: &ChangeSet, counters: Counters) {
        if set.changes.is_empty() && set.events.is_empty() {
            return;
        }
        self.counters = counters;
        for event in &set.events {
            let last = self.events.last_key_value().map(|(number, _)| *number);
            let next = last.map_or(event.number, EventNumber::next);
            assert_eq!(event.number, next, "event numbers have no gaps");
            self.events.insert(event.number, event.clone());
        }
        for change in &set.changes {
            self.writes += 1;
            self.change(change.clone());
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::PutSpec(hash, spec) => drop(self.specs.insert(hash, spec)),
            Change::RemoveSpec(hash) => assert!(self.specs.remove(&hash).is_some(), "spec {hash} is removed once"),
            Change::PutGroup(group) => {
                assert!(!self.groups.contains_key(&group.id), "group {} is accepted once", group.id);
                self.groups.insert(group.id, group);
            }
            Change::PutProgress(progress) => {
                let group = self.groups.get_mut(&progress.group).expect("the group is stored");
                assert!(group.finished <= progress.finished && group.pruned <= progress.pruned, "counts only grow");
                (group.finished, group.succeeded, group.pruned) =
                    (progress.finished, progress.succeeded, progress.pruned);
            }
            Change::PutMark { group, run, mark } => {
                let group = self.groups.get_mut(&group).expect("the group is stored");
                let before = &mut group.materialised[run as usize];
                assert!(*before < mark, "a mark only grows");
                *before = mark;
            }
            Change::RemoveGroup(id) => {
                let group = self.groups.remove(&id).expect("the group is stored");
                assert!(self.live.keys().chain(self.finished.keys()).all(|c| c.group != group.id));
            }
            Change::PutLive(live) => {
                assert!(!self.finished.contains_key(&live.id), "law 4: {} is finished", live.id);
                self.live.insert(live.id, live);
            }
            Change::Finish(finished) => {
                self.live.remove(&finished.id);
                let before = self.finished.insert(finished.id, finished);
                assert!(before.is_none(), "law 4: {before:?} finished before");
            }
            Change::Prune(id) => assert!(self.finished.remove(&id).is_some(), "{id} is pruned once, when finished"),
            Change::PutKey(key) => {
                let before = self.keys.insert((key.tenant.clone(), key.key.clone()), key);
                assert!(before.is_none(), "law 6: {before:?} is still kept");
            }
            Change::RemoveKey(tenant, key) => assert!(self.keys.remove(&(tenant, key)).is_some()),
            Change::PutWorker(worker) => drop(self.workers.insert(worker.worker.id.clone(), worker)),
            Change::RemoveWorker(id) => assert!(self.workers.remove(&id).is_some()),
            Change::PutPool(pool) => drop(self.pools.insert(pool.name.clone(), pool)),
            Change::PutTenant(tenant) => drop(self.tenants.insert(tenant.name.clone(), tenant)),
            Change::RemoveTenant(name) => assert!(self.tenants.remove(&name).is_some()),
            Change::PutToken(token) => drop(self.tokens.insert(token.id, token)),
            Change::RemoveToken(id) => assert!(self.tokens.remove(&id).is_some()),
            Change::RemovePool(name) => {
                assert!(self.pools.remove(&name).is_some());
                self.standings.remove(&name);
            }
            Change::PutMachine(record) => drop(self.machines.insert(record.worker.clone(), record)),
            Change::RemoveMachine(id) => assert!(self.machines.remove(&id).is_some(), "machine {id} is destroyed once"),
            Change::PutStanding(standing) => drop(self.standings.insert(standing.pool.clone(), standing)),
            Change::PruneEvents(floor) => {
                assert!(floor > self.floor, "the floor of events only rises");
                self.floor = floor;
                self.events = self.events.split_off(&floor);
            }
        }
    }

    /// For a restore, or to compare with the ledger's own.
    pub fn stored(&self) -> Stored {
        let mut finished: Vec<(Timestamp, ContainerId)> =
            self.finished.values().map(|f| (f.finished_at, f.id)).collect();
        finished.sort_unstable();
        Stored {
            counters: self.counters,
            specs: self.specs.iter().map(|(hash, spec)| (*hash, Arc::clone(spec))).collect(),
            groups: self.groups.values().cloned().collect(),
            live: self.live.values().cloned().collect(),
            finished,
            keys: self.keys.values().cloned().collect(),
            workers: self.workers.values().cloned().collect(),
            pools: self.pools.values().cloned().collect(),
            tenants: self.tenants.values().cloned().collect(),
            tokens: self.tokens.values().cloned().collect(),
            machines: self.machines.values().cloned().collect(),
            standings: self.standings.values().cloned().collect(),
            events_floor: self.floor,
        }
    }
}

/// What must be equal of two stored states: all but the time and the fleet's version, which move without a write,
/// in an order that does not depend on who finished first within a millisecond.
pub fn comparable(mut stored: Stored) -> Stored {
    stored.counters.now = Timestamp::default();
    stored.counters.fleet_version = Default::default();
    stored.events_floor = stored.events_floor.max(EventNumber(1));
    stored.finished.sort_unstable();
    stored
}
