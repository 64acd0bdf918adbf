//! The change sets of one round as one: of several writes of a record only the last is
//! written. Writes them; the transaction is the caller's. Knows no operations.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, params};
use volley_ledger::change::{
    Counters, StoredFinished, StoredGroup, StoredKey, StoredLive, StoredProgress, StoredWorker,
};
use volley_ledger::{Change, ChangeSet, Event, Hint};
use volley_model::{
    ArrivalNumber, ContainerId, EventNumber, GroupId, Pool, PoolName, PoolStanding, Provisioning, Spec, SpecHash,
    Tenant, TenantName, Timestamp, Token, TokenId, Worker, WorkerId,
};

use super::error::DbError;
use super::rows::{self, Position};
use super::{event_codec, schema};

/// Most events in one row: a page of events is read without reading much more.
const EVENTS_PER_ROW_MAX: usize = 1_000;
/// Free pages (of 4 KiB) that the file keeps for what comes next.
const FREE_PAGES_KEPT: i64 = 4_096;
/// Pages given back to the file system by one transaction that pruned.
const FREE_PAGES_RETURNED: i64 = 256;

/// What the database holds, as far as it saves writes and look-ups.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Groups with their arrivals, which the tables are keyed by.
    pub(super) arrivals: HashMap<GroupId, ArrivalNumber>,
    /// The fixed part of each worker's row.
    pub(super) workers: HashMap<WorkerId, Worker>,
}

#[derive(Debug)]
enum ContainerWrite {
    Live(StoredLive),
    Finished(StoredFinished),
    Pruned,
}

/// The changes of one round.
#[derive(Debug, Default)]
pub(super) struct Batch {
    specs: BTreeMap<SpecHash, Option<Arc<Spec>>>,
    groups: BTreeMap<ArrivalNumber, StoredGroup>,
    progress: BTreeMap<ArrivalNumber, StoredProgress>,
    marks: BTreeMap<Position, u32>,
    groups_removed: BTreeMap<ArrivalNumber, GroupId>,
    /// In the tables' order, which is the fastest to write in.
    containers: BTreeMap<Position, ContainerWrite>,
    keys: BTreeMap<(TenantName, String), Option<StoredKey>>,
    workers: BTreeMap<WorkerId, Option<StoredWorker>>,
    pools: BTreeMap<PoolName, Option<Pool>>,
    tenants: BTreeMap<TenantName, Option<Tenant>>,
    tokens: BTreeMap<TokenId, Option<Token>>,
    machines: BTreeMap<WorkerId, Option<Arc<Provisioning>>>,
    standings: BTreeMap<PoolName, PoolStanding>,
    events: Vec<Event>,
    events_floor: Option<EventNumber>,
    /// Given when all is written.
    pub(super) hints: Hints,
    durable: bool,
}

