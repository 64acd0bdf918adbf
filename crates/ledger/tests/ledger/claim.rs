//! Claim: order, replays, the fleet's changes, blocked shapes.

use volley_ledger::{ApplyPool, Claim, Commit, Detach, Hint, RemovePool, Schedulable, SessionRefusal, SetSchedulable};
use volley_model::{
    BlockedMark, ClaimNumber, ContainerId, CpuMilli, FleetVersion, HoldRequest, OnUnplaceable, Pool, PoolName,
    SessionId, Shape, Spec, TenantName,
};

use crate::cell::{Cell, secs, spec};

#[test]
fn priority_then_arrival_then_index_over_all_shapes() {
    let mut cell = Cell::new();
    let session = cell.session();
    let (small, mut big, mut urgent) = (spec(), spec(), spec());
    big.resources.cpu = CpuMilli(2000);
    urgent.priority = 1;
    let mixed = cell.submit_runs(&[(&small, 2), (&big, 1), (&small, 1), (&big, 2)]);
    let late = cell.submit(&small, 1);
    let first = cell.submit(&urgent, 1);
    let claimed = cell.claim_ids(session, 4);
    let id = |group, index| ContainerId { group, index };
    assert_eq!(claimed, [id(first, 0), id(mixed, 0), id(mixed, 1), id(mixed, 2)]);
    assert_eq!(cell.claim_ids(session, 10), [id(mixed, 3), id(mixed, 4), id(mixed, 5), id(late, 0)]);
}

#[test]
fn the_same_number_replays_and_an_older_one_is_refused() {
    let mut cell = Cell::new();
    let session = cell.session();
    cell.submit(&spec(), 10);
    let first = cell.claim_op(session, 2);
    let second = cell.claim_op(session, 2);
    let reply = cell.call(first.clone());
    assert_eq!(cell.call(first.clone()), reply, "nothing more is claimed");
    assert_eq!(cell.ledger.audit().claimed, 2);
    cell.call(second).unwrap();
    assert_eq!(cell.call(first), Err(SessionRefusal::NumberTooOld));
    assert_eq!(cell.ledger.audit().claimed, 4);
}

#[test]
fn without_a_session_nothing_is_claimed() {
    let mut cell = Cell::new();
    cell.submit(&spec(), 1);
    let op = cell.claim_op(SessionId(404), 1);
    assert_eq!(cell.call(op), Err(SessionRefusal::SessionEnded));
}

#[test]
fn the_first_claim_of_a_session_loads_the_fleet_whatever_it_knew() {
    let mut cell = Cell::new();
    let session = cell.session();
    cell.agent(session, "w", 1);
    let op = Claim { known: FleetVersion(1 << 40), ..cell.claim_op(session, 0) };
    let fleet = cell.call(op).unwrap().fleet;
    assert!(fleet.reload);
    assert_eq!(fleet.workers.len(), 1);
    let fleet = cell.claim(session, 0).fleet;
    assert!(fleet.reload, "a version from another life of the store");
    let fleet = cell.claim(session, 0).fleet;
    assert_eq!((fleet.reload, fleet.workers.len()), (false, 0));
}

#[test]
fn changes_come_in_bounded_steps() {
    let mut cell = Cell::new();
    let session = cell.session();
    cell.agent(session, "w", 1);
    cell.claim(session, 0);
    let known = cell.claim(session, 0).fleet.version;
    for name in ["a", "b", "c"] {
        cell.agent(session, name, 1);
    }
    let mut op = Claim { known, changes_max: 2, ..cell.claim_op(session, 0) };
    let fleet = cell.call(op.clone()).unwrap().fleet;
    assert_eq!((fleet.more, fleet.workers.len()), (true, 2));
    op = Claim { known: fleet.version, number: ClaimNumber(op.number.0 + 1), ..op };
    let fleet = cell.call(op).unwrap().fleet;
    assert_eq!((fleet.more, fleet.workers.len()), (false, 1));
}

/// Everything of a shape is blocked as of the session's last claim.
fn block(cell: &mut Cell, session: SessionId, spec: &volley_model::Spec) -> volley_model::ShapeHash {
    let claimed = cell.claim(session, 1);
    let shape = Shape::of(&TenantName::default(), spec).hash();
    let mark = BlockedMark { shape, at: claimed.fleet.version, reasons: Vec::new() };
    let returned = claimed.containers.iter().map(|c| c.container).collect();
    let op = Commit { blocked: vec![mark], returned, ..cell.commit_op(session) };
    cell.call(op).unwrap();
    shape
}

#[test]
fn a_blocked_shape_waits_silently_until_capacity_grows() {
    let mut cell = Cell::new();
    let session = cell.session();
    let mut big = spec();
    big.resources.cpu = CpuMilli(5000);
    cell.submit(&big, 1000);
    let shape = block(&mut cell, session, &big);
    assert!(!cell.last.hints.iter().any(|hint| matches!(hint, Hint::Ready { .. })), "nobody is woken: {:?}", cell.last);
    let claimed = cell.claim(session, 10);
    assert_eq!((claimed.containers.len(), claimed.ready, claimed.recheck.len()), (0, 0, 0));
    assert_eq!((claimed.fleet.blocked[0].hash, claimed.fleet.blocked[0].count), (shape, 1000));
    // More of the same shape stand in the way of nobody, and another shape passes.
    cell.submit(&big, 1);
    assert!(!cell.last.hints.iter().any(|hint| matches!(hint, Hint::Ready { .. })));
    cell.submit(&spec(), 1);
    assert_eq!(cell.claim(session, 10).containers.len(), 1);

    cell.agent(session, "w", 8);
    assert!(cell.last.hints.contains(&Hint::Ready { containers: 0 }), "someone is to look again");
    assert_eq!(cell.claim(session, 0).recheck, [], "who does not plan is handed nothing");
    assert_eq!(cell.claim(session, 10).recheck, [shape]);
    assert_eq!(cell.claim(session, 10).recheck, [], "handed out once");
    let op = Commit { unblocked: vec![shape], ..cell.commit_op(session) };
    cell.call(op).unwrap();
    assert!(cell.last.hints.contains(&Hint::Ready { containers: 1001 }));
    assert_eq!(cell.claim(session, 10).containers.len(), 10);
}

