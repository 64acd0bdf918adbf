//! Workers of a random sequence: they attach, report and renew, right or stale, and what each
//! message must be answered.

use std::collections::{BTreeMap, BTreeSet};

use volley_ledger::{
    Attach, Found, Heartbeat, InventoryItem, Progress, Report, Schedulable, SetSchedulable, Sweep, Verdict,
    WorkerMessage,
};
use volley_model::{Attempt, ContainerId, Epoch, Millis, Nonce, SessionId, Worker, WorkerId};

use crate::cell::secs;
use crate::steps::{Said, Truth};
use crate::world::World;
use crate::world::things::{progress, worker};

impl World {
    /// Sweeps at their pace, while workers say nothing, and servers neither unless they are `beating`.
    pub(super) fn silence(&mut self, span: Millis, beating: bool) -> String {
        let mut said = String::new();
        for _ in 0..span.0 / 5_000 {
            self.cell.later(secs(5));
            if beating {
                self.beat(false);
            }
            let reply = self.call(Sweep { session: None, items_max: 50 });
            self.cell.check();
            self.count_events();
            self.count(if reply.sessions_ended > 0 { "session ended" } else { "swept" });
            said += &format!("{reply:?}");
        }
        self.cell.last = Default::default();
        said
    }

    /// Live servers renew their leases, and those of the workers they hold.
    pub(super) fn beat(&mut self, workers: bool) {
        for session in self.sessions.clone() {
            let mut beats = Vec::new();
            for (name, given) in self.epochs.iter().filter(|_| workers) {
                if let Some((epoch, stream, _)) = given.last().filter(|(_, _, of)| *of == session) {
                    beats.push((name.clone(), *stream, *epoch));
                }
            }
            self.call(Heartbeat { session, workers: beats });
        }
    }

    /// The attempts that live, as reads say.
    pub(super) fn live_attempts(&self) -> Vec<(WorkerId, ContainerId, Attempt)> {
        self.attempts.iter().filter(|(worker, id, attempt)| self.is_bound(worker, *id, *attempt)).cloned().collect()
    }

    pub(super) fn on_work(&mut self, said: &[(u8, Said)]) -> String {
        let live = self.live_attempts();
        let session = self.live_session();
        let epochs: BTreeMap<WorkerId, Epoch> =
            self.cell.ledger.workers().into_iter().map(|w| (w.view.worker.id.clone(), w.view.epoch)).collect();
        let message = |(which, said): &(u8, Said)| {
            let (worker, container, attempt) = live.get(usize::from(*which) % live.len().max(1))?.clone();
            Some(WorkerMessage { epoch: epochs[&worker], worker, container, attempt, progress: progress(*said) })
        };
        let messages: Vec<WorkerMessage> = said.iter().filter_map(message).collect();
        self.report(session, messages)
    }

    pub(super) fn on_return(&mut self, which: u8, machine: u8, forgets: Option<u8>) -> String {
        let session = self.live_session();
        let name = worker(which, 0).id;
        let mut held: Vec<InventoryItem> = self
            .live_attempts()
            .into_iter()
            .filter(|(worker, ..)| *worker == name)
            .map(|(_, container, attempt)| InventoryItem { container, attempt, progress: Progress::Running })
            .collect();
        if let Some(which) = forgets.filter(|_| !held.is_empty()) {
            held.remove(usize::from(which) % held.len());
        }
        let epoch = self.registration(&name, Truth::Right).0;
        self.attach(session, worker(which, machine), epoch, held, false)
    }

    /// A worker's name and what it was given last, or before that, or never.
    pub(super) fn registration(&mut self, name: &WorkerId, truth: Truth) -> (Option<Epoch>, Nonce, Option<SessionId>) {
        let forged = self.nonce();
        let given = self.epochs.get(name).map_or(&[][..], |given| &given[..]);
        let back = match truth {
            Truth::Right => 1,
            Truth::Older => 2,
            Truth::Absent => return (None, forged, None),
            Truth::Forged => return (Some(Epoch { number: 1, nonce: forged }), forged, None),
        };
        match given.len().checked_sub(back) {
            Some(at) => (Some(given[at].0), given[at].1, Some(given[at].2)),
            None => (None, forged, None),
        }
    }

    pub(super) fn on_attach(
        &mut self,
        which: u8,
        session: u8,
        epoch: Truth,
        held: &[(u8, Said)],
        machine: u8,
    ) -> String {
        let Some(session) = self.session(session) else { return String::new() };
        let worker = worker(which, machine);
        let name = worker.id.clone();
        let epoch = self.registration(&name, epoch).0;
        let mut inventory = Vec::new();
        for (which, said) in held {
            if let Some((_, container, attempt)) = self.attempt(*which) {
                inventory.push(InventoryItem { container, attempt, progress: progress(*said) });
            }
        }
        let late = self.nonce().0.is_multiple_of(8);
        self.attach(session, worker, epoch, inventory, late)
    }

