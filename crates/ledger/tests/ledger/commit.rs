//! Commit: each item against the truth, alone; replays; holds; what ends without a placement.

use volley_ledger::{Commit, LedgerOptions, Schedulable, SessionRefusal, SetSchedulable, Stop, StopTarget};
use volley_model::{
    BlockedMark, Claimed, ContainerState, CpuMilli, Epoch, GPU_WHOLE, GpuGrant, GpuMilli, GpuRequest, HoldRequest,
    Nonce, OnUnplaceable, Outcome, Placement, Refusal, Revision, WorkerId,
};

use crate::cell::{Agent, Cell, secs, spec};

/// A cell with one worker of two slots and three claimed containers.
fn claimed_three() -> (Cell, Agent, Vec<Claimed>) {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 2);
    cell.submit(&spec(), 3);
    let claimed = cell.claim(session, 3).containers;
    (cell, agent, claimed)
}

#[test]
fn one_bad_placement_touches_no_other() {
    let (mut cell, agent, claimed) = claimed_three();
    let verdicts = cell.place(&agent, &claimed);
    assert_eq!(verdicts[0].map(|a| a.number), Ok(1));
    assert!(verdicts[1].is_ok());
    assert_eq!(verdicts[2], Err(Refusal::NoCapacity));
    assert_eq!(cell.state(claimed[2].container), ContainerState::Claimed, "it is replanned, still claimed");
    assert_eq!(cell.worker(&agent).view.free.slots, 0);
}

#[test]
fn each_refusal_has_its_reason() {
    type Spoil = fn(&mut Placement);
    let table: [(&str, Spoil, Refusal); 5] = [
        ("another claim", |p| p.claim.0 += 1, Refusal::ClaimLost),
        ("another container", |p| p.container.index = 99, Refusal::ClaimLost),
        ("no such worker", |p| p.worker = WorkerId::new("nobody").unwrap(), Refusal::WorkerGone),
        ("another epoch", |p| p.epoch = Epoch { nonce: Nonce(0), ..p.epoch }, Refusal::WorkerGone),
        ("an older revision", |p| p.revision = Revision(0), Refusal::RevisionChanged),
    ];
    for (name, spoil, refusal) in table {
        let (mut cell, agent, claimed) = claimed_three();
        let mut bad = cell.placement(&claimed[0], &agent);
        spoil(&mut bad);
        let good = cell.placement(&claimed[1], &agent);
        let reply = cell.commit(agent.session, vec![bad.clone(), good]);
        assert_eq!(reply.placements[0], Err(refusal), "{name}");
        assert!(reply.placements[1].is_ok(), "{name}");
        let fresh: Vec<_> = reply.fresh.iter().map(|view| view.worker.id.clone()).collect();
        assert_eq!(fresh.contains(&bad.worker), bad.worker == agent.worker.id, "{name}: its fresh numbers");
        assert_eq!(reply.wake, [(agent.worker.id.clone(), agent.session)]);
    }
}

#[test]
fn a_cordoned_worker_and_grants_that_were_not_asked_are_refused() {
    let (mut cell, agent, claimed) = claimed_three();
    let mut with_gpu = cell.placement(&claimed[0], &agent);
    with_gpu.gpus = vec![GpuGrant { device: 0, milli: GPU_WHOLE }];
    assert_eq!(cell.commit(agent.session, vec![with_gpu]).placements, [Err(Refusal::NoCapacity)]);
    cell.call(SetSchedulable { worker: agent.worker.id.clone(), to: Schedulable::Cordoned }).unwrap();
    assert_eq!(cell.place(&agent, &claimed[..1]), [Err(Refusal::NotReady)]);
}

