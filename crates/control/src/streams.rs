//! Which workers' streams this server holds, and how far each was handed its outbox. A worker may
//! have several: the store knows which of them is not fenced, and the others end by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use volley_ledger::TakeFrom;
use volley_model::{DeliveryNumber, Epoch, Nonce, WorkerId};

#[derive(Debug, Clone)]
struct Stream {
    epoch: Epoch,
    after: DeliveryNumber,
    /// The number of a heartbeat that is not yet passed on.
    heartbeat: Option<u64>,
    ready: bool,
}

/// The streams held, and which of them have something to take.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: BTreeMap<Key, Stream>,
    marked: BTreeSet<Key>,
}

type Key = (WorkerId, Nonce);

impl Inner {
    fn of_worker(&self, worker: &WorkerId) -> impl Iterator<Item = &Key> {
        let all = (worker.clone(), Nonce(u64::MIN))..=(worker.clone(), Nonce(u64::MAX));
        self.held.range(all).map(|(key, _)| key)
    }
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are held.
    pub(crate) fn count(&self) -> usize {
        self.lock().held.len()
    }

    /// A stream was attached; it gets deliveries once it is ready.
    pub(crate) fn attach(&self, worker: WorkerId, nonce: Nonce, epoch: Epoch) {
        let stream = Stream { epoch, after: DeliveryNumber(0), heartbeat: None, ready: false };
        self.lock().held.insert((worker, nonce), stream);
    }

    pub(crate) fn ready(&self, worker: &WorkerId, nonce: Nonce) {
        let mut inner = self.lock();
        let key = (worker.clone(), nonce);
        if let Some(stream) = inner.held.get_mut(&key) {
            stream.ready = true;
            inner.marked.insert(key);
        }
    }

    pub(crate) fn detach(&self, worker: &WorkerId, nonce: Nonce) {
        self.lock().held.remove(&(worker.clone(), nonce));
    }

    /// All of them are given up: whose they were, and which.
    pub(crate) fn give_up(&self) -> Vec<(WorkerId, Nonce)> {
        std::mem::take(&mut self.lock().held).into_keys().collect()
    }

    /// These outboxes have something new.
    pub(crate) fn mark<'a>(&self, workers: impl IntoIterator<Item = &'a WorkerId>) {
        let mut inner = self.lock();
        for worker in workers {
            let keys: Vec<Key> = inner.of_worker(worker).cloned().collect();
            inner.marked.extend(keys);
        }
    }

    /// All of them: hints were lost.
    pub(crate) fn mark_all(&self) {
        let mut inner = self.lock();
        let all: Vec<Key> = inner.held.keys().cloned().collect();
        inner.marked.extend(all);
    }

    /// What to take now.
    pub(crate) fn to_take(&self) -> Vec<TakeFrom> {
        let mut inner = self.lock();
        let marked = std::mem::take(&mut inner.marked);
        let ready = |key: Key| {
            let after = inner.held.get(&key).filter(|stream| stream.ready)?.after;
            Some(TakeFrom { worker: key.0, stream: key.1, after })
        };
        marked.into_iter().filter_map(ready).collect()
    }

    /// A worker's outbox was handed over up to here; where there is more it is taken next.
    pub(crate) fn handed(&self, worker: &WorkerId, nonce: Nonce, to: DeliveryNumber, more: bool) {
        let mut inner = self.lock();
        let key = (worker.clone(), nonce);
        if let Some(stream) = inner.held.get_mut(&key) {
            stream.after = stream.after.max(to);
            if more {
                inner.marked.insert(key);
            }
        }
    }

    pub(crate) fn heartbeat(&self, worker: &WorkerId, nonce: Nonce, number: u64) {
        if let Some(stream) = self.lock().held.get_mut(&(worker.clone(), nonce)) {
            stream.heartbeat = Some(number);
        }
    }

    /// Heartbeats to pass on, with their numbers.
    pub(crate) fn heartbeats(&self) -> Vec<(WorkerId, Nonce, Epoch, u64)> {
        let mut inner = self.lock();
        let due = |((worker, nonce), stream): (&Key, &mut Stream)| {
            Some((worker.clone(), *nonce, stream.epoch, stream.heartbeat.take()?))
        };
        inner.held.iter_mut().filter_map(due).collect()
    }
}
