//! A plan's reservations on top of the view, and the choice of a worker through both. The view
//! itself is never changed; capacity is reserved by `model::capacity` alone.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use volley_model::{Free, GpuGrant, GpuRequest, HoldView, Score, Shape, Strategy};

use super::route::{Held, LaneSearch, Route, Tier};
use super::search::{Cursor, Found, Query};
use crate::lane::{Entry, Lane, Slot};
use crate::part::mix;
use crate::room::Room;
use crate::view::Index;

/// A worker that this plan did something with.
struct Touched {
    free: Free,
    hold: Option<Held>,
    /// As it stands in the overlay's lane; it may be behind while it is `Overlay::behind`.
    entry: Entry,
    /// Whether `entry` is in the overlay's lane already.
    listed: bool,
    lane: usize,
}

/// Hashes slots and shapes' hashes: numbers that nobody chooses, or that are hashes already.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| mix(hash ^ u64::from(*byte)));
    }

    fn write_u32(&mut self, slot: u32) {
        self.write_u64(u64::from(slot));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A lane's touched workers.
#[derive(Default)]
struct LaneOverlay {
    lane: Lane,
    /// Room here is kept for work that is not placed by this plan.
    kept: bool,
    /// A hold here ended: what was kept off may fit when this plan is over.
    hold_ended: bool,
}

/// What a plan has taken so far.
pub(super) struct Overlay<'a> {
    index: &'a Index,
    start: u64,
    touched: Vec<Touched>,
    touched_at: HashMap<Slot, u32, BuildHasherDefault<NumberHasher>>,
    lanes: Vec<LaneOverlay>,
    /// The worker placed on last: its entry is renewed when the next search begins.
    behind: Option<u32>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(index: &'a Index, seed: u64) -> Self {
        let lanes = index.lanes.iter().map(|_| LaneOverlay::default()).collect();
        let (touched, touched_at) = (Vec::new(), HashMap::default());
        Self { index, start: mix(seed), touched, touched_at, lanes, behind: None }
    }

    /// The best worker for a container of the route's shape, by the documented order.
    pub(super) fn choose(&mut self, route: &mut Route<'_>, score: Score) -> Option<Slot> {
        self.catch_up();
        while route.tier < route.tiers.len() {
            if let Some(found) = self.choose_in_tier(route, score) {
                return Some(found.slot);
            }
            route.tier += 1;
        }
        None
    }

    /// Whether one more fits where one of the same shape was just placed: under `pack` it is still the fullest
    /// that fits, so no search is needed.
    pub(super) fn takes_another(&self, slot: Slot, route: &Route<'_>, score: Score) -> bool {
        let Some(tier) = route.tiers.get(route.tier) else { return false };
        if tier.strategy != Strategy::Pack {
            return false;
        }
        let Some(touched) = self.touched_at.get(&slot).map(|at| &self.touched[*at as usize]) else { return false };
        let room = Room::of(&touched.free, &self.index.lanes[touched.lane].device_kinds);
        room.covers(&route.need)
            && touched.hold.is_none_or(|held| held.lets(route.hash, score))
            && self.has_devices(slot, touched.lane, &touched.free, route.shape, tier.kind)
    }

    /// Takes room on a worker that was chosen for the route's shape.
    pub(super) fn reserve(&mut self, slot: Slot, route: &Route<'_>) -> Vec<GpuGrant> {
        let resources = &route.shape.resources;
        let kind = route.tiers[route.tier].kind;
        let at = self.touch(slot);
        let touched = &mut self.touched[at as usize];
        let capacity = &self.index.at(slot).view.worker.capacity;
        let grants = match &resources.gpu {
            None => Vec::new(),
            Some(gpu) => grants_of(capacity, &touched.free, gpu, kind).expect("law 1: a chosen worker has the devices"),
        };
        assert!(touched.free.reserve(resources, &grants), "law 1: a chosen worker has room");
        // The ledger ends a hold when a container of its shape is placed there. Here it stays till the plan is over,
        // for what was refused once must stay refused.
        if touched.hold.is_some_and(|held| held.shape == route.hash) {
            self.lanes[touched.lane].hold_ended = true;
        }
        if self.behind.is_some_and(|behind| behind != at) {
            self.catch_up();
        }
        self.behind = Some(at);
        grants
    }

    /// Keeps room in a worker's lane in mind: what does not fit there may fit when this plan is over.
    pub(super) fn keep(&mut self, slot: Slot) {
        self.lanes[self.index.at(slot).lane].kept = true;
    }

    /// Keeps worse-scored work off a worker for the rest of the plan.
    pub(super) fn hold(&mut self, slot: Slot, held: Held) {
        self.catch_up();
        let at = self.touch(slot);
        self.touched[at as usize].hold = Some(held);
        self.renew(at);
        self.keep(slot);
    }

    /// Whether room that is kept may be what a shape lacks.
    pub(super) fn keeps_from(&self, route: &Route<'_>) -> bool {
        route.lanes().any(|lane| self.lanes[lane].kept)
    }

    /// Whether a hold ended that may have kept a shape off.
    pub(super) fn ended_hold(&self, route: &Route<'_>) -> bool {
        route.lanes().any(|lane| self.lanes[lane].hold_ended)
    }

    /// A worker's entry as of now: the plan's, or the view's.
    pub(super) fn current<'e>(&'e self, entry: &'e Entry) -> (&'e Entry, Option<Held>) {
        match self.touched_at.get(&entry.slot) {
            Some(at) => {
                let touched = &self.touched[*at as usize];
                (&touched.entry, touched.hold)
            }
            None => (entry, self.recorded_hold(entry)),
        }
    }

    /// What is free of a worker as of now.
    pub(super) fn free(&self, slot: Slot) -> &Free {
        let touched = self.touched_at.get(&slot).map(|at| &self.touched[*at as usize].free);
        touched.unwrap_or_else(|| &self.index.at(slot).view.free)
    }

    pub(super) fn has_devices(&self, slot: Slot, lane: usize, free: &Free, shape: &Shape, kind: Option<&str>) -> bool {
        let Some(gpu) = &shape.resources.gpu else { return true };
        // With one kind of device the room says it all.
        self.index.lanes[lane].one_kind()
            || grants_of(&self.index.at(slot).view.worker.capacity, free, gpu, kind).is_some()
    }

    /// Renews the entry that lags behind.
    pub(super) fn catch_up(&mut self) {
        if let Some(at) = self.behind.take() {
            self.renew(at);
        }
    }

    fn choose_in_tier(&self, route: &mut Route<'_>, score: Score) -> Option<Found> {
        let Route { hash, shape, need, near, verdicts, tiers, tier, searches, .. } = route;
        let Tier { strategy, kind, lanes, near: only_near } = &tiers[*tier];
        let near = near.filter(|_| *only_near);
        let mut best: Option<Found> = None;
        for search in &mut searches[lanes.clone()] {
            let number = search.lane;
            let lane = &self.index.lanes[number];
            let mut query = Query {
                need: *need,
                strategy: *strategy,
                least_share: lane.scale.least_share(&shape.resources),
                start: self.start,
                limit: best.map(|found| found.share()),
            };
            let mut accept = |entry: &Entry, free: &Free, hold: Option<Held>| {
                hold.is_none_or(|held| held.lets(*hash, score))
                    && self.has_devices(entry.slot, number, free, shape, *kind)
                    && verdicts.serves(self.index, shape, entry.class)
            };
            let overlay = &self.lanes[number].lane;
            if !overlay.is_empty() {
                let found = Cursor::Fresh.find(overlay, &query, |entry| {
                    let touched = &self.touched[self.touched_at[&entry.slot] as usize];
                    near.is_none_or(|near| near.contains(&entry.slot)) && accept(entry, &touched.free, touched.hold)
                });
                best = Found::better(best, found, *strategy);
                query.limit = best.map(|found| found.share());
            }
            let untouched = |entry: &Entry| {
                !self.touched_at.contains_key(&entry.slot)
                    && accept(entry, &self.index.at(entry.slot).view.free, self.recorded_hold(entry))
            };
            let found = match near {
                Some(near) => self.find_near(search, &query, near, untouched),
                None => search.cursor.find(&lane.lane, &query, untouched),
            };
            best = Found::better(best, found, *strategy);
        }
        best
    }

    /// The best untouched worker with the affinity key, from a list that is put in order once.
    fn find_near(
        &self,
        search: &mut LaneSearch,
        query: &Query,
        near: &BTreeSet<Slot>,
        mut accept: impl FnMut(&Entry) -> bool,
    ) -> Option<Found> {
        let (list, from) = search.near.get_or_insert_with(|| {
            let slots = near.iter().map(|slot| (*slot, self.index.at(*slot)));
            let here = slots.filter(|(_, entry)| entry.lane == search.lane && entry.is_ready());
            let mut list: Vec<(Found, Entry)> = here
                .map(|(slot, entry)| self.index.lane_entry(slot, entry))
                .map(|entry| (Found::of(&entry, query.start), entry))
                .collect();
            list.sort_unstable_by_key(|(found, _)| found.rank(query.strategy));
            (list, 0)
        });
        while let Some((found, entry)) = list.get(*from) {
            if entry.room.covers(&query.need) && accept(entry) {
                return Some(*found);
            }
            *from += 1;
        }
        None
    }

    fn recorded_hold(&self, entry: &Entry) -> Option<Held> {
        if !entry.held {
            return None;
        }
        let hold = self.index.at(entry.slot).view.hold.as_ref();
        hold.map(|HoldView { shape, score, .. }| Held { shape: *shape, score: *score })
    }

    /// Its number among the touched; the caller renews its entry.
    fn touch(&mut self, slot: Slot) -> u32 {
        if let Some(at) = self.touched_at.get(&slot) {
            return *at;
        }
        let worker = self.index.at(slot);
        let entry = self.index.lane_entry(slot, worker);
        let at = self.touched.len() as u32;
        let hold = self.recorded_hold(&entry);
        let (free, lane) = (worker.view.free.clone(), worker.lane);
        self.touched.push(Touched { free, hold, entry, listed: false, lane });
        self.touched_at.insert(slot, at);
        at
    }

    fn renew(&mut self, at: u32) {
        let touched = &mut self.touched[at as usize];
        let lane = &mut self.lanes[touched.lane].lane;
        let Entry { share, tie, slot, .. } = touched.entry;
        assert!(!touched.listed || lane.remove(share, tie, slot), "a listed worker is in the overlay's lane");
        touched.listed = true;
        touched.entry.share = self.index.at(slot).scale.free_share(&touched.free);
        touched.entry.room = Room::of(&touched.free, &self.index.lanes[touched.lane].device_kinds);
        lane.insert(touched.entry);
    }
}

fn grants_of(
    capacity: &volley_model::Capacity,
    free: &Free,
    gpu: &GpuRequest,
    kind: Option<&str>,
) -> Option<Vec<GpuGrant>> {
    match kind {
        Some(kind) => capacity.choose_of_kind(free, kind, gpu),
        None => capacity.choose_gpus(free, gpu),
    }
}
