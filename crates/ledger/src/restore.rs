//! Rebuilding a ledger from what was stored: claims are void, leases get one fresh term,
//! what was not accepted is back in its outbox, all else is as it was.

use std::sync::Arc;

use volley_model::{
    ContainerId, DeliveryNumber, EventNumber, Pool, PoolStanding, Provisioning, Shape, SpecHash, Tenant, Timestamp,
    Token, WorkerId, WorkerStatus,
};

use crate::effects::Effects;
use crate::feed::{Feed, FeedKey};
use crate::ledger::Ledger;
use crate::ops::score_of;
use crate::state::{Bound, Container, Group, GroupRun, State, WorkerEntry};
use crate::{Counters, LedgerOptions, StoredAttempt, StoredGroup, StoredKey, StoredLive, StoredPhase, StoredWorker};

/// Everything stored, in any order within each field.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    /// The last written.
    pub counters: Counters,
    /// By hash.
    pub specs: Vec<(SpecHash, Arc<volley_model::Spec>)>,
    /// With progress and marks merged in.
    pub groups: Vec<StoredGroup>,
    /// Live containers.
    pub live: Vec<StoredLive>,
    /// Finished ones that are not pruned: when, and which; any order.
    pub finished: Vec<(Timestamp, ContainerId)>,
    /// Client keys.
    pub keys: Vec<StoredKey>,
    /// Workers.
    pub workers: Vec<StoredWorker>,
    /// Pools.
    pub pools: Vec<Pool>,
    /// Tenants' limits.
    pub tenants: Vec<Tenant>,
    /// Tokens.
    pub tokens: Vec<Token>,
    /// Bought machines that are not destroyed.
    pub machines: Vec<Arc<Provisioning>>,
    /// How pools do with their provisioners.
    pub standings: Vec<PoolStanding>,
    /// The oldest event kept; 1 when none was pruned.
    pub events_floor: EventNumber,
}

/// What is wrong with stored records: the store is corrupt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored records contradict each other: {what}")]
pub struct RestoreError {
    /// Which records and how.
    pub what: String,
}

fn broken(what: String) -> RestoreError {
    RestoreError { what }
}

impl Ledger {
    /// Rebuilds a ledger. All workers are within a fresh lease; nobody is connected.
    pub fn restore(options: LedgerOptions, stored: Stored) -> Result<Self, RestoreError> {
        let mut ledger = Self::new(options);
        ledger.counters = stored.counters;
        ledger.counters.fleet_version = ledger.counters.fleet_version.next();
        ledger.feed = Feed::restored(ledger.counters.fleet_version);
        ledger.events_floor = stored.events_floor.max(EventNumber(1));
        ledger.event_times.push_back((ledger.counters.now, ledger.counters.last_event));
        ledger.specs = stored.specs.into_iter().map(|(hash, spec)| (hash, (spec, 0))).collect();
        for pool in stored.pools {
            ledger.touch(FeedKey::Pool(pool.name.clone()), false);
            ledger.pools.insert(pool.name.clone(), pool);
        }
        ledger.machines = stored.machines.into_iter().map(|record| (record.worker.clone(), record)).collect();
        ledger.standings = stored.standings.into_iter().map(|standing| (standing.pool.clone(), standing)).collect();
        for worker in stored.workers {
            ledger.restore_worker(worker);
        }
        for tenant in stored.tenants {
            ledger.set_limits(tenant);
        }
        for token in stored.tokens {
            ledger.keep_token(token);
        }
        let mut groups: Vec<_> = Vec::with_capacity(stored.groups.len());
        for group in stored.groups {
            groups.push(group.id);
            ledger.restore_group(group)?;
        }
        // The effects of queueing are hints only: whoever starts a server looks at everything anyway.
        let mut out = Effects::default();
        for id in groups {
            ledger.enqueue_ranges(id, &mut out);
        }
        for live in stored.live {
            ledger.restore_live(live, &mut out)?;
        }
        ledger.finished = stored.finished.into();
        ledger.finished.make_contiguous().sort();
        for key in stored.keys {
            ledger.keys_until.insert((key.until, key.tenant.clone(), key.key.clone()));
            ledger.keys.insert((key.tenant.clone(), key.key.clone()), key);
        }
        ledger.growth = ledger.counters.fleet_version;
        // A container that is in no record, or in two, is found now and not when its group never ends.
        let audit = ledger.audit();
        match audit.violations.into_iter().next() {
            Some(first) => Err(broken(first)),
            None => Ok(ledger),
        }
    }

