//! What holds for every plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use volley_model::{
    Claimed, ContainerId, FleetChanges, FleetVersion, Free, HoldView, Millis, Placement, Pool, Revision, SessionId,
    ShapeHash, WorkerId, WorkerView, feasible,
};

use super::oracle::{self, fits, pool_of, shape_of};
use super::random::{any_scene, any_scene_with_heads, any_worker};
use super::scene::{AT, Scene, With, pool_name};
use crate::{FleetView, Plan, PlanInput, plan};

/// No holds are asked for.
fn patient(scene: &Scene) -> PlanInput<'_> {
    PlanInput { hold_after: Millis(u64::MAX), ..scene.input() }
}

/// Replays a plan's placements on the scene's workers. Panics where the ledger would refuse one.
fn replayed(scene: &Scene, plan: &Plan) -> BTreeMap<WorkerId, Free> {
    let workers: BTreeMap<&WorkerId, &WorkerView> = scene.workers.iter().map(|w| (&w.worker.id, w)).collect();
    let mut free: BTreeMap<WorkerId, Free> =
        scene.workers.iter().map(|w| (w.worker.id.clone(), w.free.clone())).collect();
    for placed in &plan.placements {
        let (worker, free) = (workers[&placed.worker], free.get_mut(&placed.worker).expect("it is known"));
        let (shape, score) = (shape_of(scene, &placed.container), placed.container.score);
        assert_eq!((placed.epoch, placed.revision), (worker.epoch, worker.revision));
        let (_, grants) = fits(scene, shape, score, worker, free).expect("every constraint is kept");
        let of_kinds = |grants: &[volley_model::GpuGrant]| -> BTreeSet<&String> {
            grants.iter().map(|grant| &worker.worker.capacity.gpus[grant.device as usize]).collect()
        };
        assert!(of_kinds(&placed.gpus).len() <= 1, "devices of one kind");
        assert_eq!(of_kinds(&placed.gpus), of_kinds(&grants), "of the best kind that is free");
        assert!(free.reserve(&shape.resources, &placed.gpus), "law 1");
    }
    free
}

/// Every claimed container is in exactly one list, and every shape that waits has its mark with reasons.
fn check_all_answered(scene: &Scene, plan: &Plan) {
    let placed = plan.placements.iter().map(|placed| placed.container.container);
    let others = plan.returned.iter().copied().chain(plan.unplaceable.iter().map(|(container, _)| *container));
    let mut seen: Vec<ContainerId> = placed.chain(others).collect();
    seen.sort();
    let mut claimed: Vec<ContainerId> = scene.containers.iter().map(|c| c.container).collect();
    claimed.sort();
    assert_eq!(seen, claimed, "each container has one answer");
    let marked: BTreeSet<ShapeHash> = plan.blocked.iter().map(|mark| mark.shape).collect();
    let unblocked: BTreeSet<ShapeHash> = plan.unblocked.iter().copied().collect();
    assert_eq!((marked.len(), unblocked.len()), (plan.blocked.len(), plan.unblocked.len()), "named once");
    assert!(marked.is_disjoint(&unblocked));
    assert!(plan.blocked.iter().all(|mark| !mark.reasons.is_empty()), "{:?}", plan.blocked);
    for hash in &scene.recheck {
        assert!(marked.contains(hash) || unblocked.contains(hash), "a recheck is answered");
    }
    for claimed in returned(scene, plan) {
        assert!(marked.contains(&claimed.shape) || unblocked.contains(&claimed.shape), "what waits says why");
    }
}

fn returned<'a>(scene: &'a Scene, plan: &Plan) -> Vec<&'a Claimed> {
    let returned: BTreeSet<ContainerId> = plan.returned.iter().copied().collect();
    scene.containers.iter().filter(|c| returned.contains(&c.container)).collect()
}

/// A shape marked at the view's version fits nowhere, not even for its best container.
fn check_nothing_left_that_fits(scene: &Scene, plan: &Plan, free: &BTreeMap<WorkerId, Free>) {
    let final_marks = plan.blocked.iter().filter(|mark| mark.at == AT).map(|mark| mark.shape);
    let final_marks: BTreeSet<ShapeHash> = final_marks.collect();
    for claimed in returned(scene, plan).into_iter().filter(|c| final_marks.contains(&c.shape)) {
        let shape = shape_of(scene, claimed);
        for worker in &scene.workers {
            let fitting = fits(scene, shape, claimed.score, worker, &free[&worker.worker.id]);
            assert!(fitting.is_none(), "{claimed:?} waits, and fits on {}", worker.worker.id);
        }
    }
    for blocked in scene.blocked.iter().filter(|b| final_marks.contains(&b.hash)) {
        for worker in &scene.workers {
            let fitting = fits(scene, &blocked.shape, blocked.best, worker, &free[&worker.worker.id]);
            assert!(fitting.is_none(), "{blocked:?} is marked, and fits on {}", worker.worker.id);
        }
    }
}

