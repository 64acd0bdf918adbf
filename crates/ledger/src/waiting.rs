//! Transitions of what waits: queued, delayed, claimed and back, and when the wait ends by
//! itself. What has an attempt is in `transitions`.

use std::sync::Arc;

use volley_model::{
    ClaimNumber, Claimed, ContainerId, GroupId, OnUnplaceable, Score, SessionId, ShapeHash, Spec, Timestamp,
};

use crate::effects::Effects;
use crate::feed::FeedKey;
use crate::ledger::Ledger;
use crate::queue::{Entry, Place};
use crate::state::{Container, Expiring, Group, GroupRun, State};

impl Ledger {
    /// A queue entry became claimed: the first `count_max` containers of it.
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
    fn materialise(&mut self, group: GroupId, run: u32, until: u32, since: Timestamp) {
        let entry = self.groups.get_mut(&group).expect("law 3: a range's group is known");
        let submitted_at = entry.submitted_at;
        let number = run;
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
        let deadline = run.deadline(submitted_at);
        self.queues.add_user(shape, || unreachable!("law 3: the range uses its shape"), users);
        if drained {
            self.forget_users(shape, 1);
            if let Some(deadline) = deadline {
                self.expiring.remove(&(deadline, Expiring::Run(group, number)));
            }
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
        if let Some(deadline) = deadline_of(&container.spec, since) {
            self.expiring.remove(&(deadline, Expiring::One(id)));
        }
        self.queues.claimed(container.shape, 1);
        self.sessions.get_mut(&session).expect("the claiming session is open").claimed.insert(id);
    }

    /// A claim on a container ended: it was placed, returned or finished.
    pub(crate) fn drop_claim(&mut self, session: SessionId, shape: ShapeHash, id: ContainerId) {
        self.queues.claimed(shape, -1);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.claimed.remove(&id);
        }
    }

    /// A claimed container goes back to its queue with its score.
    pub(crate) fn unclaim(&mut self, id: ContainerId, out: &mut Effects) {
        let container = self.live.get_mut(&id).expect("law 3: a claimed container is live");
        let State::Claimed { session, ready_at, .. } = container.state else { return };
        container.state = State::Queued { ready_at };
        let shape = container.shape;
        self.drop_claim(session, shape, id);
        self.enqueue(id, out);
    }

    /// Puts a container in state `Queued` into its queue, or among the delayed.
    pub(crate) fn enqueue(&mut self, id: ContainerId, out: &mut Effects) {
        let container = &self.live[&id];
        let State::Queued { ready_at } = container.state else { panic!("law 3: only a queued container is enqueued") };
        let (shape, place) = (container.shape, (container.score, id.index));
        if let Some(deadline) = deadline_of(&container.spec, ready_at) {
            self.expiring.insert((deadline, Expiring::One(id)));
            out.due_at(deadline);
        }
        if ready_at > self.counters.now {
            self.delayed.insert((ready_at, id));
            out.due_at(ready_at);
        } else {
            self.push_ready(id, shape, place, ready_at, out);
        }
    }

    fn push_ready(&mut self, id: ContainerId, shape: ShapeHash, place: Place, since: Timestamp, out: &mut Effects) {
        if self.queues.push(shape, place, Entry::One { container: id, since }) {
            out.ready = out.ready.saturating_add(1);
        } else {
            self.tell_blocked(shape);
        }
    }

    /// Delayed containers whose time has come join their queues. At most `max`; returns how many.
    pub(crate) fn promote_due(&mut self, max: u32, out: &mut Effects) -> u32 {
        let mut promoted = 0;
        while promoted < max {
            let Some((at, id)) = self.delayed.first().copied().filter(|(at, _)| *at <= self.counters.now) else {
                break;
            };
            self.delayed.pop_first();
            let container = &self.live[&id];
            let (shape, place) = (container.shape, (container.score, id.index));
            self.push_ready(id, shape, place, at, out);
            promoted += 1;
        }
        promoted
    }

    /// A container that waited since `ready_at`, and is not live any more, leaves its queue or the delayed.
    pub(crate) fn leave_queue(&mut self, id: ContainerId, container: &Container, ready_at: Timestamp) {
        if let Some(deadline) = deadline_of(&container.spec, ready_at) {
            self.expiring.remove(&(deadline, Expiring::One(id)));
        }
        if !self.delayed.remove(&(ready_at, id)) {
            let entry = self.queues.take(container.shape, (container.score, id.index));
            assert!(entry.is_some(), "law 11: the queued container {id} is in its queue");
            self.tell_blocked(container.shape);
        }
    }

    /// Gives the containers of a run's range below `until` queue entries of their own.
    pub(crate) fn take_range(&mut self, group: GroupId, run: u32, until: u32) {
        let entry = &self.groups[&group].runs[run as usize];
        let (shape, score, from, end) = (entry.shape, entry.score, entry.next, entry.end());
        if from >= until {
            return;
        }
        let wait = entry.spec.max_wait;
        let range = self.queues.take(shape, (score, from)).expect("law 11: a run's range is in its queue");
        let since = range.since();
        // The shape stays known while its range is out of the queue: the run counts as a user.
        self.queues.add_user(shape, || unreachable!("law 3: the range uses its shape"), 1);
        self.materialise(group, run, until, since);
        if until < end {
            self.queues.push(shape, (score, until), range);
        }
        for index in from..until {
            let container = ContainerId { group, index };
            self.queues.push(shape, (score, index), Entry::One { container, since });
            // The run's own deadline speaks only of what is left of its range.
            if let Some(wait) = wait {
                self.expiring.insert((since.after(wait), Expiring::One(container)));
            }
        }
        self.forget_users(shape, 1);
        self.tell_blocked(shape);
    }

    /// Queues what is left of a group's runs.
    pub(crate) fn enqueue_ranges(&mut self, id: GroupId, out: &mut Effects) {
        let group: &Group = &self.groups[&id];
        for (number, run) in group.runs.iter().enumerate().filter(|(_, run)| run.next < run.end()) {
            let number = number as u32;
            let entry = Entry::Range { group: id, run: number, end: run.end(), since: group.submitted_at };
            if let Some(deadline) = run.deadline(group.submitted_at) {
                self.expiring.insert((deadline, Expiring::Run(id, number)));
                out.due_at(deadline);
            }
            if self.queues.push(run.shape, (run.score, run.next), entry) {
                out.ready = out.ready.saturating_add(run.end() - run.next);
            }
        }
        let shapes: Vec<_> = group.runs.iter().map(|run| run.shape).collect();
        for shape in shapes {
            self.tell_blocked(shape);
        }
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
        let far = count > told.saturating_mul(2) || count < told.div_ceil(2);
        if best != told_best || far || (count != told && count <= EXACT_COUNT_MAX) {
            mark.told = (count, best);
            self.touch(FeedKey::Shape(shape), best.is_none());
        }
    }
}

/// Up to here the feed tells the exact count of a blocked shape: a planner may want to place them all at once.
/// Above, a factor of two is enough, and a backlog that grows costs the feed a few entries only.
const EXACT_COUNT_MAX: u64 = 16;

impl GroupRun {
    /// When what is left of the range has waited too long; `None` for ever.
    pub(crate) fn deadline(&self, submitted_at: Timestamp) -> Option<Timestamp> {
        deadline_of(&self.spec, submitted_at)
    }
}

/// When a container that is ready at `ready_at` has waited too long.
pub(crate) fn deadline_of(spec: &Spec, ready_at: Timestamp) -> Option<Timestamp> {
    spec.max_wait.map(|wait| ready_at.after(wait))
}
