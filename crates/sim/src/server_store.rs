//! One server's way to the cell: calls take time, and are lost, late, doubled and refused as
//! the faults say; hints are too. A frozen server's calls wait, a dead one's come to nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::sleep;
use volley_ledger::{Answer, Hint, Operation, Query, Reply};
use volley_store::{Store, StoreError, StoreFuture, StoreStats};

use crate::cell::Cell;
use crate::chance::Chance;
use crate::faults::Faults;
use crate::flag::Flag;

/// Hints a server may lag behind: few, so that lagging happens.
const HINTS_KEPT: usize = 16;
/// After this a call that was not answered is "unknown".
const CALL_WAIT: Duration = Duration::from_secs(2);

/// A server's store.
pub(crate) struct ServerStore {
    server: usize,
    cell: Cell,
    chance: Chance,
    faults: Faults,
    hints: broadcast::Sender<Hint>,
    /// All servers' hints, this one's included.
    all: HintSenders,
    dead: AtomicBool,
    frozen: Flag,
    operations: AtomicU64,
}

/// Where hints go to: every server, whoever made the call.
pub(crate) type HintSenders = std::sync::Arc<std::sync::Mutex<Vec<Option<broadcast::Sender<Hint>>>>>;

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Fine,
    NeverArrives,
    ArrivesLate,
    AnswerLost,
    /// Arrives once more, later.
    Doubled,
    Refused,
    StoreDies {
        written: bool,
    },
}

impl ServerStore {
    pub(crate) fn new(server: usize, cell: Cell, chance: Chance, faults: Faults, all: HintSenders) -> Self {
        let hints = broadcast::channel(HINTS_KEPT).0;
        all.lock().expect("never held over a panic")[server] = Some(hints.clone());
        let (dead, operations) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { server, cell, chance, faults, hints, all, dead, frozen: Flag::default(), operations }
    }

    /// The server died: nothing comes back any more.
    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.all.lock().expect("never held over a panic")[self.server] = None;
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.set(frozen);
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    async fn thawed(&self) {
        self.frozen.is(false).await;
    }

    fn fate(&self) -> Fate {
        let rates = self.faults.rates();
        let mut draw = self.chance.within(0..1_000);
        let fates = [
            (rates.never_arrives, Fate::NeverArrives),
            (rates.arrives_late, Fate::ArrivesLate),
            (rates.answer_lost, Fate::AnswerLost),
            (rates.doubled, Fate::Doubled),
            (rates.refused, Fate::Refused),
            (rates.store_dies, Fate::StoreDies { written: self.chance.per_mille(500) }),
        ];
        for (rate, fate) in fates {
            if draw < rate {
                return fate;
            }
            draw -= rate;
        }
        Fate::Fine
    }

    fn now(&self, operation: Operation) -> Reply {
        self.operations.fetch_add(1, Ordering::Relaxed);
        let (reply, hints) = self.cell.apply(self.server, operation);
        spread(&self.all, &self.chance, &self.faults, &hints);
        reply
    }

    /// The operation arrives after some time, whoever waits for it.
    fn later(&self, operation: Operation) {
        let (cell, chance, faults) = (self.cell.clone(), self.chance.clone(), self.faults.clone());
        let (server, all) = (self.server, HintSenders::clone(&self.all));
        let wait = chance.millis(10..self.faults.rates().late_millis_max.max(11));
        tokio::spawn(async move {
            sleep(wait).await;
            let (_, hints) = cell.apply(server, operation);
            spread(&all, &chance, &faults, &hints);
        });
    }

    async fn call(&self, operation: Operation) -> Result<Reply, StoreError> {
        self.thawed().await;
        if self.is_dead() {
            return Err(StoreError::Closed);
        }
        let latency = self.faults.rates().latency_millis_max.max(1);
        sleep(self.chance.millis(0..latency)).await;
        let life = self.cell.life();
        let unknown = || Err(StoreError::Unknown { reason: "no answer in time".to_owned() });
        let reply = match self.fate() {
            Fate::Fine => self.now(operation),
            Fate::NeverArrives => {
                sleep(CALL_WAIT).await;
                return unknown();
            }
            Fate::ArrivesLate => {
                self.later(operation);
                sleep(CALL_WAIT).await;
                return unknown();
            }
            Fate::AnswerLost => {
                self.now(operation);
                sleep(CALL_WAIT).await;
                return unknown();
            }
            Fate::Doubled => {
                self.later(operation.clone());
                self.now(operation)
            }
            Fate::Refused => return Err(StoreError::Unavailable { reason: "not now".to_owned() }),
            Fate::StoreDies { written } => {
                self.cell.apply_and_die(self.server, operation, written);
                return unknown();
            }
        };
        sleep(self.chance.millis(0..latency)).await;
        self.thawed().await;
        if self.is_dead() {
            // Nobody is there to hear it.
            std::future::pending::<()>().await;
        }
        if self.cell.life() != life { unknown() } else { Ok(reply) }
    }
}

/// Hints to every server, each lost, late or doubled on its own.
fn spread(all: &HintSenders, chance: &Chance, faults: &Faults, hints: &[Hint]) {
    let senders: Vec<_> = all.lock().expect("never held over a panic").iter().flatten().cloned().collect();
    for hint in hints {
        for sender in &senders {
            let rates = faults.rates();
            if chance.per_mille(rates.hint_lost) {
                continue;
            }
            let times = if chance.per_mille(rates.hint_doubled) { 2 } else { 1 };
            for _ in 0..times {
                let (sender, hint) = (sender.clone(), hint.clone());
                let wait = chance.millis(0..rates.latency_millis_max.max(1));
                tokio::spawn(async move {
                    sleep(wait).await;
                    // Its server may have died.
                    let _ = sender.send(hint);
                });
            }
        }
    }
}

impl Store for ServerStore {
    fn apply(&self, operation: Operation) -> StoreFuture<'_, Reply> {
        Box::pin(self.call(operation))
    }

    fn read(&self, query: Query) -> StoreFuture<'_, Answer> {
        Box::pin(async move {
            self.thawed().await;
            if self.is_dead() {
                return Err(StoreError::Closed);
            }
            let rates = self.faults.rates();
            sleep(self.chance.millis(0..rates.latency_millis_max.max(1))).await;
            if self.chance.per_mille(rates.refused) {
                return Err(StoreError::Unavailable { reason: "not now".to_owned() });
            }
            let unknown = || StoreError::Unavailable { reason: "nobody reads this here".to_owned() };
            self.cell.read(query).ok_or_else(unknown)
        })
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    fn backup(&self, _file: PathBuf) -> StoreFuture<'_, ()> {
        Box::pin(async { Err(StoreError::Unavailable { reason: "a simulated store has no files".to_owned() }) })
    }

    fn stats(&self) -> StoreStats {
        StoreStats { operations: self.operations.load(Ordering::Relaxed), ..StoreStats::default() }
    }
}
