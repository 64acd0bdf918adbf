//! Submit: groups, keys, limits, and what a range costs.

use volley_ledger::{Change, EventKind, Hint, LedgerOptions, Stop, StopTarget, Submit, SubmitRefusal, SubmitReply};
use volley_model::{ContainerId, ContainerState, GroupId, TenantName};

use crate::cell::{Cell, DONE, secs, spec, submission};

#[test]
fn a_range_of_a_hundred_thousand_is_one_record_until_claimed() {
    let mut cell = Cell::new();
    let session = cell.session();
    let group = cell.submit(&spec(), 100_000);
    assert_eq!(cell.last.changes.len(), 2, "a spec and a group");
    assert_eq!(cell.last.events.len(), 1);
    assert!(cell.last.hints.contains(&Hint::Ready { containers: 100_000 }));
    assert_eq!(cell.disk.live.len(), 0);
    assert_eq!(cell.ledger.stored().live.len(), 0);
    assert_eq!(cell.ledger.audit().queued, 100_000);
    let claimed = cell.claim_ids(session, 3);
    let first = |index| ContainerId { group, index };
    assert_eq!(claimed, [first(0), first(1), first(2)]);
    assert_eq!(cell.last.changes, [], "a claim is not durable");
    let audit = cell.ledger.audit();
    assert_eq!((audit.claimed, audit.queued), (3, 99_997));
}

#[test]
fn the_same_key_gives_the_same_group_for_its_retention() {
    let mut cell = Cell::new();
    let session = cell.session();
    let first = cell.submit_key(&spec(), "k", 1).unwrap();
    let again = cell.submit_key(&spec(), "k", 1).unwrap();
    assert_eq!(again, SubmitReply { repeated: true, ..first });
    assert_eq!(cell.last.changes, []);
    assert_eq!(cell.submit_key(&spec(), "k", 2), Err(SubmitRefusal::KeyReused { group: first.group }));
    // Whatever was pruned: the group is gone long before the key is.
    let agent = cell.agent(session, "w", 3);
    for (container, attempt) in cell.assign_waiting(&agent, 3) {
        cell.say(&agent, (container, attempt), volley_ledger::Progress::Ended(DONE));
    }
    cell.restart();
    assert!(cell.submit_key(&spec(), "k", 1).unwrap().repeated, "also after a restart");
}

#[test]
fn a_key_outlives_its_group_and_ends_with_its_retention() {
    let options = LedgerOptions { finished_containers_max: 0, key_retention: secs(100), ..LedgerOptions::default() };
    let mut cell = Cell::with(options);
    let first = cell.submit_key(&spec(), "k", 1).unwrap();
    cell.stop(StopTarget::Group(first.group), false);
    cell.sweep();
    assert_eq!(cell.ledger.group(first.group, None), None, "pruned");
    assert_eq!(cell.submit_key(&spec(), "k", 1).unwrap().group, first.group);
    cell.later(secs(100));
    cell.sweep();
    let second = cell.submit_key(&spec(), "k", 1).unwrap();
    assert!(!second.repeated && second.group != first.group);
}

#[test]
fn the_backlog_is_bounded_and_counts_what_is_claimed() {
    let mut cell = Cell::with(LedgerOptions { backlog_max: 10, ..LedgerOptions::default() });
    let session = cell.session();
    cell.submit(&spec(), 8);
    cell.claim(session, 5);
    let op = |count| Submit { group: GroupId(77), submission: submission(&[(&spec(), count)], None), body_digest: 0 };
    let refusal = SubmitRefusal::BacklogFull { waiting: 8, limit: 10, asked: 3 };
    assert_eq!(cell.call(op(3)), Err(refusal));
    assert_eq!(cell.last.changes, []);
    assert!(cell.call(op(2)).is_ok());
}

#[test]
fn a_taken_group_id_is_refused() {
    let mut cell = Cell::new();
    let group = cell.submit(&spec(), 1);
    let op = Submit { group, submission: submission(&[(&spec(), 1)], None), body_digest: 0 };
    assert_eq!(cell.call(op), Err(SubmitRefusal::IdTaken));
}

#[test]
fn tenants_neither_share_keys_nor_stop_each_other() {
    let mut cell = Cell::new();
    let other = TenantName::new("other").unwrap();
    let mine = cell.submit_key(&spec(), "k", 1).unwrap().group;
    let mut theirs = submission(&[(&spec(), 1)], Some("k"));
    theirs.tenant = other.clone();
    let theirs = cell.call(Submit { group: GroupId(99), submission: theirs, body_digest: 2 }).unwrap();
    assert_eq!((theirs.group, theirs.repeated), (GroupId(99), false));
    let stop = Stop { target: StopTarget::Group(mine), tenant: Some(other), force: true };
    assert!(cell.call(stop).is_err());
    assert_eq!(cell.state(ContainerId { group: mine, index: 0 }), ContainerState::Queued);
}

#[test]
fn a_spec_is_stored_once_and_goes_with_its_last_group() {
    let mut cell = Cell::with(LedgerOptions { finished_containers_max: 0, ..LedgerOptions::default() });
    let first = cell.submit(&spec(), 1);
    let second = cell.submit(&spec(), 1);
    assert!(!cell.last.changes.iter().any(|c| matches!(c, Change::PutSpec(..))), "stored before");
    cell.stop(StopTarget::Group(first), false);
    cell.sweep();
    assert_eq!(cell.disk.specs.len(), 1);
    cell.stop(StopTarget::Group(second), false);
    cell.sweep();
    assert_eq!((cell.disk.specs.len(), cell.disk.groups.len()), (0, 0));
    let audit = cell.ledger.audit();
    assert_eq!((audit.accepted, audit.pruned, audit.finished), (2, 2, 0));
}

#[test]
fn acceptance_is_one_event() {
    let mut cell = Cell::new();
    let group = cell.submit(&spec(), 5);
    let kinds: Vec<_> = cell.last.events.iter().map(|event| event.kind.clone()).collect();
    assert_eq!(kinds, [EventKind::GroupAccepted { group, tenant: TenantName::default(), count: 5 }]);
}