impl Batch {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        !self.durable
    }

    /// Takes in what one operation changed.
    pub(super) fn absorb(&mut self, set: ChangeSet, known: &mut Known) {
        self.durable |= !set.changes.is_empty() || !set.events.is_empty();
        for change in set.changes {
            self.absorb_change(change, known);
        }
        self.events.extend(set.events);
        for hint in set.hints {
            self.hints.absorb(hint);
        }
    }

    /// The events that were written.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn absorb_change(&mut self, change: Change, known: &mut Known) {
        match change {
            Change::PutSpec(hash, spec) => drop(self.specs.insert(hash, Some(spec))),
            Change::RemoveSpec(hash) => drop(self.specs.insert(hash, None)),
            Change::PutGroup(group) => {
                known.arrivals.insert(group.id, group.arrival);
                self.progress.insert(group.arrival, progress_of(&group));
                for (run, mark) in group.materialised.iter().enumerate().filter(|(_, mark)| **mark > 0) {
                    self.marks.insert(Position::of(group.arrival, run as u32), *mark);
                }
                self.groups.insert(group.arrival, group);
            }
            Change::PutProgress(progress) => {
                self.progress.insert(arrival_of(known, progress.group), progress);
            }
            Change::PutMark { group, run, mark } => {
                self.marks.insert(Position::of(arrival_of(known, group), run), mark);
            }
            Change::RemoveGroup(group) => self.remove_group(group, arrival_of(known, group)),
            Change::PutLive(live) => self.container(known, live.id, ContainerWrite::Live(live)),
            Change::Finish(finished) => self.container(known, finished.id, ContainerWrite::Finished(finished)),
            Change::Prune(id) => self.container(known, id, ContainerWrite::Pruned),
            Change::PutKey(key) => drop(self.keys.insert((key.tenant.clone(), key.key.clone()), Some(key))),
            Change::RemoveKey(tenant, key) => drop(self.keys.insert((tenant, key), None)),
            Change::PutWorker(worker) => drop(self.workers.insert(worker.worker.id.clone(), Some(worker))),
            Change::RemoveWorker(worker) => drop(self.workers.insert(worker, None)),
            Change::PutPool(pool) => drop(self.pools.insert(pool.name.clone(), Some(pool))),
            Change::PutTenant(tenant) => drop(self.tenants.insert(tenant.name.clone(), Some(tenant))),
            Change::RemoveTenant(tenant) => drop(self.tenants.insert(tenant, None)),
            Change::PutToken(token) => drop(self.tokens.insert(token.id, Some(token))),
            Change::RemoveToken(token) => drop(self.tokens.insert(token, None)),
            Change::RemovePool(pool) => {
                self.standings.remove(&pool);
                self.pools.insert(pool, None);
            }
            Change::PutMachine(record) => drop(self.machines.insert(record.worker.clone(), Some(record))),
            Change::RemoveMachine(id) => drop(self.machines.insert(id, None)),
            Change::PutStanding(standing) => drop(self.standings.insert(standing.pool.clone(), standing)),
            Change::PruneEvents(floor) => self.events_floor = self.events_floor.max(Some(floor)),
        }
    }

    fn container(&mut self, known: &Known, id: ContainerId, write: ContainerWrite) {
        self.containers.insert(Position::of(arrival_of(known, id.group), id.index), write);
    }

    fn remove_group(&mut self, group: GroupId, arrival: ArrivalNumber) {
        self.groups.remove(&arrival);
        self.progress.remove(&arrival);
        self.marks.retain(|position, _| position.arrival() != arrival);
        self.groups_removed.insert(arrival, group);
    }

    /// Writes everything. `known` is right again only when the transaction succeeds.
    pub(super) fn write(&mut self, db: &Connection, known: &mut Known, counters: &Counters) -> Result<(), DbError> {
        for (hash, spec) in &self.specs {
            match spec {
                Some(spec) => rows::put_spec(db, *hash, spec)?,
                None => rows::remove_spec(db, *hash)?,
            }
        }
        self.write_groups(db, known)?;
        let pruned = self.write_containers(db)?;
        self.write_fleet(db, known)?;
        self.write_access(db)?;
        for ((tenant, name), key) in &self.keys {
            match key {
                Some(key) => rows::put_key(db, key)?,
                None => rows::remove_key(db, tenant, name)?,
            }
        }
        self.write_events(db)?;
        schema::write_meta(db, "counters", serde_json::to_string(counters).expect("counters are plain numbers"))?;
        if pruned || self.events_floor.is_some() {
            return_pages(db)?;
        }
        Ok(())
    }

    fn write_groups(&self, db: &Connection, known: &mut Known) -> Result<(), DbError> {
        for group in self.groups.values() {
            rows::put_group(db, group)?;
        }
        for (arrival, progress) in &self.progress {
            // A row that is missing reads as zero: most new groups need none.
            if self.groups.contains_key(arrival) && (progress.finished, progress.pruned) == (0, 0) {
                continue;
            }
            rows::put_progress(db, *arrival, progress)?;
        }
        for (run, mark) in &self.marks {
            rows::put_mark(db, *run, *mark)?;
        }
        for (arrival, group) in &self.groups_removed {
            rows::remove_group(db, *arrival)?;
            // The id may have been given to a later group already.
            if known.arrivals.get(group) == Some(arrival) {
                known.arrivals.remove(group);
            }
        }
        Ok(())
    }

    /// Whether something was pruned.
    fn write_containers(&self, db: &Connection) -> Result<bool, DbError> {
        let mut pruned = false;
        for (position, write) in &self.containers {
            match write {
                ContainerWrite::Live(live) => rows::put_live(db, *position, live)?,
                ContainerWrite::Finished(finished) => {
                    rows::remove_live(db, *position)?;
                    rows::put_finished(db, *position, finished)?;
                }
                ContainerWrite::Pruned => {
                    // It may have finished in this very round.
                    rows::remove_live(db, *position)?;
                    rows::remove_finished(db, *position)?;
                    pruned = true;
                }
            }
        }
        Ok(pruned)
    }

    fn write_fleet(&self, db: &Connection, known: &mut Known) -> Result<(), DbError> {
        for (id, worker) in &self.workers {
            match worker {
                Some(stored) if known.workers.get(id) == Some(&stored.worker) => rows::put_worker_numbers(db, stored)?,
                Some(stored) => {
                    rows::put_worker(db, stored)?;
                    known.workers.insert(id.clone(), stored.worker.clone());
                }
                None => {
                    rows::remove_worker(db, id)?;
                    known.workers.remove(id);
                }
            }
        }
        for (name, pool) in &self.pools {
            match pool {
                Some(pool) => rows::put_pool(db, pool)?,
                None => rows::remove_pool(db, name)?,
            }
        }
        for (id, record) in &self.machines {
            match record {
                Some(record) => rows::put_machine(db, record)?,
                None => rows::remove_machine(db, id)?,
            }
        }
        for standing in self.standings.values() {
            rows::put_standing(db, standing)?;
        }
        Ok(())
    }

    fn write_access(&self, db: &Connection) -> Result<(), DbError> {
        for (name, tenant) in &self.tenants {
            match tenant {
                Some(tenant) => rows::put_tenant(db, tenant)?,
                None => rows::remove_tenant(db, name)?,
            }
        }
        for (id, token) in &self.tokens {
            match token {
                Some(token) => rows::put_token(db, token)?,
                None => rows::remove_token(db, *id)?,
            }
        }
        Ok(())
    }

    fn write_events(&self, db: &Connection) -> Result<(), DbError> {
        let mut insert = db.prepare_cached("INSERT INTO event (first, last, body) VALUES (?1, ?2, ?3)")?;
        for events in self.events.chunks(EVENTS_PER_ROW_MAX) {
            let (first, last) = (events[0].number.0, events[events.len() - 1].number.0);
            insert.execute(params![first.cast_signed(), last.cast_signed(), event_codec::encode(events)])?;
        }
        if let Some(floor) = self.events_floor {
            let mut delete = db.prepare_cached("DELETE FROM event WHERE first < ?1 AND last < ?1")?;
            delete.execute([floor.0.cast_signed()])?;
            schema::write_meta(db, "events_floor", floor.0.cast_signed())?;
        }
        Ok(())
    }
}

