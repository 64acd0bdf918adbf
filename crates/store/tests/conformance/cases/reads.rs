//! Reads: prefixes, pages, the event record, outboxes.

use std::collections::BTreeMap;

use volley_ledger::{EventKind, ListQuery, Order, PrefixMatch, Progress, Submit};
use volley_model::{ContainerId, ContainerState, GroupId, TenantName};

use super::{Open, bench};
use crate::bench::submission;
use crate::cell::{DONE, spec, worker};

pub fn finds_by_prefix(open: Open) {
    let mut bench = bench(open);
    let ids = [GroupId(1 << 60), GroupId((1 << 60) + 1), GroupId(7 << 60)];
    for group in ids {
        bench.call(Submit { group, submission: submission(&[(&spec(), 5)], None), body_digest: 0 }).unwrap();
    }
    let text = ids[2].to_string();
    assert_eq!(bench.prefix(&text[..1]), [PrefixMatch::Group(ids[2], 5)]);
    assert_eq!(bench.prefix(&text.to_uppercase()), [PrefixMatch::Group(ids[2], 5)]);
    assert_eq!(bench.prefix(&ids[0].to_string()[..4]).len(), 2, "two say that it is ambiguous");
    let container = ContainerId { group: ids[2], index: 3 };
    assert_eq!(bench.prefix(&format!("{}-3", &text[..2])), [PrefixMatch::Container(container)]);
    for nothing in ["", "zzzz", "-", "7-9", "7-03", "??", &format!("{text}0")] {
        assert_eq!(bench.prefix(nothing), [], "{nothing:?}");
    }
}

pub fn lists_in_pages(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 3));
    let old = bench.submit(&spec(), 4);
    let placed = bench.place(&agent, 2);
    bench.say(&agent, (placed[0].0, placed[0].1.unwrap()), Progress::Ended(DONE));
    let mut other = submission(&[(&spec(), 3)], None);
    (other.tenant, other.labels) = (TenantName::new("other").unwrap(), BTreeMap::new());
    let new = bench.accepted(other).unwrap().group;
    let mut seen = Vec::new();
    let mut query = ListQuery { max: 3, ..ListQuery::default() };
    loop {
        let page = bench.list(query.clone());
        assert!(page.containers.len() <= 3);
        seen.extend(page.containers.iter().map(|record| (record.id.group, record.id.index)));
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    let expected: Vec<_> = (0..3).map(|i| (new, i)).chain((0..4).map(|i| (old, i))).collect();
    assert_eq!(seen, expected, "newest group first, then by index");
    let all = || ListQuery { max: 100, ..ListQuery::default() };
    let count = |bench: &mut crate::bench::Bench, query| bench.list(query).containers.len();
    assert_eq!(count(&mut bench, ListQuery { states: vec![ContainerState::Finished], ..all() }), 1);
    assert_eq!(count(&mut bench, ListQuery { states: vec![ContainerState::Queued], ..all() }), 5);
    assert_eq!(count(&mut bench, ListQuery { group: Some(old), ..all() }), 4);
    assert_eq!(count(&mut bench, ListQuery { tenant: Some(TenantName::default()), ..all() }), 4);
    let blue = [("team".to_owned(), "blue".to_owned())].into();
    assert_eq!(count(&mut bench, ListQuery { labels: blue, ..all() }), 4);
    assert_eq!(count(&mut bench, ListQuery { group: Some(GroupId(99)), ..all() }), 0);
}

pub fn records_every_transition(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 1));
    let run = bench.assign(&agent, &spec(), 1)[0];
    for progress in [Progress::Accepted, Progress::Running, Progress::Ended(DONE)] {
        bench.say(&agent, run, progress);
    }
    let events = bench.events();
    let numbers: Vec<u64> = events.iter().map(|event| event.number.0).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "no gaps");
    let states: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Container { container, state, .. } if *container == run.0 => Some(*state),
            _ => None,
        })
        .collect();
    use ContainerState::{Assigned, Finished, Running, Starting};
    assert_eq!(states, [Assigned, Starting, Running, Finished]);
    let page = bench.event_page(2, 2);
    assert_eq!(page.events, events[2..4]);
    assert_eq!((page.oldest.0, page.last.0), (1, events.len() as u64));
    assert_eq!(bench.event_page(u64::MAX >> 1, 5).events, []);
}

pub fn takes_in_order(open: Open) {
    let mut bench = bench(open);
    let mut agent = bench.agent(worker("w", 4));
    let run = bench.assign(&agent, &spec(), 3);
    let held = run.iter().map(|what| crate::cell::item(*what, Progress::Accepted)).take(1).collect();
    bench.attach(&mut agent, held);
    let orders = bench.orders(&agent, 0);
    if orders.is_empty() {
        // Its stream ended with the store's process.
        return;
    }
    let started: Vec<_> = orders
        .iter()
        .map(|(_, order)| match order {
            Order::Start { container, attempt, .. } => (*container, *attempt),
            Order::Stop { .. } => panic!("nothing was stopped"),
        })
        .collect();
    assert_eq!(started, run[1..], "the accepted one needs no second start");
    assert_eq!(bench.orders(&agent, orders[0].0).len(), 1, "after what was handed over");
    assert_eq!(bench.orders(&agent, orders[1].0), []);
}