    pub(super) fn attach(
        &mut self,
        session: SessionId,
        worker: Worker,
        epoch: Option<Epoch>,
        inventory: Vec<InventoryItem>,
        late: bool,
    ) -> String {
        let name = worker.id.clone();
        let (stream, epoch_nonce) = (self.nonce(), self.nonce());
        let known = self.cell.ledger.workers().iter().any(|w| w.view.worker.id == name);
        let full = self.cell.ledger.workers().len() >= 4;
        let affinities = (0..epoch_nonce.0 % 3).map(|number| format!("image:{number}")).collect();
        let replaces = self.cell.ledger.servers(Some(&name)).holder.map(|(_, stream)| stream);
        // One that was opened before the stream that there is.
        let replaces = if late { Some(Nonce(7)) } else { replaces };
        let inventory_said = inventory.clone();
        let op =
            Attach { session, worker, stream, replaces, epoch, epoch_nonce, inventory: inventory_said, affinities };
        let right: Vec<bool> = inventory.iter().map(|i| self.is_bound(&name, i.container, i.attempt)).collect();
        let reply = self.call(op);
        if let Err(refusal) = &reply {
            let words = format!("{refusal:?}");
            self.count(words.split([' ', '{']).next().expect("a name"));
        }
        if let Ok(reply) = &reply {
            assert!(known || !full, "the fleet is bounded");
            let mut named = BTreeSet::new();
            for ((item, right), verdict) in inventory.iter().zip(right).zip(&reply.inventory) {
                if named.insert((item.container, item.attempt)) {
                    assert_eq!(*verdict == Verdict::Keep, right, "{item:?} of {name}");
                    *self.tally.entry(format!("inventory {verdict:?}")).or_default() += 1;
                }
            }
            self.epochs.entry(name).or_default().push((reply.epoch, stream, session));
        }
        format!("{reply:?}")
    }

    pub(super) fn on_heartbeat(&mut self, session: u8, workers: &[(u8, Truth)]) -> String {
        let Some(session) = self.session(session) else { return String::new() };
        let mut beats = Vec::new();
        for (which, truth) in workers {
            let name = worker(*which, 0).id;
            if let (Some(epoch), stream, _) = self.registration(&name, *truth) {
                beats.push((name, stream, epoch));
            }
        }
        let reply = self.call(Heartbeat { session, workers: beats });
        assert_eq!(self.cell.last.changes, [], "a heartbeat is volatile");
        format!("{reply:?}")
    }

    pub(super) fn on_report(&mut self, session: u8, said: &[(u8, Said, Truth)]) -> String {
        let session = self.session(session).unwrap_or(SessionId(0));
        let mut messages = Vec::new();
        for (which, said, truth) in said {
            let Some((name, container, attempt)) = self.attempt(*which) else { continue };
            let Some(epoch) = self.registration(&name, *truth).0 else { continue };
            messages.push(WorkerMessage { worker: name, epoch, container, attempt, progress: progress(*said) });
        }
        self.report(session, messages)
    }

    pub(super) fn report(&mut self, session: SessionId, messages: Vec<WorkerMessage>) -> String {
        let epoch_of = |world: &Self, name: &WorkerId| {
            world.cell.ledger.workers().into_iter().find(|w| w.view.worker.id == *name).map(|w| w.view.epoch)
        };
        let right: Vec<bool> = messages
            .iter()
            .map(|m| self.is_bound(&m.worker, m.container, m.attempt) && epoch_of(self, &m.worker) == Some(m.epoch))
            .collect();
        let verdicts = self.call(Report { session, messages: messages.clone() });
        assert_eq!(verdicts.len(), messages.len());
        let mut ended = BTreeSet::new();
        for ((message, right), verdict) in messages.iter().zip(right).zip(&verdicts) {
            let expected = right && !ended.contains(&message.container);
            assert_eq!(*verdict == Verdict::Keep, expected, "law 8: {message:?}");
            *self.tally.entry(format!("report {verdict:?}")).or_default() += 1;
            if expected && matches!(message.progress, Progress::Ended(_)) {
                ended.insert(message.container);
            }
        }
        format!("{verdicts:?}")
    }

    pub(super) fn on_schedulable(&mut self, which: u8, to: u8) -> String {
        let to = match to {
            0 | 1 => Schedulable::Open,
            2 => Schedulable::Cordoned,
            3 => Schedulable::Drain { deadline: None },
            _ => Schedulable::Drain { deadline: Some(secs(5)) },
        };
        format!("{:?}", self.call(SetSchedulable { worker: worker(which, 0).id, to }))
    }

    /// One of the attempts there ever were, mostly a late one.
    pub(super) fn attempt(&self, which: u8) -> Option<(WorkerId, ContainerId, Attempt)> {
        let newest = self.attempts.len().checked_sub(1)?;
        self.attempts.get(newest - usize::from(which) % (newest + 1).min(32)).cloned()
    }

    /// Whether an attempt is the authoritative one, as a read says.
    pub(super) fn is_bound(&self, worker: &WorkerId, container: ContainerId, attempt: Attempt) -> bool {
        match self.cell.ledger.container(container, None) {
            Some(Found::Live(record)) => record.attempt == Some(attempt) && record.worker.as_ref() == Some(worker),
            _ => false,
        }
    }
}