fn arrival_of(known: &Known, group: GroupId) -> ArrivalNumber {
    *known.arrivals.get(&group).expect("law 3: a change about a group comes between its put and its removal")
}

fn progress_of(group: &StoredGroup) -> StoredProgress {
    StoredProgress { group: group.id, finished: group.finished, succeeded: group.succeeded, pruned: group.pruned }
}

/// Gives pages that pruning freed back to the file system, a few at a time.
fn return_pages(db: &Connection) -> Result<(), DbError> {
    let free: i64 = db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    if free > FREE_PAGES_KEPT {
        let pages = (free - FREE_PAGES_KEPT).min(FREE_PAGES_RETURNED);
        let mut statement = db.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// The hints of one round as a few: a burst of operations wakes whoever listens once.
#[derive(Debug, Default)]
pub(super) struct Hints {
    ready: Option<u32>,
    outbox: BTreeSet<WorkerId>,
    events: Option<EventNumber>,
    due: Option<Timestamp>,
}

impl Hints {
    fn absorb(&mut self, hint: Hint) {
        match hint {
            Hint::Ready { containers } => self.ready = Some(self.ready.unwrap_or(0).saturating_add(containers)),
            Hint::Outbox(workers) => self.outbox.extend(workers),
            Hint::Events(last) => self.events = self.events.max(Some(last)),
            Hint::Due(due) => self.due = Some(self.due.map_or(due, |other| other.min(due))),
        }
    }

    /// In the order in which they help: work first, then what is only told.
    pub(super) fn into_hints(self) -> impl Iterator<Item = Hint> {
        let ready = self.ready.map(|containers| Hint::Ready { containers });
        let outbox = (!self.outbox.is_empty()).then(|| Hint::Outbox(self.outbox.into_iter().collect()));
        let due = self.due.map(Hint::Due);
        [outbox, ready, due, self.events.map(Hint::Events)].into_iter().flatten()
    }
}
