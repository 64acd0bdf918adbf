//! Reads: queries as scripts, in slices that are bounded, and their answers. Records of different
//! slices may be of different moments; each record is whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use volley_ledger::{
    Answer, ContainerPage, ContainerRecord, Delivery, Event, EventKind, EventPage, GroupRecord, ListQuery, Order,
    PrefixMatch, Query, Scope, Servers, TakeFrom, Taken, TenantRecord, Waiting, WorkerRecord,
};
use volley_model::{
    ContainerId, ContainerState, DeliveryNumber, EventNumber, Free, GROUP_ID_CHARS, GroupId, Nonce, Pool, SecretHash,
    SessionId, Spec, SpecHash, Tenant, TenantName, Timestamp, Token, TokenId, WaitReason, WorkerId,
};

use super::RedisStore;
use super::arguments::{self, Arguments};
use super::replies::{self, Items, Malformed, json, role_from};
use super::rows::{FinishedRow, LiveRow, WorkerRow, limits_from, token_from};
use super::scripts::Name;
use super::words::{NUMBER_MAX, from_hex};
use crate::StoreError;

/// Most containers looked at for one page, as everywhere.
const LIST_SCAN_MAX: u32 = 100_000;
/// Most events of one page.
const EVENTS_PAGE_MAX: u32 = 10_000;
pub(super) type Read<T> = Result<T, StoreError>;

impl From<Malformed> for StoreError {
    fn from(error: Malformed) -> Self {
        StoreError::Unavailable { reason: error.to_string() }
    }
}

impl RedisStore {
    pub(super) async fn answer(&self, query: Query) -> Read<Answer> {
        Ok(match query {
            Query::Container(id, scope) => Answer::Container(self.container(id, scope).await?.map(Box::new)),
            Query::Group(id, scope) => {
                let in_scope = |record: &GroupRecord| scope.as_ref().is_none_or(|tenant| record.tenant == *tenant);
                Answer::Group(self.group(id).await?.filter(in_scope).map(Box::new))
            }
            Query::Prefix(text, scope) => Answer::Prefix(self.prefix(&text, scope).await?),
            Query::List(query) => Answer::List(self.list(query).await?),
            Query::Workers { after, max } => {
                let (workers, more) = self.workers(after, max).await?;
                Answer::Workers { workers: workers.into_iter().map(|(record, _)| record).collect(), more }
            }
            Query::Pools => Answer::Pools(self.pools().await?),
            Query::Events { after, max, scope } => Answer::Events(self.events(after, max, scope).await?),
            Query::Fleet { known, max } => Answer::Fleet(Box::new(self.fleet(known, max).await?)),
            Query::Scale => Answer::Scale(Box::new(self.scale().await?)),
            Query::Servers { worker } => Answer::Servers(Box::new(self.servers(worker).await?)),
            Query::Token(hash) => Answer::Token(self.token(hash).await?.map(Box::new)),
            Query::Tokens { after, max } => {
                let (tokens, more) = self.tokens(after, max).await?;
                Answer::Tokens { tokens, more }
            }
            Query::Tenants { after, max } => {
                let (tenants, more) = self.tenants(after, max).await?;
                Answer::Tenants { tenants, more }
            }
            Query::Overview { ahead_of } => Answer::Overview(Box::new(self.overview(ahead_of).await?)),
            Query::Take(asked) => Answer::Take(self.take(&asked).await?),
            Query::Audit => Answer::Audit(Box::new(self.audit().await?)),
        })
    }

    pub(super) async fn ask(&self, name: Name, arguments: Arguments) -> Read<Items> {
        Ok(Items::of(self.connection.run(name, &arguments.0).await?)?)
    }

    async fn container(&self, id: ContainerId, scope: Scope) -> Read<Option<ContainerRecord>> {
        // A list of one: from the place before it on.
        let query = ListQuery { group: Some(id.group), tenant: scope, max: 1, ..ListQuery::default() };
        let slice = self.slice(&query, &Cursor { group: Some(id.group), index: i64::from(id.index) - 1 }, 1, 1).await?;
        Ok(slice.records.into_iter().flatten().find(|record| record.id == id))
    }

