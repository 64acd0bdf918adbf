//! Claims and commits: order, lost replies, refusals, blocked shapes, holds, the change feed.

use volley_ledger::{Claim, CloseSession, Commit, Schedulable, SessionRefusal, SetSchedulable};
use volley_model::{
    BlockedMark, ContainerState, CpuMilli, FleetVersion, GPU_WHOLE, GpuGrant, GpuKinds, GpuMilli, GpuRequest,
    HoldRequest, Nonce, OnUnplaceable, Outcome, Refusal, SessionId, WaitReason, WorkerId,
};

use super::{Open, bench};
use crate::cell::{secs, spec, worker};

pub fn claims_in_one_order(open: Open) {
    let mut bench = bench(open);
    let low = bench.submit(&spec(), 2);
    let mut urgent = spec();
    (urgent.priority, urgent.resources.cpu) = (5, CpuMilli(300));
    let high = bench.submit(&urgent, 2);
    let last = bench.submit(&spec(), 1);
    let session = bench.session();
    let reply = bench.claim(session, 4);
    let order: Vec<_> = reply.containers.iter().map(|c| (c.container.group, c.container.index)).collect();
    assert_eq!(order, [(high, 0), (high, 1), (low, 0), (low, 1)]);
    assert_eq!((reply.shapes.len(), reply.ready, reply.sessions.contains(&session)), (2, 1, true));
    assert!(reply.containers.is_sorted_by_key(|c| c.score));
    assert_eq!(bench.claim(session, 4).containers[0].container.group, last);
    assert_eq!(bench.claim(session, 4).containers, []);
}

pub fn replays_a_lost_claim(open: Open) {
    let mut bench = bench(open);
    bench.submit(&spec(), 5);
    let session = bench.session();
    let first = bench.claim_op(session, 3);
    let reply = bench.call(first.clone()).unwrap();
    assert_eq!(bench.call(first.clone()).unwrap(), reply, "the same number, the same reply");
    let next = bench.claim(session, 3);
    assert_eq!(next.containers.len(), 2);
    assert_eq!(bench.call(first), Err(SessionRefusal::NumberTooOld));
    let stranger = Claim { session: SessionId(999), ..bench.claim_op(session, 1) };
    assert_eq!(bench.call(stranger), Err(SessionRefusal::SessionEnded));
}

pub fn replays_a_lost_commit(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 4));
    bench.submit(&spec(), 2);
    let session = bench.session();
    let claimed = bench.claim(session, 2).containers;
    let placements: Vec<_> = claimed.iter().map(|claimed| bench.placement(claimed, &agent)).collect();
    // Both in one breath with what they decide: a session ends with its store's process.
    let op = Commit { placements, ..bench.commit_op(session) };
    let reply = bench.call(op.clone()).unwrap();
    assert!(reply.placements.iter().all(Result::is_ok));
    match bench.call(op.clone()) {
        Ok(again) => assert_eq!(again, reply, "the same number, the same reply"),
        Err(ended) => assert_eq!(ended, SessionRefusal::SessionEnded, "or its session ended with the process"),
    }
    assert_eq!(bench.audit().assigned, 2);
    assert_eq!(bench.worker(&agent).containers, 2);
}

pub fn refuses_each_for_its_reason(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 2));
    let cordoned = bench.agent(worker("c", 2));
    let id = cordoned.worker.id.clone();
    bench.call(SetSchedulable { worker: id, to: Schedulable::Cordoned }).unwrap();
    bench.submit(&spec(), 8);
    let session = bench.session();
    let claimed = bench.claim(session, 8).containers;
    let mut placements: Vec<_> = claimed.iter().map(|claimed| bench.placement(claimed, &agent)).collect();
    placements[0].claim.0 += 1;
    placements[1].worker = WorkerId::new("nobody").unwrap();
    placements[2].epoch.nonce = Nonce(12345);
    placements[3].revision.0 += 1;
    placements[4] = bench.placement(&claimed[4], &cordoned);
    placements.push(placements[7].clone());
    let verdicts: Vec<_> = bench.commit(session, placements).placements.into_iter().map(Result::err).collect();
    use Refusal::{ClaimLost, NoCapacity, NotReady, RevisionChanged, WorkerGone};
    let expected = [ClaimLost, WorkerGone, WorkerGone, RevisionChanged, NotReady].map(Some);
    assert_eq!(verdicts[..5], expected);
    assert_eq!(verdicts[5..], [None, None, Some(NoCapacity), Some(NoCapacity)]);
    let audit = bench.audit();
    assert_eq!((audit.assigned, audit.claimed + audit.queued), (2, 6));
}

