//! Claim: the heads of the queues, and what changed in the fleet.

use std::collections::BTreeSet;
use std::sync::Arc;

use volley_model::{Claimed, FleetChanges, FleetVersion, ShapeHash, Timestamp, WorkerView};

use crate::effects::Effects;
use crate::feed::FeedKey;
use crate::ledger::Ledger;
use crate::{Claim, ClaimReply, SessionRefusal};

impl Ledger {
    pub(crate) fn claim(&mut self, op: &Claim, out: &mut Effects) -> Result<ClaimReply, SessionRefusal> {
        let session = self.renew_session(op.session)?;
        match &session.last_claim {
            Some((last, reply)) if *last == op.number => return Ok(reply.clone()),
            Some((last, _)) if *last > op.number => return Err(SessionRefusal::NumberTooOld),
            _ => {}
        }
        // Whatever its server knew is of another life of the store, or of nobody's.
        let first = session.last_claim.is_none();
        let max = op.containers_max.min(self.options.claim_containers_max);
        self.promote_due(max, out);
        let containers = self.claim_heads(op, max);
        let mut shapes: Vec<(ShapeHash, _)> = Vec::new();
        let mut seen = BTreeSet::new();
        for claimed in &containers {
            if seen.insert(claimed.shape) {
                shapes.push((claimed.shape, Arc::clone(&self.queues.shapes[&claimed.shape].shape)));
            }
        }
        // Who only asks for the fleet's changes does not plan: nothing is handed out to be looked at.
        let recheck_max = if max == 0 { 0 } else { self.options.recheck_max };
        let recheck = self.queues.hand_out(self.growth, op.session, recheck_max);
        let reply = ClaimReply {
            containers,
            shapes,
            fleet: self.fleet_changes(op.known, first, op.changes_max as usize),
            recheck,
            sessions: self.sessions.keys().copied().collect(),
            ready: self.queues.ready(),
            due: self.due(),
            now: self.counters.now,
        };
        let session = self.sessions.get_mut(&op.session).expect("renewed above");
        session.last_claim = Some((op.number, reply.clone()));
        Ok(reply)
    }

    /// Takes the best containers over all ready shapes, in the one order of score.
    fn claim_heads(&mut self, op: &Claim, max: u32) -> Vec<Claimed> {
        let mut claimed = Vec::new();
        while (claimed.len() as u32) < max {
            let Some((shape, place, next)) = self.queues.best() else { break };
            let mut count = max - claimed.len() as u32;
            // Within one group other shapes may take turns by index.
            if let Some((score, index)) = next
                && score == place.0
            {
                count = count.min(index - place.1);
            }
            self.claim_entry(shape, place, count, (op.session, op.number), &mut claimed);
        }
        claimed
    }

    /// What changed in the fleet since `known`, for who does not claim.
    #[must_use]
    pub fn fleet(&self, known: FleetVersion, max: u32) -> FleetChanges {
        self.fleet_changes(known, false, max as usize)
    }

    /// What changed in the fleet since `known`. `max` bounds increments; a reload is bounded by `workers_max`.
    fn fleet_changes(&self, known: FleetVersion, first: bool, max: usize) -> FleetChanges {
        let reload = first || known > self.counters.fleet_version || self.feed.must_reload(known);
        let (known, max) = if reload { (FleetVersion(0), usize::MAX) } else { (known, max.max(1)) };
        let mut changes = FleetChanges { reload, version: self.counters.fleet_version, ..FleetChanges::default() };
        for (count, (version, key)) in self.feed.since(known).enumerate() {
            if count == max {
                changes.more = true;
                break;
            }
            self.put_change(key, &mut changes);
            changes.version = version;
        }
        if !changes.more {
            changes.version = self.counters.fleet_version;
        }
        changes
    }

    fn put_change(&self, key: &FeedKey, changes: &mut FleetChanges) {
        match key {
            FeedKey::Worker(id) => match self.worker_view(id) {
                Some(view) => changes.workers.push(view),
                None => changes.workers_gone.push(id.clone()),
            },
            FeedKey::Pool(name) => match self.pools.get(name) {
                Some(pool) => changes.pools.push(pool.clone()),
                None => changes.pools_gone.push(name.clone()),
            },
            FeedKey::Shape(hash) => match self.queues.shapes.get(hash).and_then(|q| q.blocked_view(*hash)) {
                Some(blocked) => changes.blocked.push(blocked),
                None => changes.unblocked.push(*hash),
            },
        }
    }

    pub(crate) fn worker_view(&self, id: &volley_model::WorkerId) -> Option<WorkerView> {
        let entry = self.workers.get(id)?;
        let mut free = entry.free.clone();
        if entry.wanted.is_some() {
            free.slots = 0;
        }
        Some(WorkerView {
            worker: Arc::clone(&entry.worker),
            epoch: entry.epoch,
            revision: entry.revision,
            status: entry.status(),
            free,
            affinities: Arc::clone(&entry.affinities),
            hold: entry.hold.clone(),
        })
    }

    /// When the next sweep has something to do. It comes no later than the sweeps' own pace: a longer silence
    /// counts as an outage, after which all leases get a fresh term.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let times: [Option<Timestamp>; 7] = [
            self.delayed.first().map(|(at, _)| *at),
            self.expiring.first().map(|(at, _)| *at),
            self.leases.first().map(|(at, _)| *at),
            self.drains.first().map(|(at, _)| *at),
            self.holds.first().map(|(at, _)| *at),
            self.sessions.values().map(|s| s.lease_until).min(),
            self.next_pace(),
        ];
        times.into_iter().flatten().min()
    }
}
