//! Why a shape is not placed, in counts per pool: for people, and for `Unplaceable`. Decides
//! nothing else. Looks at workers one by one while a plan's allowance lasts, and at blocks of
//! them after that: shortages are then a lower bound of what is short.

use std::collections::BTreeMap;

use volley_model::{Bytes, CpuMilli, Infeasible, PoolName, PoolSelector, WaitReason, feasible};

use super::overlay::Overlay;
use super::route::{Route, pools};
use crate::lane::Entry;
use crate::view::{FleetView, Index, PoolEntry};

/// Workers and classes that one plan looks at for reasons, at a few nanoseconds each: about 200 microseconds.
const REASON_LOOKS_MAX: usize = 20_000;
/// Held workers that are named per shape: the rest say the same.
const HELD_REASONS_MAX: usize = 4;
/// Pools that are named in the reason of `Unplaceable`.
const UNPLACEABLE_POOLS_MAX: usize = 4;

/// What a plan may still look at.
pub(super) struct Allowance(usize);

impl Allowance {
    pub(super) fn new() -> Self {
        Self(REASON_LOOKS_MAX)
    }

    /// Whether so many looks are left; then they are used.
    fn covers(&mut self, looks: usize) -> bool {
        let covers = self.0 >= looks;
        if covers {
            self.0 -= looks;
        }
        covers
    }
}

/// What workers of a pool lack.
#[derive(Default)]
struct Lacks {
    cpu: Option<CpuMilli>,
    memory: Option<Bytes>,
    gpu: u32,
    slots: u32,
}

impl Lacks {
    fn add(&mut self, room: &crate::room::Room, need: &crate::room::Room, has_devices: bool, workers: u32) {
        let least = |old: Option<u64>, short: u64| Some(old.map_or(short, |old| old.min(short)));
        if room.cpu < need.cpu {
            self.cpu = least(self.cpu.map(|c| c.0), need.cpu.0 - room.cpu.0).map(CpuMilli);
        }
        if room.memory < need.memory {
            self.memory = least(self.memory.map(|m| m.0), need.memory.0 - room.memory.0).map(Bytes);
        }
        if room.gpu_whole < need.gpu_whole || room.gpu_part < need.gpu_part || !has_devices {
            self.gpu += workers;
        }
        if room.slots < need.slots {
            self.slots += workers;
        }
    }
}

/// Why nothing more of a shape fits, as the plan stands.
pub(super) fn reasons(
    view: &FleetView,
    overlay: &Overlay<'_>,
    route: &Route<'_>,
    allowance: &mut Allowance,
) -> Vec<WaitReason> {
    let index = view.index();
    if index.workers_count() == 0 {
        return vec![WaitReason::NoWorkers];
    }
    let mut pools: Vec<(usize, &PoolEntry)> = index.pools.iter().enumerate().filter(|(_, p)| p.workers > 0).collect();
    pools.sort_by(|a, b| a.1.pool.name.cmp(&b.1.pool.name));
    let (mut busy, mut never, mut held) = (Vec::new(), Vec::new(), Vec::new());
    let mut unavailable = 0;
    for (_, pool) in pools {
        let (counts, verdicts) = serving(index, pool, route, allowance);
        unavailable += counts.unavailable;
        let name = &pool.pool.name;
        never.extend(counts.never.into_iter().map(|(why, workers)| WaitReason::Infeasible {
            pool: name.clone(),
            workers,
            because: why.to_string(),
        }));
        if counts.ready > 0 {
            busy.extend(lacking(index, overlay, pool, route, &verdicts, counts.ready, &mut held, allowance));
        }
    }
    held.sort();
    held.truncate(HELD_REASONS_MAX);
    busy.extend(held.into_iter().map(|worker| WaitReason::Held { worker }));
    busy.extend(never);
    if unavailable > 0 {
        busy.push(WaitReason::Unavailable { workers: unavailable });
    }
    busy
}

/// How many workers of a pool serve a shape, as defined.
#[derive(Default)]
struct Serving {
    ready: u32,
    unavailable: u32,
    never: BTreeMap<Infeasible, u32>,
}

/// Counts a pool's workers by class; and each class's verdict, by its number.
fn serving(
    index: &Index,
    pool: &PoolEntry,
    route: &Route<'_>,
    allowance: &mut Allowance,
) -> (Serving, BTreeMap<usize, bool>) {
    let mut counts = Serving::default();
    let mut verdicts = BTreeMap::new();
    if !allows(&route.shape.pool, &pool.pool.name) {
        counts.never.insert(Infeasible::OtherPool, pool.workers);
        return (counts, verdicts);
    }
    if let Err(why) = pool.pool.admits(route.shape) {
        counts.never.insert(why, pool.workers);
        return (counts, verdicts);
    }
    for class in pool.classes.iter().copied().filter(|class| index.classes[*class].workers > 0) {
        let entry = &index.classes[class];
        // Past the allowance a class counts as one that serves: it is only for people.
        let verdict =
            if allowance.covers(1) { feasible(route.shape, &entry.sample, pool.pool.cpu_on_gpu) } else { Ok(()) };
        verdicts.insert(class, verdict.is_ok());
        match verdict {
            Ok(()) => {
                counts.ready += entry.ready;
                counts.unavailable += entry.workers - entry.ready;
            }
            Err(why) => *counts.never.entry(why).or_default() += entry.workers,
        }
    }
    (counts, verdicts)
}