    async fn group(&self, id: GroupId) -> Read<Option<GroupRecord>> {
        let mut arguments = Arguments::default();
        arguments.text(id);
        let mut items = self.ask(Name::Group, arguments).await?;
        if items.is_empty() {
            return Ok(None);
        }
        Ok(Some(GroupRecord {
            id,
            tenant: items.parsed()?,
            name: name_of(&items.text()?),
            labels: items.json("labels")?,
            count: items.small()?,
            submitted_at: Timestamp(items.number()?),
            finished: items.small()?,
            succeeded: items.small()?,
        }))
    }

    async fn prefix(&self, text: &str, scope: Scope) -> Read<Vec<PrefixMatch>> {
        let Some((low, high, index)) = prefix_bounds(text) else { return Ok(Vec::new()) };
        let (mut matches, mut after) = (Vec::new(), String::new());
        loop {
            let mut arguments = Arguments::default();
            arguments.text(low).text(high).number_maybe(index.map(u64::from));
            arguments.text(scope.as_ref().map(TenantName::as_str).unwrap_or_default());
            arguments.number(self.items_max().into()).text(&after);
            let mut items = self.ask(Name::Prefix, arguments).await?;
            matches.extend(items.list()?.rest(|items| {
                let (group, count) = (items.parsed()?, items.small()?);
                Ok(match index {
                    Some(index) => PrefixMatch::Container(ContainerId { group, index }),
                    None => PrefixMatch::Group(group, count),
                })
            })?);
            after = items.text()?;
            // Two say "ambiguous".
            if after.is_empty() || matches.len() >= 2 {
                matches.truncate(2);
                return Ok(matches);
            }
        }
    }

    async fn list(&self, query: ListQuery) -> Read<ContainerPage> {
        let mut page = ContainerPage::default();
        let (mut found, mut scanned, mut last) = (0, 0, query.after);
        let mut cursor = match query.after {
            Some(after) => Cursor { group: Some(after.group), index: after.index.into() },
            None => Cursor { group: None, index: -1 },
        };
        let max = query.max.max(1);
        loop {
            let scan = (LIST_SCAN_MAX - scanned).min(self.items_max());
            let slice = self.slice(&query, &cursor, max - found, scan).await?;
            scanned += slice.scanned;
            found += slice.records.len() as u32;
            last = slice.last.or(last);
            page.containers.extend(slice.records.into_iter().flatten());
            let Some(next) = slice.next else { return Ok(page) };
            if found >= max || scanned >= LIST_SCAN_MAX {
                page.next = last;
                return Ok(page);
            }
            cursor = next;
        }
    }

    async fn slice(&self, query: &ListQuery, cursor: &Cursor, rows: u32, scan: u32) -> Read<Slice> {
        let mut arguments = Arguments::default();
        arguments.text(cursor.group.map(|group| group.to_string()).unwrap_or_default()).text(cursor.index);
        arguments.text(query.group.map(|group| group.to_string()).unwrap_or_default());
        arguments.text(query.tenant.as_ref().map(TenantName::as_str).unwrap_or_default());
        arguments.number(query.labels.len() as u64);
        for (key, value) in &query.labels {
            arguments.text(key).text(value);
        }
        let states: Vec<String> = query.states.iter().map(|state| format!("{state},")).collect();
        arguments.text(if states.is_empty() { String::new() } else { format!(",{}", states.concat()) });
        arguments.number(rows.into()).number(scan.into());
        let items = self.ask(Name::List, arguments).await?;
        Ok(slice_from(items)?)
    }

    /// A page of workers with what is free of each, and whether there are more.
    pub(super) async fn workers(&self, after: Option<WorkerId>, max: u32) -> Read<(Vec<(WorkerRecord, Free)>, bool)> {
        let mut names = self.worker_names().await?;
        if let Some(after) = after {
            names.retain(|name| name.as_str() > after.as_str());
        }
        let more = names.len() > max.max(1) as usize;
        names.truncate(max.max(1) as usize);
        let mut workers = Vec::new();
        for names in names.chunks(self.items_max() as usize) {
            let rows = self.ask(Name::Workers, names_of(names)).await?.rest(|items| {
                let (_, row, of_worker, capacity) = (items.bytes()?, items.bytes()?, items.bytes()?, items.bytes()?);
                let row = WorkerRow::from(&row)?;
                let record = row.record(&of_worker, &capacity)?;
                Ok((record, row.free()))
            })?;
            workers.extend(rows);
        }
        Ok((workers, more))
    }

    pub(super) async fn worker_names(&self) -> Read<Vec<String>> {
        self.names("workers").await
    }

