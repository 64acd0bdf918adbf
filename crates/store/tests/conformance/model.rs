//! The bare ledger as a store: its records on a disk of maps. The measure for all others.

use volley_ledger::{
    Answer, ContainerPage, ContainerRecord, EventPage, Found, Ledger, LedgerOptions, Operation, Query, Reply,
};
use volley_model::Timestamp;

use crate::disk::Disk;

/// The ledger and what it would have on disk.
pub struct Model {
    pub ledger: Ledger,
    disk: Disk,
}

impl Model {
    pub fn new(options: LedgerOptions) -> Self {
        Self { ledger: Ledger::new(options), disk: Disk::default() }
    }

    pub fn apply(&mut self, now: Timestamp, operation: Operation) -> Reply {
        let (reply, set) = self.ledger.apply(now, operation);
        self.disk.apply(&set, self.ledger.counters());
        reply
    }

    pub fn restart(&mut self) {
        let options = self.ledger.options().clone();
        self.ledger = Ledger::restore(options, self.disk.stored()).expect("what was written is whole");
    }

    pub fn read(&self, query: Query) -> Answer {
        let ledger = &self.ledger;
        match query {
            Query::Container(id, scope) => {
                let found = ledger.container(id, scope.as_ref());
                Answer::Container(found.and_then(|found| self.complete(found)).map(Box::new))
            }
            Query::Group(id, scope) => Answer::Group(ledger.group(id, scope.as_ref()).map(Box::new)),
            Query::Prefix(text, scope) => Answer::Prefix(ledger.prefix(&text, scope.as_ref())),
            Query::List(query) => {
                let page = ledger.list(&query);
                let containers = page.containers.into_iter().filter_map(|found| self.complete(found)).collect();
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
            Query::Token(hash) => Answer::Token(ledger.token(&hash).map(Box::new)),
            Query::Tokens { after, max } => {
                let (tokens, more) = ledger.tokens(after.as_ref(), max);
                Answer::Tokens { tokens, more }
            }
            Query::Tenants { after, max } => {
                let (tenants, more) = ledger.tenants(after.as_ref(), max);
                Answer::Tenants { tenants, more }
            }
            Query::Events { after, max, scope } => {
                let oldest = ledger.events_floor();
                let kept = self.disk.events.range(oldest.max(after.next())..);
                let mut events: Vec<_> = kept.take(max as usize).map(|(_, event)| event.clone()).collect();
                let seen = events.last().map_or(after, |event| event.number);
                events.retain(|event| ledger.shows(event, scope.as_ref()));
                Answer::Events(EventPage { events, oldest, last: ledger.counters().last_event, seen })
            }
            Query::Take(asked) => Answer::Take(ledger.take(&asked)),
            Query::Audit => Answer::Audit(Box::new(ledger.audit())),
            Query::Overview { ahead_of } => Answer::Overview(Box::new(ledger.overview(ahead_of))),
        }
    }

    fn complete(&self, found: Found) -> Option<ContainerRecord> {
        match found {
            Found::Live(record) => Some(*record),
            Found::Finished(id) => self.ledger.finished_record(self.disk.finished.get(&id)?.clone()),
        }
    }
}
