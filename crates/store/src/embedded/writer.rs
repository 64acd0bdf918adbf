//! The thread that owns the ledger and the database: takes all that waits, applies it, writes
//! one transaction, and only then answers, hints and reads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{broadcast, mpsc, oneshot};
use volley_ledger::{
    Answer, ContainerPage, ContainerRecord, EventPage, Found, Hint, Ledger, LedgerOptions, Operation, Query, Reply,
};
use volley_model::{ContainerId, TenantName};

use super::EmbeddedOptions;
use super::batch::{Batch, Known};
use super::directory::DataDirectory;
use super::disk::DiskWatch;
use super::error::DbError;
use super::faults::{Faults, Place};
use super::rows::{self, Position};
use super::tail::Tail;
use super::{load, schema};
use crate::clock::StoreTime;
use crate::{StoreError, StoreStats};

/// Most calls of one round: bounds how long the first of them waits for the disk.
const ROUND_CALLS_MAX: usize = 1_024;

type AnswerTo<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Request {
    Apply(Box<Operation>, AnswerTo<Reply>),
    Read(Query, AnswerTo<Answer>),
    /// What a tenant is shown of a page.
    Show(EventPage, TenantName, AnswerTo<Answer>),
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    operations: AtomicU64,
    reads: AtomicU64,
    transactions: AtomicU64,
}

impl Counts {
    pub(super) fn on_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> StoreStats {
        StoreStats {
            operations: self.operations.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            transactions: self.transactions.load(Ordering::Relaxed),
        }
    }
}

/// The ledger and the database that agree.
struct Open {
    db: Connection,
    ledger: Ledger,
    known: Known,
}

impl Open {
    fn load(file: &Path, options: LedgerOptions, tail: &Tail) -> Result<Self, DbError> {
        let db = schema::open_writer(file)?;
        let (stored, known) = load::load(&db)?;
        let ledger = Ledger::restore(options, stored).map_err(|error| DbError::record("all", error))?;
        tail.reset(ledger.events_floor(), ledger.counters().last_event);
        Ok(Self { db, ledger, known })
    }
}

pub(super) struct Writer {
    directory: DataDirectory,
    options: LedgerOptions,
    time: StoreTime,
    faults: Faults,
    disk: DiskWatch,
    hints: broadcast::Sender<Hint>,
    counts: Arc<Counts>,
    tail: Arc<Tail>,
    open: Option<Open>,
}

impl Writer {
    pub(super) fn open(
        directory: DataDirectory,
        options: EmbeddedOptions,
        hints: broadcast::Sender<Hint>,
        counts: Arc<Counts>,
        tail: Arc<Tail>,
    ) -> Result<Self, DbError> {
        let open = Open::load(&directory.database(), options.ledger.clone(), &tail)?;
        let disk = DiskWatch::new(directory.path().to_owned(), options.disk_free_min);
        let EmbeddedOptions { ledger, clock, faults, .. } = options;
        let mut time = StoreTime::new(clock);
        time.not_before(open.ledger.counters().now);
        Ok(Self { directory, options: ledger, time, faults, disk, hints, counts, tail, open: Some(open) })
    }

    /// Until the last sender is gone.
    pub(super) fn run(mut self, mut calls: mpsc::Receiver<Request>) {
        let mut round = Vec::new();
        while calls.blocking_recv_many(&mut round, ROUND_CALLS_MAX) > 0 {
            self.round(&mut round);
        }
    }

