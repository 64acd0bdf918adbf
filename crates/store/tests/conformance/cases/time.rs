//! What time makes due: leases, expiries, pruning.

use volley_ledger::{CloseSession, LedgerOptions, Progress, Sweep};
use volley_model::{ContainerState, Outcome, Retry, WorkerStatus};

use super::{Open, bench};
use crate::bench::Bench;
use crate::cell::{DONE, secs, spec, worker};

pub fn loses_a_silent_worker(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 4));
    let again = bench.assign(&agent, &spec(), 1)[0];
    let mut once = spec();
    once.retry = Retry::Never;
    let once = bench.assign(&agent, &once, 1)[0];
    let mut lost = Vec::new();
    // A sweep that follows a restart gives all leases one fresh term, so only a store that goes on loses it here.
    for reply in bench.pass(secs(130), &[]) {
        lost.extend(reply.workers_lost);
    }
    if lost.is_empty() {
        return;
    }
    assert_eq!(lost, std::slice::from_ref(&agent.worker.id));
    assert_eq!(bench.worker(&agent).view.status, WorkerStatus::Lost);
    assert_eq!(bench.state(again.0), ContainerState::Queued);
    assert_eq!(bench.outcome(once.0), Some(Outcome::Lost));
    bench.pass(secs(3700), &[]);
    assert!(bench.workers().is_empty(), "a lost worker is listed for a while");
}

pub fn forgives_a_gap(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 4));
    bench.pass(secs(2), &[&agent]);
    bench.later(secs(3_000));
    assert!(bench.sweep().workers_lost.is_empty(), "an outage of the control plane kills nothing");
    assert_eq!(bench.worker(&agent).view.status, WorkerStatus::Ready);
}

pub fn one_server_sweeps(open: Open) {
    let mut bench = bench(open);
    let (one, other) = (bench.session(), bench.session());
    let sweep = |bench: &mut Bench, session| bench.call(Sweep { session: Some(session), items_max: 10 });
    assert!(!sweep(&mut bench, one).left);
    let left = sweep(&mut bench, other);
    if !left.left {
        // A store that was opened again has no sessions: nobody has the right.
        return;
    }
    assert!(left.due.is_some_and(|due| due > left.now), "until then it is the first one's: {left:?}");
    assert!(!sweep(&mut bench, one).left, "whoever has it goes on");
    bench.later(secs(6));
    assert!(!sweep(&mut bench, other).left, "it ends by itself, before a gap in sweeps is an outage");
    assert!(sweep(&mut bench, one).left);
    bench.call(CloseSession { session: other });
    assert!(!sweep(&mut bench, one).left, "and with its session");
}

pub fn expires_what_waits(open: Open) {
    let mut bench = bench(open);
    let mut hasty = spec();
    hasty.max_wait = Some(secs(20));
    let group = bench.submit(&hasty, 30);
    let patient = bench.submit(&spec(), 1);
    let session = bench.session();
    assert_eq!(bench.claim(session, 2).containers.len(), 2);
    bench.later(secs(21));
    let mut expired = 0;
    for _ in 0..40 {
        // All sessions are silent, so what they claimed comes back on the way.
        bench.later(secs(1));
        expired += bench.sweep().expired;
    }
    assert_eq!(expired, 30);
    assert_eq!(bench.group(group).unwrap().finished, 30);
    assert_eq!(bench.group(patient).unwrap().finished, 0);
    assert_eq!(bench.outcome(volley_model::ContainerId { group, index: 29 }), Some(Outcome::Expired));
}

pub fn prunes_by_count(open: Open) {
    let options = LedgerOptions { finished_containers_max: 4, ..LedgerOptions::default() };
    let mut bench = Bench::new(open, options);
    let agent = bench.agent(worker("w", 8));
    let run = bench.assign(&agent, &spec(), 6);
    for what in &run {
        bench.say(&agent, *what, Progress::Ended(DONE));
    }
    assert_eq!(bench.sweep().pruned, 2);
    let audit = bench.audit();
    assert_eq!((audit.accepted, audit.finished, audit.pruned), (6, 4, 2));
    assert_eq!(bench.container(run[0].0), None);
    assert_eq!(bench.outcome(run[5].0), Some(DONE));
    assert_eq!(bench.group(run[0].0.group).unwrap().finished, 6, "the group's counts stay");
    for what in bench.assign(&agent, &spec(), 6) {
        bench.say(&agent, what, Progress::Ended(DONE));
    }
    bench.sweep();
    assert_eq!(bench.group(run[0].0.group), None, "a group goes with its last container");
}

pub fn ends_silent_sessions(open: Open) {
    let mut bench = bench(open);
    bench.submit(&spec(), 3);
    let silent = bench.session();
    assert_eq!(bench.claim(silent, 3).containers.len(), 3);
    for _ in 0..32 {
        bench.later(secs(1));
        bench.sweep();
    }
    let audit = bench.audit();
    assert_eq!((audit.claimed, audit.queued), (0, 3));
    let op = bench.commit_op(silent);
    assert!(bench.call(op).is_err(), "a swept session is fenced for good");
}
