//! Where a container's time went, from its record, the event record and the turns that this server remembers. Reads
//! only; what is not known is said.

use volley_ledger::{Answer, ContainerRecord, Event, EventKind, EventPage, Query};
use volley_model::{ContainerState, EventNumber, Millis, Timestamp};

use crate::turn_log::Turned;
use crate::{Control, ControlError};

/// Events of one read, and reads for one container: what happened between its placement and its start.
const EVENTS_MAX: u32 = 1_000;
const READS_MAX: usize = 50;

/// A part of a container's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// From its submission to its (last) turn, earlier attempts included.
    Waited,
    /// In its turn: claimed, planned, committed.
    Claimed,
    /// From its placement until its worker accepted it.
    Delivered,
    /// From there to its running process: pull and start.
    Started,
    /// Its process.
    Ran,
}

/// Where the time of a container went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    /// Part by part, in order, without gaps.
    pub parts: Vec<(Part, Millis)>,
    /// Parts that could not be told from the next one or the one before, and why.
    pub unknown: Vec<&'static str>,
}

impl Control {
    /// The turn of this server that committed at a time, while it is remembered.
    #[must_use]
    pub fn turn_committed_at(&self, at: Timestamp) -> Option<Turned> {
        self.turn_log.committed_at(at)
    }

    /// Where a container's time went so far.
    pub(crate) async fn spent(&self, record: &ContainerRecord, now: Timestamp) -> Result<Spent, ControlError> {
        let turned = record.assigned_at.and_then(|at| self.turn_committed_at(at));
        // What came after its turn is in front of it when the container waits again.
        let accepted = match (record.assigned_at, record.waiting.is_none()) {
            (Some(assigned), true) => self.accepted_at(record, assigned, now).await?,
            _ => None,
        };
        Ok(spent(record, turned, accepted, now))
    }

    /// When the worker accepted the present or last attempt, if the event record still has it.
    async fn accepted_at(
        &self,
        record: &ContainerRecord,
        assigned: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, ControlError> {
        let until = record.started_at.or(record.finished_at).unwrap_or(now);
        let mut after = self.before(assigned).await?;
        for _ in 0..READS_MAX {
            let page = self.page(after, EVENTS_MAX).await?;
            if let Some(event) = page.events.iter().find(|event| is_acceptance(event, record)) {
                return Ok(Some(event.at));
            }
            match page.events.last() {
                Some(last) if last.at <= until => after = last.number,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The last event before a time: they are in order of time, so it is found by halving.
    async fn before(&self, time: Timestamp) -> Result<EventNumber, ControlError> {
        let all = self.page(EventNumber(0), 1).await?;
        let (mut low, mut high) = (all.oldest.0.saturating_sub(1), all.last.0);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.page(EventNumber(middle), 1).await?.events.first() {
                Some(event) if event.at < time => low = event.number.0,
                _ => high = middle,
            }
        }
        Ok(EventNumber(low))
    }

    pub(crate) async fn page(&self, after: EventNumber, max: u32) -> Result<EventPage, ControlError> {
        match self.read(Query::Events { after, max, scope: None }).await? {
            Answer::Events(page) => Ok(page),
            _ => Err(crate::why::unanswered()),
        }
    }
}

fn is_acceptance(event: &Event, record: &ContainerRecord) -> bool {
    let EventKind::Container { container, state, attempt, .. } = &event.kind else { return false };
    let of_attempt = record.attempt.is_some_and(|own| own.number == *attempt);
    *container == record.id && *state == ContainerState::Starting && of_attempt
}

fn spent(record: &ContainerRecord, turned: Option<Turned>, accepted: Option<Timestamp>, now: Timestamp) -> Spent {
    let end = record.finished_at.unwrap_or(now);
    let Some(assigned) = record.assigned_at.filter(|_| record.waiting.is_none()) else {
        return Spent { parts: vec![(Part::Waited, end.since(record.submitted_at))], unknown: Vec::new() };
    };
    let mut spent = Spent::default();
    // A carried container was claimed by an earlier turn; its last one is what placed it.
    match turned.filter(|turned| turned.claimed >= record.submitted_at) {
        Some(turned) => {
            spent.parts.push((Part::Waited, turned.claimed.since(record.submitted_at)));
            spent.parts.push((Part::Claimed, assigned.since(turned.claimed)));
        }
        None => {
            spent.parts.push((Part::Waited, assigned.since(record.submitted_at)));
            spent.unknown.push("its turn is not remembered (another server's, or too long ago): it is within 'waited'");
        }
    }
    let begun = record.started_at.or(record.finished_at);
    match accepted {
        Some(accepted) => {
            spent.parts.push((Part::Delivered, accepted.since(assigned)));
            spent.parts.push((Part::Started, begun.unwrap_or(end).since(accepted)));
        }
        None if begun.is_none() => spent.parts.push((Part::Delivered, end.since(assigned))),
        None => {
            spent.parts.push((Part::Started, begun.unwrap_or(end).since(assigned)));
            spent.unknown.push("its worker told of taking and of starting it at once: delivery is within 'started'");
        }
    }
    if let Some(started) = record.started_at {
        spent.parts.push((Part::Ran, end.since(started)));
    }
    spent
}
