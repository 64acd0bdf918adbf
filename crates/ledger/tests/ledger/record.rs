//! Reads: records, lists, prefixes, workers, pools.

use std::collections::BTreeMap;

use volley_ledger::{
    ApplyPool, Found, LedgerOptions, ListQuery, PrefixMatch, Progress, RemovePool, RemovePoolRefusal, StopTarget,
    Submit,
};
use volley_model::{ContainerId, ContainerState, GroupId, Pool, PoolName, WaitReason};

use crate::cell::{Cell, DONE, spec, submission};

/// The ids of a whole listing, page by page.
fn list(cell: &Cell, query: &ListQuery) -> Vec<ContainerId> {
    let mut query = query.clone();
    let mut ids = Vec::new();
    loop {
        let page = cell.ledger.list(&query);
        assert!(page.containers.len() as u32 <= query.max);
        ids.extend(page.containers.iter().map(|found| match found {
            Found::Live(record) => record.id,
            Found::Finished(id) => *id,
        }));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return ids,
        }
    }
}

#[test]
fn lists_are_newest_group_first_in_pages() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 2);
    let (first, second) = (cell.submit(&spec(), 3), cell.submit(&spec(), 2));
    let what = cell.assign_waiting(&agent, 2);
    cell.say(&agent, what[0], Progress::Ended(DONE));
    let id = |group, index| ContainerId { group, index };
    let all = [id(second, 0), id(second, 1), id(first, 0), id(first, 1), id(first, 2)];
    for max in 1..7 {
        assert_eq!(list(&cell, &ListQuery { max, ..ListQuery::default() }), all);
    }
    let some = |states: &[ContainerState]| ListQuery { states: states.to_vec(), max: 2, ..ListQuery::default() };
    assert_eq!(list(&cell, &some(&[ContainerState::Finished])), [id(first, 0)]);
    assert_eq!(list(&cell, &some(&[ContainerState::Assigned])), [id(first, 1)]);
    assert_eq!(list(&cell, &some(&[ContainerState::Queued])), [id(second, 0), id(second, 1), id(first, 2)]);
    let of_group = ListQuery { group: Some(first), max: 2, ..ListQuery::default() };
    assert_eq!(list(&cell, &of_group), all[2..]);
}

#[test]
fn lists_filter_by_labels_and_tenant() {
    let mut cell = Cell::new();
    cell.submit(&spec(), 1);
    let mut labelled = submission(&[(&spec(), 1)], None);
    labelled.labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
    let group = GroupId(500);
    cell.call(Submit { group, submission: labelled, body_digest: 0 }).unwrap();
    let with = |key: &str, value: &str| ListQuery {
        labels: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        max: 10,
        ..ListQuery::default()
    };
    assert_eq!(list(&cell, &with("a", "1")), [ContainerId { group, index: 0 }]);
    assert_eq!(list(&cell, &with("a", "2")), []);
    let other = volley_model::TenantName::new("other").unwrap();
    assert_eq!(list(&cell, &ListQuery { tenant: Some(other), max: 10, ..ListQuery::default() }), []);
}

#[test]
fn a_page_after_a_pruned_group_ends_instead_of_starting_over() {
    let mut cell = Cell::with(LedgerOptions { finished_containers_max: 0, ..LedgerOptions::default() });
    let old = cell.submit(&spec(), 1);
    cell.submit(&spec(), 1);
    let after = Some(ContainerId { group: old, index: 0 });
    cell.stop(StopTarget::Group(old), false);
    cell.sweep();
    let page = cell.ledger.list(&ListQuery { after, max: 10, ..ListQuery::default() });
    assert_eq!((page.containers.len(), page.next), (0, None));
}

