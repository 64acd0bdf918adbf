//! Which worker is chosen, rule by rule.

use volley_model::{GpuGrant, GpuMilli, Pool, PoolSelector, SessionId, Shape, Strategy, WorkerStatus};

use super::scene::{Scene, With, counts, gpu_shape, names, pool_name, shape, spread_of, worker};
use crate::part::{Parts, hash_name};

fn workers(count: usize) -> Vec<volley_model::WorkerView> {
    (0..count).map(|number| worker(&format!("w{number}"))).collect()
}

fn in_pool(shape: Shape, pool: PoolSelector) -> Shape {
    Shape { pool, ..shape }
}

#[test]
fn a_hundred_containers_of_which_ten_fit_per_worker_land_on_exactly_ten_workers() {
    for fleet in [10, 64, 500] {
        let plan = Scene::of(workers(fleet)).claim(100, &shape(1000), 1).plan();
        let counts = spread_of(&plan);
        assert_eq!((counts.len(), plan.placements.len()), (10, 100));
        assert!(counts.values().all(|count| *count == 10));
        assert!(plan.blocked.is_empty() && plan.returned.is_empty());
    }
}

#[test]
fn a_mixed_burst_fills_ten_workers_whatever_the_order_it_came_in() {
    // Ten times 6000 + 4000: a perfect fill, and fifteen workers if the small ones went first.
    let mut scene = Scene::of(workers(64));
    for _ in 0..10 {
        scene = scene.claim(1, &shape(4000), 1).claim(1, &shape(6000), 1);
    }
    let plan = scene.plan();
    assert_eq!((spread_of(&plan).len(), plan.placements.len()), (10, 20));
}

#[test]
fn pack_takes_the_fullest_that_fits() {
    let fleet = [worker("idle"), worker("half").used_cpu(5000), worker("full").used_cpu(9500)];
    let plan = Scene::of(fleet).claim(7, &shape(1000), 1).plan();
    assert_eq!(names(&plan), ["half", "half", "half", "half", "half", "idle", "idle"]);
}

#[test]
fn fullness_is_that_of_the_scarcest_resource() {
    let few_slots = worker("slots").with(|w| w.free.slots = 10);
    let plan = Scene::of([worker("idle"), few_slots, worker("half").used_cpu(5000)]).claim(1, &shape(100), 1).plan();
    assert_eq!(names(&plan), ["slots"]);
}

#[test]
fn spread_takes_the_emptiest_and_goes_round() {
    let fleet = [worker("a"), worker("b").used_cpu(2000), worker("c").used_cpu(9500)];
    let plan = Scene::of(fleet).pool("default", |p| p.strategy = Strategy::Spread).claim(6, &shape(1000), 1).plan();
    assert_eq!(names(&plan)[..2], ["a", "a"], "8 of 10 cores free, like b");
    assert_eq!(spread_of(&plan), counts(&[("a", 4), ("b", 2)]));
}

#[test]
fn the_pool_of_higher_priority_is_filled_first() {
    let fleet = [worker("spot").pool("spot"), worker("plain").pool("plain"), worker("other").pool("other")];
    let scene = Scene::of(fleet).pool("spot", |p| p.priority = 9).pool("other", |p| p.priority = -1);
    let plan = scene.claim(21, &shape(1000), 1).plan();
    assert_eq!(spread_of(&plan), counts(&[("spot", 10), ("plain", 10), ("other", 1)]));
}

#[test]
fn a_preferred_pool_goes_first_and_a_required_one_alone() {
    let fleet = || Scene::of([worker("a").pool("a"), worker("b").pool("b")]).pool("a", |p| p.priority = 5);
    let preferred = in_pool(shape(1000), PoolSelector::Preferred(pool_name("b")));
    assert_eq!(spread_of(&fleet().claim(12, &preferred, 1).plan()), counts(&[("a", 2), ("b", 10)]));
    let required = in_pool(shape(1000), PoolSelector::Required(pool_name("b")));
    let plan = fleet().claim(12, &required, 1).plan();
    assert_eq!((spread_of(&plan), plan.returned.len()), (counts(&[("b", 10)]), 2));
}

#[test]
fn labels_are_required_of_workers() {
    let fleet = [worker("a").label("zone", "x"), worker("b").label("zone", "y"), worker("c")];
    let mut zoned = shape(1000);
    zoned.require_labels.insert("zone".to_owned(), "y".to_owned());
    let plan = Scene::of(fleet).claim(11, &zoned, 1).plan();
    assert_eq!((spread_of(&plan), plan.returned.len()), (counts(&[("b", 10)]), 1));
}

