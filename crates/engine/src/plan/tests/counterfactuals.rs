//! Counterfactuals: every change that is named makes the planner place the container, and none
//! that is smaller of its kind does.

use proptest::prelude::*;
use volley_model::{Bytes, Change, CpuMilli, PoolSelector, Score, Shape, WorkerStatus, WorkerView};

use super::random::{any_scene_with_heads, any_shape};
use super::scene::{Scene, With, gpu_shape, pool_name, shape, worker};
use crate::counterfactual::{CHANGES_MAX, new_worker};
use crate::{Counterfactuals, Question, counterfactuals};

/// One container of a shape, with what is in front of it.
#[derive(Debug, Clone)]
struct Asked {
    shape: Shape,
    score: u64,
    ahead: u64,
}

fn explained(scene: &Scene, asked: &Asked) -> Counterfactuals {
    let question = Question { shape: &asked.shape, score: Score(asked.score), ahead: asked.ahead };
    counterfactuals(&scene.view(), &question)
}

/// The same scene with the change made, said in the scene's own words.
fn with_change(scene: &Scene, asked: &Asked, change: &Change) -> (Scene, Shape) {
    let mut scene = scene.clone();
    match change {
        Change::Uncordon { worker } => {
            let found = scene.workers.iter_mut().find(|view| view.worker.id == *worker).expect("it is there");
            assert_eq!(found.status, WorkerStatus::Cordoned);
            found.status = WorkerStatus::Ready;
        }
        Change::MoreWorkers { pool, count, capacity, labels } => {
            let alike = |view: &&WorkerView| {
                let worker = &view.worker;
                worker.pool == *pool && worker.capacity == *capacity && worker.labels == *labels
            };
            let like = scene.workers.iter().find(alike).expect("they are like one that is there").worker.clone();
            scene.workers.extend((0..*count).map(|number| new_worker(&like, number)));
        }
        change => return (scene, change.changed(&asked.shape).expect("a change of the request")),
    }
    (scene, asked.shape.clone())
}

/// Whether the planner places one container more of a shape, behind what is in front of it.
fn places(scene: &Scene, asked: &Asked, shape: &Shape, fleet_changed: bool) -> bool {
    let mut scene = scene.clone();
    let hash = asked.shape.hash();
    scene.blocked.retain_mut(|blocked| {
        // Marks are taken at their word; after a change of the fleet every mark is old.
        blocked.at = if fleet_changed { volley_model::FleetVersion(0) } else { super::scene::AT };
        if blocked.hash == hash {
            blocked.count = asked.ahead;
        }
        blocked.count > 0
    });
    // Explained for one server alone; ties as they fall without a seed.
    (scene.sessions, scene.seed) = (Vec::new(), 0);
    (scene.containers, scene.shapes, scene.recheck) = (Vec::new(), Vec::new(), Vec::new());
    let behind =
        u64::from(fleet_changed && asked.ahead > 0 && scene.blocked.iter().any(|blocked| blocked.hash == shape.hash()));
    !scene.claim(1, shape, asked.score + behind).plan().placements.is_empty()
}

fn holds_of(change: &Change) -> bool {
    matches!(change, Change::Uncordon { .. } | Change::MoreWorkers { .. })
}

