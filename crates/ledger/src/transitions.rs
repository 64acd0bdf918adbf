//! The transitions of a container: the only place that moves one from state to state, with
//! its reservation, its queue, its counts and its event.

use std::sync::Arc;

use volley_model::{
    Attempt, ClaimNumber, Claimed, ContainerId, ContainerState, Millis, OnUnplaceable, Outcome, Placement, RetryOn,
    Score, SessionId, ShapeHash, StopCause, Timestamp, WorkerId,
};

use crate::effects::Effects;
use crate::feed::FeedKey;
use crate::ledger::Ledger;
use crate::queue::{Entry, Place};
use crate::state::{Bound, Container, Expiring, State, WorkerEntry};
use crate::{Change, EventKind, StoredFinished, StoredPhase};

impl Ledger {
    /// A queue entry became claimed: the first `count` containers of it.
    pub(crate) fn claim_entry(
        &mut self,
        shape: ShapeHash,
        place: Place,
        count_max: u32,
        owner: (SessionId, ClaimNumber),
        claimed: &mut Vec<Claimed>,
    ) {
        let entry = self.queues.take(shape, place).expect("law 11: the head index names an entry");
        match entry {
            Entry::One { container, since } => self.set_claimed(container, since, owner, claimed),
            Entry::Range { group, run, end, since } => {
                let until = end.min(place.1.saturating_add(count_max));
                self.materialise(group, run, until, since);
                for index in place.1..until {
                    self.set_claimed(ContainerId { group, index }, since, owner, claimed);
                }
                if until < end {
                    self.queues.push(shape, (place.0, until), Entry::Range { group, run, end, since });
                }
            }
        }
        self.tell_blocked(shape);
    }

    /// Gives the containers of a run below `until` records of their own, queued.
    pub(crate) fn materialise(&mut self, group: volley_model::GroupId, run: u32, until: u32, since: Timestamp) {
        let entry = self.groups.get_mut(&group).expect("law 3: a range's group is known");
        let run = &mut entry.runs[run as usize];
        let (spec, spec_hash, shape, score) = (&run.spec, run.spec_hash, run.shape, run.score);
        for index in run.next..until {
            let state = State::Queued { ready_at: since };
            let container = Container { spec: Arc::clone(spec), spec_hash, shape, score, attempts: 0, state };
            self.live.insert(ContainerId { group, index }, container);
        }
        let users = u64::from(until.saturating_sub(run.next));
        run.next = run.next.max(until);
        let drained = run.next == run.end() && users > 0;
        self.queues.add_user(shape, || unreachable!("law 3: the range uses its shape"), users);
        if drained {
            self.forget_users(shape, 1);
        }
    }

    fn set_claimed(
        &mut self,
        id: ContainerId,
        since: Timestamp,
        (session, claim): (SessionId, ClaimNumber),
        claimed: &mut Vec<Claimed>,
    ) {
        let container = self.live.get_mut(&id).expect("law 3: a queued container is live");
        container.state = State::Claimed { session, claim, ready_at: since };
        claimed.push(Claimed {
            container: id,
            claim,
            shape: container.shape,
            score: container.score,
            since,
            fail_if_unplaceable: container.spec.on_unplaceable == OnUnplaceable::Fail,
        });
        self.sessions.get_mut(&session).expect("the claiming session is open").claimed.insert(id);
    }

    /// A claimed container goes back to its queue with its score.
    pub(crate) fn unclaim(&mut self, id: ContainerId, out: &mut Effects) {
        let container = self.live.get_mut(&id).expect("law 3: a claimed container is live");
        let State::Claimed { session, ready_at, .. } = container.state else { return };
        container.state = State::Queued { ready_at };
        if let Some(session) = self.sessions.get_mut(&session) {
            session.claimed.remove(&id);
        }
        self.enqueue(id, out);
    }

