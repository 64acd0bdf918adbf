//! Attach: registration, epochs, inventories, streams, and capacity that changes.

use volley_ledger::{AttachRefusal, Detach, LedgerOptions, Progress, Schedulable, SetSchedulable, TakeFrom, Verdict};
use volley_model::{
    Attempt, Bytes, ContainerState, CpuMilli, DeliveryNumber, Millis, Nonce, OnDisconnect, Outcome, Refusal, Retry,
    WorkerStatus,
};

use crate::cell::{Agent, Cell, DONE, item, secs, spec, worker};

fn one_worker(slots: u32) -> (Cell, Agent) {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", slots);
    (cell, agent)
}

#[test]
fn within_its_lease_a_worker_keeps_its_epoch_and_its_attempts() {
    let (mut cell, mut agent) = one_worker(3);
    let what = cell.assign(&agent, &spec(), 3);
    cell.say(&agent, what[0], Progress::Running);
    cell.say(&agent, what[1], Progress::Running);
    let before = agent.clone();
    let inventory = vec![item(what[0], Progress::Running), item(what[1], Progress::Ended(DONE))];
    let reply = cell.attach(&mut agent, inventory).unwrap();
    assert_eq!(reply.epoch, before.epoch);
    assert_eq!(reply.inventory, [Verdict::Keep, Verdict::Keep]);
    assert_eq!(cell.state(what[0].0), ContainerState::Running);
    assert_eq!(cell.outcome(what[1].0), Some(DONE));
    assert_eq!(cell.state(what[2].0), ContainerState::Assigned, "never taken over: it is handed out again");
    assert_eq!(cell.orders(&agent).len(), 1);
    assert_eq!(cell.orders(&before), [], "the older stream is fenced");
    assert!(!cell.heartbeat(&before));
    assert!(cell.heartbeat(&agent));
}

#[test]
fn what_a_worker_held_and_does_not_name_any_more_is_lost() {
    let (mut cell, mut agent) = one_worker(2);
    let mut once = spec();
    once.retry = Retry::Never;
    let what = cell.assign(&agent, &once, 1)[0];
    let again = cell.assign(&agent, &spec(), 1)[0];
    cell.say(&agent, what, Progress::Running);
    cell.say(&agent, again, Progress::Accepted);
    cell.attach(&mut agent, Vec::new()).unwrap();
    assert_eq!(cell.outcome(what.0), Some(Outcome::Lost));
    assert_eq!(cell.state(again.0), ContainerState::Queued, "the default is another attempt");
}

#[test]
fn attempts_of_others_in_the_inventory_are_killed() {
    let (mut cell, mut agent) = one_worker(1);
    let other = cell.agent(agent.session, "v", 1);
    let what = cell.assign(&other, &spec(), 1)[0];
    let stale = (what.0, Attempt { nonce: Nonce(0), ..what.1 });
    let inventory = vec![item(what, Progress::Running), item(stale, Progress::Ended(DONE))];
    assert_eq!(cell.attach(&mut agent, inventory).unwrap().inventory, [Verdict::Kill, Verdict::Kill]);
    assert_eq!(cell.state(what.0), ContainerState::Assigned);
}

#[test]
fn a_lost_worker_comes_back_in_a_new_epoch_with_a_whole_lease() {
    let (mut cell, mut agent) = one_worker(2);
    let what = cell.assign(&agent, &spec(), 1)[0];
    cell.say(&agent, what, Progress::Running);
    let lost: Vec<_> = cell.pass(secs(61), &[]).into_iter().flat_map(|r| r.workers_lost).collect();
    assert_eq!(lost, [agent.worker.id.clone()]);
    assert_eq!(cell.worker(&agent).view.status, WorkerStatus::Lost);
    assert_eq!(cell.state(what.0), ContainerState::Queued);
    agent.session = cell.session();
    let before = agent.epoch;
    let reply = cell.attach(&mut agent, vec![item(what, Progress::Running)]).unwrap();
    assert_eq!(reply.inventory, [Verdict::Kill]);
    assert_eq!(reply.epoch.number, before.number + 1);
    assert_eq!(cell.worker(&agent).view.status, WorkerStatus::Ready);
    assert_eq!(cell.worker(&agent).lease_until, cell.now.after(secs(60)), "not the end of its listing");
    let lost: Vec<_> = cell.pass(secs(61), &[]).into_iter().flat_map(|r| r.workers_lost).collect();
    assert_eq!(lost, [agent.worker.id.clone()]);
}

