//! Sweep: leases and gaps, expiry, pruning, and that it is bounded and says when it is due.

use volley_ledger::{LedgerOptions, Progress, StopTarget, Sweep};
use volley_model::{ContainerId, ContainerState, Millis, Outcome, Retry, RetryOn};

use crate::cell::{Cell, DONE, secs, spec};

#[test]
fn what_waits_longer_than_its_max_wait_expires_in_bounded_steps() {
    let mut cell = Cell::new();
    let session = cell.session();
    let mut impatient = spec();
    impatient.max_wait = Some(secs(20));
    let group = cell.submit(&impatient, 50);
    cell.later(secs(10));
    let claimed = cell.claim_ids(session, 2);
    cell.later(secs(10));
    cell.call(volley_ledger::Heartbeat { session, workers: Vec::new() });
    let reply = cell.call(Sweep { session: None, items_max: 30 });
    assert!(reply.expired <= 30 && reply.expired >= 25, "{reply:?}");
    assert!(reply.more);
    let second = cell.call(Sweep { session: None, items_max: 30 });
    assert_eq!(reply.expired + second.expired, 48, "the claimed two are in a turn");
    assert!(!second.more);
    assert_eq!(cell.outcome(ContainerId { group, index: 49 }), Some(Outcome::Expired));
    // Handed back, they have waited too long as well.
    let op = volley_ledger::Commit { returned: claimed, ..cell.commit_op(session) };
    cell.call(op).unwrap();
    assert_eq!(cell.sweep().expired, 2);
}

#[test]
fn each_attempt_waits_anew_from_when_it_is_ready() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    let mut again = spec();
    again.max_wait = Some(secs(20));
    again.retry = Retry::UpTo { attempts_max: 3, backoff: secs(60), backoff_max: secs(60), on: vec![RetryOn::Failed] };
    let what = cell.assign(&agent, &again, 1)[0];
    cell.pass(secs(30), &[&agent]);
    cell.say(&agent, what, Progress::Ended(Outcome::Failed { reason: "no".to_owned() }));
    cell.pass(secs(79), &[&agent]);
    assert_eq!(cell.state(what.0), ContainerState::Queued);
    cell.pass(secs(1), &[&agent]);
    assert_eq!(cell.outcome(what.0), Some(Outcome::Expired));
}

#[test]
fn a_session_that_is_silent_ends_and_its_claims_go_back_with_their_scores() {
    let mut cell = Cell::new();
    let (silent, other) = (cell.session(), cell.session());
    cell.submit(&spec(), 4);
    let claimed = cell.claim_ids(silent, 2);
    cell.sweep();
    let mut ended = 0;
    for _ in 0..15 {
        cell.later(secs(1));
        cell.call(volley_ledger::Heartbeat { session: other, workers: Vec::new() });
        ended += cell.sweep().sessions_ended;
    }
    assert_eq!(ended, 1);
    assert_eq!(cell.claim_ids(other, 2), claimed);
}

#[test]
fn after_a_gap_all_leases_get_a_fresh_term() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    cell.sweep();
    cell.later(secs(3600));
    let reply = cell.sweep();
    assert_eq!((reply.sessions_ended, reply.workers_lost.len()), (0, 0), "the control plane was away, not they");
    assert!(cell.heartbeat(&agent));
    cell.restart();
    cell.later(secs(3600));
    assert_eq!(cell.sweep().workers_lost, []);
    let lost: Vec<_> = cell.pass(secs(60), &[]).into_iter().flat_map(|r| r.workers_lost).collect();
    assert_eq!(lost, [agent.worker.id], "one term, not for ever");
}

#[test]
fn who_sweeps_when_it_is_due_is_never_taken_for_an_outage() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    let start = cell.now;
    let mut due = cell.sweep().due.unwrap();
    let mut lost = Vec::new();
    while lost.is_empty() {
        assert!(due > cell.now, "a sweep never asks for itself at once");
        cell.later(due.since(cell.now));
        let reply = cell.sweep();
        lost = reply.workers_lost;
        due = reply.due.unwrap();
        assert!(cell.now.since(start) < secs(120), "its lease never ends");
    }
    assert_eq!(lost, [agent.worker.id]);
}

