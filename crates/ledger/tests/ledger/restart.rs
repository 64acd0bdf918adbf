//! Restart: what is durable comes back, what is volatile does not, what contradicts itself is refused.

use volley_ledger::{Ledger, LedgerOptions, Progress, Stored, Verdict};
use volley_model::{ContainerState, Timestamp};

use crate::cell::{Cell, DONE, item, spec};

#[test]
fn claims_are_void_and_all_else_is_as_it_was() {
    let mut cell = Cell::new();
    let session = cell.session();
    let mut agent = cell.agent(session, "w", 3);
    let group = cell.submit(&spec(), 10);
    let what = cell.assign_waiting(&agent, 3);
    cell.say(&agent, what[0], Progress::Running);
    cell.say(&agent, what[1], Progress::Ended(DONE));
    cell.claim(session, 4);
    cell.restart();
    let audit = cell.ledger.audit();
    let counts = (audit.queued, audit.claimed, audit.assigned, audit.running, audit.finished);
    assert_eq!(counts, (7, 0, 1, 1, 1));
    assert_eq!(cell.ledger.group(group, None).unwrap().succeeded, 1);
    assert_eq!(cell.worker(&agent).view.free.slots, 1);
    assert!(!cell.heartbeat(&agent), "nobody is connected");
    agent.session = cell.session();
    let epoch = agent.epoch;
    let reply = cell.attach(&mut agent, vec![item(what[0], Progress::Running)]).unwrap();
    assert_eq!((reply.epoch, reply.inventory), (epoch, vec![Verdict::Keep]), "within its fresh lease");
    assert_eq!(cell.state(what[2].0), ContainerState::Assigned);
    assert_eq!(cell.orders(&agent).len(), 1, "what was not taken over is handed out again");
}

#[test]
fn a_stop_that_was_not_heard_is_told_again() {
    let mut cell = Cell::new();
    let session = cell.session();
    let mut agent = cell.agent(session, "w", 1);
    let what = cell.assign(&agent, &spec(), 1)[0];
    cell.say(&agent, what, Progress::Running);
    cell.stop(volley_ledger::StopTarget::Container(what.0), false);
    let before = cell.orders(&agent);
    cell.restart();
    agent.session = cell.session();
    cell.attach(&mut agent, vec![item(what, Progress::Running)]).unwrap();
    assert_eq!(cell.orders(&agent), before);
}

#[test]
fn the_fleet_is_told_anew_and_blocked_shapes_are_not() {
    let mut cell = Cell::new();
    let session = cell.session();
    cell.agent(session, "w", 1);
    let version = cell.claim(session, 0).fleet.version;
    cell.restart();
    let session = cell.session();
    let fleet = cell.claim(session, 0).fleet;
    assert!(fleet.reload && fleet.version > version);
    assert_eq!((fleet.workers.len(), fleet.pools.len()), (1, 1));
}

/// One broken copy of what was stored.
fn broken(stored: &Stored, spoil: fn(&mut Stored)) -> String {
    let mut stored = stored.clone();
    spoil(&mut stored);
    Ledger::restore(LedgerOptions::default(), stored).expect_err("it contradicts itself").to_string()
}

#[test]
fn contradictions_are_refused() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 2);
    cell.assign(&agent, &spec(), 2);
    cell.submit(&spec(), 1);
    let stored = cell.disk.stored();
    assert!(Ledger::restore(LedgerOptions::default(), stored.clone()).is_ok());
    let no_spec = broken(&stored, |s| s.specs.clear());
    assert!(no_spec.contains("spec"), "{no_spec}");
    let no_group = broken(&stored, |s| drop(s.groups.remove(0)));
    assert!(no_group.contains("no group"), "{no_group}");
    let no_worker = broken(&stored, |s| s.workers.clear());
    assert!(no_worker.contains("worker"), "{no_worker}");
    let too_full = broken(&stored, |s| s.workers[0].worker.capacity.slots = 1);
    assert!(too_full.contains("no room"), "{too_full}");
    let past_the_end = broken(&stored, |s| s.live[0].id.index = 9);
    assert!(past_the_end.contains("past"), "{past_the_end}");
    let twice = broken(&stored, |s| s.groups[0].materialised[0] = 0);
    assert!(twice.contains("range"), "{twice}");
    let both = broken(&stored, |s| s.finished.push((Timestamp(1), s.live[0].id)));
    assert!(both.contains("finished"), "{both}");
    let lost = broken(&stored, |s| drop(s.live.remove(0)));
    assert!(lost.contains("law 3"), "{lost}");
}