#[test]
fn what_was_handed_to_a_session_that_ended_is_handed_out_again() {
    let mut cell = Cell::new();
    let (first, second) = (cell.session(), cell.session());
    cell.submit(&spec(), 1);
    let shape = block(&mut cell, first, &spec());
    cell.agent(second, "w", 1);
    assert_eq!(cell.claim(first, 1).recheck, [shape]);
    assert_eq!(cell.claim(second, 1).recheck, []);
    cell.call(volley_ledger::CloseSession { session: first });
    assert_eq!(cell.claim(second, 1).recheck, [shape]);
}

#[test]
fn a_mark_older_than_the_last_growth_is_looked_at_again_at_once() {
    let mut cell = Cell::new();
    let session = cell.session();
    cell.submit(&spec(), 1);
    let claimed = cell.claim(session, 1);
    cell.agent(session, "w", 1);
    let shape = claimed.containers[0].shape;
    let mark = |at| BlockedMark { shape, at, reasons: Vec::new() };
    let returned = vec![claimed.containers[0].container];
    let op = Commit { blocked: vec![mark(claimed.fleet.version)], returned, ..cell.commit_op(session) };
    cell.call(op).unwrap();
    assert!(cell.last.hints.contains(&Hint::Ready { containers: 0 }));
    assert_eq!(cell.claim(session, 1).recheck, [shape]);
    // A version from nowhere counts as the present one, and an older look does not undo a newer one.
    let op = Commit { blocked: vec![mark(FleetVersion(u64::MAX)), mark(FleetVersion(0))], ..cell.commit_op(session) };
    cell.call(op).unwrap();
    assert_eq!(cell.claim(session, 1).recheck, []);
    cell.agent(session, "v", 1);
    assert_eq!(cell.claim(session, 1).recheck, [shape]);
}

#[test]
fn what_blocks_is_looked_at_again_when_a_worker_or_pool_goes() {
    let mut cell = Cell::new();
    let session = cell.session();
    let pool = Pool::with_defaults(PoolName::new("p").unwrap());
    cell.call(ApplyPool { pool: pool.clone(), expected: None, renew: false }).unwrap();
    cell.agent(session, "small", 1);
    let large = cell.agent(session, "large", 1);
    let failing = Spec { on_unplaceable: OnUnplaceable::Fail, ..spec() };
    cell.submit(&failing, 1);
    let shape = block(&mut cell, session, &failing);
    assert_eq!(cell.claim(session, 1).recheck, []);
    let drain = Schedulable::Drain { deadline: None };
    cell.call(SetSchedulable { worker: large.worker.id.clone(), to: drain }).unwrap();
    assert_eq!(cell.claim(session, 1).recheck, [], "it may be opened again");
    assert!(cell.call(Detach { session, worker: large.worker.id.clone(), stream: large.stream }));
    assert!(cell.last.hints.contains(&Hint::Ready { containers: 0 }), "someone is to look: {:?}", cell.last.hints);
    assert_eq!(cell.claim(session, 1).recheck, [shape], "perhaps nothing can serve it any more");
    cell.call(RemovePool { pool: pool.name }).unwrap();
    assert_eq!(cell.claim(session, 1).recheck, [shape], "perhaps nothing can be bought for it any more");
}

#[test]
fn one_shape_returned_while_another_is_blocked_is_still_told() {
    let mut cell = Cell::new();
    let session = cell.session();
    let mut big = spec();
    big.resources.cpu = CpuMilli(5000);
    cell.submit(&spec(), 1);
    cell.submit(&big, 1);
    let claimed = cell.claim(session, 2);
    let mark = BlockedMark { shape: claimed.containers[1].shape, at: claimed.fleet.version, reasons: Vec::new() };
    let returned = claimed.containers.iter().map(|c| c.container).collect();
    let op = Commit { blocked: vec![mark], returned, ..cell.commit_op(session) };
    cell.call(op).unwrap();
    assert!(cell.last.hints.contains(&Hint::Ready { containers: 1 }), "{:?}", cell.last.hints);
}

#[test]
fn a_hold_that_ends_or_is_used_up_wakes_those_it_kept_out() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 8);
    let (small, mut big) = (spec(), spec());
    big.resources.cpu = CpuMilli(5000);
    cell.submit(&big, 2);
    let big = block(&mut cell, session, &big);
    let hold = HoldRequest { shape: big, worker: agent.worker.id.clone(), term: secs(60) };
    let op = Commit { holds: vec![hold], ..cell.commit_op(session) };
    cell.call(op).unwrap();
    cell.submit(&small, 1);
    let small = block(&mut cell, session, &small);
    assert_eq!(cell.claim(session, 1).recheck, []);
    let op = Commit { unblocked: vec![big], ..cell.commit_op(session) };
    cell.call(op).unwrap();
    let claimed = cell.claim(session, 1).containers;
    assert_eq!(claimed[0].shape, big);
    assert!(cell.place(&agent, &claimed)[0].is_ok());
    assert_eq!(cell.worker(&agent).view.hold, None);
    assert_eq!(cell.claim(session, 1).recheck, [small], "the rest of the room is anybody's");
}
