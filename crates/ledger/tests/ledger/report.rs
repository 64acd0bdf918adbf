//! Report and heartbeat: progress, verdicts, retries, outcomes.

use volley_ledger::{Order, Progress, Verdict};
use volley_model::{Attempt, ContainerState, Epoch, EventNumber, Millis, Nonce, Outcome, Retry, RetryOn, WorkerId};

use crate::cell::{Cell, DONE, said, secs, spec};

const FAILED: Outcome = Outcome::Exited { code: 1, signal: None };

#[test]
fn later_progress_implies_earlier_and_repeats_are_harmless() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    let what = cell.assign(&agent, &spec(), 1)[0];
    let orders = cell.orders(&agent);
    assert!(matches!(&orders[..], [Order::Start { container, attempt, .. }] if (*container, *attempt) == what));
    assert_eq!(cell.say(&agent, what, Progress::Running), Verdict::Keep);
    assert_eq!(cell.state(what.0), ContainerState::Running);
    assert_eq!(cell.orders(&agent), [], "taken over");
    for progress in [Progress::Running, Progress::Accepted] {
        assert_eq!(cell.say(&agent, what, progress), Verdict::Keep);
        assert_eq!((cell.last.changes.len(), cell.last.events.len()), (0, 0));
    }
    assert_eq!(cell.say(&agent, what, Progress::Ended(DONE)), Verdict::Keep);
    assert_eq!(cell.outcome(what.0), Some(DONE));
    assert_eq!(cell.worker(&agent).view.free, agent.worker.capacity.all_free());
    assert_eq!(cell.say(&agent, what, Progress::Ended(FAILED)), Verdict::Kill, "it ended, and is to be forgotten");
    assert_eq!(cell.outcome(what.0), Some(DONE), "a finished container never changes");
    let record = &cell.disk.finished[&what.0];
    assert_eq!((record.attempt, record.worker.clone()), (Some(what.1), Some(agent.worker.id.clone())));
    assert!(record.started_at.is_some());
}

#[test]
fn only_the_authoritative_attempt_is_heard() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    let other = cell.agent(session, "v", 1);
    let (container, attempt) = cell.assign(&agent, &spec(), 1)[0];
    let mut stale = Vec::new();
    stale.push(said(&agent, (container, Attempt { nonce: Nonce(0), ..attempt }), Progress::Running));
    stale.push(said(&agent, (container, Attempt { number: 2, ..attempt }), Progress::Running));
    stale.push(said(&other, (container, attempt), Progress::Running));
    let mut epoch = said(&agent, (container, attempt), Progress::Running);
    epoch.messages[0].epoch = Epoch { nonce: Nonce(0), ..agent.epoch };
    stale.push(epoch);
    let mut nobody = said(&agent, (container, attempt), Progress::Running);
    nobody.messages[0].worker = WorkerId::new("nobody").unwrap();
    stale.push(nobody);
    for report in stale {
        let message = format!("{report:?}");
        assert_eq!(cell.call(report), [Verdict::Kill], "{message}");
        assert_eq!(cell.last.changes, []);
    }
    assert_eq!(cell.state(container), ContainerState::Assigned);
}

#[test]
fn one_bad_message_touches_no_other() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 2);
    let what = cell.assign(&agent, &spec(), 2);
    let mut report = said(&agent, what[0], Progress::Accepted);
    let bad = (what[1].0, Attempt { nonce: Nonce(0), ..what[1].1 });
    report.messages.extend(said(&agent, bad, Progress::Ended(DONE)).messages);
    report.messages.extend(said(&agent, what[1], Progress::Running).messages);
    assert_eq!(cell.call(report), [Verdict::Keep, Verdict::Kill, Verdict::Keep]);
    assert_eq!(cell.state(what[0].0), ContainerState::Starting);
    assert_eq!(cell.state(what[1].0), ContainerState::Running);
}

