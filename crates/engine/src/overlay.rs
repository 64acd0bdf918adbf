//! The overlay of one plan: what it has reserved on top of the view, and the search for the
//! best worker over both. Ends with the plan; the view is never changed.

use std::collections::{BTreeMap, BTreeSet};

use volley_model::{Free, GpuGrant, GpuKinds, Score, SessionId, Shape, ShapeHash, Strategy, Timestamp, feasible};

use crate::FleetView;
use crate::view::{Class, FreeKey, Place, Slot, mix};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub shape: &'a Shape,
    pub hash: ShapeHash,
    pub score: Score,
}

/// A class that can serve a shape, and how good it is: smaller ranks first.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// GPU kind in the shape's order, not the preferred pool, pool priority turned round.
    rank: (usize, bool, i32),
    class: usize,
    /// Of the shape's kinds, the one that gave the rank; `None` for CPU work.
    kind: Option<String>,
    strategy: Strategy,
}

/// Reservations on top of a view.
pub(crate) struct Overlay<'a> {
    view: &'a FleetView,
    sessions: &'a [SessionId],
    session: SessionId,
    seed: u64,
    now: Timestamp,
    changed: BTreeMap<u32, Free>,
    /// Changed workers in the order of what is free now, by class.
    order: BTreeMap<usize, BTreeSet<Place>>,
    candidates: BTreeMap<ShapeHash, Vec<Candidate>>,
}

impl<'a> Overlay<'a> {
    pub fn new(
        view: &'a FleetView,
        session: SessionId,
        sessions: &'a [SessionId],
        seed: u64,
        now: Timestamp,
    ) -> Self {
        let (changed, order, candidates) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { view, sessions, session, seed, now, changed, order, candidates }
    }

    /// Finds the best worker for one container and reserves it.
    pub fn take(&mut self, asker: Asker<'_>) -> Option<(u32, Vec<GpuGrant>)> {
        let (number, grants) = self.find(asker)?;
        let slot = self.view.slot(number);
        let mut free = self.free(slot, number).clone();
        let taken = free.reserve(&asker.shape.resources, &grants);
        assert!(taken, "law 1: what was found to fit can be reserved");
        let order = self.order.entry(slot.class).or_default();
        if let Some(before) = self.changed.get(&number) {
            order.remove(&(FreeKey::of(before), slot.place.1, number));
        }
        order.insert((FreeKey::of(&free), slot.place.1, number));
        self.changed.insert(number, free);
        Some((number, grants))
    }

    fn free<'b>(&'b self, slot: &'b Slot, number: u32) -> &'b Free {
        self.changed.get(&number).unwrap_or(&slot.worker.free)
    }

    fn find(&mut self, asker: Asker<'_>) -> Option<(u32, Vec<GpuGrant>)> {
        if !self.candidates.contains_key(&asker.hash) {
            let candidates = candidates(self.view, asker.shape);
            self.candidates.insert(asker.hash, candidates);
        }
        let candidates = &self.candidates[&asker.hash];
        let mut rest = candidates.as_slice();
        while let Some(first) = rest.first() {
            let alike = rest.iter().take_while(|c| c.rank == first.rank).count();
            let (group, after) = rest.split_at(alike);
            rest = after;
            if let Some(found) = self.find_in_group(asker, group) {
                return Some(found);
            }
        }
        None
    }

    /// Among classes of one rank: a worker with affinity, then the server's own part, then any.
    fn find_in_group(&self, asker: Asker<'_>, group: &[Candidate]) -> Option<(u32, Vec<GpuGrant>)> {
        if let Some(found) = self.find_by_affinity(asker, group) {
            return Some(found);
        }
        if self.sessions.len() > 1
            && let Some(found) = self.best_of(asker, group, |slot| self.is_own(slot))
        {
            return Some(found);
        }
        self.best_of(asker, group, |_| true)
    }

    fn find_by_affinity(&self, asker: Asker<'_>, group: &[Candidate]) -> Option<(u32, Vec<GpuGrant>)> {
        let workers = self.view.affinities.get(asker.shape.affinity.as_ref()?)?;
        let mut best: Option<(FreeKey, u64, u32, Vec<GpuGrant>)> = None;
        for number in workers {
            let slot = self.view.slot(*number);
            let Some(candidate) = group.iter().find(|c| c.class == slot.class) else { continue };
            if slot.worker.status != volley_model::WorkerStatus::Ready {
                continue;
            }
            let Some(grants) = self.try_worker(asker, candidate, *number) else { continue };
            let key = FreeKey::of(self.free(slot, *number));
            if best.as_ref().is_none_or(|(k, t, ..)| (key, slot.place.1) < (*k, *t)) {
                best = Some((key, slot.place.1, *number, grants));
            }
        }
        best.map(|(_, _, number, grants)| (number, grants))
    }

    fn best_of(
        &self,
        asker: Asker<'_>,
        group: &[Candidate],
        allowed: impl Fn(&Slot) -> bool,
    ) -> Option<(u32, Vec<GpuGrant>)> {
        let mut best: Option<(Place, Vec<GpuGrant>)> = None;
        for candidate in group {
            let Some((place, grants)) = self.best_in_class(asker, candidate, &allowed) else { continue };
            let better = |known: &Place| match candidate.strategy {
                Strategy::Pack => place < *known,
                Strategy::Spread => place.0 > known.0 || (place.0 == known.0 && place < *known),
            };
            if best.as_ref().is_none_or(|(known, _)| better(known)) {
                best = Some((place, grants));
            }
        }
        best.map(|(place, grants)| (place.2, grants))
    }

