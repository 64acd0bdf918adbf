//! The audit of a cell: its laws, read from the store itself, slice by slice, so that nobody waits
//! for it. What a slice finds is of one moment; sums over slices count only when nothing moved in
//! between. Knows nothing of servers' memories.

use std::collections::BTreeMap;

use volley_ledger::Audit;

use super::RedisStore;
use super::arguments::Arguments;
use super::reads::{Read, names_of};
use super::replies::{Items, Malformed};
use super::scripts::Name;

/// Most violations listed by one audit: the first ones tell.
const VIOLATIONS_MAX: usize = 100;

/// What the cell counts by itself, at the moment of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    /// Operations that were applied.
    moves: u64,
    accepted: u64,
    finished: u64,
    pruned: u64,
    /// In queues, and of these in queues that are not blocked.
    waiting: u64,
    ready: u64,
    claimed: u64,
    assigned: u64,
    starting: u64,
    running: u64,
    stopping: u64,
    delayed: u64,
    listed: u64,
}

impl Cell {
    fn from(items: &mut Items) -> Result<Self, Malformed> {
        Ok(Self {
            moves: items.number()?,
            accepted: items.number()?,
            finished: items.number()?,
            pruned: items.number()?,
            waiting: items.number()?,
            ready: items.number()?,
            claimed: items.number()?,
            assigned: items.number()?,
            starting: items.number()?,
            running: items.number()?,
            stopping: items.number()?,
            delayed: items.number()?,
            listed: items.number()?,
        })
    }
}

/// Sums over slices, and whether they are of one moment.
#[derive(Default)]
struct Sums {
    audit: Audit,
    /// Queued and claimed, by tenant.
    of_tenants: BTreeMap<String, u64>,
    waiting: u64,
    ready: u64,
    cell: Option<Cell>,
    moved: bool,
}

impl Sums {
    fn see(&mut self, items: &mut Items) -> Result<(), Malformed> {
        let cell = Cell::from(items)?;
        self.moved |= self.cell.as_ref().is_some_and(|before| before.moves != cell.moves);
        self.cell = Some(cell);
        Ok(())
    }

    fn found(&mut self, violations: Items) -> Result<(), Malformed> {
        self.audit.violations.extend(violations.rest(Items::text)?);
        Ok(())
    }
}

impl RedisStore {
    /// Counts and laws.
    pub(super) async fn audit(&self) -> Read<Audit> {
        let mut sums = Sums::default();
        self.audit_groups(&mut sums).await?;
        self.audit_queues(&mut sums).await?;
        let tenants = self.tenant_slices("tenant_waiting", |items| Ok((items.text()?, items.number()?))).await?;
        self.audit_workers(&mut sums).await?;
        for name in [Name::AuditKeys, Name::AuditMachines] {
            self.audit_scan(name, "0", "0", &mut sums).await?;
        }
        self.audit_scan(Name::AuditTokens, "", "", &mut sums).await?;
        // Whether anything moved until here.
        sums.see(&mut self.audit_group_slice("", 0).await?.1)?;
        check_sums(&mut sums, &tenants.into_iter().collect());
        sums.audit.violations.truncate(VIOLATIONS_MAX);
        Ok(sums.audit)
    }

    /// A slice's own items, and the cell's.
    async fn audit_group_slice(&self, group: &str, index: u64) -> Read<(Items, Items)> {
        let mut arguments = Arguments::default();
        arguments.text(group).number(index).number(self.items_max().into());
        let mut items = self.ask(Name::AuditGroups, arguments).await?;
        let own = Items::of(redis::Value::Array(items.first(5)?))?;
        Ok((own, items.list()?))
    }

