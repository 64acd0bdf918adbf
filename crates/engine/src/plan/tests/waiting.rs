//! What happens to work that does not fit: order, blocked shapes, holds, reasons.

use volley_model::{
    Bytes, CpuMilli, FleetVersion, Millis, OnUnplaceable, PoolSelector, Shape, ShapeHash, Timestamp, WaitReason,
    WorkerId, WorkerStatus,
};

use super::scene::{AT, HOLD_AFTER, NOW, Scene, With, gpu_shape, names, pool_name, shape, spread_of, worker};
use crate::{FleetView, Plan};

fn long_ago() -> Timestamp {
    Timestamp(NOW.0 - HOLD_AFTER.0)
}

/// Marks as (shape, version).
fn marks(plan: &Plan) -> Vec<(ShapeHash, FleetVersion)> {
    plan.blocked.iter().map(|mark| (mark.shape, mark.at)).collect()
}

fn busy(workers: u32, cpu: u64) -> WaitReason {
    let cpu_short = Some(CpuMilli(cpu));
    let (pool, memory_short) = (pool_name("default"), None);
    WaitReason::Busy { pool, workers, cpu_short, memory_short, gpu_short: 0, slots_short: 0 }
}

#[test]
fn better_scores_go_first_and_smaller_work_passes_what_does_not_fit() {
    let (large, small) = (shape(6000), shape(1000));
    let scene = Scene::of([worker("a")]).claim(9, &small, 3).claim(1, &large, 2).claim(1, &large, 1);
    let plan = scene.plan();
    let scores: Vec<u64> = plan.placements.iter().map(|placed| placed.container.score.0).collect();
    assert_eq!(scores, [1, 3, 3, 3, 3]);
    assert_eq!(plan.returned.len(), 6);
    assert_eq!(marks(&plan), [(large.hash(), AT), (small.hash(), AT)], "in the order in which they failed");
}

#[test]
fn a_blocked_head_with_a_better_score_keeps_its_room() {
    let (blocked, ready) = (shape(6000), shape(5000));
    let scene = |best| Scene::of([worker("a")]).block(1, &blocked, best, 40).claim(2, &ready, 5);
    let plan = scene(4).plan();
    assert_eq!((plan.placements.len(), &plan.unblocked), (0, &vec![blocked.hash()]));
    assert_eq!(plan.returned.len(), 2);
    assert_eq!(marks(&plan), [(ready.hash(), FleetVersion(0))], "to be looked at again when the head has its room");
    let plan = scene(6).plan();
    assert_eq!((plan.placements.len(), plan.unblocked.len()), (2, 0), "a worse head keeps nothing");
}

#[test]
fn a_head_keeps_room_for_as_many_as_wait_and_no_more() {
    let (blocked, ready) = (shape(2000), shape(1000));
    let plan = Scene::of([worker("a")]).block(3, &blocked, 1, 40).claim(9, &ready, 5).plan();
    assert_eq!((plan.placements.len(), plan.returned.len()), (4, 5));
}

#[test]
fn a_mark_as_new_as_the_last_growth_is_not_looked_at() {
    let (blocked, ready) = (shape(6000), shape(5000));
    let plan = Scene::of([worker("a")]).block(1, &blocked, 1, AT.0).claim(2, &ready, 5).plan();
    assert_eq!((plan.placements.len(), plan.unblocked.len()), (2, 0));
}

#[test]
fn a_recheck_is_answered_by_unblocking_or_a_newer_mark() {
    let (fits, large, unknown) = (shape(1000), shape(20_000), shape(1));
    let scene = Scene::of([worker("a")]).block(5, &fits, 3, 40).block(5, &large, 2, 40);
    let plan = scene.recheck(&fits).recheck(&large).recheck(&unknown).plan();
    assert_eq!(plan.unblocked, [unknown.hash(), fits.hash()], "an unknown one is claimed to learn what it is");
    assert_eq!(marks(&plan), [(large.hash(), AT)]);
}

#[test]
fn heads_take_turns_by_score_and_the_others_are_asked_again() {
    let (first, second) = (shape(6000), shape(7000));
    let scene = Scene::of([worker("a")]).block(1, &second, 2, 40).block(1, &first, 1, 40);
    let plan = scene.recheck(&second).recheck(&first).plan();
    assert_eq!(plan.unblocked, [first.hash()]);
    assert_eq!(marks(&plan), [(second.hash(), FleetVersion(0))]);
}

#[test]
fn a_hundred_thousand_blocked_containers_keep_nothing_that_fits_from_the_rest() {
    let plan = Scene::of([worker("a")]).block(100_000, &shape(11_000), 1, 40).claim(10, &shape(1000), 5).plan();
    assert_eq!(plan.placements.len(), 10);
    assert!(plan.blocked.is_empty() && plan.unblocked.is_empty());
}