pub fn gives_back_what_a_session_claimed(open: Open) {
    let mut bench = bench(open);
    let group = bench.submit(&spec(), 4);
    let session = bench.session();
    assert_eq!(bench.claim(session, 3).containers.len(), 3);
    assert_eq!(bench.audit().claimed, 3);
    bench.twice(CloseSession { session });
    assert_eq!((bench.audit().claimed, bench.audit().queued), (0, 4));
    let op = bench.claim_op(session, 1);
    assert_eq!(bench.call(op), Err(SessionRefusal::SessionEnded), "an ended session is fenced");
    let other = bench.session();
    let order: Vec<_> = bench.claim(other, 9).containers.iter().map(|c| c.container.index).collect();
    assert_eq!(order, [0, 1, 2, 3], "with the places they had");
    assert_eq!(bench.group(group).unwrap().count, 4);
}

pub fn returns_and_ends_unplaceable(open: Open) {
    let mut bench = bench(open);
    let mut picky = spec();
    picky.on_unplaceable = OnUnplaceable::Fail;
    bench.submit(&picky, 2);
    bench.submit(&spec(), 2);
    let session = bench.session();
    let claimed = bench.claim(session, 4).containers;
    assert_eq!(claimed.iter().map(|c| c.fail_if_unplaceable).collect::<Vec<_>>(), [true, true, false, false]);
    let reason = || "no pool has it".to_owned();
    let ids: Vec<_> = claimed.iter().map(|c| c.container).collect();
    let op = Commit {
        unplaceable: vec![(ids[0], reason()), (ids[2], reason())],
        returned: vec![ids[1], ids[3]],
        ..bench.commit_op(session)
    };
    bench.call(op).unwrap();
    assert_eq!(bench.outcome(ids[0]), Some(Outcome::Unplaceable { reason: reason() }));
    for id in &ids[1..] {
        assert_eq!(bench.state(*id), ContainerState::Queued, "it waits");
    }
}

pub fn blocks_and_looks_again(open: Open) {
    let mut bench = bench(open);
    let mut agent = bench.agent(worker("w", 1));
    let mut big = spec();
    big.resources.cpu = CpuMilli(9_000);
    let group = bench.submit(&big, 3);
    let session = bench.session();
    let claim = bench.claim(session, 1);
    let shape = claim.containers[0].shape;
    let reasons = vec![WaitReason::NoWorkers];
    let mark = BlockedMark { shape, at: claim.fleet.version, reasons: reasons.clone() };
    let returned = vec![claim.containers[0].container];
    let op = Commit { blocked: vec![mark.clone()], returned, ..bench.commit_op(session) };
    bench.call(op).unwrap();
    // A mark is void when the store's process ends; then the shape is looked at once more.
    let session = bench.session();
    let claim = bench.claim(session, 1);
    if let Some(again) = claim.containers.first() {
        let returned = vec![again.container];
        let op = Commit { blocked: vec![mark], returned, ..bench.commit_op(session) };
        bench.call(op).unwrap();
        return;
    }
    assert_eq!((claim.ready, &claim.recheck), (0, &Vec::new()), "nobody polls a blocked shape");
    let blocked = &claim.fleet.blocked[0];
    assert_eq!((blocked.hash, blocked.count), (shape, 3));
    let waits = bench.container(volley_model::ContainerId { group, index: 0 }).unwrap().waiting.unwrap();
    assert_eq!(waits.reasons, reasons);
    agent.worker.capacity.cpu = CpuMilli(10_000);
    bench.attach(&mut agent, Vec::new());
    let claim = bench.claim(session, 1);
    assert_eq!(claim.recheck, [shape], "capacity grew");
    assert_eq!(bench.claim(session, 1).recheck, [], "handed out once");
    let op = Commit { unblocked: vec![shape], ..bench.commit_op(session) };
    bench.call(op).unwrap();
    let claim = bench.claim(session, 5);
    assert_eq!((claim.containers.len(), claim.fleet.unblocked.as_slice()), (3, &[shape][..]));
}

