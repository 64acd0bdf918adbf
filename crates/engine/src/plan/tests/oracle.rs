//! The documented order by plain scans over all workers: what the planner must agree with.

use std::collections::BTreeSet;

use volley_model::{
    Claimed, ContainerId, Free, GpuGrant, GpuKinds, HoldView, Pool, PoolSelector, Score, Shape, Strategy, WorkerId,
    WorkerStatus, WorkerView, feasible,
};

use super::scene::Scene;
use crate::part::{Parts, hash_name, mix};
use crate::plan::size;
use crate::room::Scale;

/// What the oracle places, in its order, and what it returns.
pub(super) struct Expected {
    pub(super) placed: Vec<(ContainerId, WorkerId, Vec<GpuGrant>)>,
    pub(super) waiting: BTreeSet<ContainerId>,
}

pub(super) fn pool_of(scene: &Scene, worker: &WorkerView) -> Pool {
    let name = &worker.worker.pool;
    scene.pools.iter().find(|pool| pool.name == *name).cloned().unwrap_or_else(|| Pool::with_defaults(name.clone()))
}

pub(super) fn shape_of<'a>(scene: &'a Scene, claimed: &Claimed) -> &'a Shape {
    &scene.shapes.iter().find(|(hash, _)| *hash == claimed.shape).expect("claimed with its shape").1
}

/// Whether the ledger would let it in, as far as holds go.
pub(super) fn hold_lets(hold: Option<&HoldView>, shape: &Shape, score: Score) -> bool {
    hold.is_none_or(|hold| hold.shape == shape.hash() || score < hold.score)
}

/// The devices a worker would give, and the place of their kind in the shape's order.
pub(super) fn devices(shape: &Shape, worker: &WorkerView, free: &Free) -> Option<(usize, Vec<GpuGrant>)> {
    let Some(gpu) = &shape.resources.gpu else { return Some((0, Vec::new())) };
    let capacity = &worker.worker.capacity;
    match &gpu.kinds {
        GpuKinds::Any => capacity.choose_gpus(free, gpu).map(|grants| (0, grants)),
        GpuKinds::Ordered(kinds) => {
            kinds.iter().enumerate().find_map(|(place, k)| Some((place, capacity.choose_of_kind(free, k, gpu)?)))
        }
    }
}

/// Whether one more container of a shape fits, and with which devices.
pub(super) fn fits(
    scene: &Scene,
    shape: &Shape,
    score: Score,
    worker: &WorkerView,
    free: &Free,
) -> Option<(usize, Vec<GpuGrant>)> {
    let allowed = worker.status == WorkerStatus::Ready
        && feasible(shape, &worker.worker, pool_of(scene, worker).cpu_on_gpu).is_ok()
        && hold_lets(worker.hold.as_ref(), shape, score);
    let (place, grants) = devices(shape, worker, free).filter(|_| allowed)?;
    free.fits(&shape.resources, &grants).then_some((place, grants))
}

pub(super) fn expected(scene: &Scene) -> Expected {
    let mut order: Vec<&Claimed> = scene.containers.iter().collect();
    order.sort_by_key(|claimed| {
        let resources = &shape_of(scene, claimed).resources;
        (claimed.score, std::cmp::Reverse(size(resources)), claimed.shape, claimed.container)
    });
    let parts = Parts::new(scene.sessions[0], &scene.sessions);
    let mut free: Vec<Free> = scene.workers.iter().map(|worker| worker.free.clone()).collect();
    let mut expected = Expected { placed: Vec::new(), waiting: BTreeSet::new() };
    for claimed in order {
        let shape = shape_of(scene, claimed);
        let ranked = scene.workers.iter().zip(&free).enumerate().filter_map(|(number, (worker, free))| {
            let (kind, grants) = fits(scene, shape, claimed.score, worker, free)?;
            Some((rank(scene, shape, worker, free, kind, &parts), number, grants))
        });
        match ranked.min_by(|a, b| a.0.cmp(&b.0)) {
            Some((_, number, grants)) => {
                assert!(free[number].reserve(&shape.resources, &grants));
                let worker = scene.workers[number].worker.id.clone();
                expected.placed.push((claimed.container, worker, grants));
            }
            None => {
                expected.waiting.insert(claimed.container);
            }
        }
    }
    expected
}

/// Smaller is tried first.
fn rank(
    scene: &Scene,
    shape: &Shape,
    worker: &WorkerView,
    free: &Free,
    kind: usize,
    parts: &Parts,
) -> impl Ord + use<> {
    let pool = pool_of(scene, worker);
    let preferred = matches!(&shape.pool, PoolSelector::Preferred(name) if *name == pool.name);
    let name = hash_name(worker.worker.id.as_str());
    let gpus_unused = shape.resources.gpu.is_none() && !worker.worker.capacity.gpus.is_empty();
    let near = shape.affinity.as_ref().is_some_and(|key| worker.affinities.contains(key));
    let share = i64::from(Scale::of(&worker.worker.capacity).free_share(free));
    let by_strategy = if pool.strategy == Strategy::Pack { share } else { -share };
    let turn = name.wrapping_sub(mix(scene.seed));
    ((kind, !preferred, -pool.priority, pool.name), (gpus_unused, !parts.owns(name), !near, by_strategy, turn))
}
