//! Reads: what memory knows. Records of finished containers and events are the store's.

use std::ops::Bound;
use std::sync::Arc;

use volley_model::{
    ContainerId, ContainerState, DeliveryNumber, GROUP_ID_CHARS, GroupId, Millis, Pool, SecretHash, StopCause, Tenant,
    TenantName, Timestamp, Token, TokenId, WaitReason, WorkerId,
};

use crate::ledger::Ledger;
use crate::state::{Container, Group, State};
use crate::{
    ContainerRecord, Delivery, Event, EventKind, GroupRecord, ListQuery, Order, PrefixMatch, Servers, StoredFinished,
    TakeFrom, Taken, TenantRecord, Waiting, WorkerRecord,
};

/// What memory knows of one container.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It has not finished.
    Live(Box<ContainerRecord>),
    /// It has finished (or was pruned): [`Ledger::finished_record`] completes its stored record.
    Finished(ContainerId),
}

/// A page of containers, finished ones to be completed by the store.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FoundPage {
    /// In order.
    pub containers: Vec<Found>,
    /// Ask again after this one.
    pub next: Option<ContainerId>,
}

/// Most containers looked at for one page: bounds what a narrow filter costs.
const LIST_SCAN_MAX: u32 = 100_000;

impl Ledger {
    /// One container; `None` when there never was such a one in the scope, or all of its group is pruned.
    #[must_use]
    pub fn container(&self, id: ContainerId, scope: Option<&TenantName>) -> Option<Found> {
        self.find(self.group_in(id.group, scope)?, id.index)
    }

    fn find(&self, group: &Group, index: u32) -> Option<Found> {
        let run = &group.runs[group.run_of(index)?];
        let id = ContainerId { group: group.id, index };
        if index >= run.next {
            let since = group.submitted_at;
            let record = self.record(group, id, Arc::clone(&run.spec));
            let waiting = Some(self.waiting_for(run.shape, since, None));
            return Some(Found::Live(Box::new(ContainerRecord { waiting, ..record })));
        }
        let Some(container) = self.live.get(&id) else { return Some(Found::Finished(id)) };
        Some(Found::Live(Box::new(self.live_record(group, id, container))))
    }

    fn record(&self, group: &Group, id: ContainerId, spec: Arc<volley_model::Spec>) -> ContainerRecord {
        ContainerRecord {
            id,
            tenant: group.tenant.clone(),
            name: group.name.clone(),
            spec,
            state: ContainerState::Queued,
            attempt: None,
            worker: None,
            gpus: Vec::new(),
            submitted_at: group.submitted_at,
            assigned_at: None,
            started_at: None,
            finished_at: None,
            outcome: None,
            waiting: None,
        }
    }

    fn live_record(&self, group: &Group, id: ContainerId, container: &Container) -> ContainerRecord {
        let mut record = self.record(group, id, Arc::clone(&container.spec));
        record.state = container.state_name();
        match &container.state {
            State::Queued { ready_at } => {
                let later = Some(*ready_at).filter(|at| *at > self.counters.now);
                record.waiting = Some(self.waiting_for(container.shape, *ready_at, later));
            }
            State::Claimed { ready_at, .. } => {
                let reasons = vec![WaitReason::NotLookedAt];
                record.waiting = Some(Waiting { since: *ready_at, not_before: None, reasons });
            }
            State::Bound(bound) => {
                record.attempt = Some(bound.attempt);
                record.worker = Some(bound.worker.clone());
                record.gpus = bound.gpus.clone();
                record.assigned_at = Some(bound.assigned_at);
                record.started_at = bound.started_at;
            }
        }
        record
    }

    fn waiting_for(&self, shape: volley_model::ShapeHash, since: Timestamp, not_before: Option<Timestamp>) -> Waiting {
        let mark = self.queues.shapes.get(&shape).and_then(|q| q.mark.as_ref());
        let reasons = mark.map_or_else(|| vec![WaitReason::NotLookedAt], |m| (*m.reasons).clone());
        Waiting { since, not_before, reasons }
    }

    /// Completes a finished container's stored record; `None` when its group is pruned.
    #[must_use]
    pub fn finished_record(&self, stored: StoredFinished) -> Option<ContainerRecord> {
        let group = self.groups.get(&stored.id.group)?;
        let run = &group.runs[group.run_of(stored.id.index)?];
        Some(ContainerRecord {
            state: ContainerState::Finished,
            attempt: stored.attempt,
            worker: stored.worker,
            gpus: stored.gpus,
            assigned_at: stored.assigned_at,
            started_at: stored.started_at,
            finished_at: Some(stored.finished_at),
            outcome: Some(stored.outcome),
            ..self.record(group, stored.id, Arc::clone(&run.spec))
        })
    }