    /// Puts a container in state `Queued` into its queue, or among the delayed.
    pub(crate) fn enqueue(&mut self, id: ContainerId, out: &mut Effects) {
        let container = &self.live[&id];
        let State::Queued { ready_at } = container.state else { panic!("law 3: only a queued container is enqueued") };
        let (shape, place) = (container.shape, (container.score, id.index));
        if let Some(wait) = container.spec.max_wait {
            let deadline = ready_at.after(wait);
            self.expiring.insert((deadline, Expiring::One(id, ready_at)));
            out.due_at(deadline);
        }
        if ready_at > self.counters.now {
            self.delayed.insert((ready_at, id));
            out.due_at(ready_at);
        } else if self.queues.push(shape, place, Entry::One { container: id, since: ready_at }) {
            out.ready += 1;
        } else {
            self.tell_blocked(shape);
        }
    }

    /// Delayed containers whose time has come join their queues. At most `max`; returns how many.
    pub(crate) fn promote_due(&mut self, max: usize, out: &mut Effects) -> u32 {
        let mut promoted = 0;
        while promoted < max {
            let Some((at, id)) = self.delayed.first().copied().filter(|(at, _)| *at <= self.counters.now) else {
                break;
            };
            self.delayed.pop_first();
            let container = &self.live[&id];
            let (shape, place) = (container.shape, (container.score, id.index));
            if self.queues.push(shape, place, Entry::One { container: id, since: at }) {
                out.ready += 1;
            } else {
                self.tell_blocked(shape);
            }
            promoted += 1;
        }
        promoted as u32
    }

    /// Claimed -> Assigned. The caller has checked the placement; the reservation is made here.
    pub(crate) fn assign(
        &mut self,
        placement: &Placement,
        out: &mut Effects,
    ) -> Result<Attempt, volley_model::Refusal> {
        let id = placement.container;
        let container = self.live.get_mut(&id).expect("checked: the container is live");
        let worker = self.workers.get_mut(&placement.worker).expect("checked: the worker is known");
        if !worker.free.reserve(&container.spec.resources, &placement.gpus) {
            return Err(volley_model::Refusal::NoCapacity);
        }
        let State::Claimed { session, .. } = container.state else { panic!("checked: the container is claimed") };
        container.attempts += 1;
        let attempt = Attempt { number: container.attempts, nonce: placement.nonce };
        container.state = State::Bound(Box::new(Bound {
            attempt,
            worker: worker.worker.id.clone(),
            epoch: worker.epoch,
            gpus: placement.gpus.clone(),
            phase: StoredPhase::Assigned,
            assigned_at: self.counters.now,
            started_at: None,
            stop: None,
            outbox: Some(worker.post(id)),
        }));
        worker.attempts.insert(id);
        remember_affinity(worker, container.spec.affinity.as_deref(), self.options.affinity_keys_max);
        if worker.hold.as_ref().is_some_and(|hold| hold.shape == container.shape) {
            let hold = worker.hold.take().expect("seen above");
            self.holds.remove(&(hold.until, placement.worker.clone()));
        }
        if let Some(session) = self.sessions.get_mut(&session) {
            session.claimed.remove(&id);
        }
        out.live.insert(id);
        out.outbox.insert(placement.worker.clone());
        self.container_event(id, ContainerState::Assigned, out);
        Ok(attempt)
    }

    /// An attempt went on: accepted or running. Going back is ignored.
    pub(crate) fn advance(&mut self, id: ContainerId, to: StoredPhase, out: &mut Effects) {
        let now = self.counters.now;
        let container = self.live.get_mut(&id).expect("checked: the container is live");
        let Some(bound) = container.bound_mut() else { panic!("checked: the container is bound") };
        let rank = |phase| match phase {
            StoredPhase::Assigned => 0,
            StoredPhase::Starting => 1,
            StoredPhase::Running => 2,
        };
        if rank(to) <= rank(bound.phase) {
            return;
        }
        let was_start = bound.phase == StoredPhase::Assigned && bound.stop.is_none();
        bound.phase = to;
        if to == StoredPhase::Running {
            bound.started_at = Some(now);
        }
        let stopping = bound.stop.is_some();
        let worker = bound.worker.clone();
        let accepted = if was_start { bound.outbox.take() } else { None };
        if let (Some(number), Some(worker)) = (accepted, self.workers.get_mut(&worker)) {
            worker.outbox.remove(&number);
        }
        out.live.insert(id);
        let state = if to == StoredPhase::Running { ContainerState::Running } else { ContainerState::Starting };
        if !stopping {
            self.container_event(id, state, out);
        }
    }