#[test]
fn slots_bound_the_containers_of_a_worker() {
    let plan = Scene::of([worker("a").with(|w| w.free.slots = 3)]).claim(5, &shape(0), 1).plan();
    assert_eq!((plan.placements.len(), plan.returned.len()), (3, 2));
}

#[test]
fn workers_that_are_not_ready_get_nothing() {
    use WorkerStatus::{Cordoned, Draining, Gone, Lost, Provisioning};
    let fleet = [Cordoned, Draining, Gone, Lost, Provisioning].into_iter().enumerate();
    let fleet = fleet.map(|(number, status)| worker(&format!("w{number}")).with(|w| w.status = status));
    let plan = Scene::of(fleet).claim(2, &shape(1), 1).plan();
    assert_eq!((plan.placements.len(), plan.returned.len()), (0, 2));
}

#[test]
fn workers_with_the_affinity_key_go_first_in_the_pools_order() {
    let fleet = || {
        let near = [worker("near").affinity("x"), worker("nearer").affinity("y").affinity("x").used_cpu(8000)];
        near.into_iter().chain([worker("fullest").used_cpu(9000), worker("idle")])
    };
    let near = Shape { affinity: Some("x".to_owned()), ..shape(1000) };
    let plan = Scene::of(fleet()).claim(14, &near, 1).plan();
    let expected = [vec!["nearer"; 2], vec!["near"; 10], vec!["fullest"], vec!["idle"]].concat();
    assert_eq!(names(&plan), expected);
    let spread = Scene::of(fleet()).pool("default", |p| p.strategy = Strategy::Spread).claim(9, &near, 1).plan();
    assert_eq!(spread_of(&spread), counts(&[("near", 9)]), "the emptiest of those with the key");
}

#[test]
fn gpu_kinds_go_in_the_containers_order_before_pools() {
    let fleet = || {
        let cheap = worker("cheap").pool("cheap").gpus(&["A10G", "A10G"]);
        Scene::of([cheap, worker("dear").gpus(&["H100"])]).pool("cheap", |p| p.priority = 9)
    };
    let plan = fleet().claim(3, &gpu_shape(&["H100", "A10G"], 1, 1000), 1).plan();
    assert_eq!(names(&plan), ["dear", "cheap", "cheap"]);
    let plan = fleet().claim(3, &gpu_shape(&[], 1, 1000), 1).plan();
    assert_eq!(names(&plan), ["cheap", "cheap", "dear"], "any kind: pools decide");
    let plan = fleet().claim(3, &gpu_shape(&["T4"], 1, 1000), 1).plan();
    assert_eq!((plan.placements.len(), plan.returned.len()), (0, 3));
}

#[test]
fn gpu_devices_are_whole_or_parts_and_exact() {
    let grants = |devices: &[u16], milli| -> Vec<GpuGrant> {
        devices.iter().map(|device| GpuGrant { device: *device, milli: GpuMilli(milli) }).collect()
    };
    let mixed = worker("mixed").gpus(&["A", "B", "A", "B", "A"]);
    let broken = mixed.with(|w| w.free.gpus[2] = GpuMilli(500));
    let plan = Scene::of([broken.clone()]).claim(2, &gpu_shape(&["A"], 2, 1000), 1).plan();
    assert_eq!(plan.placements.len(), 1, "two wholly free of kind A, and B is not asked for");
    assert_eq!(plan.placements[0].gpus, grants(&[0, 4], 1000));
    let plan = Scene::of([broken.clone()]).claim(3, &gpu_shape(&["A"], 1, 300), 1).plan();
    let parts: Vec<_> = plan.placements.iter().map(|placed| placed.gpus.clone()).collect();
    assert_eq!(parts, [grants(&[2], 300), grants(&[0], 300), grants(&[0], 300)], "the fullest device with room");
    let plan = Scene::of([broken]).claim(1, &gpu_shape(&[], 3, 1000), 1).plan();
    assert!(plan.placements.is_empty(), "four are free, but no three of one kind");
}