/// What the ready workers of a pool that serve a shape lack at present. Workers that lack nothing are held.
#[allow(clippy::too_many_arguments)]
fn lacking(
    index: &Index,
    overlay: &Overlay<'_>,
    pool: &PoolEntry,
    route: &Route<'_>,
    verdicts: &BTreeMap<usize, bool>,
    ready: u32,
    held: &mut Vec<volley_model::WorkerId>,
    allowance: &mut Allowance,
) -> Option<WaitReason> {
    let mut lacks = Lacks::default();
    let mut workers = ready;
    let all_serve = verdicts.values().all(|serves| *serves);
    for number in pool.lanes.iter().copied().filter(|lane| !index.lanes[*lane].lane.is_empty()) {
        let lane = &index.lanes[number];
        if !allowance.covers(lane.lane.len()) {
            for (most, count) in lane.lane.blocks() {
                lacks.add(most, &route.need, true, count as u32);
            }
            continue;
        }
        let serves = |entry: &&Entry| all_serve || verdicts.get(&(entry.class as usize)) == Some(&true);
        for entry in lane.lane.entries().filter(serves) {
            let (entry, hold) = overlay.current(entry);
            let covers = entry.room.covers(&route.need);
            let has_devices = has_devices(overlay, number, entry, route);
            if covers && has_devices {
                workers -= 1;
                if hold.is_some() {
                    held.push(index.at(entry.slot).view.worker.id.clone());
                }
            } else {
                lacks.add(&entry.room, &route.need, has_devices, 1);
            }
        }
    }
    (workers > 0).then(|| WaitReason::Busy {
        pool: pool.pool.name.clone(),
        workers,
        cpu_short: lacks.cpu,
        memory_short: lacks.memory,
        gpu_short: lacks.gpu,
        slots_short: lacks.slots,
    })
}

/// Whether devices of some kind that will do are free.
fn has_devices(overlay: &Overlay<'_>, lane: usize, entry: &Entry, route: &Route<'_>) -> bool {
    let kinds =
        route.tiers.iter().filter(|tier| route.searches[tier.lanes.clone()].iter().any(|search| search.lane == lane));
    let mut kinds = kinds.map(|tier| tier.kind);
    let free = overlay.free(entry.slot);
    route.shape.resources.gpu.is_none()
        || kinds.any(|kind| overlay.has_devices(entry.slot, lane, free, route.shape, kind))
}

/// Why no pool or worker as defined could ever serve a shape; `None` when one could, or when a pool has no workers
/// yet, so that nobody can tell.
pub(super) fn unplaceable(view: &FleetView, route: &Route<'_>) -> Option<String> {
    let index = view.index();
    if !view.is_complete() || (index.workers_count() == 0 && view.pools().all(|pool| pool.elastic.is_none())) {
        return None;
    }
    if let PoolSelector::Required(name) = &route.shape.pool
        && index.pool(name).is_none_or(|pool| pool.workers == 0 && !pool.configured)
    {
        return Some(format!("there is no pool '{name}'"));
    }
    let mut texts = BTreeMap::new();
    for pool in pools(index, &route.shape.pool).filter(|pool| pool.configured || pool.workers > 0) {
        if let Err(why) = pool.pool.admits(route.shape) {
            texts.insert(pool.pool.name.clone(), why);
            continue;
        }
        // What can be bought counts by its definition.
        let machine = pool.pool.elastic.as_ref().filter(|elastic| elastic.max > 0).map(|elastic| &elastic.machine);
        let bought = machine.map(|machine| pool.pool.machine_serves(machine, route.shape));
        let classes = pool.classes.iter().map(|class| &index.classes[*class]).filter(|class| class.workers > 0);
        let mut why: Option<Infeasible> = match bought {
            Some(Ok(())) => return None,
            Some(Err(why)) => Some(why),
            None => None,
        };
        for class in classes {
            let new = feasible(route.shape, &class.sample, pool.pool.cpu_on_gpu).err()?;
            why = Some(why.map_or(new.clone(), |why| why.min(new)));
        }
        texts.insert(pool.pool.name.clone(), why?);
    }
    let named =
        texts.iter().take(UNPLACEABLE_POOLS_MAX).map(|(pool, why): (&PoolName, _)| format!("pool {pool}: {why}"));
    let mut text = named.collect::<Vec<_>>().join("; ");
    if texts.len() > UNPLACEABLE_POOLS_MAX {
        text += &format!("; and {} more pools", texts.len() - UNPLACEABLE_POOLS_MAX);
    }
    Some(text)
}

fn allows(selector: &PoolSelector, pool: &PoolName) -> bool {
    !matches!(selector, PoolSelector::Required(name) if name != pool)
}