#[test]
fn a_hold_lets_its_shape_and_better_scores_in() {
    let held_for = shape(8000);
    let scene = || Scene::of([worker("a").hold(&held_for, 10)]);
    assert_eq!(scene().claim(1, &shape(1000), 9).plan().placements.len(), 1);
    assert_eq!(scene().claim(1, &held_for, 11).plan().placements.len(), 1);
    let plan = scene().claim(1, &shape(1000), 10).plan();
    assert_eq!(marks(&plan), [(shape(1000).hash(), AT)]);
    assert_eq!(plan.blocked[0].reasons, [WaitReason::Held { worker: WorkerId::new("a").unwrap() }]);
}

#[test]
fn what_a_hold_kept_off_is_asked_again_when_the_plan_ends_it() {
    let held_for = shape(8000);
    let plan = Scene::of([worker("a").hold(&held_for, 5)]).claim(1, &held_for, 5).claim(1, &shape(1000), 6).plan();
    assert_eq!(plan.placements.len(), 1);
    assert_eq!(marks(&plan), [(shape(1000).hash(), FleetVersion(0))]);
}

#[test]
fn the_best_that_waits_long_gets_a_hold_on_the_emptiest_worker_that_could_serve_it() {
    let small_machine = worker("tiny").with(|w| {
        std::sync::Arc::make_mut(&mut w.worker).capacity.cpu = CpuMilli(5000);
        w.free.cpu = CpuMilli(5000);
    });
    let fleet = || [worker("a").used_cpu(9000), worker("b").used_cpu(4000), small_machine.clone()];
    let (large, next, small) = (shape(8000), shape(9000), shape(1000));
    let scene = |since| Scene::of(fleet()).claim_since(1, &large, 1, since).claim_since(1, &next, 2, since);
    let plan = scene(long_ago()).claim(20, &small, 3).plan();
    let holds: Vec<_> = plan.holds.iter().map(|hold| (hold.shape, hold.worker.as_str(), hold.term)).collect();
    assert_eq!(holds, [(large.hash(), "b", Millis(60_000))], "one per pool");
    assert!(!spread_of(&plan).contains_key("b"), "worse work keeps off at once: {:?}", names(&plan));
    assert_eq!(plan.placements.len(), 6);
    assert_eq!(marks(&plan)[0], (large.hash(), AT));
    assert_eq!(marks(&plan)[2], (small.hash(), FleetVersion(0)), "the store may not grant the hold");
    assert!(scene(Timestamp(long_ago().0 + 1)).plan().holds.is_empty(), "not long enough");
}

#[test]
fn a_pool_and_a_shape_have_one_hold_each() {
    let (large, other) = (shape(8000), shape(8500));
    let full = |name: &str, pool: &str| worker(name).used_cpu(5000).pool(pool);
    let scene = Scene::of([full("a", "x").hold(&other, 0), full("b", "x"), full("c", "y")]);
    let plan = scene.clone().claim_since(1, &large, 1, long_ago()).plan();
    assert_eq!(plan.holds.iter().map(|hold| hold.worker.as_str()).collect::<Vec<_>>(), ["c"]);
    let plan = scene.claim_since(1, &other, 1, long_ago()).plan();
    assert!(plan.holds.is_empty(), "it has one");
}

#[test]
fn reasons_say_what_is_short_where() {
    let cordoned = worker("d").with(|w| w.status = WorkerStatus::Cordoned);
    let no_slots = worker("c").with(|w| w.free.slots = 0);
    let fleet = [worker("a").used_cpu(9500), worker("b").used_cpu(9400), no_slots, cordoned];
    let mut large = shape(700);
    large.resources.memory = Bytes(11 << 30);
    let scene = Scene::of(fleet).claim(1, &shape(700), 1).claim(1, &large, 2);
    let plan = scene.plan();
    let WaitReason::Busy { workers, cpu_short, memory_short, gpu_short, slots_short, .. } = &plan.blocked[0].reasons[0]
    else {
        panic!("busy first: {:?}", plan.blocked)
    };
    assert_eq!((*workers, *cpu_short, *memory_short), (3, Some(CpuMilli(100)), None));
    assert_eq!((*gpu_short, *slots_short), (0, 1));
    assert_eq!(plan.blocked[0].reasons[1..], [WaitReason::Unavailable { workers: 1 }]);
    let [WaitReason::Infeasible { workers: 4, because, .. }] = &plan.blocked[1].reasons[..] else {
        panic!("too large for all: {:?}", plan.blocked)
    };
    assert!(because.contains("memory"));
}

