//! The transitions of attempts: assigned, gone on, stopped, ended, finished; with reservation,
//! outbox, counts and event. What waits is in `waiting`; nothing else moves a container.

use std::sync::Arc;

use volley_model::{
    Attempt, ContainerId, ContainerState, Millis, Outcome, Placement, Refusal, RetryOn, Spec, StopCause, WorkerId,
};

use crate::effects::Effects;
use crate::ledger::Ledger;
use crate::state::{Bound, State, WorkerEntry};
use crate::{Change, EventKind, StoredFinished, StoredPhase};

impl Ledger {
    /// Claimed -> Assigned. The caller has checked the placement; the reservation is made here.
    pub(crate) fn assign(&mut self, placement: &Placement, out: &mut Effects) -> Result<Attempt, Refusal> {
        let id = placement.container;
        let container = self.live.get_mut(&id).expect("checked: the container is live");
        let worker = self.workers.get_mut(&placement.worker).expect("checked: the worker is known");
        if !worker.free.reserve(&container.spec.resources, &placement.gpus) {
            return Err(Refusal::NoCapacity);
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
        let shape = container.shape;
        if let Some(hold) = worker.hold.take_if(|hold| hold.shape == shape) {
            self.holds.remove(&(hold.until, placement.worker.clone()));
            // What the hold kept beyond this container is anybody's again.
            self.grow_worker(&placement.worker);
        }
        self.drop_claim(session, shape, id);
        self.wait_less(id.group);
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
        let container = self.live.get_mut(&id).expect("checked: the container is live");
        let bound = container.bound().expect("checked: the container is bound");
        let end = match &outcome {
            Outcome::Exited { code, .. } if *code != 0 => Some(RetryOn::ExitNonzero),
            Outcome::Failed { .. } => Some(RetryOn::Failed),
            Outcome::Lost => Some(RetryOn::Lost),
            _ => None,
        };
        let (worker, spec_hash) = (bound.worker.clone(), container.spec_hash);
        self.judge_worker(&worker, spec_hash, &outcome, out);
        let container = self.live.get_mut(&id).expect("checked: the container is live");
        let bound = container.bound().expect("checked: the container is bound");
        if let Some((by, _)) = &bound.stop {
            let outcome = Outcome::Stopped { by: by.clone() };
            return self.finish(id, outcome, out);
        }
        let Some(wait) = end.and_then(|end| container.spec.retry.wait_after(bound.attempt.number, end)) else {
            return self.finish(id, outcome, out);
        };
        let ready_at = self.counters.now.after(wait);
        let spec = Arc::clone(&container.spec);
        if let State::Bound(bound) = std::mem::replace(&mut container.state, State::Queued { ready_at }) {
            self.release(id, &spec, &bound, out);
        }
        self.enqueue(id, out);
        self.wait_again(id.group);
        out.live.insert(id);
        self.container_event(id, ContainerState::Queued, out);
    }

    /// Frees what an attempt held on its worker. The caller moves its container to the next state.
    fn release(&mut self, id: ContainerId, spec: &Spec, bound: &Bound, out: &mut Effects) {
        let worker = self.workers.get_mut(&bound.worker).expect("law 8: a bound container's worker is known");
        let released = worker.free.release(&worker.worker.capacity, &spec.resources, &bound.gpus);
        assert!(released, "law 9: {id} is released once from {}", bound.worker);
        worker.attempts.remove(&id);
        if worker.attempts.is_empty() {
            worker.idle_since = self.counters.now;
        }
        if let Some(number) = bound.outbox {
            worker.outbox.remove(&number);
        }
        if worker.wanted.is_some() {
            self.adopt_capacity(&bound.worker, out);
        }
        self.grow_worker(&bound.worker);
    }

    /// Any live state -> Finished, for good.
    pub(crate) fn finish(&mut self, id: ContainerId, outcome: Outcome, out: &mut Effects) {
        let container = self.live.remove(&id).expect("checked: the container is live");
        out.live.remove(&id);
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
        match &container.state {
            State::Queued { ready_at } => self.leave_queue(id, &container, *ready_at),
            State::Claimed { session, .. } => self.drop_claim(*session, container.shape, id),
            State::Bound(bound) => {
                self.release(id, &container.spec, bound, out);
                let worker = self.workers.get_mut(&bound.worker).expect("law 8: a bound container's worker is known");
                worker.finished += 1;
                out.workers.insert(bound.worker.clone());
                record.attempt = Some(bound.attempt);
                record.worker = Some(bound.worker.clone());
                record.gpus = bound.gpus.clone();
                record.assigned_at = Some(bound.assigned_at);
                record.started_at = bound.started_at;
            }
        }
        if container.bound().is_none() {
            self.wait_less(id.group);
        }
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

    /// The event of a container's present state.
    pub(crate) fn container_event(&mut self, id: ContainerId, state: ContainerState, out: &mut Effects) {
        let container = &self.live[&id];
        let worker: Option<WorkerId> = container.bound().map(|b| b.worker.clone());
        let kind = EventKind::Container { container: id, state, attempt: container.attempts, worker, outcome: None };
        out.event(&mut self.counters, kind);
    }
}

/// Notes that a worker runs a workload, newest last.
pub(crate) fn remember_affinity(worker: &mut WorkerEntry, key: Option<&str>, max: usize) {
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