#[test]
fn parts_of_a_device_never_exceed_it() {
    let mut cell = Cell::new();
    let session = cell.session();
    let mut agent = cell.agent(session, "w", 8);
    agent.worker.capacity.gpus = vec!["A10G".to_owned(), "A10G".to_owned()];
    cell.attach(&mut agent, Vec::new()).unwrap();
    let mut half = spec();
    half.resources.gpu = Some(GpuRequest {
        milli: GpuMilli(600),
        ..GpuRequest { kinds: volley_model::GpuKinds::Any, count: 1, milli: GPU_WHOLE }
    });
    cell.submit(&half, 4);
    let claimed = cell.claim(session, 4).containers;
    let on = |cell: &mut Cell, claimed: &Claimed, device| {
        let gpus = vec![GpuGrant { device, milli: GpuMilli(600) }];
        Placement { gpus, ..cell.placement(claimed, &agent) }
    };
    let placements = vec![
        on(&mut cell, &claimed[0], 0),
        on(&mut cell, &claimed[1], 0),
        on(&mut cell, &claimed[2], 1),
        on(&mut cell, &claimed[3], 2),
    ];
    let verdicts = cell.commit(session, placements).placements;
    let good: Vec<bool> = verdicts.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true, false], "the second device is full, the fourth is not there");
}

#[test]
fn a_claim_that_was_stopped_or_swept_is_lost() {
    let (mut cell, agent, claimed) = claimed_three();
    let container = claimed[0].container;
    cell.call(Stop { target: StopTarget::Container(container), tenant: None, force: false }).unwrap();
    assert_eq!(cell.place(&agent, &claimed[..1]), [Err(Refusal::ClaimLost)]);
    cell.call(volley_ledger::CloseSession { session: agent.session });
    let op = cell.commit_op(agent.session);
    assert_eq!(cell.call(op), Err(SessionRefusal::SessionEnded));
    // Another session claims them anew; the first one's late commit finds the claim gone.
    let second = cell.session();
    assert_eq!(cell.claim_ids(second, 3), [claimed[1].container, claimed[2].container]);
    let late = cell.placement(&claimed[1], &agent);
    let op = Commit { placements: vec![late], ..cell.commit_op(second) };
    let verdict = cell.call(op).unwrap().placements;
    // The claim number happens to be equal, and the session is the present owner: this one is right.
    assert!(verdict[0].is_ok());
}

#[test]
fn the_same_number_replays_and_books_once() {
    let (mut cell, agent, claimed) = claimed_three();
    let placements = vec![cell.placement(&claimed[0], &agent)];
    let first = Commit { placements: placements.clone(), ..cell.commit_op(agent.session) };
    let reply = cell.call(first.clone());
    assert_eq!(cell.call(first.clone()), reply);
    assert_eq!(cell.last.changes, []);
    assert_eq!(cell.worker(&agent).view.free.slots, 1);
    let second = cell.commit_op(agent.session);
    cell.call(second).unwrap();
    assert_eq!(cell.call(first), Err(SessionRefusal::NumberTooOld));
    // The same placement under a new number: the container is not claimed any more.
    assert_eq!(cell.commit(agent.session, placements).placements, [Err(Refusal::ClaimLost)]);
}

#[test]
fn the_change_set_of_an_assignment_is_small() {
    let (mut cell, agent, claimed) = claimed_three();
    cell.place(&agent, &claimed[..2]);
    assert_eq!(cell.last.changes.len(), 3, "two records and the run's mark: {:?}", cell.last.changes);
    assert_eq!(cell.last.events.len(), 2);
}

#[test]
fn placing_a_later_one_first_makes_the_earlier_ones_durable() {
    let (mut cell, agent, claimed) = claimed_three();
    cell.place(&agent, &claimed[2..]);
    assert_eq!(cell.disk.live.len(), 3);
    cell.restart();
    let audit = cell.ledger.audit();
    assert_eq!((audit.queued, audit.assigned), (2, 1));
}