    fn round(&mut self, calls: &mut Vec<Request>) {
        if self.open.is_none() {
            // The last transaction failed: what is in the file is the truth.
            let loaded = self.faults.at(Place::Reopen).map_err(DbError::Io);
            match loaded.and_then(|()| Open::load(&self.directory.database(), self.options.clone(), &self.tail)) {
                Ok(open) => self.open = Some(open),
                Err(error) => return refuse_all(calls, &error),
            }
        }
        let Some(mut open) = self.open.take() else { return };
        let mut batch = Batch::default();
        let (mut replies, mut reads, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        for call in calls.drain(..) {
            match call {
                Request::Read(query, answer) => reads.push((query, answer)),
                Request::Show(page, tenant, answer) => pages.push((page, tenant, answer)),
                Request::Apply(operation, answer) => match self.shortage(&operation) {
                    Some(reason) => drop(answer.send(Err(StoreError::Unavailable { reason }))),
                    None => {
                        let (reply, changes) = open.ledger.apply(self.time.now(), *operation);
                        batch.absorb(changes, &mut open.known);
                        replies.push((reply, answer));
                    }
                },
            }
        }
        self.counts.operations.fetch_add(replies.len() as u64, Ordering::Relaxed);
        if !batch.is_empty()
            && let Err(error) = write(&mut open, &mut batch, &self.faults)
        {
            tracing::error!(%error, "a transaction failed; the store loads its file again");
            let reason = error.to_string();
            for (_, answer) in replies {
                let _ = answer.send(Err(StoreError::Unknown { reason: reason.clone() }));
            }
            let pages = pages.into_iter().map(|(.., answer)| answer);
            for answer in reads.into_iter().map(|(_, answer)| answer).chain(pages) {
                let _ = answer.send(Err(StoreError::Unavailable { reason: reason.clone() }));
            }
            return;
        }
        if !batch.is_empty() {
            self.counts.transactions.fetch_add(1, Ordering::Relaxed);
            self.tail.extend(batch.take_events(), open.ledger.events_floor());
        }
        // Before the replies: whoever waits for work or an end waits longer than whoever asked.
        for hint in batch.hints.into_hints() {
            // Nobody may be listening.
            let _ = self.hints.send(hint);
        }
        for (reply, answer) in replies {
            let _ = answer.send(Ok(reply));
        }
        self.counts.reads.fetch_add(reads.len() as u64, Ordering::Relaxed);
        for (query, answer) in reads {
            let unreadable = |error: DbError| StoreError::Unavailable { reason: error.to_string() };
            let _ = answer.send(read(&open, query).map_err(unreadable));
        }
        for (mut page, tenant, answer) in pages {
            page.events.retain(|event| open.ledger.shows(event, Some(&tenant)));
            let _ = answer.send(Ok(Answer::Events(page)));
        }
        self.open = Some(open);
    }

    /// Why an operation that adds is refused now.
    fn shortage(&self, operation: &Operation) -> Option<String> {
        let adds = matches!(
            operation,
            Operation::Submit(_)
                | Operation::ApplyPool(_)
                | Operation::Provision(_)
                | Operation::CreateToken(_)
                | Operation::ApplyTenant(_)
        );
        if adds { self.disk.shortage() } else { None }
    }
}

fn refuse_all(calls: &mut Vec<Request>, error: &DbError) {
    let unavailable = || StoreError::Unavailable { reason: error.to_string() };
    for call in calls.drain(..) {
        match call {
            Request::Apply(_, answer) => drop(answer.send(Err(unavailable()))),
            Request::Read(_, answer) | Request::Show(.., answer) => drop(answer.send(Err(unavailable()))),
        }
    }
}

fn write(open: &mut Open, batch: &mut Batch, faults: &Faults) -> Result<(), DbError> {
    faults.at(Place::Begin)?;
    let transaction = open.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    batch.write(&transaction, &mut open.known, &open.ledger.counters())?;
    faults.at(Place::Written)?;
    transaction.commit()?;
    Ok(faults.at(Place::Committed)?)
}

fn read(open: &Open, query: Query) -> Result<Answer, DbError> {
    let ledger = &open.ledger;
    Ok(match query {
        Query::Container(id, scope) => {
            let found = ledger.container(id, scope.as_ref());
            Answer::Container(found.map(|found| complete(open, found)).transpose()?.flatten().map(Box::new))
        }
        Query::Group(id, scope) => Answer::Group(ledger.group(id, scope.as_ref()).map(Box::new)),
        Query::Prefix(text, scope) => Answer::Prefix(ledger.prefix(&text, scope.as_ref())),
        Query::List(query) => {
            let page = ledger.list(&query);
            let mut containers = Vec::with_capacity(page.containers.len());
            for found in page.containers {
                containers.extend(complete(open, found)?);
            }
            Answer::List(ContainerPage { containers, next: page.next })
        }
        Query::Workers { after, max } => {
            let (workers, more) = ledger.workers_after(after.as_ref(), max);
            Answer::Workers { workers, more }
        }
        Query::Pools => Answer::Pools(ledger.pools()),
        Query::Servers { worker } => Answer::Servers(Box::new(ledger.servers(worker.as_ref()))),
        Query::Fleet { known, max } => Answer::Fleet(Box::new(ledger.fleet(known, max))),
        Query::Scale => Answer::Scale(Box::new(ledger.scale_state())),
        // Asked elsewhere, and here only for what a scope shows of them.
        Query::Events { .. } => unreachable!("events are read without the writer"),
        Query::Token(hash) => Answer::Token(ledger.token(&hash).map(Box::new)),
        Query::Tokens { after, max } => {
            let (tokens, more) = ledger.tokens(after.as_ref(), max);
            Answer::Tokens { tokens, more }
        }
        Query::Tenants { after, max } => {
            let (tenants, more) = ledger.tenants(after.as_ref(), max);
            Answer::Tenants { tenants, more }
        }
        Query::Take(asked) => Answer::Take(ledger.take(&asked)),
        Query::Audit => Answer::Audit(Box::new(ledger.audit())),
        Query::Overview { ahead_of } => Answer::Overview(Box::new(ledger.overview(ahead_of))),
    })
}

fn complete(open: &Open, found: Found) -> Result<Option<ContainerRecord>, DbError> {
    match found {
        Found::Live(record) => Ok(Some(*record)),
        Found::Finished(id) => finished(open, id),
    }
}

/// `None` when it was pruned.
fn finished(open: &Open, id: ContainerId) -> Result<Option<ContainerRecord>, DbError> {
    let Some(arrival) = open.known.arrivals.get(&id.group) else { return Ok(None) };
    let position = Position::of(*arrival, id.index);
    let mut statement = open.db.prepare_cached(rows::SELECT_FINISHED)?;
    let mut found = statement.query(rows::position_bounds(position, Position(position.0 + 1)))?;
    let Some(row) = found.next()? else { return Ok(None) };
    Ok(open.ledger.finished_record(rows::finished_from(row, id.group)?))
}