#[test]
fn a_repeated_attach_is_the_same_attach() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = Agent {
        session,
        worker: worker("w", 2),
        stream: Nonce(0),
        epoch: volley_model::Epoch { number: 0, nonce: Nonce(0) },
    };
    let op = cell.attach_op(&agent, None, Vec::new());
    let reply = cell.call(op.clone()).unwrap();
    assert_eq!(cell.call(op.clone()).unwrap(), reply, "its reply was lost");
    // Even when the worker took something over in between: the inventory says nothing about that.
    let agent = Agent { stream: op.stream, epoch: reply.epoch, ..agent };
    let what = cell.assign(&agent, &spec(), 1)[0];
    cell.say(&agent, what, Progress::Running);
    assert_eq!(cell.call(op).unwrap().epoch, reply.epoch);
    assert_eq!(cell.state(what.0), ContainerState::Running);
}

#[test]
fn a_worker_that_never_hears_its_new_epoch_can_go_on_with_the_old_one() {
    let (mut cell, mut agent) = one_worker(1);
    cell.pass(secs(61), &[]);
    agent.session = cell.session();
    let old = agent.epoch;
    for number in 2..5 {
        let reply = cell.attach_with(&mut agent, Some(old), Vec::new()).unwrap();
        assert_eq!(reply.epoch.number, number, "each one fences those before");
    }
    assert!(cell.heartbeat(&agent), "now it has heard");
    let mut past = agent.clone();
    let refusal = cell.attach_with(&mut past, Some(old), Vec::new());
    assert_eq!(refusal, Err(AttachRefusal::NameInUse { worker: agent.worker.id.clone() }), "that is another machine");
    assert!(cell.heartbeat(&agent));
}

#[test]
fn a_name_in_use_is_refused_unless_the_inventory_proves_it() {
    let (mut cell, agent) = one_worker(1);
    let what = cell.assign(&agent, &spec(), 1)[0];
    let mut thief = agent.clone();
    assert!(cell.attach_with(&mut thief, None, Vec::new()).is_err());
    let forged = (what.0, Attempt { nonce: Nonce(0), ..what.1 });
    assert!(cell.attach_with(&mut thief, None, vec![item(forged, Progress::Running)]).is_err());
    assert!(cell.heartbeat(&agent), "the one that has the name is undisturbed");
    // An agent that forgot its epoch and kept its attempts.
    let mut back = agent.clone();
    let reply = cell.attach_with(&mut back, None, vec![item(what, Progress::Running)]).unwrap();
    assert_eq!((reply.epoch.number, reply.inventory), (2, vec![Verdict::Keep]));
    assert_eq!(cell.say(&back, what, Progress::Running), Verdict::Keep);
    assert_eq!(cell.say(&agent, what, Progress::Running), Verdict::Kill, "in the epoch before");
}

/// Found by simulation: a machine that was replaced within its lease ran again what the one before had started and
/// not yet reported.
#[test]
fn a_worker_that_forgot_its_epoch_is_not_handed_again_what_it_may_have_started() {
    let (mut cell, agent) = one_worker(3);
    let kept = cell.assign(&agent, &spec(), 1)[0];
    let again = cell.assign(&agent, &spec(), 1)[0];
    let mut once = spec();
    once.retry = Retry::Never;
    let once = cell.assign(&agent, &once, 1)[0];
    let mut back = agent.clone();
    cell.attach_with(&mut back, None, vec![item(kept, Progress::Accepted)]).unwrap();
    assert_eq!(cell.state(kept.0), ContainerState::Starting);
    assert_eq!(cell.state(again.0), ContainerState::Queued, "another attempt, with a nonce of its own");
    assert_eq!(cell.outcome(once.0), Some(Outcome::Lost));
    assert_eq!(cell.orders(&back), []);
}

#[test]
fn the_fleet_is_bounded() {
    let mut cell = Cell::with(LedgerOptions { workers_max: 1, ..LedgerOptions::default() });
    let session = cell.session();
    let mut agent = cell.agent(session, "w", 1);
    let mut second = Agent { worker: worker("v", 1), ..agent.clone() };
    let refused = cell.attach_with(&mut second, None, Vec::new());
    assert_eq!(refused, Err(AttachRefusal::TooManyWorkers { limit: 1 }));
    assert!(cell.attach(&mut agent, Vec::new()).is_ok(), "known ones come back");
}

#[test]
fn an_ended_session_attaches_nobody() {
    let (mut cell, mut agent) = one_worker(1);
    cell.call(volley_ledger::CloseSession { session: agent.session });
    assert_eq!(cell.attach(&mut agent, Vec::new()), Err(AttachRefusal::SessionEnded));
}

