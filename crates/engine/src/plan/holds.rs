//! On which worker room is kept for a shape that has waited long: one hold per pool, so that
//! large work is not starved by small work.

use volley_model::feasible;

use super::overlay::Overlay;
use super::route::Route;
use crate::lane::Slot;
use crate::view::FleetView;

/// Workers looked at for one hold: enough for any sane mix, and a bound for an insane one.
const HOLD_LOOKS_MAX: usize = 4_096;

/// Holds that a plan asks for, at most one per pool and shape.
#[derive(Default)]
pub(super) struct Holds {
    /// Names of pools that this plan gave a hold.
    pools: Vec<usize>,
}

impl Holds {
    /// The emptiest worker that could serve the shape, of the best pool that has no hold yet; `None` when the
    /// shape has a hold already or every pool for it has.
    pub(super) fn choose(&mut self, view: &FleetView, overlay: &Overlay<'_>, route: &Route<'_>) -> Option<Slot> {
        let index = view.index();
        if index.is_held_for(route.hash) {
            return None;
        }
        let mut looks = HOLD_LOOKS_MAX;
        let mut asked: Vec<usize> = Vec::new();
        for lane in route.lanes() {
            let entry = &index.lanes[lane];
            let pool = &index.pools[entry.pool];
            if asked.contains(&lane) || pool.holds > 0 || self.pools.contains(&entry.pool) {
                continue;
            }
            asked.push(lane);
            for worker in entry.lane.entries().rev().take(looks) {
                looks -= 1;
                let view = &index.at(worker.slot).view;
                let (_, hold) = overlay.current(worker);
                if hold.is_none() && feasible(route.shape, &view.worker, pool.pool.cpu_on_gpu).is_ok() {
                    self.pools.push(entry.pool);
                    return Some(worker.slot);
                }
            }
        }
        None
    }
}
