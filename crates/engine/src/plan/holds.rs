//! On which worker room is kept for a shape that has waited long: one hold per pool, so that
//! large work is not starved by small work.

use volley_model::feasible;

use super::overlay::Overlay;
use super::route::Route;
use crate::lane::Slot;
use crate::view::FleetView;

/// Workers of a lane looked at for one hold: enough for any sane mix, and a bound for an insane one.
const HOLD_LOOKS_MAX: usize = 4_096;

/// Holds that a plan asks for, at most one per pool and shape.
#[derive(Default)]
pub(super) struct Holds {
    /// Pools that this plan gave a hold.
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
        for tier in route.tiers.iter().filter(|tier| !tier.near) {
            let lanes = route.searches[tier.lanes.clone()].iter().map(|search| &index.lanes[search.lane]);
            let lanes = lanes.filter(|lane| index.pools[lane.pool].holds == 0 && !self.pools.contains(&lane.pool));
            let emptiest = lanes.filter_map(|lane| {
                let pool = &index.pools[lane.pool].pool;
                let mut workers = lane.lane.entries().rev().take(HOLD_LOOKS_MAX);
                workers.find(|worker| {
                    let definition = &index.at(worker.slot).view.worker;
                    overlay.current(worker).1.is_none() && feasible(route.shape, definition, pool.cpu_on_gpu).is_ok()
                })
            });
            if let Some(worker) = emptiest.max_by_key(|worker| (worker.share, worker.tie)) {
                self.pools.push(index.at(worker.slot).pool);
                return Some(worker.slot);
            }
        }
        None
    }
}
