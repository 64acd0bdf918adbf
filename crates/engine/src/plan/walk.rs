//! The walk through a plan's agenda: places, keeps, asks for holds, and says in the end what
//! became of everything.

use volley_model::{BlockedMark, Claimed, GpuGrant, HoldRequest, Score, Timestamp};

use super::holds::Holds;
use super::overlay::Overlay;
use super::reasons::{self, Allowance};
use super::route::{Held, Route};
use super::{Agenda, Head, KEPT_MAX, LOOK_AGAIN, Plan, PlanInput, Planned, Planning};
use crate::FleetView;
use crate::lane::Slot;

/// What became of a shape.
#[derive(Default)]
struct State<'a> {
    route: Option<Route<'a>>,
    failed: Option<Failed>,
    unblocked: bool,
    /// Claimed containers of it that were not placed.
    waiting: Vec<u32>,
}

/// Nothing more of a shape fits.
#[derive(Clone, Copy)]
struct Failed {
    /// Room that is kept may be what it lacks.
    kept: bool,
}

struct Walk<'a, 'i> {
    view: &'a FleetView,
    input: &'i PlanInput<'i>,
    overlay: Overlay<'a>,
    shapes: Vec<Planning<'a>>,
    states: Vec<State<'a>>,
    /// Shapes in the order in which they failed.
    failures: Vec<u32>,
    /// The last placement, and its shape: there the next of the same shape goes under `pack`.
    last: Option<(u32, Slot)>,
    holds: Holds,
    kept: u64,
    plan: Plan,
}

pub(super) fn walk<'a>(view: &'a FleetView, input: &PlanInput<'_>, agenda: Agenda<'a>) -> Plan {
    let mut states = Vec::new();
    states.resize_with(agenda.shapes.len(), State::default);
    let mut plan = Plan { unblocked: agenda.unknown_rechecks, returned: agenda.unknown, ..Plan::default() };
    plan.placements.reserve(input.containers.len());
    let overlay = Overlay::new(view.index(), input.seed);
    let (shapes, failures, holds) = (agenda.shapes, Vec::new(), Holds::default());
    let mut walk = Walk { view, input, overlay, shapes, states, failures, last: None, holds, kept: 0, plan };
    for (score, is_head, shape, _, index) in agenda.items {
        if is_head {
            walk.keep_for_head(shape, score);
        } else {
            walk.place(shape, index);
        }
    }
    walk.finish()
}

impl<'a> Walk<'a, '_> {
    fn place(&mut self, shape: u32, index: u32) {
        let claimed = &self.input.containers[index as usize];
        match self.take(shape, claimed.score, claimed.since) {
            Some((slot, gpus)) => {
                let worker = &self.view.index().at(slot).view;
                let (epoch, revision) = (worker.epoch, worker.revision);
                let (container, worker) = (claimed.clone(), worker.worker.id.clone());
                self.plan.placements.push(Planned { container, worker, epoch, revision, gpus });
            }
            None => self.states[shape as usize].waiting.push(index),
        }
    }

    /// Keeps room for as many of a blocked shape as wait, if any fits.
    fn keep_for_head(&mut self, shape: u32, score: Score) {
        let Some(Head { count, since, .. }) = self.shapes[shape as usize].head else { return };
        let most = count.min(KEPT_MAX.saturating_sub(self.kept)).max(1);
        for kept in 0..most {
            let Some((slot, _)) = self.take(shape, score, since) else { break };
            self.overlay.keep(slot);
            self.kept += 1;
            if kept == 0 {
                self.states[shape as usize].unblocked = true;
                self.plan.unblocked.push(self.shapes[shape as usize].hash);
            }
        }
    }

    /// Reserves for one container of a shape on the best worker.
    fn take(&mut self, shape: u32, score: Score, since: Timestamp) -> Option<(Slot, Vec<GpuGrant>)> {
        let state = &mut self.states[shape as usize];
        if state.failed.is_some() {
            return None;
        }
        let Planning { hash, shape: definition, .. } = self.shapes[shape as usize];
        let route = state.route.get_or_insert_with(|| Route::new(self.view.index(), hash, definition));
        let again = self.last.filter(|(last, slot)| *last == shape && self.overlay.takes_another(*slot, route, score));
        let slot = again.map(|(_, slot)| slot).or_else(|| self.overlay.choose(route, score));
        let Some(slot) = slot else {
            self.fail(shape, score, since);
            return None;
        };
        let gpus = self.overlay.reserve(slot, route);
        self.last = Some((shape, slot));
        Some((slot, gpus))
    }

    fn fail(&mut self, shape: u32, score: Score, since: Timestamp) {
        let state = &mut self.states[shape as usize];
        let route = state.route.as_ref().expect("a shape fails on its route");
        let kept = self.overlay.keeps_from(route);
        state.failed = Some(Failed { kept });
        self.failures.push(shape);
        // What fits when the plan is over needs no hold.
        if kept || state.unblocked || self.input.now.since(since) < self.input.hold_after {
            return;
        }
        if let Some(slot) = self.holds.choose(self.view, &self.overlay, route) {
            self.overlay.hold(slot, Held { shape: route.hash, score });
            self.last = None;
            let worker = self.view.index().at(slot).view.worker.id.clone();
            self.plan.holds.push(HoldRequest { shape: route.hash, worker, term: self.input.hold_term });
        }
    }

    /// Says what became of every shape that failed.
    fn finish(mut self) -> Plan {
        self.overlay.catch_up();
        let mut allowance = Allowance::new();
        for shape in std::mem::take(&mut self.failures) {
            self.conclude(shape, &mut allowance);
        }
        self.plan
    }

    fn conclude(&mut self, shape: u32, allowance: &mut Allowance) {
        let State { route, failed, unblocked, waiting } = std::mem::take(&mut self.states[shape as usize]);
        let (Some(route), Some(failed)) = (route, failed) else { return };
        let claimed = waiting.iter().map(|index| &self.input.containers[*index as usize]);
        let (failing, returned): (Vec<&Claimed>, Vec<&Claimed>) = claimed.partition(|c| c.fail_if_unplaceable);
        let never = if failing.is_empty() { None } else { reasons::unplaceable(self.view, &route) };
        self.plan.returned.extend(returned.iter().map(|c| c.container));
        let ended = match &never {
            Some(why) => {
                self.plan.unplaceable.extend(failing.iter().map(|c| (c.container, why.clone())));
                // The next of the queue most likely say the same: they are to be claimed, so not blocked.
                returned.is_empty()
            }
            None => {
                self.plan.returned.extend(failing.iter().map(|c| c.container));
                false
            }
        };
        let Planning { hash, shape: definition, head } = self.shapes[shape as usize];
        let asked = head.is_some_and(|head| head.recheck);
        if asked
            && !unblocked
            && !definition.on_unplaceable.is_wait()
            && reasons::unplaceable(self.view, &route).is_some()
        {
            // What could serve it has gone: it is claimed once more, to be ended.
            return self.plan.unblocked.push(hash);
        }
        if unblocked || (!asked && (ended || waiting.is_empty())) {
            return;
        }
        let look_again = failed.kept || self.overlay.ended_hold(&route);
        let at = if look_again { LOOK_AGAIN } else { self.view.version() };
        let reasons = reasons::reasons(self.view, &self.overlay, &route, allowance);
        self.plan.blocked.push(BlockedMark { shape: route.hash, at, reasons });
    }
}