    pub(super) async fn shape_names(&self) -> Read<Vec<String>> {
        self.names("shapes").await
    }

    /// The names in one of the hashes, sorted.
    async fn names(&self, key: &str) -> Read<Vec<String>> {
        // A slice may bring again what another brought.
        let (mut names, mut cursor) = (BTreeSet::new(), "0".to_owned());
        loop {
            let mut arguments = Arguments::default();
            arguments.text(key).text(&cursor).number(self.items_max().into());
            let mut items = self.ask(Name::Names, arguments).await?;
            cursor = items.text()?;
            names.extend(items.list()?.rest(Items::text)?);
            if cursor == "0" {
                return Ok(names.into_iter().collect());
            }
        }
    }

    pub(super) async fn pools(&self) -> Read<Vec<Pool>> {
        let mut pools: Vec<Pool> = self.ask(Name::Pools, Arguments::default()).await?.rest(replies::pool)?;
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pools)
    }

    async fn events(&self, from: EventNumber, max: u32, scope: Scope) -> Read<EventPage> {
        let max = max.min(EVENTS_PAGE_MAX) as usize;
        let mut page = EventPage::default();
        let mut after = EventNumber(from.0.min(NUMBER_MAX - 1));
        loop {
            let mut arguments = Arguments::default();
            arguments.number(after.0).number((max - page.events.len()) as u64).number(self.items_max().into());
            let mut items = self.ask(Name::Events, arguments).await?;
            (page.oldest, page.last) = (EventNumber(items.number()?), EventNumber(items.number()?));
            let entries = items.list()?.rest(|items| entry_from(&mut items.list()?))?;
            let more = items.flag()?;
            let oldest = page.oldest;
            let events = entries.into_iter().flatten();
            page.events.extend(events.filter(|event| event.number > after && event.number >= oldest));
            if page.events.len() >= max || !more {
                page.events.truncate(max);
                page.seen = page.events.last().map_or(from, |event| event.number);
                if let Some(tenant) = scope {
                    self.keep_in_scope(&mut page.events, &tenant).await?;
                }
                return Ok(page);
            }
            after = page.events.last().map_or(after, |event| event.number);
        }
    }

    /// A tenant sees its groups' and their containers' events, while the groups are kept.
    async fn keep_in_scope(&self, events: &mut Vec<Event>, tenant: &TenantName) -> Read<()> {
        let group_of = |event: &Event| match &event.kind {
            EventKind::Container { container, .. } => Some(container.group),
            _ => None,
        };
        let groups: BTreeSet<GroupId> = events.iter().filter_map(group_of).collect();
        let groups: Vec<GroupId> = groups.into_iter().collect();
        let mut own = BTreeSet::new();
        for groups in groups.chunks(self.items_max() as usize) {
            let names: Vec<String> = groups.iter().map(GroupId::to_string).collect();
            let tenants = self.ask(Name::GroupTenants, names_of(&names)).await?.rest(Items::text)?;
            own.extend(groups.iter().zip(tenants).filter(|(_, of)| of == tenant.as_str()).map(|(group, _)| *group));
        }
        events.retain(|event| match &event.kind {
            EventKind::GroupAccepted { tenant: of, .. } => of == tenant,
            EventKind::Container { container, .. } => own.contains(&container.group),
            _ => false,
        });
        Ok(())
    }

    async fn servers(&self, worker: Option<WorkerId>) -> Read<Servers> {
        let mut arguments = Arguments::default();
        arguments.text(worker.as_ref().map(WorkerId::as_str).unwrap_or_default());
        let mut items = self.ask(Name::Servers, arguments).await?;
        let (session, stream) = (items.text()?, items.text()?);
        let holder = from_hex(&session).zip(from_hex(&stream));
        let holder = holder.map(|(session, stream)| (SessionId(session), Nonce(stream)));
        let mut live = items.rest(|items| Ok((SessionId(items.hex()?), items.text()?)))?;
        live.sort_unstable();
        Ok(Servers { live, holder })
    }

    async fn token(&self, hash: SecretHash) -> Read<Option<Token>> {
        let mut arguments = Arguments::default();
        arguments.text(hash);
        let mut items = self.ask(Name::Token, arguments).await?;
        if items.is_empty() {
            return Ok(None);
        }
        Ok(Some(token_from(items.parsed()?, &items.bytes()?)?))
    }

    async fn tokens(&self, after: Option<TokenId>, max: u32) -> Read<(Vec<Token>, bool)> {
        let max = max.clamp(1, self.items_max());
        let mut arguments = Arguments::default();
        arguments.text(after.map(|after| after.to_string()).unwrap_or_default()).number(u64::from(max) + 1);
        let tokens = self.ask(Name::Tokens, arguments).await?;
        let mut tokens = tokens.rest(|items| token_from(items.parsed()?, &items.bytes()?))?;
        let more = tokens.len() > max as usize;
        tokens.truncate(max as usize);
        Ok((tokens, more))
    }

    async fn tenants(&self, after: Option<TenantName>, max: u32) -> Read<(Vec<TenantRecord>, bool)> {
        let limited =
            self.tenant_slices("tenants", |items| Ok((items.parsed()?, limits_from(&items.bytes()?)?))).await?;
        let waiting: Vec<(TenantName, u64)> =
            self.tenant_slices("tenant_waiting", |items| Ok((items.parsed()?, items.number()?))).await?;
        let mut all: BTreeMap<TenantName, TenantRecord> = BTreeMap::new();
        for (name, tenant) in limited {
            all.insert(name, TenantRecord { tenant, waiting: 0 });
        }
        for (name, count) in waiting {
            let none = || Tenant { name: name.clone(), backlog_max: None, rate: None };
            all.entry(name.clone()).or_insert_with(|| TenantRecord { tenant: none(), waiting: 0 }).waiting = count;
        }
        let mut records: Vec<_> =
            all.into_values().filter(|r| after.as_ref().is_none_or(|a| r.tenant.name > *a)).collect();
        let more = records.len() > max.max(1) as usize;
        records.truncate(max.max(1) as usize);
        Ok((records, more))
    }

    /// All fields of one of the tenants' keys; a field may come twice.
    pub(super) async fn tenant_slices<T>(
        &self,
        key: &str,
        take: impl Fn(&mut Items) -> Result<T, Malformed>,
    ) -> Read<Vec<T>> {
        let (mut all, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let mut arguments = Arguments::default();
            arguments.text(key).text(&cursor).number(self.items_max().into());
            let mut items = self.ask(Name::Tenants, arguments).await?;
            cursor = items.text()?;
            all.extend(items.list()?.rest(&take)?);
            if cursor == "0" {
                return Ok(all);
            }
        }
    }

    async fn take(&self, asked: &[TakeFrom]) -> Read<Vec<Taken>> {
        let mut taken = Vec::with_capacity(asked.len());
        while taken.len() < asked.len() {
            let rest = &asked[taken.len()..];
            let rest = &rest[..rest.len().min(self.items_max() as usize)];
            let mut arguments = Arguments::default();
            let most = self.options.ledger.take_deliveries_max;
            arguments::take(rest, most, &mut arguments);
            let mut items = self.ask(Name::Take, arguments).await?;
            let mut lists = items.list()?;
            let specs = specs_from(items.list()?)?;
            // As many as one call may; at least one.
            for from in rest.iter().take(lists.len()) {
                let deliveries = lists.list()?.rest(|items| delivery_from(items, &specs))?;
                let more = deliveries.len() >= most;
                taken.push(Taken { worker: from.worker.clone(), stream: from.stream, deliveries, more });
            }
        }
        Ok(taken)
    }
}

