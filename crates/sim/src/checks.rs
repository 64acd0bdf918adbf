//! Whether clients got what they were told: every acknowledged container ends once, with an
//! outcome that its machine knows of; and then nothing is left and nobody spins.

use std::collections::{BTreeMap, BTreeSet};

use volley_ledger::{Answer, Event, EventKind, Query};
use volley_model::{
    Attempt, ContainerId, ContainerState, EventNumber, OnUnplaceable, Outcome, Retry, Spec, Submission,
};

use crate::clients::{Told, containers};
use crate::cluster::Cluster;

/// Follows the record of events as a client does: page by page, by number.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    after: u64,
    finished: BTreeMap<ContainerId, Outcome>,
    attempts: BTreeMap<ContainerId, u32>,
}

impl Watcher {
    /// Reads what is new.
    pub(crate) fn look(&mut self, cluster: &Cluster) {
        loop {
            let query = Query::Events { after: EventNumber(self.after), max: 1_000, scope: None };
            let Some(Answer::Events(page)) = cluster.cell.read(query) else { unreachable!("its own answer") };
            if page.events.is_empty() {
                return;
            }
            for event in &page.events {
                self.on_event(cluster, event);
            }
        }
    }

    fn on_event(&mut self, cluster: &Cluster, event: &Event) {
        if event.number.0 != self.after + 1 {
            cluster.record.fail(format!("the event after {} is number {}", self.after, event.number.0));
        }
        self.after = event.number.0;
        let EventKind::Container { container, state, attempt, outcome, .. } = &event.kind else { return };
        if let Some(before) = self.finished.get(container) {
            cluster.record.fail(format!("law 4: {container} ended as {before:?} and is then {state}: {outcome:?}"));
        }
        let last = self.attempts.entry(*container).or_default();
        if attempt < last {
            cluster.record.fail(format!("law 8: {container} goes back from attempt {last} to {attempt}"));
        }
        *last = *attempt;
        if *state == ContainerState::Finished {
            self.finished.insert(*container, outcome.clone().unwrap_or(Outcome::Lost));
        }
    }

    /// What clients were told of and has not ended.
    pub(crate) fn open(&self, told: &Told) -> Vec<ContainerId> {
        let accepted = told.accepted();
        let all = accepted.iter().flat_map(|(group, submission)| containers(*group, submission));
        all.filter(|id| !self.finished.contains_key(id)).collect()
    }

    /// Everything is over: holds all that was told against what was done.
    pub(crate) fn check(&self, cluster: &Cluster, told: &Told) {
        let started = cluster.floor.attempts_started();
        let stops: BTreeSet<_> = told.stops_asked().into_iter().collect();
        for (group, submission) in told.accepted() {
            for id in containers(group, &submission) {
                let Some(Answer::Container(Some(found))) = cluster.cell.read(Query::Container(id, None)) else {
                    cluster.record.fail(format!("law 5: {id} was accepted and is not there"));
                    continue;
                };
                let outcome = self.finished.get(&id);
                if found.outcome.as_ref() != outcome || outcome.is_none() {
                    cluster.record.fail(format!("law 4: {id} ended as {:?} and as {outcome:?}", found.outcome));
                    continue;
                }
                let spec = spec_of(&submission, id.index);
                let started = started.get(&id).copied().unwrap_or(0);
                let outcome = outcome.expect("seen above");
                let stop = stops.contains(&group);
                if let Some(wrong) = wrong_end(cluster, (id, found.attempt), spec, outcome, (started, stop)) {
                    cluster.record.fail(format!("{id}: {wrong}; it ended as {outcome:?} after {started} starts"));
                }
            }
        }
        self.check_nothing_left(cluster);
    }

    fn check_nothing_left(&self, cluster: &Cluster) {
        let Some(Answer::Audit(audit)) = cluster.cell.read(Query::Audit) else { unreachable!("its own answer") };
        let live = audit.claimed + audit.assigned + audit.starting + audit.running + audit.stopping;
        if live > 0 || audit.accepted != audit.queued + audit.finished + audit.pruned {
            cluster.record.fail(format!("law 3: after the end: {audit:?}"));
        }
        let running = cluster.floor.running();
        if !running.is_empty() || cluster.held_attempts() > 0 {
            cluster.record.fail(format!("law 9: machines still run {running:?}, hold {}", cluster.held_attempts()));
        }
    }
}

fn spec_of(submission: &Submission, index: u32) -> &Spec {
    let mut left = index;
    for run in &submission.runs {
        if left < run.count {
            return &run.spec;
        }
        left -= run.count;
    }
    unreachable!("an index of the group")
}

/// What is wrong with how a container ended, if something is.
fn wrong_end(
    cluster: &Cluster,
    (id, attempt): (ContainerId, Option<Attempt>),
    spec: &Spec,
    outcome: &Outcome,
    (started, stop): (u32, bool),
) -> Option<&'static str> {
    if spec.retry == Retry::Never && started > 1 {
        return Some("law 8: at most one attempt was to be made");
    }
    match outcome {
        Outcome::Exited { .. } => {
            let really = attempt.and_then(|attempt| cluster.floor.end_of((id, attempt)));
            (really.as_ref() != Some(outcome)).then_some("its machine knows of no such end")
        }
        Outcome::Stopped { .. } => (!stop).then_some("nobody asked for a stop"),
        Outcome::Expired => spec.max_wait.is_none().then_some("it had all the time"),
        Outcome::Unplaceable { .. } => {
            (spec.on_unplaceable != OnUnplaceable::Fail).then_some("it would have waited for room")
        }
        Outcome::Lost => None,
        Outcome::Failed { .. } => Some("nothing fails here"),
    }
}
