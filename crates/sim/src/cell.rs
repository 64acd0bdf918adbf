//! The one ledger of a run: applies operations at virtual time with all laws after each, keeps
//! what a database would, and dies and comes back from what was stored.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use volley_ledger::change::StoredFinished;
use volley_ledger::{
    Answer, Change, ContainerRecord, Event, EventPage, Found, Hint, Ledger, LedgerOptions, Operation, Query, Reply,
};
use volley_model::{ContainerId, ContainerState, EventNumber, Timestamp};

use crate::record::Record;

/// The first moment, in milliseconds since 1970: any will do.
const EPOCH: u64 = 1_700_000_000_000;

/// The ledger and its storage; clones are the same.
#[derive(Clone)]
pub(crate) struct Cell {
    started: Instant,
    record: Record,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    ledger: Ledger,
    finished: BTreeMap<ContainerId, StoredFinished>,
    events: Vec<Event>,
    /// What the clock was set forward by.
    ahead: Duration,
    /// Lives of the store: a reply from an earlier one does not arrive.
    life: u64,
    claims: u64,
    /// All laws are looked at after each operation.
    audited: bool,
}

impl Cell {
    pub(crate) fn new(options: LedgerOptions, record: Record) -> Self {
        let inner = Inner {
            ledger: Ledger::new(options),
            finished: BTreeMap::new(),
            events: Vec::new(),
            ahead: Duration::ZERO,
            life: 0,
            claims: 0,
            audited: true,
        };
        Self { started: Instant::now(), record, inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims so far: who spins, claims.
    pub(crate) fn claims(&self) -> u64 {
        self.lock().claims
    }

    /// Containers that wait or are in a turn.
    pub(crate) fn waiting(&self) -> u64 {
        let states = self.lock().ledger.overview(None).containers;
        let waiting = [ContainerState::Queued, ContainerState::Claimed];
        waiting.iter().filter_map(|state| states.get(state)).sum()
    }

    pub(crate) fn life(&self) -> u64 {
        self.lock().life
    }

    /// The clock of the store jumps.
    pub(crate) fn jump(&self, span: Duration) {
        self.lock().ahead += span;
    }

    /// One operation; what it changes is on disk with it. Gives the reply and the hints.
    pub(crate) fn apply(&self, server: usize, operation: Operation) -> (Reply, Vec<Hint>) {
        let mut inner = self.lock();
        let now = self.now(&inner);
        inner.claims += u64::from(matches!(operation, Operation::Claim(_)));
        let words = format!("server {server}: {operation:?}");
        let ledger = &mut inner.ledger;
        let applied = catch_unwind(AssertUnwindSafe(|| ledger.apply(now, operation)));
        let (reply, changes) = applied.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
            self.record.note(&words);
            self.record.fail(format!("the ledger panics: {}", said.unwrap_or_default()));
            std::panic::resume_unwind(panic)
        });
        self.record.note(format!("{words} -> {reply:?}"));
        for change in changes.changes {
            match change {
                Change::Finish(finished) => drop(inner.finished.insert(finished.id, finished)),
                Change::Prune(id) => drop(inner.finished.remove(&id)),
                _ => {}
            }
        }
        inner.events.extend(changes.events);
        self.check(&inner);
        (reply, changes.hints)
    }

    /// The operation and the store die in the middle of it: on disk is either all of it or nothing.
    pub(crate) fn apply_and_die(&self, server: usize, operation: Operation, written: bool) {
        self.record.note(format!("the store dies; written: {written}"));
        if written {
            self.apply(server, operation);
        }
        self.restart();
    }

    /// The store dies and comes back with what it stored.
    pub(crate) fn restart(&self) {
        let mut inner = self.lock();
        inner.life += 1;
        let (options, stored) = (inner.ledger.options().clone(), inner.ledger.stored());
        match Ledger::restore(options, stored) {
            Ok(ledger) => inner.ledger = ledger,
            Err(error) => self.record.fail(format!("law 5: the store does not come back: {error}")),
        }
        self.record.note("the store is back");
        self.check(&inner);
    }

    fn now(&self, inner: &Inner) -> Timestamp {
        let passed = self.started.elapsed() + inner.ahead;
        Timestamp(EPOCH + passed.as_millis() as u64)
    }

    /// From now on only the ledger's own checks count: for runs in which nothing goes wrong and much happens.
    pub(crate) fn audit_no_more(&self) {
        self.lock().audited = false;
    }

    fn check(&self, inner: &Inner) {
        if !inner.audited {
            return;
        }
        for violation in inner.ledger.audit().violations {
            self.record.fail(violation);
        }
    }

    /// As a store answers; `None` to what nobody asks for here.
    pub(crate) fn read(&self, query: Query) -> Option<Answer> {
        let inner = self.lock();
        let ledger = &inner.ledger;
        Some(match query {
            Query::Container(id, scope) => {
                let found = ledger.container(id, scope.as_ref()).and_then(|found| inner.complete(found));
                Answer::Container(found.map(Box::new))
            }
            Query::Events { after, max, .. } => Answer::Events(inner.events(after, max)),
            Query::Take(asked) => Answer::Take(ledger.take(&asked)),
            Query::Pools => Answer::Pools(ledger.pools()),
            Query::Fleet { known, max } => Answer::Fleet(Box::new(ledger.fleet(known, max))),
            Query::Scale => Answer::Scale(Box::new(ledger.scale_state())),
            Query::Overview { ahead_of } => Answer::Overview(Box::new(ledger.overview(ahead_of))),
            Query::Servers { worker } => Answer::Servers(Box::new(ledger.servers(worker.as_ref()))),
            Query::Audit => Answer::Audit(Box::new(ledger.audit())),
            _ => return None,
        })
    }
}

impl Inner {
    fn complete(&self, found: Found) -> Option<ContainerRecord> {
        match found {
            Found::Live(record) => Some(*record),
            Found::Finished(id) => self.ledger.finished_record(self.finished.get(&id)?.clone()),
        }
    }

    fn events(&self, after: EventNumber, max: u32) -> EventPage {
        let oldest = self.ledger.events_floor();
        let kept = self.events.iter().filter(|event| event.number > after && event.number >= oldest);
        let events: Vec<Event> = kept.take(max as usize).cloned().collect();
        let seen = events.last().map_or(after, |event| event.number);
        EventPage { events, oldest, seen, last: self.ledger.counters().last_event }
    }
}