fn check_unplaceable(scene: &Scene, plan: &Plan) {
    for (container, _) in &plan.unplaceable {
        let claimed = scene.containers.iter().find(|c| c.container == *container).expect("claimed");
        assert!(claimed.fail_if_unplaceable);
        for worker in &scene.workers {
            let cpu_on_gpu = pool_of(scene, worker).cpu_on_gpu;
            assert!(feasible(shape_of(scene, claimed), &worker.worker, cpu_on_gpu).is_err());
        }
    }
}

fn check_holds(scene: &Scene, plan: &Plan) {
    let mut pools = BTreeSet::new();
    for hold in &plan.holds {
        let worker = scene.workers.iter().find(|w| w.worker.id == hold.worker).expect("a known worker");
        let held_for = |w: &WorkerView, shape| w.hold.as_ref().is_some_and(|h: &HoldView| h.shape == shape);
        assert!(worker.hold.is_none());
        assert!(scene.workers.iter().all(|w| !held_for(w, hold.shape)), "one per shape");
        assert!(pools.insert(&worker.worker.pool), "one per pool");
        assert!(scene.workers.iter().all(|w| w.worker.pool != worker.worker.pool || w.hold.is_none()));
        assert!(plan.blocked.iter().any(|mark| mark.shape == hold.shape), "only a blocked shape has a hold");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn places_as_a_scan_over_all_workers_would(scene in any_scene(24)) {
        let plan = plan(&scene.view(), &patient(&scene));
        let expected = oracle::expected(&scene);
        let placed: Vec<_> =
            plan.placements.iter().map(|p| (p.container.container, p.worker.clone(), p.gpus.clone())).collect();
        prop_assert_eq!(placed, expected.placed);
        let waiting = plan.returned.iter().copied().chain(plan.unplaceable.iter().map(|(c, _)| *c));
        prop_assert_eq!(waiting.collect::<BTreeSet<_>>(), expected.waiting);
    }

    #[test]
    fn keeps_every_law(scene in any_scene_with_heads(16)) {
        let view = scene.view();
        let plan = plan(&view, &scene.input());
        let free = replayed(&scene, &plan);
        check_nothing_left_that_fits(&scene, &plan, &free);
        check_unplaceable(&scene, &plan);
        check_holds(&scene, &plan);
        check_all_answered(&scene, &plan);
    }

    #[test]
    fn the_same_input_gives_the_same_plan_whatever_order_it_comes_in(scene in any_scene_with_heads(16)) {
        let view = scene.view();
        let first = plan(&view, &scene.input());
        prop_assert_eq!(&first, &plan(&view, &scene.input()), "the view is unchanged");
        let mut reversed = scene.clone();
        reversed.workers.reverse();
        reversed.pools.reverse();
        reversed.containers.reverse();
        reversed.shapes.reverse();
        let mut second = plan(&reversed.view(), &reversed.input());
        second.returned.sort();
        let mut first = first;
        first.returned.sort();
        first.unplaceable.sort();
        second.unplaceable.sort();
        prop_assert_eq!(first, second);
    }
}

/// One step of a view's life.
#[derive(Debug, Clone)]
enum Step {
    Put(WorkerView),
    Gone(usize),
    Fresh(WorkerView),
    Pool(usize, Option<i16>),
    Sessions(u64),
    Booked(usize),
    Reload,
}

fn any_step() -> impl Strategy<Value = Step> {
    let worker = || (0..8_usize).prop_flat_map(any_worker);
    prop_oneof![
        4 => worker().prop_map(Step::Put),
        1 => (0..8_usize).prop_map(Step::Gone),
        2 => worker().prop_map(Step::Fresh),
        1 => (0..3_usize, prop::option::of(-1..2_i16)).prop_map(|(pool, priority)| Step::Pool(pool, priority)),
        1 => (1..4_u64).prop_map(Step::Sessions),
        3 => (0..8_usize).prop_map(Step::Booked),
        1 => Just(Step::Reload),
    ]
}

/// The truth that an incremental view follows.
#[derive(Default)]
struct Truth {
    workers: BTreeMap<WorkerId, WorkerView>,
    pools: BTreeMap<String, Pool>,
    version: u64,
}

impl Truth {
    fn step(&mut self, step: Step, view: &mut FleetView, shape: &volley_model::Shape) {
        self.version += 1;
        let mut changes = FleetChanges { version: FleetVersion(self.version), ..FleetChanges::default() };
        match step {
            Step::Put(worker) => {
                self.workers.insert(worker.worker.id.clone(), worker.clone());
                changes.workers.push(worker);
            }
            Step::Gone(number) => {
                let id = WorkerId::new(&format!("w{number}")).expect("a name");
                self.workers.remove(&id);
                changes.workers_gone.push(id);
            }
            Step::Fresh(worker) => {
                self.workers.insert(worker.worker.id.clone(), worker.clone());
                view.put_worker(&worker);
            }
            Step::Pool(number, priority) => {
                let name = pool_name(["a", "b", "c"][number]);
                match priority {
                    Some(priority) => {
                        let pool = Pool { priority, ..Pool::with_defaults(name.clone()) };
                        self.pools.insert(name.to_string(), pool.clone());
                        changes.pools.push(pool);
                    }
                    None => {
                        self.pools.remove(name.as_str());
                        changes.pools_gone.push(name);
                    }
                }
            }
            Step::Sessions(count) => view.set_sessions(SessionId(1), &(1..=count).map(SessionId).collect::<Vec<_>>()),
            Step::Booked(number) => self.book(number, view, shape),
            Step::Reload => {
                changes.reload = true;
                changes.workers = self.workers.values().cloned().collect();
                changes.pools = self.pools.values().cloned().collect();
            }
        }
        view.apply(&changes);
    }

    fn book(&mut self, number: usize, view: &mut FleetView, shape: &volley_model::Shape) {
        let id = WorkerId::new(&format!("w{number}")).expect("a name");
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some((_, gpus)) = oracle::devices(shape, worker, &worker.free) else { return };
        let container = ContainerId { group: volley_model::GroupId(1), index: 0 };
        let (claim, nonce) = (volley_model::ClaimNumber(1), volley_model::Nonce(1));
        let (worker_id, revision) = (id.clone(), Revision(3));
        let mut placement =
            Placement { container, claim, worker: worker_id, epoch: worker.epoch, revision, gpus, nonce };
        // Whether it fits or not, the view and the rule of capacity agree.
        let _ = worker.free.reserve(&shape.resources, &placement.gpus);
        view.reserve_committed(&placement, &shape.resources);
        placement.epoch.number += 1;
        view.reserve_committed(&placement, &shape.resources);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_incremental_view_is_the_view_built_anew(
        steps in prop::collection::vec(any_step(), 1..40),
        scene in any_scene(0),
    ) {
        let mut view = FleetView::new();
        let mut truth = Truth::default();
        let shape = Arc::clone(&scene.shapes.first().map_or_else(|| Arc::new(super::scene::shape(500)), |s| s.1.clone()));
        for step in steps {
            truth.step(step, &mut view, &shape);
        }
        prop_assert!(view.workers().eq(truth.workers.values()), "every worker as it was put last");
        prop_assert!(view.pools().eq(truth.pools.values()));
        prop_assert_eq!(view.workers_count(), truth.workers.len());
        prop_assert_eq!(view.version(), FleetVersion(truth.version));
        let mut anew = FleetView::new();
        anew.apply(&FleetChanges {
            reload: true,
            version: view.version(),
            workers: truth.workers.values().cloned().collect(),
            pools: truth.pools.values().cloned().collect(),
            ..FleetChanges::default()
        });
        prop_assert_eq!(plan(&view, &scene.input()), plan(&anew, &scene.input()));
    }
}

#[test]
fn many_changes_of_what_workers_are_leave_no_litter() {
    let mut view = FleetView::new();
    for round in 0..3_000_u64 {
        let changed = super::scene::worker("w").label("round", &round.to_string());
        let changes = FleetChanges { version: FleetVersion(round + 1), workers: vec![changed], ..Default::default() };
        view.apply(&changes);
        assert!(view.index().classes.len() <= 1_002, "bounded at round {round}");
    }
    let scene = Scene::of([]).claim(10, &super::scene::shape(1000), 1);
    assert_eq!(plan(&view, &scene.input()).placements.len(), 10);
}
