//! What a worker knows of its attempts, and what of it the server has not heard: the book that
//! reports and inventories are made from. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use volley_metrics::AttemptMetrics;
use volley_model::{Attempt, ContainerId, Millis, OnDisconnect, Outcome, Progress, StopCause};

use volley_wire::convert::progress_number as rank;

use crate::{Happened, Launch};

/// An attempt's name.
pub(crate) type Key = (ContainerId, Attempt);

/// Most reports of one message.
const REPORTS_MAX: usize = 1_000;

#[derive(Debug)]
struct Held {
    /// Goes on when the lease ends.
    keep: bool,
    grace: Millis,
    progress: Progress,
    /// The server asked for its end; else an end by a stop is a loss, and another attempt may follow.
    stop_asked: bool,
    /// What the server answered to, as [`rank`] numbers it.
    answered: u32,
    /// Told since the last repeat.
    told: bool,
    /// When it was ordered, as far as this life knows.
    since: Instant,
}

/// What a verdict asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    GoOn,
    /// The server has its end.
    Forget,
    /// It is not this worker's any more.
    Kill,
}

/// All attempts that the server has not acknowledged the end of.
#[derive(Debug)]
pub(crate) struct Attempts {
    metrics: AttemptMetrics,
    running: u32,
    held: BTreeMap<Key, Held>,
    /// To be reported.
    due: BTreeSet<Key>,
}

