//! Bought machines: who may buy, what was bought, what became of it, and how well a pool's provisioner does. A record
//! is there before its provisioner is called and until its machine is destroyed.

use std::sync::Arc;

use volley_model::{
    Capacity, Elastic, Millis, Pool, PoolName, PoolStanding, Provisioning, RetireCause, ScaleLead, SessionId, Stage,
    Timestamp, Worker, WorkerId, WorkerStatus, provisioning::MINUTE,
};

use crate::effects::Effects;
use crate::ledger::Ledger;
use crate::{
    EventKind, LeadScaling, MachineSaid, NewMachine, NoteMachines, Provision, ProvisionRefusal, Retire, ScaleRefusal,
    Schedulable, SetSchedulable,
};

/// The wait after a pool's first failure; doubles with each that follows.
const BACKOFF: Millis = Millis::from_secs(5);
/// The longest wait after a failure.
const BACKOFF_MAX: Millis = Millis::from_secs(600);
/// Failures in a row after which a pool is in quarantine.
const FAILURES_MAX: u32 = 5;
/// How long a quarantine lasts before one machine is tried.
const QUARANTINE: Millis = Millis::from_secs(900);
/// Longest failure that is kept, in characters.
const FAILURE_CHARS_MAX: usize = 500;
/// One in so many of the learnt boot time is the latest: a few boots shape it, one does not.
const BOOTS_AVERAGED: u64 = 4;

impl Ledger {
    /// Takes or renews the right to buy and give up machines.
    pub(crate) fn lead_scaling(&mut self, op: &LeadScaling) -> Result<ScaleLead, ScaleRefusal> {
        self.renew_session(op.session).map_err(|_| ScaleRefusal::SessionEnded)?;
        let now = self.counters.now;
        let until = now.after(self.options.scale_lease);
        match &mut self.lead {
            Some(lead) if lead.until > now && lead.session != op.session => {
                return Err(ScaleRefusal::NotLeading { lead: Some(*lead) });
            }
            Some(lead) if lead.until > now => lead.until = lead.until.max(until),
            _ => {
                self.lead_term += 1;
                self.lead = Some(ScaleLead { session: op.session, term: self.lead_term, until });
            }
        }
        Ok(self.lead.expect("set above"))
    }

    /// Whether a call is the present leader's. A leader of an older term is refused, whatever it planned.
    fn leads(&mut self, session: SessionId, term: u64) -> Result<(), ScaleRefusal> {
        self.renew_session(session).map_err(|_| ScaleRefusal::SessionEnded)?;
        match self.lead.filter(|lead| lead.until > self.counters.now) {
            Some(lead) if (lead.session, lead.term) == (session, term) => Ok(()),
            lead => Err(ScaleRefusal::NotLeading { lead }),
        }
    }

    /// Writes the records of machines to be made.
    pub(crate) fn provision(
        &mut self,
        op: &Provision,
        out: &mut Effects,
    ) -> Result<Vec<Result<(), ProvisionRefusal>>, ScaleRefusal> {
        self.leads(op.session, op.term)?;
        Ok(op.machines.iter().map(|machine| self.provision_one(machine, out)).collect())
    }

    fn provision_one(&mut self, new: &NewMachine, out: &mut Effects) -> Result<(), ProvisionRefusal> {
        if let Some(record) = self.machines.get(&new.worker) {
            return if record.pool == new.pool { Ok(()) } else { Err(ProvisionRefusal::IdTaken) };
        }
        if self.workers.contains_key(&new.worker) {
            return Err(ProvisionRefusal::IdTaken);
        }
        let (pool, elastic) = self.elastic(&new.pool).ok_or(ProvisionRefusal::NoSuchPool)?;
        if pool.version != new.pool_version {
            return Err(ProvisionRefusal::PoolChanged);
        }
        let (pool_version, elastic) = (pool.version, elastic.clone());
        self.check_limits(&new.pool, &elastic)?;
        let now = self.counters.now;
        let standing = self.standing(&new.pool);
        if now.since(standing.minute) >= MINUTE {
            (standing.minute, standing.bought) = (now, 0);
        }
        standing.bought += 1;
        out.standings.insert(new.pool.clone());
        let record = Provisioning {
            worker: new.worker.clone(),
            pool: new.pool.clone(),
            pool_version,
            machine: Arc::new(elastic.machine),
            cost_per_hour: elastic.cost_per_hour,
            requested_at: now,
            boot_until: now.after(elastic.boot_limit),
            handle: None,
            stage: Stage::Requested,
        };
        self.machines.insert(new.worker.clone(), Arc::new(record));
        out.machines.insert(new.worker.clone());
        let kind = EventKind::Worker { worker: new.worker.clone(), status: WorkerStatus::Provisioning };
        out.event(&mut self.counters, kind);
        Ok(())
    }

