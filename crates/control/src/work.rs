//! How much work is in front of a container, as time of the workers that could run it: how long the like of it took lately
//! (from the event record and the records of what has ended), times the part of these workers that it takes. Reads only.

use std::collections::BTreeMap;

use volley_engine::FleetView;
use volley_ledger::{Ahead, Overview};
use volley_model::{
    Capacity, Expected, Free, GPU_WHOLE, GpuKinds, Millis, Pool, PoolName, Resources, Shape, WorkerStatus, feasible,
};

use crate::Control;
use crate::observed::Observed;
use crate::rates::Lane;

/// Parts of a fleet are counted in billionths.
const WHOLE: u128 = 1_000_000_000;

impl Control {
    /// When a container is expected to start by the work in front of it; `None` when nothing could run it.
    pub(crate) fn expected_by_work(
        &self,
        observed: &Observed,
        shape: &Shape,
        ahead: &Ahead,
        view: &FleetView,
        overview: &Overview,
    ) -> Option<Expected> {
        let room = Room::of(view, shape);
        if room.workers == 0 {
            return None;
        }
        let lane = Lane::of(shape);
        let mut in_front = ahead.same_shape;
        // Itself, too: its room has to come free.
        let mut work = room.work(&shape.resources, observed.mean(ahead.shape)) * (u128::from(ahead.same_shape) + 1);
        for (hash, count) in &ahead.others {
            let other = overview.backlog.iter().find(|other| other.hash == *hash);
            let Some(other) = other.filter(|other| Lane::of(&other.shape) == lane) else { continue };
            in_front = in_front.saturating_add(*count);
            work = work.saturating_add(room.work(&other.shape.resources, observed.mean(*hash)) * u128::from(*count));
        }
        let after = work / room.used.max(WHOLE / 2);
        let after = Millis(u64::try_from(after).unwrap_or(u64::MAX));
        Some(Expected::Work { after, ahead: in_front, usual: observed.mean(ahead.shape) })
    }
}

/// Room of all ready workers that could run a shape, added up.
struct Room {
    workers: u64,
    cpu: u128,
    memory: u128,
    slots: u128,
    /// Of the kinds that are asked for.
    gpu: u128,
    kinds: Option<GpuKinds>,
    /// The scarcest of it that is in use, in billionths.
    used: u128,
}

impl Room {
    fn of(view: &FleetView, shape: &Shape) -> Self {
        let kinds = shape.resources.gpu.as_ref().map(|gpu| gpu.kinds.clone());
        let mut room = Self { workers: 0, cpu: 0, memory: 0, slots: 0, gpu: 0, kinds, used: 0 };
        let (mut cpu, mut memory, mut slots, mut gpu) = (0, 0, 0, 0);
        let pools: BTreeMap<&PoolName, &Pool> = view.pools().map(|pool| (&pool.name, pool)).collect();
        for found in view.workers().filter(|found| found.status == WorkerStatus::Ready) {
            let pool = pools.get(&found.worker.pool);
            let admitted = pool.is_none_or(|pool| pool.admits(shape).is_ok());
            if !admitted || feasible(shape, &found.worker, pool.is_some_and(|pool| pool.cpu_on_gpu)).is_err() {
                continue;
            }
            let (capacity, free) = (&found.worker.capacity, &found.free);
            room.workers += 1;
            room.cpu += u128::from(capacity.cpu.0);
            room.memory += u128::from(capacity.memory.0);
            room.slots += u128::from(capacity.slots);
            room.gpu += room.devices(capacity, &capacity.all_free());
            cpu += u128::from(free.cpu.0);
            memory += u128::from(free.memory.0);
            slots += u128::from(free.slots);
            gpu += room.devices(capacity, free);
        }
        let used = |all: u128, free: u128| (all.saturating_sub(free) * WHOLE).checked_div(all).unwrap_or(0);
        let used = [used(room.cpu, cpu), used(room.memory, memory), used(room.slots, slots), used(room.gpu, gpu)];
        room.used = used.into_iter().max().unwrap_or(0);
        room
    }

    /// Thousandths of devices of the kinds asked for.
    fn devices(&self, capacity: &Capacity, free: &Free) -> u128 {
        let asked = |kind: &String| match &self.kinds {
            None => false,
            Some(GpuKinds::Any) => true,
            Some(GpuKinds::Ordered(kinds)) => kinds.contains(kind),
        };
        let devices = capacity.gpus.iter().zip(&free.gpus).filter(|(kind, _)| asked(kind));
        devices.map(|(_, free)| u128::from(free.0)).sum()
    }

    /// Milliseconds of all of it, in billionths: the scarcest part counts.
    fn work(&self, resources: &Resources, span: Millis) -> u128 {
        let part = |need: u128, all: u128| (need * WHOLE).checked_div(all).unwrap_or(0);
        let gpu = resources.gpu.as_ref().map_or(0, |gpu| {
            let each = if gpu.milli == GPU_WHOLE { GPU_WHOLE.0 } else { gpu.milli.0 };
            u128::from(gpu.count) * u128::from(each)
        });
        let parts = [
            part(u128::from(resources.cpu.0), self.cpu),
            part(u128::from(resources.memory.0), self.memory),
            part(1, self.slots),
            part(gpu, self.gpu),
        ];
        parts.into_iter().max().unwrap_or(0) * u128::from(span.0)
    }
}