    /// A bound container is to stop. Returns false when it was told so before with no longer grace.
    pub(crate) fn ask_stop(&mut self, id: ContainerId, by: StopCause, grace: Millis, out: &mut Effects) -> bool {
        let container = self.live.get_mut(&id).expect("checked: the container is live");
        let Some(bound) = container.bound_mut() else { panic!("checked: the container is bound") };
        if bound.stop.as_ref().is_some_and(|(_, before)| *before <= grace) {
            return false;
        }
        let first = bound.stop.is_none();
        let by = bound.stop.take().map_or(by, |(before, _)| before);
        bound.stop = Some((by, grace));
        let worker = self.workers.get_mut(&bound.worker).expect("law 8: a bound container's worker is known");
        if let Some(number) = bound.outbox.take() {
            worker.outbox.remove(&number);
        }
        bound.outbox = Some(worker.post(id));
        out.outbox.insert(bound.worker.clone());
        out.live.insert(id);
        if first {
            self.container_event(id, ContainerState::Stopping, out);
        }
        true
    }

    /// An attempt ended on its worker: the reservation is released, then a retry waits or the container finishes.
    pub(crate) fn end_attempt(&mut self, id: ContainerId, outcome: Outcome, out: &mut Effects) {
        let container = &self.live[&id];
        let bound = container.bound().expect("checked: the container is bound");
        let end = match &outcome {
            Outcome::Exited { code, .. } if *code != 0 => Some(RetryOn::ExitNonzero),
            Outcome::Failed { .. } => Some(RetryOn::Failed),
            Outcome::Lost => Some(RetryOn::Lost),
            _ => None,
        };
        let stop = bound.stop.clone();
        let wait =
            end.filter(|_| stop.is_none()).and_then(|end| container.spec.retry.wait_after(bound.attempt.number, end));
        if let Some(wait) = wait {
            self.release(id, out);
            let ready_at = self.counters.now.after(wait);
            self.live.get_mut(&id).expect("seen above").state = State::Queued { ready_at };
            self.enqueue(id, out);
            out.live.insert(id);
            self.container_event(id, ContainerState::Queued, out);
        } else {
            let outcome = stop.map_or(outcome, |(by, _)| Outcome::Stopped { by });
            self.finish(id, outcome, out);
        }
    }

    /// Frees what a bound container holds on its worker. The caller moves it to its next state.
    fn release(&mut self, id: ContainerId, out: &mut Effects) {
        let container = &self.live[&id];
        let bound = container.bound().expect("checked: the container is bound");
        let worker_id = bound.worker.clone();
        let worker = self.workers.get_mut(&worker_id).expect("law 8: a bound container's worker is known");
        let released = worker.free.release(&worker.worker.capacity, &container.spec.resources, &bound.gpus);
        assert!(released, "law 9: {id} is released once from {worker_id}");
        worker.attempts.remove(&id);
        if let Some(number) = bound.outbox {
            worker.outbox.remove(&number);
        }
        let _ = out;
        self.grow_worker(&worker_id);
    }