#[test]
fn a_smaller_capacity_waits_for_room_and_lets_nothing_in_until_then() {
    let (mut cell, mut agent) = one_worker(4);
    let what = cell.assign(&agent, &spec(), 3);
    for what in &what {
        cell.say(&agent, *what, Progress::Running);
    }
    agent.worker.capacity.slots = 2;
    agent.worker.capacity.cpu = CpuMilli(2000);
    let inventory = || what.iter().map(|what| item(*what, Progress::Running)).collect();
    cell.attach(&mut agent, inventory()).unwrap();
    let revision = cell.worker(&agent).view.revision;
    cell.attach(&mut agent, inventory()).unwrap();
    assert_eq!(cell.worker(&agent).view.revision, revision, "nothing static changed");
    assert_eq!(cell.worker(&agent).view.free.slots, 0, "a planner sees no room");
    cell.submit(&spec(), 2);
    let claimed = cell.claim(agent.session, 2).containers;
    assert_eq!(cell.place(&agent, &claimed[..1]), [Err(Refusal::NoCapacity)]);
    cell.say(&agent, what[0], Progress::Ended(DONE));
    let view = cell.worker(&agent).view;
    assert_eq!((view.worker.capacity.slots, view.free.slots), (2, 0), "two run, two fit: the new one counts");
    assert!(view.revision > revision);
    cell.say(&agent, what[1], Progress::Ended(DONE));
    assert!(cell.place(&agent, &claimed[..1])[0].is_ok());
}

#[test]
fn a_larger_capacity_and_new_labels_count_at_once() {
    let (mut cell, mut agent) = one_worker(1);
    cell.assign(&agent, &spec(), 1);
    agent.worker.capacity.slots = 2;
    agent.worker.capacity.cpu = CpuMilli(2000);
    agent.worker.capacity.memory = Bytes(1 << 41);
    agent.worker.labels.insert("zone".to_owned(), "b".to_owned());
    let revision = cell.worker(&agent).view.revision;
    cell.attach(&mut agent, Vec::new()).unwrap();
    let view = cell.worker(&agent).view;
    assert_eq!(view.free.slots, 1);
    assert_eq!(*view.worker, agent.worker);
    assert!(view.revision > revision);
}

#[test]
fn deliveries_go_on_after_the_last_one_handed_over() {
    let (mut cell, agent) = one_worker(3);
    cell.assign(&agent, &spec(), 2);
    let take = |cell: &Cell, after| {
        let from = TakeFrom { worker: agent.worker.id.clone(), stream: agent.stream, after };
        cell.ledger.take(&[from]).remove(0).deliveries
    };
    let first = take(&cell, DeliveryNumber(0));
    assert_eq!(first.len(), 2);
    let last = first[1].number;
    assert_eq!(take(&cell, last), []);
    cell.assign(&agent, &spec(), 1);
    assert_eq!(take(&cell, last).len(), 1);
    assert_eq!(take(&cell, DeliveryNumber(0)).len(), 3, "nothing is gone before the worker has taken it over");
    assert_eq!(take(&cell, DeliveryNumber(u64::MAX)), []);
    let asked = |stream| TakeFrom { worker: agent.worker.id.clone(), stream, after: DeliveryNumber(0) };
    let answers = cell.ledger.take(&[asked(Nonce(0)), asked(agent.stream)]);
    let counts: Vec<usize> = answers.iter().map(|taken| taken.deliveries.len()).collect();
    assert_eq!(counts, [0, 3], "one answer each, in order; a fenced stream gets nothing");
}

#[test]
fn a_kept_attempt_survives_the_lease_and_is_lost_in_the_end() {
    let options = LedgerOptions { kept_attempt_age_max: secs(600), ..LedgerOptions::default() };
    let mut cell = Cell::with(options);
    let session = cell.session();
    let mut agent = cell.agent(session, "w", 2);
    let mut kept = spec();
    kept.retry = Retry::Never;
    kept.on_disconnect = OnDisconnect::Keep;
    let what = cell.assign(&agent, &kept, 2);
    for what in &what {
        cell.say(&agent, *what, Progress::Running);
    }
    cell.pass(secs(300), &[]);
    assert_eq!(cell.worker(&agent).view.status, WorkerStatus::Lost);
    assert_eq!(cell.state(what[0].0), ContainerState::Running);
    agent.session = cell.session();
    let inventory = vec![item(what[0], Progress::Running), item(what[1], Progress::Running)];
    let reply = cell.attach(&mut agent, inventory).unwrap();
    assert_eq!(reply.inventory, [Verdict::Keep, Verdict::Keep]);
    assert_eq!(cell.say(&agent, what[0], Progress::Ended(DONE)), Verdict::Keep);
    cell.pass(secs(700), &[]);
    assert_eq!(cell.outcome(what[1].0), Some(Outcome::Lost), "nobody waits for ever");
}

