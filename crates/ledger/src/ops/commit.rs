//! Commit: a turn's decisions, each checked against the truth, alone.

use std::collections::BTreeSet;

use volley_model::{
    Attempt, ContainerId, HoldRequest, HoldView, OnUnplaceable, Outcome, Placement, Refusal, SessionId, ShapeHash,
    WorkerId, WorkerStatus,
};

use crate::effects::Effects;
use crate::feed::FeedKey;
use crate::ledger::Ledger;
use crate::state::State;
use crate::{Commit, CommitReply, SessionRefusal};

impl Ledger {
    pub(crate) fn commit(&mut self, op: Commit, out: &mut Effects) -> Result<CommitReply, SessionRefusal> {
        let session = self.renew_session(op.session)?;
        match &session.last_commit {
            Some((last, reply)) if *last == op.number => return Ok(reply.clone()),
            Some((last, _)) if *last > op.number => return Err(SessionRefusal::NumberTooOld),
            _ => {}
        }
        let mut touched = BTreeSet::new();
        let mut refusing = BTreeSet::new();
        let mut placements = Vec::with_capacity(op.placements.len());
        for placement in &op.placements {
            let verdict = self.place(op.session, placement, out);
            match &verdict {
                Ok(_) => touched.insert(placement.worker.clone()),
                Err(_) => refusing.insert(placement.worker.clone()),
            };
            placements.push(verdict);
        }
        for worker in &touched {
            self.touch_worker(worker);
        }
        for (container, reason) in op.unplaceable {
            if !self.claimed_by(op.session, container) {
                continue;
            }
            match self.live[&container].spec.on_unplaceable {
                OnUnplaceable::Fail => self.finish(container, Outcome::Unplaceable { reason }, out),
                OnUnplaceable::Wait => self.unclaim(container, out),
            }
        }
        for shape in op.unblocked {
            self.unblock_shape(shape, out);
        }
        for container in op.returned {
            if self.claimed_by(op.session, container) {
                self.unclaim(container, out);
            }
        }
        for mark in op.blocked {
            // A version from nowhere must not keep the shape from ever being looked at again.
            let at = mark.at.min(self.counters.fleet_version);
            if self.queues.block(mark.shape, at, mark.reasons) {
                self.touch(FeedKey::Shape(mark.shape), false);
            }
        }
        for hold in op.holds {
            self.hold(&hold, out);
        }
        let holder =
            |id: &WorkerId| self.workers.get(id).and_then(|w| w.stream).map(|(session, _)| (id.clone(), session));
        let reply = CommitReply {
            placements,
            fresh: refusing.iter().filter_map(|id| self.worker_view(id)).collect(),
            wake: touched.iter().filter_map(holder).collect(),
            version: self.counters.fleet_version,
            now: self.counters.now,
        };
        let session = self.sessions.get_mut(&op.session).expect("renewed above");
        session.last_commit = Some((op.number, reply.clone()));
        Ok(reply)
    }

    fn claimed_by(&self, session: SessionId, id: ContainerId) -> bool {
        let state = self.live.get(&id).map(|c| &c.state);
        matches!(state, Some(State::Claimed { session: owner, .. }) if *owner == session)
    }

    /// One placement against the truth.
    fn place(&mut self, session: SessionId, placement: &Placement, out: &mut Effects) -> Result<Attempt, Refusal> {
        let container = self.live.get(&placement.container).ok_or(Refusal::ClaimLost)?;
        match &container.state {
            State::Claimed { session: owner, claim, .. } if *owner == session && *claim == placement.claim => {}
            _ => return Err(Refusal::ClaimLost),
        }
        let worker = self.workers.get(&placement.worker).ok_or(Refusal::WorkerGone)?;
        if worker.epoch != placement.epoch {
            return Err(Refusal::WorkerGone);
        }
        if worker.status() != WorkerStatus::Ready {
            return Err(Refusal::NotReady);
        }
        if worker.revision != placement.revision {
            return Err(Refusal::RevisionChanged);
        }
        if worker.wanted.is_some() {
            return Err(Refusal::NoCapacity);
        }
        if let Some(hold) = &worker.hold
            && hold.until > self.counters.now
            && hold.shape != container.shape
            && container.score >= hold.score
        {
            return Err(Refusal::Held);
        }
        self.assign(placement, out)
    }

    /// Removes a shape's mark, if it has one.
    pub(crate) fn unblock_shape(&mut self, shape: ShapeHash, out: &mut Effects) {
        if let Some(ready) = self.queues.unblock(shape) {
            out.ready = out.ready.saturating_add(u32::try_from(ready).unwrap_or(u32::MAX));
            self.touch(FeedKey::Shape(shape), true);
        }
    }

    /// Keeps room on a worker for a blocked shape's best container. One hold per worker and per shape.
    fn hold(&mut self, request: &HoldRequest, out: &mut Effects) {
        let Some(queue) = self.queues.shapes.get(&request.shape).filter(|q| q.mark.is_some()) else { return };
        let Some((score, _)) = queue.head() else { return };
        let held =
            self.holds.iter().any(|(_, id)| self.workers[id].hold.as_ref().is_some_and(|h| h.shape == request.shape));
        let until = self.counters.now.after(request.term);
        let Some(worker) = self.workers.get_mut(&request.worker).filter(|w| w.hold.is_none() && !held) else { return };
        worker.hold = Some(HoldView { shape: request.shape, score, until });
        self.holds.insert((until, request.worker.clone()));
        out.due_at(until);
        self.touch_worker(&request.worker);
    }
}
