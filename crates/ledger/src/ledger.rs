//! The ledger's state and its one entrance: an operation and the time go in, the reply and
//! the change set come out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use volley_model::{
    ArrivalNumber, ContainerId, EventNumber, FleetVersion, GroupId, Pool, PoolName, PoolStanding, Provisioning,
    ScaleLead, SecretHash, SessionId, Spec, SpecHash, TenantName, Timestamp, Token, TokenId, WorkerId,
};

use crate::effects::Effects;
use crate::feed::{Feed, FeedKey};
use crate::queue::Queues;
use crate::state::{Container, Expiring, Group, Session, WorkerEntry};
use crate::tenants::TenantEntry;
use crate::{Change, ChangeSet, Counters, LedgerOptions, Operation, Reply, StoredKey};

/// The state machine.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) options: LedgerOptions,
    pub(crate) counters: Counters,
    /// Specs and how many runs use each.
    pub(crate) specs: BTreeMap<SpecHash, (Arc<Spec>, u32)>,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) arrivals: BTreeMap<ArrivalNumber, GroupId>,
    pub(crate) live: BTreeMap<ContainerId, Container>,
    pub(crate) queues: Queues,
    /// Queued containers whose time has not come.
    pub(crate) delayed: BTreeSet<(Timestamp, ContainerId)>,
    /// Ends of `max_wait` of all that is queued.
    pub(crate) expiring: BTreeSet<(Timestamp, Expiring)>,
    /// Finished containers not pruned, in order of finishing.
    pub(crate) finished: VecDeque<(Timestamp, ContainerId)>,
    pub(crate) keys: BTreeMap<(TenantName, String), StoredKey>,
    pub(crate) keys_until: BTreeSet<(Timestamp, TenantName, String)>,
    pub(crate) workers: BTreeMap<WorkerId, WorkerEntry>,
    /// Ends of workers' leases (and of the listing of lost ones).
    pub(crate) leases: BTreeSet<(Timestamp, WorkerId)>,
    pub(crate) drains: BTreeSet<(Timestamp, WorkerId)>,
    pub(crate) holds: BTreeSet<(Timestamp, WorkerId)>,
    pub(crate) pools: BTreeMap<PoolName, Pool>,
    /// Bought machines that are not destroyed.
    pub(crate) machines: BTreeMap<WorkerId, Arc<Provisioning>>,
    pub(crate) standings: BTreeMap<PoolName, PoolStanding>,
    pub(crate) lead: Option<ScaleLead>,
    /// Of the last leader.
    pub(crate) lead_term: u64,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    /// Tenants with limits or waiting containers.
    pub(crate) tenants: BTreeMap<TenantName, TenantEntry>,
    pub(crate) tokens: BTreeMap<TokenId, Token>,
    pub(crate) tokens_by_hash: BTreeMap<SecretHash, TokenId>,
    /// When ended tokens are forgotten.
    pub(crate) tokens_until: BTreeSet<(Timestamp, TokenId)>,
    pub(crate) feed: Feed,
    /// The version at which capacity last grew.
    pub(crate) growth: FleetVersion,
    pub(crate) last_sweep: Option<Timestamp>,
    /// Who has the right to sweep, and until when.
    pub(crate) sweeper: Option<(SessionId, Timestamp)>,
    /// Events below this are pruned.
    pub(crate) events_floor: EventNumber,
    /// Now and then an event's time and number, for pruning by age.
    pub(crate) event_times: VecDeque<(Timestamp, EventNumber)>,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(options: LedgerOptions) -> Self {
        Self {
            options,
            counters: Counters::default(),
            specs: BTreeMap::new(),
            groups: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            live: BTreeMap::new(),
            queues: Queues::default(),
            delayed: BTreeSet::new(),
            expiring: BTreeSet::new(),
            finished: VecDeque::new(),
            keys: BTreeMap::new(),
            keys_until: BTreeSet::new(),
            workers: BTreeMap::new(),
            leases: BTreeSet::new(),
            drains: BTreeSet::new(),
            holds: BTreeSet::new(),
            pools: BTreeMap::new(),
            machines: BTreeMap::new(),
            standings: BTreeMap::new(),
            lead: None,
            lead_term: 0,
            sessions: BTreeMap::new(),
            tenants: BTreeMap::new(),
            tokens: BTreeMap::new(),
            tokens_by_hash: BTreeMap::new(),
            tokens_until: BTreeSet::new(),
            feed: Feed::default(),
            growth: FleetVersion::default(),
            last_sweep: None,
            sweeper: None,
            events_floor: EventNumber(1),
            event_times: VecDeque::new(),
        }
    }

    /// Applies one operation at a time that never runs backwards: `now` below the last one counts as the last one.
    pub fn apply(&mut self, now: Timestamp, operation: Operation) -> (Reply, ChangeSet) {
        self.counters.now = self.counters.now.max(now);
        let mut out = Effects::default();
        let reply = match operation {
            Operation::Submit(op) => Reply::Submit(self.submit(op, &mut out)),
            Operation::OpenSession(op) => Reply::OpenSession(self.open_session(op)),
            Operation::CloseSession(op) => {
                self.end_session(op.session, &mut out);
                Reply::CloseSession(())
            }
            Operation::Claim(op) => Reply::Claim(self.claim(&op, &mut out)),
            Operation::Commit(op) => Reply::Commit(self.commit(op, &mut out)),
            Operation::Attach(op) => Reply::Attach(self.attach(*op, &mut out)),
            Operation::Heartbeat(op) => Reply::Heartbeat(self.heartbeat(&op)),
            Operation::Detach(op) => Reply::Detach(self.detach(&op, &mut out)),
            Operation::Report(op) => Reply::Report(self.report(op, &mut out)),
            Operation::Stop(op) => Reply::Stop(self.stop(&op, &mut out)),
            Operation::SetSchedulable(op) => Reply::SetSchedulable(self.set_schedulable(&op, &mut out)),
            Operation::Sweep(op) => Reply::Sweep(self.sweep(&op, &mut out)),
            Operation::ApplyPool(op) => Reply::ApplyPool(self.apply_pool(op, &mut out)),
            Operation::RemovePool(op) => Reply::RemovePool(self.remove_pool(&op.pool, &mut out)),
            Operation::CreateToken(op) => Reply::CreateToken(self.create_token(op, &mut out)),
            Operation::RevokeToken(op) => Reply::RevokeToken(self.revoke_token(op.token, &mut out)),
            Operation::ApplyTenant(op) => Reply::ApplyTenant(self.apply_tenant(op.tenant, &mut out)),
            Operation::RemoveTenant(op) => Reply::RemoveTenant(self.remove_tenant(&op.tenant, &mut out)),
            Operation::LeadScaling(op) => Reply::LeadScaling(self.lead_scaling(&op)),
            Operation::Provision(op) => Reply::Provision(self.provision(&op, &mut out)),
            Operation::NoteMachines(op) => Reply::NoteMachines(self.note_machines(&op, &mut out)),
            Operation::Retire(op) => Reply::Retire(self.retire(&op, &mut out)),
        };
        (reply, self.finish_effects(out))
    }

    /// The numbers to store with every change set that is not empty.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The ledger's limits and terms.
    #[must_use]
    pub fn options(&self) -> &LedgerOptions {
        &self.options
    }

    /// Containers that wait for a placement: queued, delayed or claimed.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let claimed: usize = self.sessions.values().map(|s| s.claimed.len()).sum();
        self.queues.waiting() + self.delayed.len() as u64 + claimed as u64
    }

    /// Writes each record that the operation touched once, and the hints.
    fn finish_effects(&mut self, mut out: Effects) -> ChangeSet {
        for id in std::mem::take(&mut out.live) {
            self.put_live(id, &mut out);
        }
        for (group, run) in std::mem::take(&mut out.marks) {
            let Some(entry) = self.groups.get(&group) else { continue };
            let run_entry = &entry.runs[run as usize];
            out.change(Change::PutMark { group, run, mark: run_entry.mark - run_entry.start });
        }
        for group in std::mem::take(&mut out.progress) {
            let Some(entry) = self.groups.get(&group) else { continue };
            out.change(Change::PutProgress(entry.progress()));
        }
        for worker in std::mem::take(&mut out.workers) {
            let Some(entry) = self.workers.get(&worker) else { continue };
            out.change(Change::PutWorker(entry.stored()));
        }
        for machine in std::mem::take(&mut out.machines) {
            let Some(record) = self.machines.get(&machine) else { continue };
            out.change(Change::PutMachine(Arc::clone(record)));
        }
        for pool in std::mem::take(&mut out.standings) {
            let Some(standing) = self.standings.get(&pool) else { continue };
            out.change(Change::PutStanding(standing.clone()));
        }
        // What became ready and was claimed or blocked in the same breath is nobody's to fetch.
        out.ready = out.ready.min(u32::try_from(self.queues.ready()).unwrap_or(u32::MAX));
        out.look_again |= out.ready == 0 && self.queues.any_stale(self.growth);
        let before = self.event_times.back().map_or(0, |(_, number)| number.0);
        if self.counters.last_event.0 >= before + EVENTS_PER_TIME {
            self.event_times.push_back((self.counters.now, self.counters.last_event));
        }
        out.into_change_set()
    }

    /// A new version for a record of the fleet.
    pub(crate) fn touch(&mut self, key: FeedKey, removed: bool) -> FleetVersion {
        self.counters.fleet_version = self.counters.fleet_version.next();
        self.feed.touch(key, self.counters.fleet_version, removed, self.options.tombstones_max);
        self.counters.fleet_version
    }

    /// A worker's numbers changed.
    pub(crate) fn touch_worker(&mut self, worker: &WorkerId) {
        self.touch(FeedKey::Worker(worker.clone()), false);
    }

    /// A worker has more room than before: blocked shapes are to be looked at again.
    pub(crate) fn grow_worker(&mut self, worker: &WorkerId) {
        self.growth = self.touch(FeedKey::Worker(worker.clone()), false);
    }
}

/// How many events share one entry of `event_times`.
pub(crate) const EVENTS_PER_TIME: u64 = 1000;