/// Smaller changes of the same kind.
fn smaller(change: &Change) -> Vec<Change> {
    match change.clone() {
        Change::LessResources { cpu_less, cpu, memory_less, memory } => {
            let mut smaller = Vec::new();
            for (step, unit) in [(1, 1), (0, 1)] {
                if cpu_less.0 >= step && step > 0 {
                    let (cpu_less, cpu) = (CpuMilli(cpu_less.0 - step), CpuMilli(cpu.0 + step));
                    smaller.push(Change::LessResources { cpu_less, cpu, memory_less, memory });
                }
                if memory_less.0 >= unit {
                    let (memory_less, memory) = (Bytes(memory_less.0 - unit), Bytes(memory.0 + unit));
                    smaller.push(Change::LessResources { cpu_less, cpu, memory_less, memory });
                }
            }
            smaller
        }
        Change::SmallerGpuPart { milli } => vec![Change::SmallerGpuPart { milli: volley_model::GpuMilli(milli.0 + 1) }],
        Change::FewerGpus { count } => vec![Change::FewerGpus { count: count + 1 }],
        Change::MoreWorkers { pool, count, capacity, labels } => (0..count.min(6))
            .map(|count| {
                let (pool, capacity, labels) = (pool.clone(), capacity.clone(), labels.clone());
                Change::MoreWorkers { pool, count, capacity, labels }
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn check(scene: &Scene, asked: &Asked) -> Counterfactuals {
    let found = explained(scene, asked);
    let as_it_is = places(scene, asked, &asked.shape, false);
    assert_eq!(found.fits_on.is_some(), as_it_is, "{found:?}");
    assert!(found.changes.len() <= CHANGES_MAX && (found.changes.is_empty() || !as_it_is));
    for counterfactual in &found.changes {
        let change = &counterfactual.change;
        let (changed, shape) = with_change(scene, asked, change);
        assert!(places(&changed, asked, &shape, holds_of(change)), "{change:?} is not enough");
        for smaller in smaller(change) {
            let (changed, shape) = with_change(scene, asked, &smaller);
            assert!(!places(&changed, asked, &shape, holds_of(change)), "{smaller:?} does, and {change:?} is named");
        }
    }
    let costs: Vec<u64> = found.changes.iter().map(|found| found.change.cost(&asked.shape)).collect();
    assert!(costs.is_sorted(), "the cheapest first: {found:?}");
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_change_is_enough_and_the_smallest_of_its_kind(
        scene in any_scene_with_heads(16),
        shape in any_shape(),
        of_blocked in any::<Option<prop::sample::Index>>(),
        score in 0..8_u64,
        ahead in 0..6_u64,
    ) {
        let mut asked = Asked { shape, score, ahead: 0 };
        if let Some(index) = of_blocked.filter(|_| !scene.blocked.is_empty()) {
            let blocked = &scene.blocked[index.index(scene.blocked.len())];
            let ahead = ahead.min(blocked.count.saturating_sub(1));
            asked = Asked { shape: (*blocked.shape).clone(), score: blocked.best.0, ahead };
        }
        check(&scene, &asked);
    }
}

/// Changes in words.
fn words(scene: &Scene, shape: &Shape) -> Vec<String> {
    let asked = Asked { shape: shape.clone(), score: 5, ahead: 0 };
    check(scene, &asked).changes.iter().map(|found| found.change.to_string()).collect()
}

fn busy(name: &str, cpu: u64) -> WorkerView {
    worker(name).used_cpu(10_000 - cpu)
}

#[test]
fn what_fits_waits_for_its_turn_only() {
    let found = check(&Scene::of([worker("a")]), &Asked { shape: shape(100), score: 5, ahead: 0 });
    assert_eq!((found.fits_on.map(|worker| worker.to_string()), found.changes), (Some("a".to_owned()), Vec::new()));
}

#[test]
fn the_least_that_some_worker_lacks_is_named() {
    let scene = Scene::of([busy("a", 1_000), busy("b", 3_500), busy("c", 2_000)]);
    let more = "with 1 more worker in pool default (10 CPU, 10Gi memory each)";
    assert_eq!(words(&scene, &shape(4_000)), ["if it asked for 500m less CPU (3500m)", more]);
    let mut large = shape(4_000);
    large.resources.memory = Bytes(11 << 30);
    assert_eq!(
        words(&scene, &large),
        ["if it asked for 500m less CPU (3500m) and 1Gi less memory (10Gi)"],
        "no such worker"
    );
    large.resources.cpu = CpuMilli(3_000);
    assert_eq!(words(&scene, &large), ["if it asked for 1Gi less memory (10Gi)"]);
}

#[test]
fn labels_pools_kinds_and_cordoned_workers_are_named_cheapest_first() {
    let cordoned = worker("w").label("zone", "x").with(|view| view.status = WorkerStatus::Cordoned);
    let scene = Scene::of([busy("v", 0).label("zone", "x"), worker("u"), cordoned]);
    let mut asked = shape(4_000);
    asked.require_labels.insert("zone".to_owned(), "x".to_owned());
    let expected = ["if worker w were uncordoned", "if it did not ask for the label 'zone'"];
    assert_eq!(words(&scene, &asked)[..2], expected);

    let scene = Scene::of([busy("a", 0).pool("one"), worker("b").pool("two")]);
    let mut asked = shape(4_000);
    asked.pool = PoolSelector::Required(pool_name("one"));
    assert_eq!(words(&scene, &asked)[0], "if it asked for pool two");

    let scene = Scene::of([worker("a").gpus(&["L4", "L4"]), worker("b").gpus(&["H100"])]);
    let expected = ["if it asked for GPUs of kind L4", "if it asked for 1 GPU"];
    assert_eq!(words(&scene, &gpu_shape(&["H100"], 2, 1000)), expected);
}

#[test]
fn more_workers_make_room_for_what_is_in_front_too() {
    let asked = shape(4_000);
    let scene = Scene::of([busy("a", 1_000)]).block(9, &asked, 5, 50);
    let found = check(&scene, &Asked { shape: asked, score: 5, ahead: 6 });
    let more = found.changes.iter().find_map(|found| match found.change {
        Change::MoreWorkers { count, .. } => Some(count),
        _ => None,
    });
    assert_eq!(more, Some(4), "two to a worker, six of them in front");
}

#[test]
fn of_many_more_workers_it_is_said_that_fewer_may_do() {
    let asked = shape(10_000);
    for (in_front, expected) in [(31, "with 32 more workers"), (39, "with at most 40 more workers")] {
        let scene = Scene::of([busy("a", 1_000)]).block(in_front + 1, &asked, 5, 50);
        let found = check(&scene, &Asked { shape: asked.clone(), score: 5, ahead: in_front });
        let words: Vec<String> = found.changes.iter().map(|found| found.change.to_string()).collect();
        assert!(words.iter().any(|words| words.starts_with(expected)), "{expected}: {words:?}");
    }
}

#[test]
fn room_that_is_held_is_not_offered() {
    let waiting = shape(9_000);
    let scene = Scene::of([worker("a").hold(&waiting, 1)]);
    assert_eq!(words(&scene, &shape(100)), ["with 1 more worker in pool default (10 CPU, 10Gi memory each)"]);
}