    /// Any live state -> Finished, for good.
    pub(crate) fn finish(&mut self, id: ContainerId, outcome: Outcome, out: &mut Effects) {
        let state = self.live[&id].state.clone();
        let mut record = StoredFinished {
            id,
            outcome: outcome.clone(),
            attempt: None,
            worker: None,
            gpus: Vec::new(),
            assigned_at: None,
            started_at: None,
            finished_at: self.counters.now,
        };
        match state {
            State::Queued { ready_at } => self.leave_queue(id, ready_at),
            State::Claimed { session, .. } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.claimed.remove(&id);
                }
            }
            State::Bound(bound) => {
                self.release(id, out);
                let worker = self.workers.get_mut(&bound.worker).expect("law 8: a bound container's worker is known");
                worker.finished += 1;
                out.workers.insert(bound.worker.clone());
                record.attempt = Some(bound.attempt);
                record.worker = Some(bound.worker);
                record.gpus = bound.gpus;
                record.assigned_at = Some(bound.assigned_at);
                record.started_at = bound.started_at;
            }
        }
        let container = self.live.remove(&id).expect("seen above");
        out.live.remove(&id);
        self.raise_mark(id, out);
        self.forget_users(container.shape, 1);
        let group = self.groups.get_mut(&id.group).expect("law 3: a container's group is known");
        group.finished += 1;
        group.succeeded += u32::from(outcome.is_success());
        out.progress.insert(id.group);
        self.counters.finished += 1;
        self.finished.push_back((self.counters.now, id));
        let kind = EventKind::Container {
            container: id,
            state: ContainerState::Finished,
            attempt: container.attempts,
            worker: record.worker.clone(),
            outcome: Some(outcome),
        };
        out.change(Change::Finish(record));
        out.event(&mut self.counters, kind);
    }

    /// A queued container leaves its queue or the delayed.
    fn leave_queue(&mut self, id: ContainerId, ready_at: Timestamp) {
        let container = &self.live[&id];
        let (shape, place) = (container.shape, (container.score, id.index));
        if !self.delayed.remove(&(ready_at, id)) {
            let entry = self.queues.take(shape, place);
            assert!(entry.is_some(), "law 11: the queued container {id} is in its queue");
            self.tell_blocked(shape);
        }
    }

    /// Makes containers of the run up to this one durable: those below without a record get one.
    fn raise_mark(&mut self, id: ContainerId, out: &mut Effects) {
        let group = self.groups.get_mut(&id.group).expect("law 3: a container's group is known");
        let number = group.run_of(id.index).expect("law 3: a container is in a run of its group");
        let run = &mut group.runs[number];
        if id.index < run.mark {
            return;
        }
        let below = run.mark..id.index;
        run.mark = id.index + 1;
        out.marks.insert((id.group, number as u32));
        for index in below {
            let id = ContainerId { group: id.group, index };
            if self.live.contains_key(&id) && !out.live.contains(&id) {
                let record = self.stored_live(id);
                out.change(Change::PutLive(record));
            }
        }
    }

    /// Writes a live container's record.
    pub(crate) fn put_live(&mut self, id: ContainerId, out: &mut Effects) {
        if !self.live.contains_key(&id) {
            return;
        }
        self.raise_mark(id, out);
        let record = self.stored_live(id);
        out.change(Change::PutLive(record));
    }

    /// Fewer users of a shape: an unused one is forgotten, by the feed too.
    pub(crate) fn forget_users(&mut self, shape: ShapeHash, users: u64) {
        if self.queues.remove_users(shape, users) {
            self.touch(FeedKey::Shape(shape), true);
        }
    }

    /// Tells the feed of a blocked shape whose count or best score changed so much that a planner should know.
    pub(crate) fn tell_blocked(&mut self, shape: ShapeHash) {
        let Some(queue) = self.queues.shapes.get_mut(&shape) else { return };
        let best = queue.head().map(|(score, _)| score);
        let count = queue.waiting;
        let Some(mark) = queue.mark.as_mut() else { return };
        let (told, told_best): (u64, Option<Score>) = mark.told;
        if best != told_best || count > told.saturating_mul(2) || count < told / 2 {
            mark.told = (count, best);
            self.touch(FeedKey::Shape(shape), best.is_none());
        }
    }

    /// The event of a container's present state.
    pub(crate) fn container_event(&mut self, id: ContainerId, state: ContainerState, out: &mut Effects) {
        let container = &self.live[&id];
        let worker: Option<WorkerId> = container.bound().map(|b| b.worker.clone());
        let kind = EventKind::Container { container: id, state, attempt: container.attempts, worker, outcome: None };
        out.event(&mut self.counters, kind);
    }
}

/// Notes that a worker runs a workload, newest last.
fn remember_affinity(worker: &mut WorkerEntry, key: Option<&str>, max: usize) {
    let Some(key) = key else { return };
    if worker.affinities.last().is_some_and(|last| last == key) {
        return;
    }
    let keys = Arc::make_mut(&mut worker.affinities);
    keys.retain(|k| k != key);
    keys.push(key.to_owned());
    if keys.len() > max {
        keys.remove(0);
    }
}