pub(super) fn names_of(names: &[String]) -> Arguments {
    let mut arguments = Arguments::default();
    arguments.number(names.len() as u64);
    for name in names {
        arguments.text(name);
    }
    arguments
}

/// The place up to which a list was scanned.
struct Cursor {
    group: Option<GroupId>,
    index: i64,
}

/// A part of a list. A record is `None` when it was pruned: it counts and is not shown.
struct Slice {
    records: Vec<Option<ContainerRecord>>,
    scanned: u32,
    last: Option<ContainerId>,
    next: Option<Cursor>,
}

struct Owner {
    tenant: TenantName,
    name: Option<String>,
    submitted_at: Timestamp,
}

fn name_of(text: &str) -> Option<String> {
    text.strip_prefix('=').map(str::to_owned)
}

fn specs_from(items: Items) -> Result<HashMap<String, Arc<Spec>>, Malformed> {
    Ok(items.rest(|items| Ok((items.text()?, Arc::new(items.json("a spec")?))))?.into_iter().collect())
}

fn slice_from(mut items: Items) -> Result<Slice, Malformed> {
    type Row = (ContainerId, String, String, Vec<u8>, Vec<u8>);
    let rows: Vec<Row> = items
        .list()?
        .rest(|items| Ok((items.container()?, items.text()?, items.text()?, items.bytes()?, items.bytes()?)))?;
    let owners = items.list()?.rest(|items| {
        let group: GroupId = items.parsed()?;
        let (tenant, name) = (items.parsed()?, name_of(&items.text()?));
        Ok((group, Owner { tenant, name, submitted_at: Timestamp(items.number()?) }))
    })?;
    let owners: HashMap<GroupId, Owner> = owners.into_iter().collect();
    let specs = specs_from(items.list()?)?;
    let scanned = items.small()?;
    let last = items.text()?;
    let (group, index, more) = (items.text()?, items.signed()?, items.flag()?);
    let now = Timestamp(items.number()?);
    let mut records = Vec::with_capacity(rows.len());
    for (id, kind, spec, row, reasons) in rows {
        let owner = owners.get(&id.group).ok_or_else(|| Malformed::new("a container", "its group is missing"))?;
        let spec = specs.get(&spec).ok_or_else(|| Malformed::new("a container", "its spec is missing"))?;
        records.push(record(id, &kind, owner, Arc::clone(spec), (&row, &reasons), now)?);
    }
    let next = if more { Some(Cursor { group: group.parse().ok(), index }) } else { None };
    Ok(Slice { records, scanned, last: super::words::container_from(&last), next })
}

