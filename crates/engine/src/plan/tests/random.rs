//! Random fleets, shapes and claims for the laws.

use std::sync::Arc;

use proptest::prelude::*;
use volley_model::{
    Bytes, CpuMilli, GPU_WHOLE, GpuMilli, PoolSelector, SessionId, Shape, Strategy as Choice, Timestamp, WorkerStatus,
    WorkerView,
};

use super::scene::{NOW, Scene, With, gpu_shape, pool_name, shape, worker};

const POOLS: [&str; 3] = ["a", "b", "c"];
const KEYS: [&str; 2] = ["x", "y"];
const GPUS: [&[&str]; 4] = [&[], &["A", "A"], &["A", "B", "A"], &["B", "B", "B", "B"]];

/// A worker of some pool, partly full.
pub(super) fn any_worker(number: usize) -> impl Strategy<Value = WorkerView> {
    let parts = (0..3_usize, 0..3_usize, prop_oneof![4 => Just(0), 3 => 1..4_usize], 1..=4_u64, 0..3_usize);
    let free = (0..=8_u64, 0..=8_u64, prop_oneof![Just(100_u32), 0..6_u32], prop::collection::vec(0..=4_u64, 4));
    let status = prop_oneof![6 => Just(WorkerStatus::Ready), 1 => Just(WorkerStatus::Cordoned)];
    (parts, free, status).prop_map(move |((pool, zone, gpus, size, key), free, status)| {
        let (cpu, memory, slots, devices) = free;
        let mut view = worker(&format!("w{number}")).pool(POOLS[pool]).gpus(GPUS[gpus]);
        if zone < 2 {
            view = view.label("zone", KEYS[zone]);
        }
        if key < 2 {
            view = view.affinity(KEYS[key]);
        }
        let capacity = &mut Arc::make_mut(&mut view.worker).capacity;
        capacity.cpu = CpuMilli(size * 2000);
        capacity.memory = Bytes(size << 30);
        view.free.cpu = CpuMilli(capacity.cpu.0 / 8 * cpu);
        view.free.memory = Bytes(capacity.memory.0 / 8 * memory);
        view.free.slots = slots;
        view.status = status;
        for (free, quarters) in view.free.gpus.iter_mut().zip(devices) {
            *free = GpuMilli(GPU_WHOLE.0 / 4 * quarters);
        }
        view
    })
}

pub(super) fn any_shape() -> impl Strategy<Value = Shape> {
    let gpu = prop_oneof![
        3 => Just(None),
        1 => (0..4_usize, 1..3_u16).prop_map(|(kinds, count)| Some((kinds, count, 1000))),
        1 => (0..4_usize, prop_oneof![Just(250), Just(600)]).prop_map(|(kinds, milli)| Some((kinds, 1, milli))),
    ];
    let pool = prop_oneof![
        4 => Just(PoolSelector::Any),
        1 => (0..3_usize).prop_map(|pool| PoolSelector::Preferred(pool_name(POOLS[pool]))),
        1 => (0..3_usize).prop_map(|pool| PoolSelector::Required(pool_name(POOLS[pool]))),
    ];
    let (zone, key) = (prop_oneof![3 => Just(2), 1 => 0..2_usize], prop_oneof![2 => Just(2), 1 => 0..2_usize]);
    (0..40_u64, 0..8_u64, gpu, pool, zone, key).prop_map(|(cpu, memory, gpu, pool, zone, key)| {
        let kinds: [&[&str]; 4] = [&[], &["A"], &["B", "A"], &["C", "B"]];
        let mut new = gpu.map_or_else(|| shape(0), |(list, count, milli)| gpu_shape(kinds[list], count, milli));
        new.resources.cpu = CpuMilli(cpu * 100);
        new.resources.memory = Bytes(memory << 27);
        new.pool = pool;
        if zone < 2 {
            new.require_labels.insert("zone".to_owned(), KEYS[zone].to_owned());
        }
        new.affinity = KEYS.get(key).map(|key| (*key).to_owned());
        new
    })
}

/// A fleet of up to `workers`, holds included, with up to 60 claimed containers of up to six shapes.
pub(super) fn any_scene(workers: usize) -> impl Strategy<Value = Scene> {
    let fleet = (0..=workers).prop_flat_map(|count| (0..count).map(any_worker).collect::<Vec<_>>());
    let shapes = prop::collection::vec(any_shape(), 1..6);
    let rules = prop::collection::vec((-1..2_i16, any::<bool>(), any::<bool>(), any::<bool>()), 3);
    let claims = prop::collection::vec((any::<prop::sample::Index>(), 0..5_u64, 1..8_u32, any::<bool>()), 0..12);
    let holds = prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..6_u64), 0..3);
    (fleet, shapes, rules, claims, holds, 1..4_u64, any::<u64>()).prop_map(
        |(fleet, shapes, rules, claims, holds, sessions, seed)| {
            let mut scene = Scene::of(fleet);
            for (name, (priority, spread, cpu_on_gpu, configured)) in POOLS.iter().zip(rules) {
                if configured {
                    scene = scene.pool(name, |pool| {
                        pool.priority = priority;
                        pool.strategy = if spread { Choice::Spread } else { Choice::Pack };
                        pool.cpu_on_gpu = cpu_on_gpu;
                    });
                }
            }
            for (shape, score, count, old) in claims {
                let since = if old { Timestamp(0) } else { NOW };
                scene = scene.claim_since(count, &shapes[shape.index(shapes.len())], score, since);
            }
            for (worker, shape, score) in holds {
                if !scene.workers.is_empty() {
                    let at = worker.index(scene.workers.len());
                    let held = scene.workers[at].clone().hold(&shapes[shape.index(shapes.len())], score);
                    scene.workers[at] = held;
                }
            }
            for (number, claimed) in scene.containers.iter_mut().enumerate() {
                claimed.fail_if_unplaceable = number % 3 == 0;
            }
            scene.sessions = (1..=sessions).map(SessionId).collect();
            scene.seed = seed;
            scene
        },
    )
}

/// The same with blocked shapes, some of which are to be looked at again.
pub(super) fn any_scene_with_heads(workers: usize) -> impl Strategy<Value = Scene> {
    let blocked = prop::collection::vec((any_shape(), 0..6_u64, 1..20_u64, any::<bool>(), any::<bool>()), 0..6);
    (any_scene(workers), blocked).prop_map(|(mut scene, blocked)| {
        for (shape, best, count, fresh, recheck) in blocked {
            if scene.blocked.iter().all(|known| known.hash != shape.hash()) {
                scene = scene.block(count, &shape, best, if fresh { 50 } else { 40 });
                scene = if recheck { scene.recheck(&shape) } else { scene };
            }
        }
        scene
    })
}
