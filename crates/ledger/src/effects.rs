//! What one operation gathers while it runs: changes, events, and which records must be
//! written at its end, each once.

use std::collections::BTreeSet;

use volley_model::{ContainerId, EventNumber, GroupId, PoolName, Timestamp, WorkerId};

use crate::{Change, ChangeSet, Counters, Event, EventKind, Hint};

/// Gathered by an operation; turned into its change set at the end.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    changes: Vec<Change>,
    events: Vec<Event>,
    pub(crate) live: BTreeSet<ContainerId>,
    pub(crate) progress: BTreeSet<GroupId>,
    pub(crate) marks: BTreeSet<(GroupId, u32)>,
    pub(crate) workers: BTreeSet<WorkerId>,
    pub(crate) machines: BTreeSet<WorkerId>,
    pub(crate) standings: BTreeSet<PoolName>,
    pub(crate) outbox: BTreeSet<WorkerId>,
    /// Containers that became ready in shapes that are not blocked.
    pub(crate) ready: u32,
    /// Capacity grew, or a stale mark was made.
    pub(crate) look_again: bool,
    /// Something is due then that was not before.
    pub(crate) due: Option<Timestamp>,
}

impl Effects {
    pub(crate) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(crate) fn event(&mut self, counters: &mut Counters, kind: EventKind) {
        counters.last_event = EventNumber(counters.last_event.0 + 1);
        self.events.push(Event { number: counters.last_event, at: counters.now, kind });
    }

    pub(crate) fn due_at(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    pub(crate) fn into_change_set(self) -> ChangeSet {
        let mut hints = Vec::new();
        if self.ready > 0 || self.look_again {
            hints.push(Hint::Ready { containers: self.ready });
        }
        if !self.outbox.is_empty() {
            hints.push(Hint::Outbox(self.outbox.into_iter().collect()));
        }
        if let Some(last) = self.events.last() {
            hints.push(Hint::Events(last.number));
        }
        if let Some(due) = self.due {
            hints.push(Hint::Due(due));
        }
        ChangeSet { changes: self.changes, events: self.events, hints }
    }
}