    fn check_limits(&self, pool: &PoolName, elastic: &Elastic) -> Result<(), ProvisionRefusal> {
        let now = self.counters.now;
        let (machines, in_flight) = self.machines_of(pool);
        if machines >= elastic.max {
            return Err(ProvisionRefusal::AtMax { max: elastic.max });
        }
        if in_flight >= elastic.in_flight_max {
            return Err(ProvisionRefusal::InFlight { limit: elastic.in_flight_max });
        }
        let Some(standing) = self.standings.get(pool) else { return Ok(()) };
        if standing.retry_at > now {
            return Err(ProvisionRefusal::Waits { until: standing.retry_at });
        }
        if standing.quarantined && in_flight > 0 {
            return Err(ProvisionRefusal::InFlight { limit: 1 });
        }
        if standing.left_in_minute(elastic.per_minute_max, now) == 0 {
            return Err(ProvisionRefusal::MinuteLimit { limit: elastic.per_minute_max });
        }
        Ok(())
    }

    /// Machines of a pool that are not destroyed, and how many of them have not registered.
    pub(crate) fn machines_of(&self, pool: &PoolName) -> (u32, u32) {
        let records = self.machines.values().filter(|record| record.pool == *pool);
        records.fold((0, 0), |(all, flying), r| (all + 1, flying + u32::from(r.stage.is_in_flight())))
    }

    fn elastic(&self, name: &PoolName) -> Option<(&Pool, &Elastic)> {
        let pool = self.pools.get(name)?;
        Some((pool, pool.elastic.as_ref()?))
    }

    fn standing(&mut self, pool: &PoolName) -> &mut PoolStanding {
        self.standings.entry(pool.clone()).or_insert_with(|| PoolStanding::fresh(pool.clone()))
    }

    /// What provisioners answered.
    pub(crate) fn note_machines(&mut self, op: &NoteMachines, out: &mut Effects) -> Result<Vec<bool>, ScaleRefusal> {
        self.leads(op.session, op.term)?;
        Ok(op.notes.iter().map(|(worker, said)| self.note_machine(worker, said, op.jitter, out)).collect())
    }

    fn note_machine(&mut self, id: &WorkerId, said: &MachineSaid, jitter: u16, out: &mut Effects) -> bool {
        let Some(record) = self.machines.get(id).cloned() else { return false };
        match said {
            MachineSaid::Created { handle } => {
                let stage = if record.stage == Stage::Requested { Stage::Booting } else { record.stage };
                self.put_machine(Provisioning { handle: Some(handle.clone()), stage, ..(*record).clone() }, out);
                true
            }
            MachineSaid::Failed { reason } if record.stage.is_in_flight() => {
                self.count_failure(&record, reason, jitter, out);
                self.forget_machine(id, out);
                true
            }
            MachineSaid::Destroyed if matches!(record.stage, Stage::Destroying { .. }) => {
                self.forget_machine(id, out);
                true
            }
            MachineSaid::Failed { .. } | MachineSaid::Destroyed => false,
        }
    }

    /// Gives machines up: those that run nothing are to be destroyed, others first drain.
    pub(crate) fn retire(&mut self, op: &Retire, out: &mut Effects) -> Result<Vec<bool>, ScaleRefusal> {
        self.leads(op.session, op.term)?;
        Ok(op.machines.iter().map(|(worker, why)| self.retire_one(worker, *why, op.jitter, out)).collect())
    }

    fn retire_one(&mut self, id: &WorkerId, why: RetireCause, jitter: u16, out: &mut Effects) -> bool {
        let Some(record) = self.machines.get(id).cloned() else { return false };
        let since = self.counters.now;
        let worker = self.workers.get(id);
        let (known, held) = (worker.is_some(), worker.is_some_and(|worker| worker.hold.is_some()));
        let busy = worker.is_some_and(|worker| !worker.attempts.is_empty());
        let stage = match record.stage {
            Stage::Destroying { .. } => return true,
            // It registered in between.
            Stage::Registered { .. } if why == RetireCause::BootLimit => return false,
            Stage::Requested | Stage::Booting if why != RetireCause::BootLimit => return false,
            Stage::Requested | Stage::Booting => {
                let limit = record.boot_until.since(record.requested_at);
                self.count_failure(&record, &format!("{id} did not register within {limit}"), jitter, out);
                Stage::Destroying { since, why }
            }
            // Something was placed on it in between, or room is held there.
            Stage::Registered { .. } if why == RetireCause::Idle && (busy || held) => {
                return false;
            }
            Stage::Draining { .. } if busy => return true,
            Stage::Draining { why, .. } => Stage::Destroying { since, why },
            Stage::Registered { .. } if busy => Stage::Draining { since, why },
            Stage::Registered { .. } => Stage::Destroying { since, why },
        };
        if known {
            let drain = SetSchedulable { worker: id.clone(), to: Schedulable::Drain { deadline: None } };
            self.set_schedulable(&drain, out).expect("the worker was seen above");
        }
        self.put_machine(Provisioning { stage, ..(*record).clone() }, out);
        true
    }

