//! The cell at a glance: the backlog by shape, the fleet by pool, and what is in front.

use volley_ledger::{Ahead, Commit};
use volley_model::{BlockedMark, ContainerId, CpuMilli, FleetVersion, GroupId, WaitReason, WorkerStatus};

use crate::cell::{Cell, secs, spec};

fn ahead(cell: &Cell, group: GroupId, index: u32) -> Option<(u64, u64)> {
    let ahead = cell.ledger.overview(Some(ContainerId { group, index })).ahead;
    ahead.map(|Ahead { same_shape, other_shapes, .. }| (same_shape, other_shapes))
}

#[test]
fn what_is_in_front_is_counted_by_shape() {
    let mut cell = Cell::new();
    let session = cell.session();
    let (small, mut big, mut urgent) = (spec(), spec(), spec());
    big.resources.cpu = CpuMilli(2000);
    urgent.priority = 1;
    let first = cell.submit(&small, 3);
    let second = cell.submit(&big, 2);
    let third = cell.submit(&small, 5);
    assert_eq!(ahead(&cell, first, 0), Some((0, 0)));
    assert_eq!(ahead(&cell, second, 1), Some((1, 3)), "not what came later");
    assert_eq!(ahead(&cell, third, 4), Some((7, 2)));
    let fourth = cell.submit(&urgent, 1);
    assert_eq!(ahead(&cell, fourth, 0), Some((0, 0)), "of the same shape, but in front by its priority");
    cell.claim(session, 2);
    assert_eq!(ahead(&cell, first, 0), None, "in a turn");
    assert_eq!(ahead(&cell, third, 4), Some((6, 2)));
    assert_eq!(ahead(&cell, GroupId(404), 0), None);
}

#[test]
fn the_backlog_is_by_shape_with_its_reasons() {
    let mut cell = Cell::new();
    let session = cell.session();
    cell.submit(&spec(), 3);
    let claimed = cell.claim(session, 1);
    let mark = BlockedMark { shape: claimed.shapes[0].0, at: FleetVersion(9), reasons: vec![WaitReason::NoWorkers] };
    let returned = vec![claimed.containers[0].container];
    let commit = cell.commit_op(session);
    cell.call(Commit { blocked: vec![mark], returned, ..commit }).unwrap();
    cell.later(secs(7));
    let overview = cell.ledger.overview(None);
    assert_eq!((overview.shapes, overview.blocked.shapes, overview.blocked.containers), (1, 1, 3));
    assert_eq!(overview.backlog[0].waiting, 3);
    assert_eq!(overview.backlog[0].blocked.as_deref(), Some(&vec![WaitReason::NoWorkers]));
    assert_eq!(overview.oldest, overview.blocked.oldest);
}

#[test]
fn the_fleet_is_by_pool_and_only_ready_workers_offer() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "one", 4);
    cell.agent(session, "two", 4);
    cell.assign(&agent, &spec(), 3);
    let pools = cell.ledger.overview(None).pools;
    let pool = &pools.values().next().expect("their pool");
    assert_eq!((pool.workers[&WorkerStatus::Ready], pool.empty, pool.containers), (2, 1, 3));
    assert_eq!((pool.capacity.slots, pool.free.slots), (8, 5));
    assert_eq!(pool.capacity.cpu_milli - pool.free.cpu_milli, 3 * spec().resources.cpu.0);
}