#[test]
fn cpu_work_keeps_off_gpu_workers_unless_the_pool_lets_it() {
    let fleet = || Scene::of([worker("gpu").gpus(&["A"]), worker("plain")]);
    let plan = fleet().claim(12, &shape(1000), 1).plan();
    assert_eq!((spread_of(&plan), plan.returned.len()), (counts(&[("plain", 10)]), 2));
    let plan = fleet().pool("default", |p| p.cpu_on_gpu = true).claim(12, &shape(1000), 1).plan();
    assert_eq!(spread_of(&plan), counts(&[("gpu", 2), ("plain", 10)]), "plain workers first");
}

#[test]
fn each_replica_fills_its_own_part_and_then_the_rest() {
    let sessions = [SessionId(1), SessionId(2), SessionId(3)];
    let mut scene = Scene::of(workers(30)).claim(300, &shape(1000), 1);
    scene.sessions = sessions.to_vec();
    let parts = sessions.map(|session| Parts::new(session, &sessions));
    let own = |name: &String, session: usize| parts[session].owns(hash_name(name));
    let mut firsts = std::collections::BTreeSet::new();
    for (number, session) in sessions.into_iter().enumerate() {
        let plan = crate::plan(&scene.view(), &crate::PlanInput { session, ..scene.input() });
        assert_eq!(plan.placements.len(), 300, "it leaves its part when that is full");
        let names = names(&plan);
        let part = names.iter().filter(|name| own(name, number)).count();
        assert!(part > 0 && names[..part].iter().all(|name| own(name, number)), "its own part first");
        firsts.insert(names[0].clone());
    }
    assert_eq!(firsts.len(), 3, "replicas with one picture choose different workers");
}

#[test]
fn own_parts_by_index_and_by_copy_give_the_same_plan() {
    let mut scene = Scene::of(workers(20)).claim(50, &shape(1000), 1);
    scene.sessions = vec![SessionId(1), SessionId(9)];
    let mut view = scene.view();
    view.set_sessions(SessionId(1), &scene.sessions);
    assert_eq!(crate::plan(&view, &scene.input()), scene.plan());
}

#[test]
fn the_seed_chooses_among_equals_only() {
    let mut firsts = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let mut scene = Scene::of(workers(8).into_iter().chain([worker("fuller").used_cpu(9000)]));
        scene.seed = seed;
        let plan = scene.claim(2, &shape(1000), 1).plan();
        assert_eq!(names(&plan)[0], "fuller");
        firsts.insert(names(&plan)[1].clone());
    }
    assert!(firsts.len() >= 6, "nearly all of the eight idle ones come first for some seed: {firsts:?}");
}

#[test]
fn what_names_no_image_stays_off_workers_of_images() {
    let images = worker("images").label(volley_model::RUNTIME_LABEL, volley_model::RUNTIME_OCI);
    let plan = Scene::of([images.clone()]).claim(1, &shape(1000), 1).plan();
    assert_eq!((plan.placements.len(), plan.returned.len(), plan.blocked.len()), (0, 1, 1));
    let plan = Scene::of([images.clone(), worker("processes")]).claim(2, &shape(1000), 1).plan();
    assert_eq!(names(&plan), ["processes", "processes"]);
    let mut asks = shape(1000);
    asks.require_labels.insert(volley_model::RUNTIME_LABEL.to_owned(), volley_model::RUNTIME_OCI.to_owned());
    let plan = Scene::of([images.clone(), worker("processes")]).claim(1, &asks, 1).plan();
    assert_eq!(names(&plan), ["images"]);
    let of_commands = |pool: &mut Pool| pool.runtimes = [volley_model::RUNTIME_PROCESS.to_owned()].into();
    let plan = Scene::of([images.clone()]).pool("default", of_commands).claim(1, &asks, 1).plan();
    assert_eq!(plan.placements.len(), 0, "the pool is for commands");
    let closed = |pool: &mut Pool| pool.host_network = false;
    let plan = Scene::of([images.clone()]).pool("default", closed).claim(1, &asks, 1).plan();
    assert_eq!(names(&plan), ["images"]);
    let (label, allowed) = (volley_model::HOST_NETWORK_LABEL, volley_model::HOST_NETWORK_ALLOWED);
    asks.require_labels.insert(label.to_owned(), allowed.to_owned());
    let plan = Scene::of([images.label(label, allowed)]).pool("default", closed).claim(1, &asks, 1).plan();
    assert_eq!(plan.placements.len(), 0, "the worker allows its network, the pool does not");
}