impl Attempts {
    pub(crate) fn new(metrics: AttemptMetrics) -> Self {
        Self { metrics, running: 0, held: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// Shows how many there are.
    fn count(&self) {
        self.metrics.held.set(self.held.len() as f64);
        self.metrics.running.set(f64::from(self.running));
    }

    /// Notes a new attempt; false when it is known.
    pub(crate) fn accept(&mut self, launch: &Launch, progress: Progress) -> bool {
        let key = (launch.container, launch.attempt);
        if self.held.contains_key(&key) {
            return false;
        }
        let keep = launch.spec.on_disconnect == OnDisconnect::Keep;
        let grace = launch.spec.stop_grace;
        self.running += u32::from(progress == Progress::Running);
        let since = Instant::now();
        self.held.insert(key, Held { keep, grace, progress, stop_asked: false, answered: 0, told: false, since });
        self.due.insert(key);
        self.count();
        true
    }

    /// What became of an attempt.
    pub(crate) fn on_happened(&mut self, key: Key, happened: Happened) {
        let Some(held) = self.held.get_mut(&key) else { return };
        let progress = match happened {
            Happened::Waits(_) => return,
            Happened::Running => Progress::Running,
            Happened::Ended(Outcome::Stopped { .. }) if !held.stop_asked => Progress::Ended(Outcome::Lost),
            Happened::Ended(outcome) => Progress::Ended(outcome),
        };
        if rank(&progress) > rank(&held.progress) {
            let (was_running, running) = (held.progress == Progress::Running, progress == Progress::Running);
            self.running = self.running + u32::from(running) - u32::from(was_running);
            match &progress {
                Progress::Ended(outcome) => self.metrics.run.observe([ended(outcome)], held.since.elapsed()),
                _ => self.metrics.start.observe([], held.since.elapsed()),
            }
            held.progress = progress;
            held.told = false;
            self.due.insert(key);
            self.count();
        }
    }

    /// The server asks for an attempt's end. False when it is not here: then its end is reported.
    pub(crate) fn on_stop(&mut self, key: Key) -> bool {
        if let Some(held) = self.held.get_mut(&key) {
            held.stop_asked = true;
            return true;
        }
        let progress = Progress::Ended(Outcome::Stopped { by: StopCause::Client });
        let (grace, since) = (Millis(0), Instant::now());
        let held = Held { keep: false, grace, progress, stop_asked: true, answered: 0, told: false, since };
        self.held.insert(key, held);
        self.due.insert(key);
        false
    }

    /// Something is to be reported.
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// What is to be reported now; the last thing that happened stands for all before.
    pub(crate) fn take_due(&mut self) -> Vec<(Key, Progress)> {
        let mut reports = Vec::new();
        while reports.len() < REPORTS_MAX {
            let Some(key) = self.due.pop_first() else { break };
            let Some(held) = self.held.get_mut(&key) else { continue };
            if rank(&held.progress) > held.answered {
                held.told = true;
                reports.push((key, held.progress.clone()));
            }
        }
        reports
    }

    /// The server's answer to a report.
    pub(crate) fn on_verdict(&mut self, key: Key, answers: u32, keep: bool) -> Next {
        let Some(held) = self.held.get_mut(&key) else { return Next::GoOn };
        held.answered = held.answered.max(answers);
        let ended = matches!(held.progress, Progress::Ended(_));
        if keep && !(ended && held.answered == rank(&held.progress)) {
            return Next::GoOn;
        }
        self.running -= u32::from(held.progress == Progress::Running);
        self.held.remove(&key);
        self.due.remove(&key);
        self.count();
        if ended { Next::Forget } else { Next::Kill }
    }

    /// Reports that have no verdict are due again. Called now and then: what was told since the last call waits for
    /// the next.
    pub(crate) fn repeat(&mut self) {
        for (key, held) in &mut self.held {
            if rank(&held.progress) > held.answered && !std::mem::take(&mut held.told) {
                self.due.insert(*key);
            }
        }
    }

    /// Whether some report has no verdict yet.
    pub(crate) fn unanswered(&self) -> bool {
        self.held.values().any(|held| rank(&held.progress) > held.answered)
    }

    /// All of them, for a new stream.
    pub(crate) fn inventory(&self) -> Vec<(Key, Progress)> {
        self.held.iter().map(|(key, held)| (*key, held.progress.clone())).collect()
    }

    /// Those whose processes are to end, with their grace: all but those to keep.
    pub(crate) fn to_stop(&self) -> Vec<(Key, Millis)> {
        let going = |held: &&Held| !held.keep && !matches!(held.progress, Progress::Ended(_));
        self.held.iter().filter(|(_, held)| going(held)).map(|(key, held)| (*key, held.grace)).collect()
    }

    /// Nothing is left but what goes on without a worker.
    pub(crate) fn only_kept(&self) -> bool {
        self.held.values().all(|held| held.keep && !matches!(held.progress, Progress::Ended(_)))
    }

    /// Nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// The label of an end.
fn ended(outcome: &Outcome) -> &'static str {
    match outcome {
        outcome if outcome.is_success() => "success",
        Outcome::Exited { .. } => "exited",
        Outcome::Stopped { .. } => "stopped",
        Outcome::Lost => "lost",
        Outcome::Failed { .. } | Outcome::Expired | Outcome::Unplaceable { .. } => "failed",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use volley_model::{GroupId, Nonce, Spec};

    use super::*;

    const DONE: Outcome = Outcome::Exited { code: 0, signal: None };
    const STOPPED: Outcome = Outcome::Stopped { by: StopCause::Client };

    fn none() -> Attempts {
        Attempts::new(volley_metrics::WorkerMetrics::default().attempts)
    }

    fn launch(index: u32, keep: bool) -> Launch {
        let mut spec = Spec::of_command("true", &[]);
        spec.on_disconnect = if keep { OnDisconnect::Keep } else { OnDisconnect::Stop };
        let (container, attempt) = (ContainerId { group: GroupId(1), index }, Attempt { number: 1, nonce: Nonce(9) });
        Launch { container, attempt, spec: Arc::new(spec), gpus: Vec::new() }
    }

    fn accepted(keep: bool) -> (Attempts, Key) {
        let mut attempts = none();
        let launch = launch(0, keep);
        assert!(attempts.accept(&launch, Progress::Accepted));
        assert!(!attempts.accept(&launch, Progress::Accepted), "once");
        (attempts, (launch.container, launch.attempt))
    }

    #[test]
    fn the_last_thing_that_happened_stands_for_all_before() {
        let (mut attempts, key) = accepted(false);
        attempts.on_happened(key, Happened::Running);
        attempts.on_happened(key, Happened::Ended(DONE));
        assert_eq!(attempts.take_due(), [(key, Progress::Ended(DONE))]);
        assert!(!attempts.has_due());
        assert_eq!(attempts.on_verdict(key, 3, true), Next::Forget);
        assert!(attempts.is_empty());
    }

    #[test]
    fn what_is_not_answered_is_repeated_but_not_at_once() {
        let (mut attempts, key) = accepted(false);
        assert_eq!(attempts.take_due().len(), 1);
        attempts.repeat();
        assert!(!attempts.has_due(), "told a moment ago");
        attempts.repeat();
        assert_eq!(attempts.take_due(), [(key, Progress::Accepted)]);
        assert_eq!(attempts.on_verdict(key, 1, true), Next::GoOn);
        attempts.repeat();
        attempts.repeat();
        assert!(!attempts.has_due() && !attempts.unanswered());
    }

    #[test]
    fn an_answer_to_something_older_forgets_nothing() {
        let (mut attempts, key) = accepted(false);
        attempts.take_due();
        attempts.on_happened(key, Happened::Ended(DONE));
        assert_eq!(attempts.on_verdict(key, 1, true), Next::GoOn);
        assert_eq!(attempts.take_due(), [(key, Progress::Ended(DONE))]);
    }

    #[test]
    fn what_is_not_this_workers_is_killed_or_forgotten() {
        let (mut attempts, key) = accepted(false);
        assert_eq!(attempts.on_verdict(key, 1, false), Next::Kill);
        assert!(attempts.is_empty());
        let (mut attempts, key) = accepted(false);
        attempts.on_happened(key, Happened::Ended(DONE));
        assert_eq!(attempts.on_verdict(key, 3, false), Next::Forget);
    }

    #[test]
    fn a_stop_that_nobody_asked_for_is_a_loss() {
        let (mut attempts, key) = accepted(false);
        attempts.on_happened(key, Happened::Ended(STOPPED));
        assert_eq!(attempts.take_due(), [(key, Progress::Ended(Outcome::Lost))]);
        let (mut attempts, key) = accepted(false);
        assert!(attempts.on_stop(key));
        attempts.on_happened(key, Happened::Ended(STOPPED));
        assert_eq!(attempts.take_due(), [(key, Progress::Ended(STOPPED))]);
    }

    #[test]
    fn a_stop_of_what_is_not_here_is_answered() {
        let mut attempts = none();
        let key = (launch(7, false).container, launch(7, false).attempt);
        assert!(!attempts.on_stop(key));
        assert_eq!(attempts.take_due(), [(key, Progress::Ended(STOPPED))]);
        assert_eq!(attempts.on_verdict(key, 3, true), Next::Forget);
    }

    #[test]
    fn what_is_kept_goes_on_without_a_lease() {
        let (attempts, key) = accepted(false);
        assert_eq!(attempts.to_stop(), [(key, Spec::STOP_GRACE)]);
        assert!(!attempts.only_kept());
        let (attempts, _) = accepted(true);
        assert_eq!(attempts.to_stop(), []);
        assert!(attempts.only_kept());
    }
}
