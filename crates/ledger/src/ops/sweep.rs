//! Sweep: does what time has made due, in bounded steps.

use volley_model::{
    ContainerId, EventNumber, GroupId, Millis, OnDisconnect, Outcome, SessionId, Timestamp, WorkerId, WorkerStatus,
};

use crate::effects::Effects;
use crate::ledger::Ledger;
use crate::state::Expiring;
use crate::{Change, Detach, EventKind, Sweep, SweepReply};

impl Ledger {
    pub(crate) fn sweep(&mut self, op: &Sweep, out: &mut Effects) -> SweepReply {
        let mut reply = SweepReply::default();
        let max = op.items_max.max(1);
        if let Some(until) = op.session.and_then(|session| self.left_to_another(session)) {
            return SweepReply { due: Some(until), now: self.counters.now, left: true, ..reply };
        }
        self.forgive_gap();
        self.sweep_sessions(&mut reply, out);
        self.sweep_leases(max, &mut reply, out);
        reply.ready = self.promote_due(max, out);
        self.sweep_expiring(max, &mut reply, out);
        self.sweep_drains(out);
        self.sweep_holds();
        self.sweep_keys(max, out);
        self.sweep_tokens(max, out);
        self.prune(max, &mut reply, out);
        self.prune_events(out);
        reply.due = self.due();
        let keys = self.keys_until.first().is_some_and(|(until, ..)| *until <= self.counters.now);
        reply.work = self.queues.ready() > 0 || self.queues.any_stale(self.growth);
        reply.now = self.counters.now;
        let tokens = self.tokens_until.first().is_some_and(|(until, _)| *until <= self.counters.now);
        reply.more = keys || tokens || self.prunable() || reply.due.is_some_and(|due| due <= self.counters.now);
        reply
    }

    /// Until when another server has the right to sweep; when none has, this one has it from now on for a while. Far
    /// below half of a lease, so that a sweeper that dies leaves no gap.
    fn left_to_another(&mut self, session: SessionId) -> Option<Timestamp> {
        let now = self.counters.now;
        let other = self
            .sweeper
            .filter(|(sweeper, until)| *sweeper != session && *until > now && self.sessions.contains_key(sweeper));
        if let Some((_, until)) = other {
            return Some(until);
        }
        self.sweeper = Some((session, now.after(Millis((self.half_lease().0 * 3 / 4).max(1)))));
        None
    }

