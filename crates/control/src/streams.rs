//! Which workers' streams this server holds, and how far each was handed its outbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use volley_ledger::TakeFrom;
use volley_model::{DeliveryNumber, Epoch, Nonce, WorkerId};

#[derive(Debug, Clone)]
struct Stream {
    nonce: Nonce,
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
    held: BTreeMap<WorkerId, Stream>,
    marked: BTreeSet<WorkerId>,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream was attached; it gets deliveries once it is ready.
    pub(crate) fn attach(&self, worker: WorkerId, nonce: Nonce, epoch: Epoch) {
        let stream = Stream { nonce, epoch, after: DeliveryNumber(0), heartbeat: None, ready: false };
        self.lock().held.insert(worker, stream);
    }

    pub(crate) fn ready(&self, worker: &WorkerId, nonce: Nonce) {
        let mut inner = self.lock();
        if let Some(stream) = inner.held.get_mut(worker).filter(|stream| stream.nonce == nonce) {
            stream.ready = true;
            inner.marked.insert(worker.clone());
        }
    }

    pub(crate) fn detach(&self, worker: &WorkerId, nonce: Nonce) {
        let mut inner = self.lock();
        if inner.held.get(worker).is_some_and(|stream| stream.nonce == nonce) {
            inner.held.remove(worker);
        }
    }

    /// These outboxes have something new.
    pub(crate) fn mark<'a>(&self, workers: impl IntoIterator<Item = &'a WorkerId>) {
        let mut inner = self.lock();
        for worker in workers {
            if inner.held.contains_key(worker) {
                inner.marked.insert(worker.clone());
            }
        }
    }

    /// All of them: hints were lost.
    pub(crate) fn mark_all(&self) {
        let mut inner = self.lock();
        let all: Vec<WorkerId> = inner.held.keys().cloned().collect();
        inner.marked.extend(all);
    }

    /// What to take now.
    pub(crate) fn to_take(&self) -> Vec<TakeFrom> {
        let mut inner = self.lock();
        let marked = std::mem::take(&mut inner.marked);
        let ready = |worker: WorkerId| {
            let stream = inner.held.get(&worker).filter(|stream| stream.ready)?;
            Some(TakeFrom { worker, stream: stream.nonce, after: stream.after })
        };
        marked.into_iter().filter_map(ready).collect()
    }

    /// A worker's outbox was handed over up to here.
    pub(crate) fn handed(&self, worker: &WorkerId, nonce: Nonce, to: DeliveryNumber) {
        let mut inner = self.lock();
        if let Some(stream) = inner.held.get_mut(worker).filter(|stream| stream.nonce == nonce) {
            stream.after = stream.after.max(to);
        }
        // A take is bounded: there may be more.
        inner.marked.insert(worker.clone());
    }

    pub(crate) fn heartbeat(&self, worker: &WorkerId, nonce: Nonce, number: u64) {
        if let Some(stream) = self.lock().held.get_mut(worker).filter(|stream| stream.nonce == nonce) {
            stream.heartbeat = Some(number);
        }
    }

    /// Heartbeats to pass on, with their numbers.
    pub(crate) fn heartbeats(&self) -> Vec<(WorkerId, Nonce, Epoch, u64)> {
        let mut inner = self.lock();
        let due = |(worker, stream): (&WorkerId, &mut Stream)| {
            Some((worker.clone(), stream.nonce, stream.epoch, stream.heartbeat.take()?))
        };
        inner.held.iter_mut().filter_map(due).collect()
    }
}