    /// A page of containers: groups newest first, containers by index.
    #[must_use]
    pub fn list(&self, query: &ListQuery) -> FoundPage {
        let mut page = FoundPage::default();
        let mut scanned = 0;
        let mut last = query.after;
        let place = |id: ContainerId| self.group_in(id.group, query.tenant.as_ref()).map(|g| (g.arrival, id.index));
        let start = query.after.and_then(place);
        if query.after.is_some() && start.is_none() {
            // Its group is pruned, and its place in the order of arrival with it: what follows is as old.
            return page;
        }
        let groups: Box<dyn Iterator<Item = &GroupId>> = match (query.group, start) {
            (Some(_), _) => Box::new(query.group.iter()),
            (None, Some((arrival, _))) => Box::new(self.arrivals.range(..=arrival).rev().map(|(_, id)| id)),
            (None, None) => Box::new(self.arrivals.values().rev()),
        };
        for id in groups {
            let Some(group) = self.groups.get(id).filter(|g| wanted(g, query)) else { continue };
            let first = match query.after {
                Some(after) if after.group == *id => after.index.saturating_add(1),
                _ => 0,
            };
            for index in first..group.count {
                let at = ContainerId { group: *id, index };
                if page.containers.len() as u32 >= query.max.max(1) || scanned >= LIST_SCAN_MAX {
                    page.next = last;
                    return page;
                }
                scanned += 1;
                last = Some(at);
                if !self.state_wanted(group, at, query) {
                    continue;
                }
                page.containers.extend(self.find(group, index));
            }
        }
        page
    }

    fn state_wanted(&self, group: &Group, id: ContainerId, query: &ListQuery) -> bool {
        if query.states.is_empty() {
            return true;
        }
        let run = group.run_of(id.index).map(|run| &group.runs[run]);
        let state = match run {
            Some(run) if id.index >= run.next => ContainerState::Queued,
            _ => self.live.get(&id).map_or(ContainerState::Finished, Container::state_name),
        };
        query.states.contains(&state)
    }

    /// One group.
    #[must_use]
    pub fn group(&self, id: GroupId, scope: Option<&TenantName>) -> Option<GroupRecord> {
        let group = self.group_in(id, scope)?;
        Some(GroupRecord {
            id,
            tenant: group.tenant.clone(),
            name: group.name.clone(),
            labels: group.labels.clone(),
            count: group.count,
            submitted_at: group.submitted_at,
            finished: group.finished,
            succeeded: group.succeeded,
        })
    }

    /// Ids that start with a text, two at most: a group's prefix, or a group's prefix, `-` and an index.
    #[must_use]
    pub fn prefix(&self, text: &str, scope: Option<&TenantName>) -> Vec<PrefixMatch> {
        let text = text.to_ascii_lowercase();
        let (start, index) = match text.split_once('-') {
            Some((start, index)) => match index.parse::<u32>() {
                Ok(number) if number.to_string() == index => (start, Some(number)),
                _ => return Vec::new(),
            },
            None => (text.as_str(), None),
        };
        let Some((low, high)) = prefix_bounds(start) else { return Vec::new() };
        let groups = self.groups.range(low..=high).map(|(_, group)| group);
        let groups = groups.filter(|group| scope.is_none_or(|tenant| group.tenant == *tenant));
        let matching = groups.filter_map(|group| match index {
            None => Some(PrefixMatch::Group(group.id, group.count)),
            Some(index) if index < group.count => Some(PrefixMatch::Container(ContainerId { group: group.id, index })),
            Some(_) => None,
        });
        matching.take(2).collect()
    }