    fn restore_worker(&mut self, stored: StoredWorker) {
        let id = stored.worker.id.clone();
        let lease_until = self.counters.now.after(self.options.worker_lease);
        let entry = WorkerEntry {
            free: stored.worker.capacity.all_free(),
            wanted: None,
            worker: Arc::new(stored.worker),
            epoch: stored.epoch,
            previous: None,
            revision: stored.revision,
            admin: match stored.status {
                WorkerStatus::Cordoned | WorkerStatus::Draining => stored.status,
                _ => WorkerStatus::Ready,
            },
            lost_at: None,
            drain_until: stored.drain_until,
            affinities: Arc::default(),
            hold: None,
            attempts: Default::default(),
            stream: None,
            lease_until,
            outbox: Default::default(),
            last_delivery: DeliveryNumber(0),
            finished: stored.finished,
            idle_since: self.counters.now,
            failing: stored.failing.into_iter().collect(),
            quarantine: stored.quarantine,
        };
        self.leases.insert((lease_until, id.clone()));
        if let Some(until) = stored.drain_until {
            self.drains.insert((until, id.clone()));
        }
        self.touch(FeedKey::Worker(id.clone()), false);
        self.workers.insert(id, entry);
    }

    fn restore_group(&mut self, stored: StoredGroup) -> Result<(), RestoreError> {
        if self.groups.contains_key(&stored.id) || self.arrivals.contains_key(&stored.arrival) {
            return Err(broken(format!("group {} is stored twice, or has the place of another", stored.id)));
        }
        let mut runs = Vec::with_capacity(stored.runs.len());
        let mut start = 0u32;
        for (number, (spec_hash, count)) in stored.runs.iter().enumerate() {
            let uses = self.specs.get_mut(spec_hash);
            let uses =
                uses.ok_or_else(|| broken(format!("group {} runs spec {spec_hash}, which is not stored", stored.id)))?;
            uses.1 += 1;
            let spec = Arc::clone(&uses.0);
            let shape = Shape::of(&stored.tenant, &spec);
            let hash = shape.hash();
            let mark = stored.materialised.get(number).copied().unwrap_or(0).min(*count);
            if mark < *count {
                self.queues.add_user(hash, || Arc::new(shape), 1);
            }
            let score = score_of(spec.priority, stored.arrival);
            let next = start + mark;
            runs.push(GroupRun {
                spec_hash: *spec_hash,
                spec,
                shape: hash,
                score,
                start,
                count: *count,
                next,
                mark: next,
            });
            start = start.checked_add(*count).ok_or_else(|| broken(format!("group {} is without end", stored.id)))?;
        }
        let group = Group {
            id: stored.id,
            arrival: stored.arrival,
            tenant: stored.tenant,
            name: stored.name,
            labels: stored.labels,
            submitted_at: stored.submitted_at,
            runs,
            count: start,
            finished: stored.finished,
            succeeded: stored.succeeded,
            pruned: stored.pruned,
        };
        self.wait_more(&group.tenant, group.in_ranges());
        self.arrivals.insert(group.arrival, group.id);
        self.groups.insert(group.id, group);
        Ok(())
    }

    fn restore_live(&mut self, stored: StoredLive, out: &mut Effects) -> Result<(), RestoreError> {
        let id = stored.id;
        let group = self.groups.get(&id.group).ok_or_else(|| broken(format!("container {id} has no group")))?;
        let run = group.run_of(id.index).ok_or_else(|| broken(format!("container {id} is past its group's end")))?;
        let run = &group.runs[run];
        if id.index >= run.next {
            return Err(broken(format!("container {id} has a record and is in its group's range")));
        }
        let (spec, spec_hash, shape, score) = (Arc::clone(&run.spec), run.spec_hash, run.shape, run.score);
        let tenant = group.tenant.clone();
        let shape_of = || Arc::new(Shape::of(&tenant, &spec));
        self.queues.add_user(shape, shape_of, 1);
        if self.live.contains_key(&id) {
            return Err(broken(format!("container {id} is stored twice")));
        }
        let queued = stored.attempt.is_none();
        let state = match stored.attempt {
            None => State::Queued { ready_at: stored.ready_at },
            Some(attempt) => State::Bound(Box::new(self.restore_attempt(id, &spec, attempt)?)),
        };
        self.live.insert(id, Container { spec, spec_hash, shape, score, attempts: stored.attempts, state });
        if queued {
            self.enqueue(id, out);
            self.wait_again(id.group);
        }
        Ok(())
    }

    fn restore_attempt(
        &mut self,
        id: ContainerId,
        spec: &volley_model::Spec,
        stored: StoredAttempt,
    ) -> Result<Bound, RestoreError> {
        let worker_id: &WorkerId = &stored.worker;
        let worker = self.workers.get_mut(worker_id);
        let worker =
            worker.ok_or_else(|| broken(format!("container {id} runs on worker {worker_id}, which is not stored")))?;
        if !worker.free.reserve(&spec.resources, &stored.gpus) {
            return Err(broken(format!("worker {worker_id} has no room for container {id}, which runs there")));
        }
        worker.attempts.insert(id);
        let posted = stored.stop.is_some() || stored.phase == StoredPhase::Assigned;
        Ok(Bound {
            attempt: stored.attempt,
            worker: worker.worker.id.clone(),
            epoch: stored.epoch,
            gpus: stored.gpus,
            phase: stored.phase,
            assigned_at: stored.assigned_at,
            started_at: stored.started_at,
            stop: stored.stop,
            outbox: posted.then(|| worker.post(id)),
        })
    }
}