fn record(
    id: ContainerId,
    kind: &str,
    owner: &Owner,
    spec: Arc<Spec>,
    (row, reasons): (&[u8], &[u8]),
    now: Timestamp,
) -> Result<Option<ContainerRecord>, Malformed> {
    let mut record = ContainerRecord {
        id,
        tenant: owner.tenant.clone(),
        name: owner.name.clone(),
        spec,
        state: ContainerState::Queued,
        attempt: None,
        worker: None,
        gpus: Vec::new(),
        submitted_at: owner.submitted_at,
        assigned_at: None,
        started_at: None,
        finished_at: None,
        outcome: None,
        waiting: None,
    };
    let reasons = || match reasons {
        [] => Ok(vec![WaitReason::NotLookedAt]),
        reasons => json("reasons", reasons),
    };
    match kind {
        "p" => return Ok(None),
        "r" => {
            record.waiting = Some(Waiting { since: owner.submitted_at, not_before: None, reasons: reasons()? });
        }
        "f" => {
            let row = FinishedRow::from(row)?;
            record.state = ContainerState::Finished;
            (record.finished_at, record.outcome) = (Some(row.finished_at), Some(row.outcome));
            if let Some((attempt, worker, gpus, assigned_at, started_at)) = row.attempt {
                (record.attempt, record.worker, record.gpus) = (Some(attempt), Some(worker), gpus);
                (record.assigned_at, record.started_at) = (Some(assigned_at), started_at);
            }
        }
        _ => match LiveRow::from(row)? {
            LiveRow::Queued { ready_at } => {
                let not_before = Some(ready_at).filter(|at| *at > now);
                record.waiting = Some(Waiting { since: ready_at, not_before, reasons: reasons()? });
            }
            LiveRow::Claimed { ready_at } => {
                record.state = ContainerState::Claimed;
                let reasons = vec![WaitReason::NotLookedAt];
                record.waiting = Some(Waiting { since: ready_at, not_before: None, reasons });
            }
            LiveRow::Bound(bound) => {
                record.state = bound.state;
                (record.attempt, record.worker, record.gpus) = (Some(bound.attempt), Some(bound.worker), bound.gpus);
                (record.assigned_at, record.started_at) = (Some(bound.assigned_at), bound.started_at);
            }
        },
    }
    Ok(Some(record))
}