    /// After a gap in the clock or in sweeps, or a restart, all leases get one fresh term: an outage of the
    /// control plane must not kill a healthy fleet.
    fn forgive_gap(&mut self) {
        let now = self.counters.now;
        let half = self.half_lease();
        let gap = self.last_sweep.replace(now).is_none_or(|last| now.since(last) > half);
        if !gap {
            return;
        }
        for session in self.sessions.values_mut() {
            session.lease_until = session.lease_until.max(now.after(self.options.session_lease));
        }
        let alive: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| w.lost_at.is_none()).map(|(id, _)| id.clone()).collect();
        for id in alive {
            self.renew_worker(&id);
        }
    }

    /// Half of the shorter lease: a longer gap between sweeps is an outage.
    fn half_lease(&self) -> Millis {
        Millis(self.options.worker_lease.0.min(self.options.session_lease.0) / 2)
    }

    /// When the next sweep should come at the latest, while there are leases that could end.
    pub(crate) fn next_pace(&self) -> Option<Timestamp> {
        if self.sessions.is_empty() && self.workers.is_empty() {
            return None;
        }
        let pace = Millis((self.half_lease().0 / 2).max(1));
        Some(self.last_sweep.map_or(self.counters.now, |last| last.after(pace)))
    }

    fn sweep_sessions(&mut self, reply: &mut SweepReply, out: &mut Effects) {
        let now = self.counters.now;
        let ended: Vec<_> = self.sessions.iter().filter(|(_, s)| s.lease_until <= now).map(|(id, _)| *id).collect();
        for session in ended {
            self.end_session(session, out);
            reply.sessions_ended += 1;
        }
    }

    /// Leases that ended: a live worker is lost, one lost long ago is forgotten, an empty drained one is gone.
    fn sweep_leases(&mut self, max: u32, reply: &mut SweepReply, out: &mut Effects) {
        for _ in 0..max {
            let due = self.leases.first().filter(|(at, _)| *at <= self.counters.now);
            let Some((_, id)) = due.cloned() else { break };
            let entry = self.workers.get(&id).expect("law 11: a lease is a worker's");
            match entry.lost_at {
                None if entry.attempts.is_empty() && entry.admin == WorkerStatus::Draining => {
                    self.remove_worker(&id, out);
                }
                None => {
                    self.lose_worker(&id, out);
                    reply.workers_lost.push(id);
                }
                Some(lost_at) => self.forget_lost(&id, lost_at, out),
            }
        }
    }

    /// A worker says that it leaves: its lease ends now.
    pub(crate) fn detach(&mut self, op: &Detach, out: &mut Effects) -> bool {
        let entry = self.workers.get(&op.worker);
        let its_own = entry.is_some_and(|w| w.lost_at.is_none() && w.stream == Some((op.session, op.stream)));
        if its_own {
            self.lose_worker(&op.worker, out);
        }
        its_own
    }

    /// A worker lost its lease: its attempts are lost, but for those that are to be kept.
    fn lose_worker(&mut self, id: &WorkerId, out: &mut Effects) {
        let now = self.counters.now;
        let entry = self.workers.get_mut(id).expect("the caller has seen it");
        entry.lost_at = Some(now);
        entry.idle_since = now;
        entry.stream = None;
        if let Some(hold) = entry.hold.take() {
            self.holds.remove(&(hold.until, id.clone()));
        }
        out.event(&mut self.counters, EventKind::Worker { worker: id.clone(), status: WorkerStatus::Lost });
        for container in self.workers[id].attempts.clone() {
            if self.live[&container].spec.on_disconnect == OnDisconnect::Stop {
                self.end_attempt(container, Outcome::Lost, out);
            }
        }
        let entry = &self.workers[id];
        if entry.attempts.is_empty() && entry.admin == WorkerStatus::Draining {
            return self.remove_worker(id, out);
        }
        self.touch_worker(id);
        self.forget_lost(id, now, out);
    }

    /// A worker's machine is destroyed: whatever it held is lost, and it is gone.
    pub(crate) fn end_worker(&mut self, id: &WorkerId, out: &mut Effects) {
        for container in self.workers[id].attempts.clone() {
            self.end_attempt(container, Outcome::Lost, out);
        }
        self.remove_worker(id, out);
    }

    /// A lost worker is listed for a while, and what it was to keep is kept for a while.
    fn forget_lost(&mut self, id: &WorkerId, lost_at: Timestamp, out: &mut Effects) {
        let now = self.counters.now;
        let kept_until = lost_at.after(self.options.kept_attempt_age_max);
        if kept_until <= now {
            for container in self.workers[id].attempts.clone() {
                self.end_attempt(container, Outcome::Lost, out);
            }
        }
        let empty = self.workers[id].attempts.is_empty();
        let listed_until = lost_at.after(self.options.lost_worker_age_max);
        match (empty, listed_until <= now) {
            (true, true) => self.remove_worker(id, out),
            (true, false) => self.set_lease(id, listed_until),
            // An end of its last attempt in between is seen then: a listing may last that much longer.
            (false, true) => self.set_lease(id, kept_until.min(now.after(LOST_WORKER_LOOK))),
            (false, false) => self.set_lease(id, kept_until.min(listed_until)),
        }
    }

    fn sweep_expiring(&mut self, max: u32, reply: &mut SweepReply, out: &mut Effects) {
        let mut left = max;
        while left > 0 {
            let due = self.expiring.first().filter(|(at, _)| *at <= self.counters.now);
            let Some((_, what)) = due.copied() else { break };
            left = left.saturating_sub(1);
            match what {
                Expiring::One(id) => {
                    self.finish(id, Outcome::Expired, out);
                    reply.expired += 1;
                }
                Expiring::Run(group, run) => {
                    left = left.saturating_sub(self.expire_run(group, run, left.max(1), reply, out));
                }
            }
        }
    }

    /// Ends up to `max` containers of a run's range. Returns how many.
    fn expire_run(&mut self, group: GroupId, run: u32, max: u32, reply: &mut SweepReply, out: &mut Effects) -> u32 {
        let entry = &self.groups[&group].runs[run as usize];
        let (from, end) = (entry.next, entry.end());
        let until = end.min(from.saturating_add(max));
        self.take_range(group, run, until);
        for index in from..until {
            self.finish(ContainerId { group, index }, Outcome::Expired, out);
        }
        reply.expired += until - from;
        until - from
    }

    fn sweep_drains(&mut self, out: &mut Effects) {
        while let Some((at, id)) = self.drains.first().cloned().filter(|(at, _)| *at <= self.counters.now) {
            self.drains.remove(&(at, id.clone()));
            if let Some(entry) = self.workers.get_mut(&id) {
                entry.drain_until = None;
            }
            out.workers.insert(id.clone());
            self.end_drain(&id, out);
        }
    }

    fn sweep_holds(&mut self) {
        let now = self.counters.now;
        let over = |(at, id): &(Timestamp, WorkerId)| {
            let hold = self.workers[id].hold.as_ref();
            let shape = hold.and_then(|h| self.queues.shapes.get(&h.shape));
            *at <= now || shape.is_none_or(|queue| queue.entries.is_empty() && queue.claimed == 0)
        };
        let ended: Vec<_> = self.holds.iter().filter(|hold| over(hold)).cloned().collect();
        for (at, id) in ended {
            self.holds.remove(&(at, id.clone()));
            self.workers.get_mut(&id).expect("law 11: a hold is a worker's").hold = None;
            self.grow_worker(&id);
        }
    }

    fn sweep_keys(&mut self, max: u32, out: &mut Effects) {
        for _ in 0..max {
            let Some((until, tenant, key)) = self.keys_until.first().cloned() else { break };
            if until > self.counters.now {
                break;
            }
            self.keys_until.pop_first();
            self.keys.remove(&(tenant.clone(), key.clone()));
            out.change(Change::RemoveKey(tenant, key));
        }
    }

    fn prunable(&self) -> bool {
        let over = self.finished.len() as u64 > self.options.finished_containers_max;
        over || self
            .finished
            .front()
            .is_some_and(|(at, _)| at.after(self.options.finished_age_max) <= self.counters.now)
    }

    fn prune(&mut self, max: u32, reply: &mut SweepReply, out: &mut Effects) {
        while reply.pruned < max && self.prunable() {
            let (_, id) = self.finished.pop_front().expect("something is prunable");
            self.counters.finished -= 1;
            self.counters.pruned += 1;
            reply.pruned += 1;
            out.change(Change::Prune(id));
            let group = self.groups.get_mut(&id.group).expect("law 3: a finished container's group is known");
            group.pruned += 1;
            out.progress.insert(id.group);
            if group.pruned == group.count {
                self.remove_group(id.group, out);
            }
        }
    }

    fn remove_group(&mut self, id: GroupId, out: &mut Effects) {
        let group = self.groups.remove(&id).expect("the caller has seen it");
        self.arrivals.remove(&group.arrival);
        out.change(Change::RemoveGroup(id));
        for run in group.runs {
            let uses = self.specs.get_mut(&run.spec_hash).expect("law 3: a run's spec is known");
            uses.1 -= 1;
            if uses.1 == 0 {
                self.specs.remove(&run.spec_hash);
                out.change(Change::RemoveSpec(run.spec_hash));
            }
        }
    }

    fn prune_events(&mut self, out: &mut Effects) {
        let mut floor = self.events_floor;
        let kept = self.counters.last_event.0.saturating_sub(self.options.events_max);
        if kept >= floor.0 + crate::ledger::EVENTS_PER_TIME {
            floor = EventNumber(kept + 1);
        }
        let old = |at: Timestamp| at.after(self.options.events_age_max) <= self.counters.now;
        while let Some((_, number)) = self.event_times.front().copied().filter(|(at, n)| old(*at) || *n < floor) {
            floor = floor.max(number.next());
            self.event_times.pop_front();
        }
        if floor > self.events_floor {
            self.events_floor = floor;
            out.change(Change::PruneEvents(floor));
        }
    }
}

/// How often a lost worker past its listing, whose last attempts are kept, is looked at: they may have ended.
const LOST_WORKER_LOOK: Millis = Millis::from_secs(60);