#[test]
fn retries_wait_longer_each_time_and_end_with_the_last_outcome() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    let mut stubborn = spec();
    stubborn.retry =
        Retry::UpTo { attempts_max: 4, backoff: secs(2), backoff_max: secs(5), on: vec![RetryOn::ExitNonzero] };
    let container = cell.assign(&agent, &stubborn, 1)[0].0;
    let mut waits = Vec::new();
    for number in 1..4 {
        let attempt = cell.disk.live[&container].attempt.clone().unwrap().attempt;
        assert_eq!(attempt.number, number);
        cell.say(&agent, (container, attempt), Progress::Ended(FAILED));
        assert_eq!(cell.state(container), ContainerState::Queued);
        let ready_at = cell.disk.live[&container].ready_at;
        waits.push(ready_at.since(cell.now));
        assert_eq!(cell.claim(session, 1).containers.len(), 0, "not before its time");
        cell.later(Millis(ready_at.since(cell.now).0 - 1));
        assert_eq!(cell.claim(session, 1).containers.len(), 0, "not a millisecond before");
        cell.later(Millis(1));
        cell.assign_waiting(&agent, 1);
    }
    assert_eq!(waits, [secs(2), secs(4), secs(5)]);
    let attempt = cell.disk.live[&container].attempt.clone().unwrap().attempt;
    cell.say(&agent, (container, attempt), Progress::Ended(FAILED));
    assert_eq!(cell.outcome(container), Some(FAILED));
    assert_eq!(cell.disk.finished[&container].attempt.unwrap().number, 4);
}

#[test]
fn a_retry_keeps_its_score() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    let mut again = spec();
    again.retry =
        Retry::UpTo { attempts_max: 2, backoff: Millis(0), backoff_max: Millis(0), on: vec![RetryOn::Failed] };
    let first = cell.assign(&agent, &again, 1)[0];
    cell.submit(&again, 1);
    let reason = "no such command".to_owned();
    cell.say(&agent, first, Progress::Ended(Outcome::Failed { reason }));
    assert_eq!(cell.claim_ids(session, 1), [first.0], "before what came later");
}

#[test]
fn what_is_not_named_is_not_retried() {
    let lost = [RetryOn::Lost];
    let cases = [
        (Retry::Never, Outcome::Lost),
        (Retry::OnLost, FAILED),
        (Retry::OnLost, DONE),
        (Retry::UpTo { attempts_max: 9, backoff: Millis(0), backoff_max: Millis(0), on: lost.to_vec() }, FAILED),
    ];
    for (retry, outcome) in cases {
        let mut cell = Cell::new();
        let session = cell.session();
        let agent = cell.agent(session, "w", 1);
        let once = volley_model::Spec { retry, ..spec() };
        let what = cell.assign(&agent, &once, 1)[0];
        cell.say(&agent, what, Progress::Ended(outcome.clone()));
        assert_eq!(cell.outcome(what.0), Some(outcome));
    }
}

#[test]
fn events_are_numbered_without_gaps_and_tell_the_whole_life() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    let what = cell.assign(&agent, &spec(), 1)[0];
    for progress in [Progress::Accepted, Progress::Running, Progress::Ended(DONE)] {
        cell.say(&agent, what, progress);
    }
    let numbers: Vec<u64> = cell.disk.events.keys().map(|n| n.0).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert_eq!(cell.ledger.counters().last_event, EventNumber(numbers.len() as u64));
    let states: Vec<ContainerState> = cell
        .disk
        .events
        .values()
        .filter_map(|event| match &event.kind {
            volley_ledger::EventKind::Container { state, .. } => Some(*state),
            _ => None,
        })
        .collect();
    use ContainerState::{Assigned, Finished, Running, Starting};
    assert_eq!(states, [Assigned, Starting, Running, Finished]);
}

#[test]
fn a_heartbeat_of_another_stream_session_or_epoch_renews_nothing() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    let other = cell.session();
    assert!(cell.heartbeat(&agent));
    for fenced in [
        crate::cell::Agent { stream: Nonce(0), ..agent.clone() },
        crate::cell::Agent { session: other, ..agent.clone() },
        crate::cell::Agent { epoch: Epoch { number: 9, ..agent.epoch }, ..agent.clone() },
    ] {
        assert!(!cell.heartbeat(&fenced));
    }
    cell.call(volley_ledger::CloseSession { session });
    let workers = vec![(agent.worker.id.clone(), agent.stream, agent.epoch)];
    let reply = cell.call(volley_ledger::Heartbeat { session, workers });
    assert!(!reply.session_alive);
}