pub fn tells_the_fleets_changes(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 2));
    let session = bench.session();
    let first = bench.claim(session, 0);
    assert!(first.fleet.reload && first.fleet.workers.len() == 1 && first.fleet.pools.len() == 1);
    bench.agent(worker("v", 2));
    let session = bench.session();
    let first = bench.claim(session, 0).fleet;
    assert_eq!(first.workers.len(), 2, "whoever is new is told all");
    assert_eq!(bench.claim(session, 0).fleet.workers, []);
    assert!(!bench.claim(session, 0).fleet.reload);
    let absurd = Claim { known: FleetVersion(u64::MAX), ..bench.claim_op(session, 0) };
    assert!(bench.call(absurd).unwrap().fleet.reload, "a version from nowhere");
    let nothing = Claim { known: FleetVersion(0), changes_max: 1, ..bench.claim_op(session, 0) };
    let all = bench.call(nothing).unwrap().fleet;
    assert!(all.reload && !all.more && all.workers.len() == 2);
    assert_eq!(all.workers.iter().find(|w| w.worker.id == agent.worker.id).unwrap().free.slots, 2);
}

pub fn holds_room(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 4));
    let mut big = spec();
    big.resources.cpu = CpuMilli(4_000);
    bench.assign(&agent, &spec(), 1);
    bench.submit(&big, 1);
    let session = bench.session();
    let claim = bench.claim(session, 1);
    let shape = claim.containers[0].shape;
    let mark = BlockedMark { shape, at: claim.fleet.version, reasons: vec![WaitReason::NotLookedAt] };
    let hold = HoldRequest { shape, worker: agent.worker.id.clone(), term: secs(30) };
    let returned = vec![claim.containers[0].container];
    let op = Commit { blocked: vec![mark], returned, holds: vec![hold], ..bench.commit_op(session) };
    bench.call(op).unwrap();
    bench.submit(&spec(), 1);
    let Some(hold) = bench.worker(&agent).view.hold else { return };
    assert_eq!(hold.shape, shape);
    let placed = bench.place(&agent, 1);
    assert_eq!(placed[0].1, Err(Refusal::Held), "worse-scored work is refused there");
    bench.pass(secs(31), &[&agent]);
    assert_eq!(bench.worker(&agent).view.hold, None, "a hold ends by itself");
}

pub fn chooses_devices(open: Open) {
    let mut bench = bench(open);
    let mut machine = worker("g", 4);
    machine.capacity.gpus = vec!["A10G".to_owned(), "H100".to_owned()];
    let agent = bench.agent(machine);
    let mut part = spec();
    part.resources.gpu = Some(GpuRequest { kinds: GpuKinds::Any, count: 1, milli: GpuMilli(600) });
    bench.submit(&part, 3);
    let session = bench.session();
    let claimed = bench.claim(session, 3).containers;
    let mut placements: Vec<_> = claimed.iter().map(|claimed| bench.placement(claimed, &agent)).collect();
    let on = |device| vec![GpuGrant { device, milli: GpuMilli(600) }];
    (placements[0].gpus, placements[1].gpus) = (on(0), on(0));
    placements[2].gpus = vec![GpuGrant { device: 1, milli: GPU_WHOLE }];
    let verdicts: Vec<_> = bench.commit(session, placements).placements.into_iter().map(Result::err).collect();
    assert_eq!(verdicts, [None, Some(Refusal::NoCapacity), Some(Refusal::NoCapacity)]);
    assert_eq!(bench.worker(&agent).view.free.gpus, [GpuMilli(400), GPU_WHOLE]);
    let record = bench.container(claimed[0].container).unwrap();
    assert_eq!(record.gpus, on(0));
}