    /// The best worker of a class: over those the plan has changed and those it has not.
    fn best_in_class(
        &self,
        asker: Asker<'_>,
        candidate: &Candidate,
        allowed: impl Fn(&Slot) -> bool,
    ) -> Option<(Place, Vec<GpuGrant>)> {
        let class: &Class = &self.view.classes[candidate.class];
        let least = least_key(asker.shape);
        let fresh = |place: &&Place| !self.changed.contains_key(&place.2);
        let attempt = |place: &Place| {
            let slot = self.view.slot(place.2);
            if !allowed(slot) {
                return None;
            }
            self.try_worker(asker, candidate, place.2).map(|grants| (*place, grants))
        };
        let changed = self.order.get(&candidate.class);
        match candidate.strategy {
            Strategy::Pack => {
                let first = (least, 0, 0);
                let mine = changed.and_then(|set| set.range(first..).find_map(attempt));
                let base = class.order.range(first..).filter(fresh).find_map(attempt);
                let base = base.map(|found| self.break_tie(found, &class.order, fresh, attempt));
                [mine, base].into_iter().flatten().min_by_key(|(place, _)| *place)
            }
            Strategy::Spread => {
                let first = (least, 0, 0);
                let mine = changed.and_then(|set| set.range(first..).rev().find_map(attempt));
                let base = class.order.range(first..).rev().filter(fresh).find_map(attempt);
                let base = base.map(|found| self.break_tie(found, &class.order, fresh, attempt));
                [mine, base].into_iter().flatten().max_by_key(|(place, _)| *place)
            }
        }
    }

    /// Among workers with the same free numbers, the first at or after the seed's place.
    fn break_tie(
        &self,
        found: (Place, Vec<GpuGrant>),
        order: &BTreeSet<Place>,
        fresh: impl Fn(&&Place) -> bool,
        attempt: impl Fn(&Place) -> Option<(Place, Vec<GpuGrant>)>,
    ) -> (Place, Vec<GpuGrant>) {
        let key = found.0.0;
        let from = (key, mix(self.seed), 0);
        let to = (key, u64::MAX, u32::MAX);
        order.range(from..=to).filter(fresh).find_map(attempt).unwrap_or(found)
    }

    /// The devices for a container on a worker, if it fits there and no better-scored hold forbids it.
    fn try_worker(&self, asker: Asker<'_>, candidate: &Candidate, number: u32) -> Option<Vec<GpuGrant>> {
        let slot = self.view.slot(number);
        if let Some(hold) = &slot.worker.hold
            && hold.shape != asker.hash
            && asker.score >= hold.score
            && hold.until > self.now
        {
            return None;
        }
        let free = self.free(slot, number);
        let resources = &asker.shape.resources;
        if !free.misfit(resources).is_none() {
            return None;
        }
        match (&resources.gpu, &candidate.kind) {
            (Some(gpu), Some(kind)) => slot.worker.worker.capacity.choose_of_kind(free, kind, gpu),
            _ => Some(Vec::new()),
        }
    }

    /// Whether a worker is in this server's own part: highest random weight (Thaler, Ravishankar 1998).
    fn is_own(&self, slot: &Slot) -> bool {
        let weight = |session: &SessionId| mix(slot.place.1 ^ mix(session.0));
        self.sessions.iter().max_by_key(|session| (weight(session), session.0)) == Some(&self.session)
    }
}

/// Workers below this key have too little of something that the order knows.
fn least_key(shape: &Shape) -> FreeKey {
    let gpu = shape.resources.gpu.as_ref().map_or(0, |gpu| gpu.milli.0 * u64::from(gpu.count));
    if gpu > 0 {
        return FreeKey { gpu, ..FreeKey::default() };
    }
    // The GPUs' sum stands first in the order: only where it is 0 does the CPU bound the range.
    FreeKey { gpu: 0, cpu: shape.resources.cpu.0, ..FreeKey::default() }
}

/// The classes that can serve a shape, best first.
fn candidates(view: &FleetView, shape: &Shape) -> Vec<Candidate> {
    let mut found = Vec::new();
    for (number, class) in view.classes.iter().enumerate() {
        let pool = view.pool(&class.key.pool);
        let serves = |slots: &BTreeSet<u32>| {
            let one = slots.first().expect("law: a capacity has workers");
            feasible(shape, &view.slot(*one).worker.worker, pool.cpu_on_gpu).is_ok()
        };
        if class.order.is_empty() || !class.capacities.values().any(serves) {
            continue;
        }
        let preferred = matches!(&shape.pool, volley_model::PoolSelector::Preferred(name) if *name == class.key.pool);
        let rank = |kind: usize| (kind, !preferred, -i32::from(pool.priority));
        let mut add = |rank, kind| found.push(Candidate { rank, class: number, kind, strategy: pool.strategy });
        match shape.resources.gpu.as_ref().map(|gpu| &gpu.kinds) {
            // CPU work goes to workers without GPUs first.
            None => add(rank(usize::from(!class.key.gpus.is_empty())), None),
            Some(GpuKinds::Any) => {
                let kinds: BTreeSet<&String> = class.key.gpus.iter().collect();
                kinds.into_iter().for_each(|kind| add(rank(0), Some(kind.clone())));
            }
            Some(GpuKinds::Ordered(kinds)) => {
                for (index, kind) in kinds.iter().enumerate().filter(|(_, kind)| class.key.gpus.contains(kind)) {
                    add(rank(index), Some(kind.clone()));
                }
            }
        }
    }
    found.sort_by(|a, b| a.rank.cmp(&b.rank).then_with(|| view.classes[a.class].key.cmp(&view.classes[b.class].key)));
    found
}
