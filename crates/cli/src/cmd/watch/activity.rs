//! What has happened lately, from the event record: rates, and the last bursts. Knows no server and no screen.

use std::collections::VecDeque;

use serde_json::Value;
use volley_model::{Millis, Timestamp};

use crate::output::{rows, text};

/// What rates are taken over.
pub const WINDOW: Millis = Millis::from_secs(10);
/// Bursts that are remembered.
const BURSTS_MAX: usize = 8;

/// What happened within one second of the store's time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Second {
    number: u64,
    submitted: u64,
    placed: u64,
    finished: u64,
}

/// How many of each in a second, in tenths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    pub submitted: u64,
    pub placed: u64,
    pub finished: u64,
}

/// A submission and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burst {
    pub group: String,
    pub count: u64,
    pub accepted: Timestamp,
    pub placed: u64,
    pub finished: u64,
    /// Of these: not with exit code 0.
    pub failed: u64,
    /// When something last happened to it.
    pub last: Timestamp,
}

/// What has happened lately.
#[derive(Debug, Clone, Default)]
pub struct Activity {
    seconds: VecDeque<Second>,
    /// The newest first.
    bursts: VecDeque<Burst>,
}

impl Activity {
    /// Takes in a page of `/v1/events`.
    pub fn on_events(&mut self, page: &Value) {
        for event in rows(page, "events") {
            let at = Timestamp(event["at_ms"].as_u64().unwrap_or(0));
            match event["kind"].as_str() {
                Some("group_accepted") => self.on_group(event, at),
                Some("container") => self.on_container(event, at),
                _ => {}
            }
        }
    }

    /// The bursts that came last, the newest first.
    pub fn bursts(&self) -> impl Iterator<Item = &Burst> {
        self.bursts.iter()
    }

    /// Over the window that ends now.
    pub fn rates(&self, now: Timestamp) -> Rates {
        let newest = now.0 / 1000;
        let oldest = newest.saturating_sub(WINDOW.0 / 1000);
        let within = self.seconds.iter().filter(|second| second.number > oldest && second.number <= newest);
        let mut sums = Rates::default();
        for second in within {
            sums.submitted += second.submitted;
            sums.placed += second.placed;
            sums.finished += second.finished;
        }
        let tenths = |sum: u64| sum * 10 * 1000 / WINDOW.0;
        Rates { submitted: tenths(sums.submitted), placed: tenths(sums.placed), finished: tenths(sums.finished) }
    }

    fn on_group(&mut self, event: &Value, at: Timestamp) {
        let (group, count) = (text(&event["group"]), event["count"].as_u64().unwrap_or(0));
        self.second(at).submitted += count;
        let burst = Burst { group, count, accepted: at, placed: 0, finished: 0, failed: 0, last: at };
        self.bursts.push_front(burst);
        self.bursts.truncate(BURSTS_MAX);
    }

    fn on_container(&mut self, event: &Value, at: Timestamp) {
        let (state, attempt) = (event["state"].as_str().unwrap_or_default(), event["attempt"].as_u64().unwrap_or(0));
        match state {
            "assigned" => self.second(at).placed += 1,
            "finished" => self.second(at).finished += 1,
            _ => return,
        }
        let group = event["container"].as_str().and_then(|id| id.split_once('-')).map(|(group, _)| group);
        let Some(burst) = self.bursts.iter_mut().find(|burst| Some(burst.group.as_str()) == group) else { return };
        burst.last = burst.last.max(at);
        match state {
            // A later attempt is of one that was counted.
            "assigned" => burst.placed += u64::from(attempt <= 1),
            _ => {
                burst.finished += 1;
                burst.failed += u64::from(event["outcome_words"] != "exit code 0");
            }
        }
    }

    fn second(&mut self, at: Timestamp) -> &mut Second {
        let number = at.0 / 1000;
        // The store's time never runs backwards.
        if self.seconds.back().is_none_or(|last| last.number < number) {
            self.seconds.push_back(Second { number, ..Second::default() });
        }
        while self.seconds.front().is_some_and(|first| first.number + 2 * WINDOW.0 / 1000 < number) {
            self.seconds.pop_front();
        }
        self.seconds.back_mut().expect("one was pushed")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(id: &str, at: u64, state: &str, attempt: u64, outcome: &str) -> Value {
        let outcome = if outcome.is_empty() { Value::Null } else { outcome.into() };
        json!({ "kind": "container", "container": id, "at_ms": at, "state": state, "attempt": attempt,
                "outcome_words": outcome })
    }

    #[test]
    fn bursts_and_rates_are_of_what_happened() {
        let mut activity = Activity::default();
        activity.on_events(&json!({ "events": [
            { "kind": "group_accepted", "group": "g", "count": 3, "at_ms": 100_000 },
            container("g-0", 100_010, "assigned", 1, ""),
            container("g-1", 100_010, "assigned", 1, ""),
            container("g-0", 100_020, "starting", 1, ""),
            container("g-0", 101_500, "finished", 1, "exit code 0"),
            container("g-1", 101_600, "assigned", 2, ""),
            container("g-1", 102_000, "finished", 2, "exit code 7"),
            container("h-0", 102_000, "finished", 1, "exit code 0"),
        ] }));
        let burst = activity.bursts().next().expect("one");
        assert_eq!((burst.placed, burst.finished, burst.failed), (2, 2, 1), "a second attempt is no second placement");
        assert_eq!(burst.last, Timestamp(102_000));
        let rates = activity.rates(Timestamp(103_000));
        assert_eq!(rates, Rates { submitted: 3, placed: 3, finished: 3 }, "in tenths a second, over ten seconds");
        assert_eq!(activity.rates(Timestamp(130_000)), Rates::default());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut activity = Activity::default();
        for number in 0..10_000_u64 {
            activity.on_events(&json!({ "events": [
                { "kind": "group_accepted", "group": format!("g{number}"), "count": 1, "at_ms": number * 1000 } ] }));
        }
        assert_eq!(activity.bursts().count(), BURSTS_MAX);
        assert!(activity.seconds.len() as u64 <= 2 * WINDOW.0 / 1000 + 1, "{}", activity.seconds.len());
    }
}