fn delivery_from(items: &mut Items, specs: &HashMap<String, Arc<Spec>>) -> Result<Delivery, Malformed> {
    let (number, container, row) = (DeliveryNumber(items.number()?), items.container()?, items.bytes()?);
    let LiveRow::Bound(bound) = LiveRow::from(&row)? else {
        return Err(Malformed::new("an outbox", "it names a container without an attempt"));
    };
    let attempt = bound.attempt;
    let order = match bound.stop {
        Some((_, grace)) => Order::Stop { container, attempt, grace },
        None => {
            let spec = specs.get(&bound.spec).ok_or_else(|| Malformed::new("an outbox", "a spec is missing"))?;
            let hash = u128::from_str_radix(&bound.spec, 16).map_err(|error| Malformed::new("a spec", error))?;
            let (spec_hash, spec, gpus) = (SpecHash(hash), Arc::clone(spec), bound.gpus);
            Order::Start { container, attempt, spec_hash, spec, gpus }
        }
    };
    Ok(Delivery { number, order })
}

/// The events of one entry of the stream: its id is the number of the last one.
fn entry_from(items: &mut Items) -> Result<Vec<Event>, Malformed> {
    let id = items.text()?;
    let last: u64 = id.split('-').next().unwrap_or_default().parse().map_err(|e| Malformed::new("an event", e))?;
    let mut fields = items.list()?;
    let (_, at, _, lines) = (fields.text()?, Timestamp(fields.number()?), fields.text()?, fields.text()?);
    let lines: Vec<&str> = lines.split('\n').collect();
    let first = (last + 1).checked_sub(lines.len() as u64);
    let first = first.ok_or_else(|| Malformed::new("an event", "its number is too low"))?;
    let event = |(place, line): (usize, &&str)| {
        Ok(Event { number: EventNumber(first + place as u64), at, kind: event_from(line)? })
    };
    lines.iter().enumerate().map(event).collect()
}

fn event_from(line: &str) -> Result<EventKind, Malformed> {
    let bad = |error: &dyn std::fmt::Display| Malformed::new("an event", format_args!("{error} in '{line}'"));
    let mut parts = line.splitn(6, '|');
    let kind = parts.next().unwrap_or_default();
    let mut part = || parts.next().ok_or_else(|| bad(&"a part is missing"));
    Ok(match kind {
        "c" => {
            let id = part()?;
            let container = super::words::container_from(id).ok_or_else(|| bad(&"no container"))?;
            let state = part()?.parse().map_err(|error| bad(&error))?;
            let attempt = part()?.parse().map_err(|error| bad(&error))?;
            let (worker, outcome) = (part()?, part()?);
            let worker = match worker {
                "" => None,
                worker => Some(worker.parse().map_err(|error| bad(&error))?),
            };
            let outcome = if outcome.is_empty() { None } else { Some(json("an outcome", outcome.as_bytes())?) };
            EventKind::Container { container, state, attempt, worker, outcome }
        }
        "g" => EventKind::GroupAccepted {
            group: part()?.parse().map_err(|error| bad(&error))?,
            tenant: part()?.parse().map_err(|error| bad(&error))?,
            count: part()?.parse().map_err(|error| bad(&error))?,
        },
        "w" => EventKind::Worker {
            worker: part()?.parse().map_err(|error| bad(&error))?,
            status: part()?.parse().map_err(|error| bad(&error))?,
        },
        "t" => EventKind::Token {
            token: part()?.parse().map_err(|error| bad(&error))?,
            tenant: part()?.parse().map_err(|error| bad(&error))?,
            role: role_from(part()?)?,
            revoked: part()? == "1",
        },
        "n" => EventKind::Tenant { tenant: part()?.parse().map_err(|error| bad(&error))?, removed: part()? == "1" },
        "p" => EventKind::Pool { pool: part()?.parse().map_err(|error| bad(&error))?, removed: part()? == "1" },
        _ => return Err(bad(&"an unknown kind")),
    })
}

/// The first and last group whose text starts so, and the index after `-`.
fn prefix_bounds(text: &str) -> Option<(GroupId, GroupId, Option<u32>)> {
    let text = text.to_ascii_lowercase();
    let (start, index) = match text.split_once('-') {
        Some((start, index)) => {
            let number = index.parse::<u32>().ok().filter(|number| number.to_string() == index)?;
            (start, Some(number))
        }
        None => (text.as_str(), None),
    };
    if start.is_empty() || start.len() > GROUP_ID_CHARS {
        return None;
    }
    let padded = |with: char| -> String { start.chars().chain(std::iter::repeat(with)).take(GROUP_ID_CHARS).collect() };
    let low: GroupId = padded('0').parse().ok()?;
    let high: GroupId = padded('z').parse().unwrap_or(GroupId(u64::MAX));
    Some((low, high, index))
}