    /// Containers, each in exactly one state and where something looks at it (laws 3, 4, 8, 11, 12).
    async fn audit_groups(&self, sums: &mut Sums) -> Read<()> {
        let (mut group, mut index) = (String::new(), 0);
        loop {
            let (mut items, mut cell) = self.audit_group_slice(&group, index).await?;
            let mut counts = items.list()?;
            let Audit { queued, claimed, assigned, starting, running, stopping, .. } = &mut sums.audit;
            for count in [queued, claimed, assigned, starting, running, stopping] {
                *count += counts.number()?;
            }
            sums.found(items.list()?)?;
            (group, index) = (items.text()?, items.number()?);
            for (tenant, count) in items.list()?.rest(|items| Ok((items.text()?, items.number()?)))? {
                *sums.of_tenants.entry(tenant).or_default() += count;
            }
            sums.see(&mut cell)?;
            if group.is_empty() {
                return Ok(());
            }
        }
    }

    /// What queues count and hold (law 11).
    async fn audit_queues(&self, sums: &mut Sums) -> Read<()> {
        let mut shapes = self.shape_names().await?;
        let (mut place, mut count) = (0, 0);
        while !shapes.is_empty() {
            let some = &shapes[..shapes.len().min(self.items_max() as usize)];
            let mut arguments = Arguments::default();
            arguments.number(place).number(count).number(self.items_max().into());
            arguments.0.extend(names_of(some).0);
            let mut items = self.ask(Name::AuditQueues, arguments).await?;
            sums.found(items.list()?)?;
            let done = usize::try_from(items.number()?).unwrap_or(usize::MAX).min(some.len());
            (place, count) = (items.number()?, items.number()?);
            sums.waiting += items.number()?;
            sums.ready += items.number()?;
            sums.see(&mut items.list()?)?;
            shapes.drain(..done);
        }
        Ok(())
    }

    /// What is free of each worker (laws 1, 2, 8, 9, 11).
    async fn audit_workers(&self, sums: &mut Sums) -> Read<()> {
        let mut names = self.worker_names().await?;
        while !names.is_empty() {
            let some = &names[..names.len().min(self.items_max() as usize)];
            let mut items = self.ask(Name::AuditWorkers, names_of(some)).await?;
            sums.found(items.list()?)?;
            let looked_at = usize::try_from(items.number()?).unwrap_or(usize::MAX);
            names.drain(..looked_at.clamp(1, names.len()));
        }
        Ok(())
    }

    /// Client keys (law 6), tokens (law 12) and machines.
    async fn audit_scan(&self, name: Name, from: &str, end: &str, sums: &mut Sums) -> Read<()> {
        let mut cursor = from.to_owned();
        loop {
            let mut arguments = Arguments::default();
            arguments.text(&cursor).number(self.items_max().into());
            let mut items = self.ask(name, arguments).await?;
            sums.found(items.list()?)?;
            cursor = items.text()?;
            if cursor == end {
                return Ok(());
            }
        }
    }
}

fn check_sums(sums: &mut Sums, tenants: &BTreeMap<String, u64>) {
    let Sums { audit, of_tenants, waiting, ready, cell: Some(cell), moved } = sums else { return };
    (audit.accepted, audit.finished, audit.pruned) = (cell.accepted, cell.finished, cell.pruned);
    if *moved {
        return;
    }
    let bound = audit.assigned + audit.starting + audit.running + audit.stopping;
    let sum = audit.queued + audit.claimed + bound + audit.finished + audit.pruned;
    let mut violations = Vec::new();
    if sum != audit.accepted {
        violations.push(format!("law 3: {} accepted, {sum} accounted for", audit.accepted));
    }
    for (state, counted, found) in [
        ("claimed", cell.claimed, audit.claimed),
        ("assigned", cell.assigned, audit.assigned),
        ("starting", cell.starting, audit.starting),
        ("running", cell.running, audit.running),
        ("stopping", cell.stopping, audit.stopping),
        ("queued", cell.waiting + cell.delayed, audit.queued),
        ("waiting in queues", cell.waiting, *waiting),
        ("ready", cell.ready, *ready),
        ("finished and listed", cell.finished, cell.listed),
    ] {
        if counted != found {
            violations.push(format!("law 3: {counted} are counted as {state}, {found} are there"));
        }
    }
    if of_tenants != tenants {
        violations.push(format!("law 12: the tenants' backlogs are {of_tenants:?}, counted were {tenants:?}"));
    }
    audit.violations.extend(violations);
}