    fn put_machine(&mut self, record: Provisioning, out: &mut Effects) {
        out.machines.insert(record.worker.clone());
        self.machines.insert(record.worker.clone(), Arc::new(record));
    }

    /// A machine is destroyed, or never was: its record goes, and its worker with what it still held.
    fn forget_machine(&mut self, id: &WorkerId, out: &mut Effects) {
        self.machines.remove(id);
        out.machines.remove(id);
        out.change(crate::Change::RemoveMachine(id.clone()));
        if self.workers.contains_key(id) {
            self.end_worker(id, out);
        } else {
            let kind = EventKind::Worker { worker: id.clone(), status: WorkerStatus::Gone };
            out.event(&mut self.counters, kind);
        }
    }

    /// One more failure of a pool, unless its machine was bought before the last one was counted: a pool that is down
    /// fails a whole purchase at once.
    fn count_failure(&mut self, record: &Provisioning, reason: &str, jitter: u16, out: &mut Effects) {
        let now = self.counters.now;
        let requested_at = record.requested_at;
        let standing = self.standing(&record.pool);
        standing.last_failure = Some(reason.chars().take(FAILURE_CHARS_MAX).collect());
        if standing.failures == 0 || requested_at > standing.failed_at {
            standing.failures += 1;
            standing.failed_at = now;
            let doubled = BACKOFF.0.saturating_mul(1 << (standing.failures - 1).min(16)).min(BACKOFF_MAX.0);
            standing.quarantined |= standing.failures >= FAILURES_MAX;
            let wait = if standing.quarantined { QUARANTINE.0 } else { doubled };
            // A half of it is fixed, the other by chance, so that pools that failed together do not come back together.
            let wait = wait / 2 + wait / 2 * u64::from(jitter.min(JITTER_MAX)) / u64::from(JITTER_MAX);
            standing.retry_at = now.after(Millis(wait));
            let kind = EventKind::Pool { pool: record.pool.clone(), removed: false };
            out.event(&mut self.counters, kind);
        }
        out.standings.insert(record.pool.clone());
    }

    /// A worker registered: the machine that was to become it has come. What was given up takes nothing new.
    pub(crate) fn machine_registered(&mut self, worker: &Worker, out: &mut Effects) {
        let Some(record) = self.machines.get(&worker.id).cloned() else { return };
        let at = self.counters.now;
        match record.stage {
            Stage::Registered { .. } => {}
            Stage::Draining { .. } | Stage::Destroying { .. } => {
                let entry = self.workers.get_mut(&worker.id).expect("it has just registered");
                if entry.admin != WorkerStatus::Draining {
                    entry.admin = WorkerStatus::Draining;
                    entry.revision = entry.revision.next();
                }
            }
            Stage::Requested | Stage::Booting => {
                self.put_machine(Provisioning { stage: Stage::Registered { at }, ..(*record).clone() }, out);
                let boot = at.since(record.requested_at);
                let standing = self.standing(&record.pool);
                let average =
                    standing.boot_time.map_or(boot.0, |old| old.0 + boot.0 / BOOTS_AVERAGED - old.0 / BOOTS_AVERAGED);
                standing.boot_time = Some(Millis(average));
                (standing.failures, standing.quarantined, standing.retry_at) = (0, false, Timestamp(0));
                standing.offered = offers_less(&worker.capacity, &record.machine.capacity);
                out.standings.insert(record.pool.clone());
            }
        }
    }

    /// Whether a name is kept for a machine of another pool.
    pub(crate) fn is_kept_for_machine(&self, worker: &Worker) -> bool {
        self.machines.get(&worker.id).is_some_and(|record| record.pool != worker.pool)
    }
}

/// What a caller's chance is counted in: thousandths.
pub const JITTER_MAX: u16 = 1_000;

/// What a worker offers when that is less than its machine's definition.
fn offers_less(offered: &Capacity, defined: &Capacity) -> Option<Capacity> {
    let less = offered.cpu < defined.cpu
        || offered.memory < defined.memory
        || offered.slots < defined.slots
        || offered.gpus.len() < defined.gpus.len();
    less.then(|| offered.clone())
}