#[test]
fn a_lost_worker_is_listed_for_a_while_and_forgotten() {
    let options = LedgerOptions { lost_worker_age_max: secs(100), ..LedgerOptions::default() };
    let mut cell = Cell::with(options);
    let session = cell.session();
    cell.agent(session, "w", 1);
    cell.pass(secs(61), &[]);
    assert_eq!(cell.ledger.workers().len(), 1);
    cell.pass(secs(100), &[]);
    assert_eq!((cell.ledger.workers().len(), cell.disk.workers.len()), (0, 0));
}

#[test]
fn finished_containers_are_pruned_by_count_and_by_age() {
    let options = LedgerOptions { finished_containers_max: 5, finished_age_max: secs(100), ..LedgerOptions::default() };
    let mut cell = Cell::with(options);
    let group = cell.submit(&spec(), 8);
    let kept = cell.submit(&spec(), 1);
    cell.stop(StopTarget::Group(group), false);
    let reply = cell.call(Sweep { session: None, items_max: 2 });
    assert_eq!((reply.pruned, reply.more), (2, true));
    assert_eq!(cell.sweep().pruned, 1);
    assert_eq!(cell.disk.finished.len(), 5);
    assert_eq!(cell.ledger.group(group, None).unwrap().finished, 8, "pruned ones included");
    cell.later(secs(100));
    assert_eq!(cell.sweep().pruned, 5);
    assert_eq!(cell.ledger.group(group, None), None);
    assert!(cell.ledger.group(kept, None).is_some());
    let audit = cell.ledger.audit();
    assert_eq!((audit.accepted, audit.pruned, audit.queued), (9, 8, 1));
}

#[test]
fn the_record_of_events_is_bounded_by_count_and_by_age() {
    let options = LedgerOptions { events_max: 500, events_age_max: secs(1000), ..LedgerOptions::default() };
    let mut cell = Cell::with(options);
    for _ in 0..10 {
        let group = cell.submit(&spec(), 400);
        cell.stop(StopTarget::Group(group), false);
        cell.sweep();
        assert!(cell.disk.events.len() <= 500 + 1000 + 401, "{}", cell.disk.events.len());
    }
    assert!(cell.disk.events.len() >= 500, "as many as promised are kept");
    assert_eq!(cell.ledger.events_floor(), cell.disk.floor);
    assert_eq!(cell.disk.events.first_key_value().unwrap().0, &cell.disk.floor);
    cell.later(secs(2000));
    cell.sweep();
    assert!(cell.disk.events.len() < 1000, "old ones go, in steps of a thousand: {}", cell.disk.events.len());
    cell.restart();
    assert_eq!(cell.ledger.events_floor(), cell.disk.floor);
}

#[test]
fn time_never_runs_backwards() {
    let mut cell = Cell::new();
    cell.submit(&spec(), 1);
    let before = cell.ledger.counters().now;
    cell.now = volley_model::Timestamp(5);
    cell.submit(&spec(), 1);
    assert_eq!(cell.ledger.counters().now, before);
    assert_eq!(cell.disk.counters.now, before);
}

#[test]
fn delayed_retries_become_ready_by_a_sweep_too() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    let mut again = spec();
    again.retry = Retry::UpTo { attempts_max: 2, backoff: secs(7), backoff_max: secs(7), on: vec![RetryOn::Failed] };
    let what = cell.assign(&agent, &again, 1)[0];
    cell.say(&agent, what, Progress::Ended(Outcome::Failed { reason: "no".to_owned() }));
    assert!(cell.last.hints.contains(&volley_ledger::Hint::Due(cell.now.after(secs(7)))));
    let ready: Vec<u32> = cell.pass(secs(8), &[&agent]).iter().map(|reply| reply.ready).collect();
    assert_eq!(ready, [0, 0, 0, 0, 0, 0, 1, 0]);
    let again = cell.assign_waiting(&agent, 1)[0];
    assert_eq!(again.1.number, 2);
    cell.say(&agent, again, Progress::Ended(DONE));
    assert_eq!(cell.outcome(what.0), Some(DONE));
    assert_eq!(Millis(0), secs(0));
}