    /// All workers.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerRecord> {
        self.workers_after(None, u32::MAX).0
    }

    /// A page of workers in order of name, and whether there are more.
    #[must_use]
    pub fn workers_after(&self, after: Option<&WorkerId>, max: u32) -> (Vec<WorkerRecord>, bool) {
        let record = |(id, entry): (&WorkerId, &crate::state::WorkerEntry)| WorkerRecord {
            view: self.worker_view(id).expect("the worker is being looked at"),
            connected: entry.stream.is_some(),
            lease_until: entry.lease_until,
            containers: entry.attempts.len() as u32,
            finished: entry.finished,
            idle_since: entry.idle_since,
            quarantine: entry.quarantine.clone(),
        };
        page(self.workers.range((start_after(after), Bound::Unbounded)).map(record), max)
    }

    /// The servers of the cell, and who holds a worker's stream.
    #[must_use]
    pub fn servers(&self, worker: Option<&WorkerId>) -> Servers {
        let live = self.sessions.iter().map(|(id, session)| (*id, session.address.clone())).collect();
        Servers { live, holder: worker.and_then(|worker| self.workers.get(worker)?.stream) }
    }

    /// The token with this secret, live or ended.
    #[must_use]
    pub fn token(&self, hash: &SecretHash) -> Option<Token> {
        self.tokens_by_hash.get(hash).and_then(|id| self.tokens.get(id)).cloned()
    }

    /// A page of tokens in order of id, and whether there are more.
    #[must_use]
    pub fn tokens(&self, after: Option<&TokenId>, max: u32) -> (Vec<Token>, bool) {
        page(self.tokens.range((start_after(after), Bound::Unbounded)).map(|(_, token)| token.clone()), max)
    }

    /// A page of tenants that have limits or waiting containers in order of name, and whether there are more.
    #[must_use]
    pub fn tenants(&self, after: Option<&TenantName>, max: u32) -> (Vec<TenantRecord>, bool) {
        let record = |(name, entry): (&TenantName, &crate::tenants::TenantEntry)| TenantRecord {
            tenant: entry.limits.clone().unwrap_or(Tenant { name: name.clone(), backlog_max: None, rate: None }),
            waiting: entry.waiting,
        };
        page(self.tenants.range((start_after(after), Bound::Unbounded)).map(record), max)
    }

    /// Whether an event may be shown in a scope: a tenant sees its groups' and their containers', while the groups
    /// are kept.
    #[must_use]
    pub fn shows(&self, event: &Event, scope: Option<&TenantName>) -> bool {
        let Some(tenant) = scope else { return true };
        match &event.kind {
            EventKind::GroupAccepted { tenant: of, .. } => of == tenant,
            EventKind::Container { container, .. } => self.group_in(container.group, scope).is_some(),
            EventKind::Worker { .. } | EventKind::Pool { .. } | EventKind::Token { .. } | EventKind::Tenant { .. } => {
                false
            }
        }
    }

    /// All pools.
    #[must_use]
    pub fn pools(&self) -> Vec<Pool> {
        self.pools.values().cloned().collect()
    }

    /// What workers' streams have not been handed yet: one answer each, in order.
    #[must_use]
    pub fn take(&self, asked: &[TakeFrom]) -> Vec<Taken> {
        asked.iter().map(|from| self.take_one(from)).collect()
    }

    fn take_one(&self, from: &TakeFrom) -> Taken {
        let mut taken = Taken { worker: from.worker.clone(), stream: from.stream, deliveries: Vec::new(), more: false };
        let entry = self.workers.get(&from.worker);
        if let Some(entry) = entry.filter(|e| e.stream.is_some_and(|(_, stream)| stream == from.stream)) {
            let after = DeliveryNumber(from.after.0.saturating_add(1));
            let waiting = entry.outbox.range(after..).take(self.options.take_deliveries_max);
            let delivery =
                |(number, id): (&DeliveryNumber, &ContainerId)| Delivery { number: *number, order: self.order(*id) };
            taken.deliveries = waiting.map(delivery).collect();
            taken.more = taken.deliveries.len() >= self.options.take_deliveries_max;
        }
        taken
    }

    fn order(&self, id: ContainerId) -> Order {
        let container = &self.live[&id];
        let bound = container.bound().expect("law 8: an outbox names bound containers");
        match &bound.stop {
            Some((_, grace)) => Order::Stop { container: id, attempt: bound.attempt, grace: *grace },
            None => Order::Start {
                container: id,
                attempt: bound.attempt,
                spec_hash: container.spec_hash,
                spec: Arc::clone(&container.spec),
                gpus: bound.gpus.clone(),
            },
        }
    }

    /// The oldest event that is kept.
    #[must_use]
    pub fn events_floor(&self) -> volley_model::EventNumber {
        self.events_floor
    }

    /// The grace of a container that was told to stop, and by whom.
    #[must_use]
    pub fn stopping(&self, id: ContainerId) -> Option<(StopCause, Millis)> {
        self.live.get(&id)?.bound()?.stop.clone()
    }
}

fn wanted(group: &Group, query: &ListQuery) -> bool {
    query.tenant.as_ref().is_none_or(|tenant| *tenant == group.tenant)
        && query.labels.iter().all(|(key, value)| group.labels.get(key) == Some(value))
}

fn start_after<T>(after: Option<&T>) -> Bound<&T> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

/// The first ones, and whether there are more.
fn page<T>(mut items: impl Iterator<Item = T>, max: u32) -> (Vec<T>, bool) {
    let page = items.by_ref().take(max.max(1) as usize).collect();
    (page, items.next().is_some())
}

/// The first and last group whose text starts so.
fn prefix_bounds(start: &str) -> Option<(GroupId, GroupId)> {
    if start.is_empty() || start.len() > GROUP_ID_CHARS {
        return None;
    }
    let padded = |with: char| -> String { start.chars().chain(std::iter::repeat(with)).take(GROUP_ID_CHARS).collect() };
    let low: GroupId = padded('0').parse().ok()?;
    let high: GroupId = padded('z').parse().unwrap_or(GroupId(u64::MAX));
    Some((low, high))
}