#[test]
fn a_drained_worker_takes_nothing_new_stops_at_its_deadline_and_goes_when_it_leaves() {
    let (mut cell, agent) = one_worker(2);
    let what = cell.assign(&agent, &spec(), 1)[0];
    cell.say(&agent, what, Progress::Running);
    let drain = Schedulable::Drain { deadline: Some(secs(5)) };
    cell.call(SetSchedulable { worker: agent.worker.id.clone(), to: drain }).unwrap();
    cell.submit(&spec(), 1);
    let claimed = cell.claim(agent.session, 1).containers;
    assert_eq!(cell.place(&agent, &claimed), [Err(Refusal::NotReady)]);
    cell.later(Millis(1));
    cell.call(SetSchedulable { worker: agent.worker.id.clone(), to: drain }).unwrap();
    assert_eq!(cell.last.changes, [], "sent again, it keeps its deadline");
    cell.pass(secs(4), &[&agent]);
    assert_eq!(cell.state(what.0), ContainerState::Running);
    cell.pass(secs(1), &[&agent]);
    assert_eq!(cell.state(what.0), ContainerState::Stopping);
    assert_eq!(cell.orders(&agent).len(), 1);
    cell.say(&agent, what, Progress::Ended(DONE));
    let by = volley_model::StopCause::Drain;
    assert_eq!(cell.outcome(what.0), Some(Outcome::Stopped { by }));
    cell.pass(secs(90), &[&agent]);
    assert_eq!(cell.worker(&agent).view.status, WorkerStatus::Draining, "connected: it stays");
    cell.pass(secs(61), &[]);
    assert_eq!(cell.ledger.workers(), [], "gone");
}

#[test]
fn a_draining_worker_that_is_lost_is_gone_at_once() {
    let (mut cell, agent) = one_worker(2);
    let what = cell.assign(&agent, &spec(), 1)[0];
    cell.say(&agent, what, Progress::Running);
    let drain = Schedulable::Drain { deadline: None };
    cell.call(SetSchedulable { worker: agent.worker.id.clone(), to: drain }).unwrap();
    cell.pass(secs(61), &[]);
    assert_eq!(cell.ledger.workers(), []);
    assert_eq!(cell.state(what.0), ContainerState::Queued);
}

#[test]
fn uncordon_lets_work_in_again() {
    let (mut cell, agent) = one_worker(2);
    let set = |cell: &mut Cell, to| cell.call(SetSchedulable { worker: agent.worker.id.clone(), to });
    set(&mut cell, Schedulable::Cordoned).unwrap();
    assert_eq!(cell.worker(&agent).view.status, WorkerStatus::Cordoned);
    set(&mut cell, Schedulable::Cordoned).unwrap();
    assert_eq!(cell.last.changes, [], "it was so already");
    set(&mut cell, Schedulable::Open).unwrap();
    assert_eq!(cell.assign(&agent, &spec(), 1).len(), 1);
    let nobody = volley_model::WorkerId::new("nobody").unwrap();
    assert!(cell.call(SetSchedulable { worker: nobody, to: Schedulable::Open }).is_err());
}

#[test]
fn a_worker_that_leaves_is_not_waited_for() {
    let (mut cell, mut agent) = one_worker(2);
    let running = cell.assign(&agent, &spec(), 1)[0];
    let waiting = cell.assign(&agent, &spec(), 1)[0];
    cell.say(&agent, running, Progress::Running);
    let older = agent.clone();
    cell.attach(&mut agent, vec![item(running, Progress::Running)]).unwrap();
    let leave =
        |agent: &Agent| Detach { session: agent.session, worker: agent.worker.id.clone(), stream: agent.stream };
    assert!(!cell.call(leave(&older)), "a fenced stream has no say");
    assert_eq!(cell.state(running.0), ContainerState::Running);
    assert!(cell.call(leave(&agent)));
    assert_eq!(cell.state(running.0), ContainerState::Queued);
    assert_eq!(cell.state(waiting.0), ContainerState::Queued);
    assert!(!cell.call(leave(&agent)), "it is gone");
}
