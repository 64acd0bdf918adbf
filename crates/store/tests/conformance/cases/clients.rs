//! Submissions, keys and stops.

use volley_ledger::{LedgerOptions, Progress, Stop, StopReply, StopTarget, Submit, SubmitRefusal};
use volley_model::{ContainerId, ContainerState, GroupId, Millis, Outcome, StopCause, TenantName};

use super::{Open, bench};
use crate::bench::{Bench, submission};
use crate::cell::{DONE, secs, spec, worker};

pub fn accepts_a_group_once(open: Open) {
    let mut bench = bench(open);
    let first = bench.accepted(submission(&[(&spec(), 100_000)], Some("key"))).unwrap();
    assert_eq!((first.count, first.repeated), (100_000, false));
    let again = bench.accepted(submission(&[(&spec(), 100_000)], Some("key"))).unwrap();
    assert_eq!((again.group, again.count, again.repeated), (first.group, 100_000, true));
    let other = bench.accepted(submission(&[(&spec(), 7)], Some("key")));
    assert_eq!(other, Err(SubmitRefusal::KeyReused { group: first.group }));
    let audit = bench.audit();
    assert_eq!((audit.accepted, audit.queued), (100_000, 100_000));
    let record = bench.group(first.group).unwrap();
    assert_eq!((record.count, record.finished, record.name.as_deref()), (100_000, 0, Some("named")));
}

pub fn refuses_what_is_too_much(open: Open) {
    let mut bench = Bench::new(open, LedgerOptions { backlog_max: 10, ..LedgerOptions::default() });
    let group = bench.submit(&spec(), 8);
    let full = bench.accepted(submission(&[(&spec(), 3)], Some("later")));
    assert_eq!(full, Err(SubmitRefusal::BacklogFull { waiting: 8, limit: 10, asked: 3 }));
    let taken = bench.call(Submit { group, submission: submission(&[(&spec(), 1)], None), body_digest: 0 });
    assert_eq!(taken, Err(SubmitRefusal::IdTaken));
    assert_eq!(bench.audit().accepted, 8, "nothing of a refused submission is there");
    let agent = bench.agent(worker("w", 8));
    bench.place(&agent, 8);
    bench.accepted(submission(&[(&spec(), 3)], Some("later"))).expect("what runs does not wait");
}

pub fn keys_end(open: Open) {
    let mut bench = Bench::new(open, LedgerOptions { key_retention: secs(60), ..LedgerOptions::default() });
    let first = bench.accepted(submission(&[(&spec(), 2)], Some("key"))).unwrap();
    bench.later(secs(59));
    bench.sweep();
    assert!(bench.accepted(submission(&[(&spec(), 2)], Some("key"))).unwrap().repeated);
    bench.later(secs(2));
    bench.sweep();
    let second = bench.accepted(submission(&[(&spec(), 2)], Some("key"))).unwrap();
    assert!(!second.repeated && second.group != first.group);
}

fn stop(bench: &mut Bench, target: StopTarget, force: bool) -> StopReply {
    bench.call(Stop { target, tenant: Some(TenantName::default()), force }).expect("there is such a one")
}

pub fn stops_at_every_state(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 4));
    let stopped = Outcome::Stopped { by: StopCause::Client };
    let waiting = ContainerId { group: bench.submit(&spec(), 3), index: 1 };
    assert_eq!(stop(&mut bench, StopTarget::Container(waiting), false).finished, 1);
    assert_eq!(bench.outcome(waiting), Some(stopped.clone()));
    assert_eq!(stop(&mut bench, StopTarget::Container(waiting), false).already_finished, 1);
    let placed = bench.place(&agent, 2);
    let (assigned, running) = ((placed[0].0, placed[0].1.unwrap()), (placed[1].0, placed[1].1.unwrap()));
    bench.say(&agent, running, Progress::Running);
    for what in [assigned, running] {
        assert_eq!(stop(&mut bench, StopTarget::Container(what.0), false).stopping, 1);
        assert_eq!(bench.state(what.0), ContainerState::Stopping);
        bench.say(&agent, what, Progress::Ended(DONE));
        assert_eq!(bench.outcome(what.0), Some(stopped.clone()), "it was told to stop, however it ended");
    }
    let audit = bench.audit();
    assert_eq!((audit.finished, audit.stopping), (3, 0));
}

pub fn stops_a_group(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 4));
    let group = bench.submit(&spec(), 1_200);
    let placed = bench.place(&agent, 3);
    bench.say(&agent, (placed[0].0, placed[0].1.unwrap()), Progress::Ended(DONE));
    let reply = stop(&mut bench, StopTarget::Group(group), true);
    assert_eq!(reply, StopReply { finished: 1_197, stopping: 2, already_finished: 1 });
    let again = stop(&mut bench, StopTarget::Group(group), true);
    assert_eq!(again, StopReply { finished: 0, stopping: 2, already_finished: 1_198 });
    assert_eq!(bench.audit().queued, 0);
}

pub fn keeps_tenants_apart(open: Open) {
    let mut bench = bench(open);
    let group = bench.submit(&spec(), 2);
    let other = TenantName::new("other").unwrap();
    for target in [StopTarget::Group(group), StopTarget::Container(ContainerId { group, index: 0 })] {
        let refused = bench.call(Stop { target, tenant: Some(other.clone()), force: true });
        assert!(refused.unwrap_err().what.contains(&group.to_string()));
    }
    let nobody = StopTarget::Group(GroupId(77));
    assert!(bench.call(Stop { target: nobody, tenant: Some(other.clone()), force: true }).is_err());
    let past = StopTarget::Container(ContainerId { group, index: 2 });
    assert!(bench.call(Stop { target: past, tenant: None, force: true }).is_err());
    assert_eq!(bench.audit().queued, 2);
    let mut theirs = submission(&[(&spec(), 1)], Some("key"));
    theirs.tenant = other;
    let theirs = bench.accepted(theirs).unwrap();
    let ours = bench.accepted(submission(&[(&spec(), 1)], Some("key"))).unwrap();
    assert_ne!(theirs.group, ours.group, "a key is its tenant's");
    bench.later(Millis(1));
    assert_eq!(bench.audit().accepted, 4);
}
