//! Which machines are given up, and why.

use volley_model::{Millis, ProvisionedMachine, RetireCause, Stage, WorkerId, WorkerStatus, feasible};

use super::Purchase;
use super::picture::{Headroom, Picture, PoolPicture};

/// A lost worker's machine is kept for so long: it may only have lost its connection.
const LOST_KEPT: Millis = Millis::from_secs(30);

/// What is given up. `headroom` is what is free once all is placed.
pub(super) fn retirements(
    picture: &Picture<'_>,
    headroom: &mut Headroom,
    purchases: &[Purchase],
) -> Vec<(WorkerId, RetireCause)> {
    let mut found = Vec::new();
    let mut idle: Vec<(u64, &ProvisionedMachine, usize)> = Vec::new();
    for machine in &picture.state.machines {
        let Some(number) = picture.pool_number(&machine.record.pool) else { continue };
        match verdict(picture, &picture.pools[number], machine) {
            Verdict::Keep => {}
            Verdict::GiveUp(why) => found.push((machine.record.worker.clone(), why)),
            Verdict::Idle(since) => idle.push((since, machine, number)),
        }
    }
    // Those idle longest first.
    idle.sort_by(|a, b| (a.0, &a.1.record.worker).cmp(&(b.0, &b.1.record.worker)));
    let bought = |pool: &PoolPicture<'_>| {
        purchases.iter().find(|purchase| purchase.pool == pool.pool.name).map_or(0, |purchase| purchase.count)
    };
    let mut usable: Vec<u32> = picture.pools.iter().map(|pool| pool.usable + bought(pool)).collect();
    for (_, machine, number) in idle {
        let pool = &picture.pools[number];
        let Some(worker) = picture.view.worker(&machine.record.worker) else { continue };
        let mut without = headroom[number];
        without.remove(&worker.free);
        // What is bought now is needed now: nothing of the same kind is given up for it.
        let needed = bought(pool) > 0 || usable[number] <= pool.elastic.min;
        if needed || !without.covers(&pool.elastic.min_free) || is_wanted(picture, pool, worker) {
            continue;
        }
        headroom[number] = without;
        usable[number] -= 1;
        found.push((machine.record.worker.clone(), RetireCause::Idle));
    }
    found.sort();
    found
}

enum Verdict {
    Keep,
    GiveUp(RetireCause),
    /// Longer than the pool's timeout, since then.
    Idle(u64),
}

fn verdict(picture: &Picture<'_>, pool: &PoolPicture<'_>, machine: &ProvisionedMachine) -> Verdict {
    let now = picture.state.now;
    let record = &machine.record;
    match record.stage {
        Stage::Draining { .. } | Stage::Destroying { .. } => return Verdict::Keep,
        Stage::Requested | Stage::Booting if now >= record.boot_until => {
            return Verdict::GiveUp(RetireCause::BootLimit);
        }
        Stage::Requested | Stage::Booting => return Verdict::Keep,
        Stage::Registered { .. } => {}
    }
    let Some(worker) = machine.worker else { return Verdict::GiveUp(RetireCause::Lost) };
    if worker.containers > 0 {
        return Verdict::Keep;
    }
    let timed_out = now.since(worker.idle_since) >= pool.elastic.idle_timeout;
    match worker.status {
        WorkerStatus::Lost if now.since(worker.idle_since) >= LOST_KEPT => Verdict::GiveUp(RetireCause::Lost),
        WorkerStatus::Draining => Verdict::GiveUp(RetireCause::Drained),
        WorkerStatus::Cordoned if worker.quarantined && timed_out => Verdict::GiveUp(RetireCause::Quarantined),
        WorkerStatus::Ready if timed_out => Verdict::Idle(worker.idle_since.0),
        _ => Verdict::Keep,
    }
}

/// Whether something waits that could run on a worker: the next turn may put it there. Or room is held there.
fn is_wanted(picture: &Picture<'_>, pool: &PoolPicture<'_>, worker: &volley_model::WorkerView) -> bool {
    worker.hold.is_some()
        || worker.free != worker.worker.capacity.all_free()
        || picture.demand.iter().any(|demand| {
            pool.pool.admits(&demand.shape).is_ok()
                && feasible(&demand.shape, &worker.worker, pool.pool.cpu_on_gpu).is_ok()
        })
}