#[test]
fn unplaceable_ends_only_what_says_so() {
    let mut cell = Cell::new();
    let session = cell.session();
    let (mut fails, waits) = (spec(), spec());
    fails.on_unplaceable = OnUnplaceable::Fail;
    cell.submit(&fails, 1);
    cell.submit(&waits, 1);
    let claimed = cell.claim(session, 2).containers;
    assert_eq!((claimed[0].fail_if_unplaceable, claimed[1].fail_if_unplaceable), (true, false));
    let unplaceable = claimed.iter().map(|c| (c.container, "no pool has GPUs".to_owned())).collect();
    let op = Commit { unplaceable, ..cell.commit_op(session) };
    cell.call(op).unwrap();
    let reason = "no pool has GPUs".to_owned();
    assert_eq!(cell.outcome(claimed[0].container), Some(Outcome::Unplaceable { reason }));
    assert_eq!(cell.state(claimed[1].container), ContainerState::Queued);
}

/// Two shapes, the bigger blocked and with a hold on the only worker.
fn held() -> (Cell, Agent, volley_model::ShapeHash) {
    let mut cell = Cell::with(LedgerOptions::default());
    let session = cell.session();
    let agent = cell.agent(session, "w", 4);
    let mut big = spec();
    big.resources.cpu = CpuMilli(4000);
    cell.submit(&big, 1);
    let claimed = cell.claim(session, 1);
    let (shape, container) = (claimed.containers[0].shape, claimed.containers[0].container);
    let op = Commit {
        blocked: vec![BlockedMark { shape, at: claimed.fleet.version, reasons: Vec::new() }],
        returned: vec![container],
        holds: vec![HoldRequest { shape, worker: agent.worker.id.clone(), term: secs(5) }],
        ..cell.commit_op(session)
    };
    cell.call(op).unwrap();
    (cell, agent, shape)
}

#[test]
fn a_hold_keeps_worse_scores_out_and_lets_better_ones_in() {
    let (mut cell, agent, shape) = held();
    let mut urgent = spec();
    urgent.priority = 5;
    cell.submit(&spec(), 1);
    let worse = cell.claim(agent.session, 1).containers;
    assert_eq!(cell.place(&agent, &worse), [Err(Refusal::Held)]);
    cell.submit(&urgent, 1);
    let better = cell.claim(agent.session, 1).containers;
    assert!(cell.place(&agent, &better)[0].is_ok());
    assert_eq!(cell.worker(&agent).view.hold.map(|hold| hold.shape), Some(shape), "the hold stays");
}

#[test]
fn a_hold_ends_with_its_term_even_before_a_sweep() {
    let (mut cell, agent, _) = held();
    cell.submit(&spec(), 1);
    let worse = cell.claim(agent.session, 1).containers;
    cell.later(secs(5));
    assert!(cell.place(&agent, &worse)[0].is_ok());
    cell.sweep();
    assert_eq!(cell.worker(&agent).view.hold, None);
}

#[test]
fn a_hold_stays_while_its_head_is_claimed_and_goes_with_it() {
    let (mut cell, agent, shape) = held();
    let op = Commit { unblocked: vec![shape], ..cell.commit_op(agent.session) };
    cell.call(op).unwrap();
    let head = cell.claim(agent.session, 1).containers[0].container;
    cell.sweep();
    assert!(cell.worker(&agent).view.hold.is_some(), "its head is in a turn");
    cell.stop(StopTarget::Container(head), false);
    cell.sweep();
    assert_eq!(cell.worker(&agent).view.hold, None);
}

#[test]
fn there_is_one_hold_per_worker_and_per_shape() {
    let (mut cell, agent, shape) = held();
    let other = cell.agent(agent.session, "v", 4);
    let until = cell.worker(&agent).view.hold.unwrap().until;
    let hold = |agent: &Agent| HoldRequest { shape, worker: agent.worker.id.clone(), term: secs(50) };
    let op = Commit { holds: vec![hold(&agent), hold(&other)], ..cell.commit_op(agent.session) };
    cell.call(op).unwrap();
    assert_eq!(cell.worker(&agent).view.hold.unwrap().until, until);
    assert_eq!(cell.worker(&other).view.hold, None);
}
