//! Follows the event record from now on and makes spans of each container that finishes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;
use volley_control::Control;
use volley_control::ledger::{Answer, Event, EventKind, Query};
use volley_model::{ContainerId, ContainerState, EventNumber, GroupId, Timestamp};

use crate::Export;
use crate::life::{Life, Parent, spans};

/// Events of one read.
const EVENTS_MAX: u32 = 1_000;
/// Spans of one export.
const SPANS_MAX: usize = 2_000;
/// Lives that are followed at a time; what is above has no parts.
const LIVES_MAX: usize = 200_000;
/// Groups whose parents are remembered.
const GROUPS_MAX: usize = 10_000;
/// Behind every event there will be; no store counts further.
const END: EventNumber = EventNumber(u64::MAX >> 1);
/// Wait after a read that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Makes and sends spans until it is dropped.
pub async fn follow(control: Arc<Control>, export: Export) {
    let mut grew = control.events_grew();
    let mut tracer = Tracer { control, export, lives: HashMap::new(), groups: BTreeMap::new() };
    let mut after: Option<EventNumber> = None;
    loop {
        let from = after.unwrap_or(END);
        let page = tracer.control.read(Query::Events { after: from, max: EVENTS_MAX, scope: None }).await;
        let Ok(Answer::Events(page)) = page else {
            tokio::time::sleep(AFTER_FAILURE).await;
            continue;
        };
        let last = page.events.last().map_or(page.last, |event| event.number);
        // The first read only says where the record ends.
        let first = after.replace(last).is_none();
        if first || page.events.is_empty() {
            if !first && grew.changed().await.is_err() {
                return;
            }
            continue;
        }
        let mut made = Vec::new();
        for event in page.events {
            made.extend(tracer.on_event(event).await);
        }
        tracer.send(made).await;
    }
}

struct Tracer {
    control: Arc<Control>,
    export: Export,
    lives: HashMap<ContainerId, Life>,
    /// When a group was accepted and the trace that its client began, as far as asked.
    groups: BTreeMap<GroupId, Group>,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    submitted: Timestamp,
    parent: Option<Parent>,
}

impl Tracer {
    /// Notes an event; the spans of a container that has finished.
    async fn on_event(&mut self, event: Event) -> Vec<SpanData> {
        let EventKind::Container { container, state, attempt, worker, outcome } = event.kind else { return Vec::new() };
        if let Some(outcome) = outcome.filter(|_| state == ContainerState::Finished) {
            return self.finished(container, event.at, &outcome).await;
        }
        if self.lives.len() >= LIVES_MAX && !self.lives.contains_key(&container) {
            return Vec::new();
        }
        let life = self.lives.entry(container).or_default();
        match state {
            ContainerState::Assigned => *life = Life { assigned: Some(event.at), worker, attempt, ..Life::default() },
            ContainerState::Starting => life.accepted = Some(event.at),
            ContainerState::Running => life.running = Some(event.at),
            _ => {}
        }
        Vec::new()
    }

    async fn finished(&mut self, id: ContainerId, at: Timestamp, outcome: &volley_model::Outcome) -> Vec<SpanData> {
        let mut life = self.lives.remove(&id).unwrap_or_default();
        let Some(group) = self.group(id).await else { return Vec::new() };
        life.submitted = group.submitted;
        // Only now: the event of a placement may be read before its turn has heard of its commit.
        let turned = life.assigned.and_then(|at| self.control.turn_committed_at(at));
        life.turn = turned.filter(|turned| turned.claimed >= life.submitted);
        let kept = group.parent.map_or_else(|| self.export.samples(id.group.0), |parent| parent.sampled);
        if kept { spans(id, &life, group.parent, at, outcome) } else { Vec::new() }
    }

    /// Asks for one container of each group: all of a submission have its client's trace.
    async fn group(&mut self, id: ContainerId) -> Option<Group> {
        if let Some(group) = self.groups.get(&id.group) {
            return Some(*group);
        }
        let Ok(Answer::Container(Some(record))) = self.control.read(Query::Container(id, None)).await else {
            return None;
        };
        let parent = record.spec.env.get("TRACEPARENT").and_then(|text| Parent::read(text));
        let group = Group { submitted: record.submitted_at, parent };
        if self.groups.len() >= GROUPS_MAX {
            self.groups.pop_first();
        }
        self.groups.insert(id.group, group);
        Some(group)
    }

    async fn send(&self, mut made: Vec<SpanData>) {
        while !made.is_empty() {
            let rest = made.split_off(made.len().min(SPANS_MAX));
            self.export.send(made).await;
            made = rest;
        }
    }
}