#[test]
fn reasons_see_what_this_plan_took() {
    let plan = Scene::of([worker("a"), worker("b")]).claim(5, &shape(4000), 1).plan();
    assert_eq!(plan.blocked[0].reasons, [busy(2, 2000)]);
}

#[test]
fn reasons_count_gpus_and_pools_that_never_serve() {
    let fleet = [worker("a").gpus(&["A"]).with(|w| w.free.gpus[0].0 = 400), worker("b")];
    let plan = Scene::of(fleet.clone()).claim(1, &gpu_shape(&["A"], 1, 500), 1).plan();
    let [WaitReason::Busy { workers: 1, gpu_short: 1, .. }, WaitReason::Infeasible { workers: 1, because, .. }] =
        &plan.blocked[0].reasons[..]
    else {
        panic!("{:?}", plan.blocked)
    };
    assert!(because.contains("GPU"));
    let elsewhere = Shape { pool: PoolSelector::Required(pool_name("x")), ..shape(1) };
    let plan = Scene::of(fleet).claim(1, &elsewhere, 1).plan();
    let [WaitReason::Infeasible { workers: 2, because, .. }] = &plan.blocked[0].reasons[..] else {
        panic!("{:?}", plan.blocked)
    };
    assert!(because.contains("pool"));
}

#[test]
fn without_workers_all_waits_for_that_reason() {
    let scene = Scene::of([]).claim(3, &shape(1), 1).failing();
    for view in [FleetView::new(), scene.view()] {
        let plan = crate::plan(&view, &scene.input());
        assert_eq!(plan.returned.len(), 3, "nobody can tell yet what could be served");
        assert_eq!(plan.blocked[0].reasons, [WaitReason::NoWorkers]);
    }
}

#[test]
fn unplaceable_is_only_what_no_definition_could_ever_serve() {
    let cordoned = worker("a").used_cpu(10_000).with(|w| w.status = WorkerStatus::Cordoned);
    let scene = || Scene::of([cordoned.clone()]);
    let plan = scene().claim(2, &shape(10_000), 1).failing().plan();
    assert_eq!((plan.unplaceable.len(), plan.returned.len()), (0, 2), "full and cordoned, but large enough");
    let plan = scene().claim(2, &shape(10_001), 1).failing().plan();
    let (_, why) = &plan.unplaceable[0];
    assert_eq!(plan.unplaceable.len(), 2);
    assert!(why.contains("pool default") && why.contains("CPU"), "{why}");
    assert!(plan.blocked.is_empty(), "more of it is to be claimed and to fail");
    let plan = scene().claim(2, &shape(10_001), 1).plan();
    assert_eq!((plan.returned.len(), plan.blocked.len()), (2, 1), "its spec says to wait");
    let plan = scene().pool("empty", |_| {}).claim(1, &shape(10_001), 1).failing().plan();
    assert_eq!(plan.returned.len(), 1, "a pool without workers may get any");
    let nowhere = Shape { pool: PoolSelector::Required(pool_name("nowhere")), ..shape(1) };
    let plan = scene().claim(1, &nowhere, 1).failing().plan();
    assert_eq!(plan.unplaceable[0].1, "there is no pool 'nowhere'");
}

#[test]
fn what_fails_does_not_wait_for_ever_when_all_that_could_serve_it_have_gone() {
    let failing = Shape { on_unplaceable: OnUnplaceable::Fail, ..shape(10_001) };
    assert_ne!(failing.hash(), shape(10_001).hash(), "it does not stand behind what waits");
    let plan = Scene::of([worker("a")]).block(3, &failing, 1, 1).recheck(&failing).plan();
    assert_eq!((plan.unblocked, plan.blocked.len()), (vec![failing.hash()], 0), "to be claimed and to fail");
    let plan = Scene::of([worker("a")]).block(3, &shape(10_001), 1, 1).recheck(&shape(10_001)).plan();
    assert_eq!((plan.unblocked.len(), plan.blocked.len()), (0, 1), "its spec says to wait");
}

#[test]
fn a_view_that_is_still_loading_declares_nothing_unplaceable() {
    let scene = Scene::of([worker("a")]).claim(1, &shape(20_000), 1).failing();
    let mut view = scene.view();
    let more = volley_model::FleetChanges { version: AT, more: true, ..Default::default() };
    view.apply(&more);
    assert_eq!(crate::plan(&view, &scene.input()).returned.len(), 1);
}

#[test]
fn a_container_of_an_unknown_shape_is_returned() {
    let mut scene = Scene::of([worker("a")]).claim(1, &shape(1), 1);
    scene.shapes.clear();
    let plan = scene.plan();
    assert_eq!((plan.returned.len(), plan.blocked.len()), (1, 0));
}
