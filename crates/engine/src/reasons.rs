//! Why a shape waits: what every pool's workers lack, with counts; whether any worker could
//! ever serve it; and which worker to keep room on.

use std::collections::{BTreeMap, BTreeSet};

use volley_model::{
    Bytes, CpuMilli, PoolName, Shape, ShapeHash, Timestamp, WaitReason, WorkerId, WorkerStatus, feasible,
};

use crate::FleetView;
use crate::view::{FreeKey, Slot};

#[derive(Default)]
struct Busy {
    workers: u32,
    cpu_short: Option<CpuMilli>,
    memory_short: Option<Bytes>,
    gpu_short: u32,
    slots_short: u32,
}

/// Why nothing of a shape fits at present.
pub(crate) fn reasons(view: &FleetView, shape: &Shape, hash: ShapeHash, now: Timestamp) -> Vec<WaitReason> {
    if view.workers() == 0 {
        return vec![WaitReason::NoWorkers];
    }
    let mut busy: BTreeMap<PoolName, Busy> = BTreeMap::new();
    let mut infeasible: BTreeMap<(PoolName, String), u32> = BTreeMap::new();
    let (mut unavailable, mut held) = (0, None);
    for slot in view.all() {
        let worker = &slot.worker.worker;
        if let Err(because) = feasible(shape, worker, view.pool(&worker.pool).cpu_on_gpu) {
            *infeasible.entry((worker.pool.clone(), because.to_string())).or_default() += 1;
        } else if slot.worker.status != WorkerStatus::Ready {
            unavailable += 1;
        } else if slot.worker.hold.as_ref().is_some_and(|hold| hold.shape != hash && hold.until > now) {
            held.get_or_insert_with(|| worker.id.clone());
        } else {
            add_busy(busy.entry(worker.pool.clone()).or_default(), slot, shape);
        }
    }
    let mut reasons: Vec<WaitReason> = busy.into_iter().map(|(pool, busy)| busy_reason(pool, &busy)).collect();
    reasons.extend(held.map(|worker| WaitReason::Held { worker }));
    if unavailable > 0 {
        reasons.push(WaitReason::Unavailable { workers: unavailable });
    }
    let never = infeasible.into_iter();
    reasons.extend(never.map(|((pool, because), workers)| WaitReason::Infeasible { pool, workers, because }));
    reasons
}

fn add_busy(busy: &mut Busy, slot: &Slot, shape: &Shape) {
    busy.workers += 1;
    let misfit = slot.worker.free.misfit(&shape.resources);
    if misfit.cpu_short.0 > 0 {
        busy.cpu_short = Some(busy.cpu_short.map_or(misfit.cpu_short, |least| least.min(misfit.cpu_short)));
    }
    if misfit.memory_short.0 > 0 {
        busy.memory_short = Some(busy.memory_short.map_or(misfit.memory_short, |least| least.min(misfit.memory_short)));
    }
    busy.slots_short += u32::from(misfit.slots_short);
    if let Some(gpu) = &shape.resources.gpu {
        busy.gpu_short += u32::from(slot.worker.worker.capacity.choose_gpus(&slot.worker.free, gpu).is_none());
    }
}

fn busy_reason(pool: PoolName, busy: &Busy) -> WaitReason {
    WaitReason::Busy {
        pool,
        workers: busy.workers,
        cpu_short: busy.cpu_short,
        memory_short: busy.memory_short,
        gpu_short: busy.gpu_short,
        slots_short: busy.slots_short,
    }
}

/// Why no worker could ever serve a shape; `None` when one could, or when there is none to judge by.
pub(crate) fn unplaceable(view: &FleetView, shape: &Shape) -> Option<String> {
    let mut because: BTreeMap<String, u32> = BTreeMap::new();
    for slot in view.all() {
        let worker = &slot.worker.worker;
        match feasible(shape, worker, view.pool(&worker.pool).cpu_on_gpu) {
            Ok(()) => return None,
            Err(reason) => *because.entry(reason.to_string()).or_default() += 1,
        }
    }
    let words: Vec<String> = because.into_iter().map(|(why, workers)| format!("{workers} workers: {why}")).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// The emptiest worker that could serve a shape, in a pool without a hold.
pub(crate) fn worker_to_hold(
    view: &FleetView,
    shape: &Shape,
    held: &BTreeSet<PoolName>,
) -> Option<(WorkerId, PoolName)> {
    let could = |slot: &&Slot| {
        let worker = &slot.worker.worker;
        slot.worker.status == WorkerStatus::Ready
            && slot.worker.hold.is_none()
            && !held.contains(&worker.pool)
            && feasible(shape, worker, view.pool(&worker.pool).cpu_on_gpu).is_ok()
    };
    let best = view.all().filter(could).max_by_key(|slot| (FreeKey::of(&slot.worker.free), slot.place.1))?;
    Some((best.worker.worker.id.clone(), best.worker.worker.pool.clone()))
}
