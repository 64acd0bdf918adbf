//! What workers say of attempts that do not run yet, as in "pulling: 12Mi of 40Mi": of this
//! moment, kept by the server that holds the worker's stream, gone with it. Nothing is decided by it,
//! and nothing of it is recorded.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use volley_ledger::ContainerRecord;
use volley_model::{Attempt, ContainerId, WorkerId};

/// Attempts of which something is kept: more than start at a time.
const DETAILS_MAX: usize = 100_000;
/// Longest detail that is kept, in characters.
const WORDS_CHARS_MAX: usize = 200;
/// Details that wait for a slow reader; it misses older ones.
const NEWS_MAX: usize = 1_000;

/// How far an attempt is, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// Whose.
    pub container: ContainerId,
    /// Which attempt.
    pub attempt: Attempt,
    /// Who says so.
    pub worker: WorkerId,
    /// In words.
    pub words: String,
}

/// The last detail of each attempt.
#[derive(Debug)]
pub struct Details {
    said: Mutex<BTreeMap<ContainerId, Detail>>,
    news: broadcast::Sender<Detail>,
}

impl Default for Details {
    fn default() -> Self {
        Self { said: Mutex::default(), news: broadcast::channel(NEWS_MAX).0 }
    }
}

impl Details {
    fn said(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Detail>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker says how far an attempt is.
    pub fn on_detail(&self, mut detail: Detail) {
        if let Some((end, _)) = detail.words.char_indices().nth(WORDS_CHARS_MAX) {
            detail.words.truncate(end);
        }
        let mut said = self.said();
        if said.len() < DETAILS_MAX || said.contains_key(&detail.container) {
            said.insert(detail.container, detail.clone());
        }
        drop(said);
        // Nobody may listen.
        let _ = self.news.send(detail);
    }

    /// What is said of a container's present attempt by the worker that has it.
    #[must_use]
    pub fn of(&self, record: &ContainerRecord) -> Option<String> {
        let said = self.said();
        let detail = said.get(&record.id)?;
        let its = record.worker.as_ref() == Some(&detail.worker) && record.attempt == Some(detail.attempt);
        (its && record.started_at.is_none() && record.outcome.is_none()).then(|| detail.words.clone())
    }

    /// What is said from now on.
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<Detail> {
        self.news.subscribe()
    }

    /// The attempt runs, or has ended.
    pub(crate) fn forget(&self, worker: &WorkerId, container: ContainerId) {
        let mut said = self.said();
        if said.get(&container).is_some_and(|detail| detail.worker == *worker) {
            said.remove(&container);
        }
    }

    /// The worker's stream is gone.
    pub(crate) fn forget_worker(&self, worker: &WorkerId) {
        self.said().retain(|_, detail| detail.worker != *worker);
    }
}

#[cfg(test)]
mod tests {
    use volley_model::{GroupId, Nonce};

    use super::*;

    fn detail(index: u32, worker: &str) -> Detail {
        Detail {
            container: ContainerId { group: GroupId(1), index },
            attempt: Attempt { number: 1, nonce: Nonce(7) },
            worker: WorkerId::new(worker).expect("a name"),
            words: "x".repeat(WORDS_CHARS_MAX + 1),
        }
    }

    #[test]
    fn details_are_bounded_told_and_forgotten_with_what_they_are_about() {
        let details = Details::default();
        let mut news = details.news();
        details.on_detail(detail(0, "a"));
        details.on_detail(detail(1, "b"));
        assert_eq!(news.try_recv().expect("told").words.len(), WORDS_CHARS_MAX);
        details.forget(&detail(0, "b").worker, detail(0, "b").container);
        assert_eq!(details.said().len(), 2, "another worker's word does not count");
        details.forget(&detail(0, "a").worker, detail(0, "a").container);
        details.forget_worker(&detail(1, "b").worker);
        assert!(details.said().is_empty());
    }
}