#[test]
fn a_record_tells_why_a_container_waits_and_where_it_runs() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 2);
    let group = cell.submit(&spec(), 1);
    let id = ContainerId { group, index: 0 };
    let record = |cell: &Cell| match cell.ledger.container(id, None).unwrap() {
        Found::Live(record) => *record,
        Found::Finished(id) => {
            let stored = cell.disk.finished[&id].clone();
            cell.ledger.finished_record(stored).unwrap()
        }
    };
    let waiting = record(&cell).waiting.unwrap();
    assert_eq!((waiting.since, waiting.reasons), (cell.now, vec![WaitReason::NotLookedAt]));
    let claimed = cell.claim(session, 1);
    let op = volley_ledger::Commit {
        returned: vec![id],
        blocked: vec![volley_model::BlockedMark {
            shape: claimed.containers[0].shape,
            at: claimed.fleet.version,
            reasons: vec![WaitReason::NoWorkers],
        }],
        ..cell.commit_op(session)
    };
    cell.call(op).unwrap();
    assert_eq!(record(&cell).waiting.unwrap().reasons, [WaitReason::NoWorkers]);
    let unblock = volley_ledger::Commit { unblocked: vec![claimed.containers[0].shape], ..cell.commit_op(session) };
    cell.call(unblock).unwrap();
    let what = cell.assign_waiting(&agent, 1)[0];
    cell.say(&agent, what, Progress::Running);
    let running = record(&cell);
    assert_eq!((running.worker, running.attempt, running.waiting), (Some(agent.worker.id.clone()), Some(what.1), None));
    cell.say(&agent, what, Progress::Ended(DONE));
    let finished = record(&cell);
    assert_eq!((finished.state, finished.outcome), (ContainerState::Finished, Some(DONE)));
    assert_eq!(cell.ledger.container(ContainerId { group, index: 1 }, None), None);
}

#[test]
fn prefixes_name_groups_and_containers() {
    let mut cell = Cell::new();
    let (one, two) = (GroupId(0x1234_5678_9abc_def0), GroupId(0x1234_5678_9abc_def1));
    for group in [one, two, GroupId(u64::MAX)] {
        cell.call(Submit { group, submission: submission(&[(&spec(), 3)], None), body_digest: 0 }).unwrap();
    }
    let text = one.to_string();
    assert_eq!(cell.ledger.prefix(&text, None), [PrefixMatch::Group(one, 3)]);
    assert_eq!(cell.ledger.prefix(&text.to_uppercase(), None), [PrefixMatch::Group(one, 3)]);
    assert_eq!(cell.ledger.prefix(&text[..5], None), [PrefixMatch::Group(one, 3), PrefixMatch::Group(two, 3)]);
    let id = ContainerId { group: one, index: 2 };
    assert_eq!(cell.ledger.prefix(&id.to_string(), None), [PrefixMatch::Container(id)]);
    assert_eq!(cell.ledger.prefix("f", None), [PrefixMatch::Group(GroupId(u64::MAX), 3)]);
    let nothing = ["", "-", "-1", "z", "g", "é", "0123456789abcdefgh", "i", " ", "fz-"];
    for text in
        nothing.map(str::to_owned).into_iter().chain([format!("{one}-3"), format!("{one}-02"), format!("{one}-")])
    {
        assert_eq!(cell.ledger.prefix(&text, None), [], "'{text}'");
    }
}

#[test]
fn pools_are_made_changed_and_removed_when_empty() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 1);
    let made = cell.ledger.pools().remove(0);
    let expected = Pool { version: made.version, ..Pool::with_defaults(PoolName::default()) };
    assert_eq!(made, expected, "made by its first worker");
    let refusal = cell.call(RemovePool { pool: agent.worker.pool.clone() });
    assert_eq!(refusal, Err(RemovePoolRefusal::HasWorkers { workers: 1 }));
    let name = PoolName::new("gpu").unwrap();
    let pool = Pool { priority: 3, ..Pool::with_defaults(name.clone()) };
    cell.call(ApplyPool { pool: pool.clone(), expected: None, renew: false }).unwrap();
    cell.call(ApplyPool { pool, expected: None, renew: false }).unwrap();
    assert_eq!(cell.last.changes, [], "it is so already");
    assert_eq!(cell.call(RemovePool { pool: name.clone() }), Ok(()));
    assert_eq!(cell.call(RemovePool { pool: name }), Err(RemovePoolRefusal::NotFound));
}
