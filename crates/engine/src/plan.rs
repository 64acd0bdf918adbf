//! The plan of one turn: claimed containers x fleet view -> placements, blocked shapes,
//! holds, reasons. Plans shapes, not containers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use volley_model::{
    BlockedMark, BlockedShape, Claimed, ContainerId, Epoch, GpuGrant, HoldRequest, Millis, PoolName, Revision,
    SessionId, Shape, ShapeHash, Timestamp, WorkerId,
};

use crate::overlay::{Asker, Overlay};
use crate::{FleetView, reasons};

/// What a turn plans from, beside the view.
#[derive(Debug, Clone)]
pub struct PlanInput<'a> {
    /// Claimed containers in any order: this claim's and those refused before.
    pub containers: &'a [Claimed],
    /// Their shapes.
    pub shapes: &'a [(ShapeHash, Arc<Shape>)],
    /// Blocked shapes that the store asks to look at again.
    pub recheck: &'a [ShapeHash],
    /// The planning server and all live ones, for its own part of every pool.
    pub session: SessionId,
    /// Sorted.
    pub sessions: &'a [SessionId],
    /// The store's time.
    pub now: Timestamp,
    /// After this wait the best waiting container of a pool gets a hold.
    pub hold_after: Millis,
    /// How long a hold lasts.
    pub hold_term: Millis,
    /// Breaks ties among equal workers.
    pub seed: u64,
}

/// A turn's decisions: an immutable value that says why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What goes where.
    pub placements: Vec<Planned>,
    /// Shapes of which nothing (more) fits, with reasons.
    pub blocked: Vec<BlockedMark>,
    /// Blocked shapes that fit now: their heads are claimed next turn.
    pub unblocked: Vec<ShapeHash>,
    /// Claimed containers that go back to the queue: their shape is blocked.
    pub returned: Vec<ContainerId>,
    /// Claimed containers whose spec says to fail, and why no pool could ever serve them.
    pub unplaceable: Vec<(ContainerId, String)>,
    /// Room to keep.
    pub holds: Vec<HoldRequest>,
}

/// A container onto a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub container: Claimed,
    /// Where to.
    pub worker: WorkerId,
    /// The worker's epoch in the view.
    pub epoch: Epoch,
    /// The worker's revision in the view.
    pub revision: Revision,
    /// The exact devices.
    pub gpus: Vec<GpuGrant>,
}

/// Plans one turn. Changes nothing: reservations are made in an overlay that ends with the call.
/// The caller applies the commit's verdicts to the view (`FleetView::reserve_committed`).
///
/// The order: claimed containers and the heads of blocked shapes stand in one line by score, then
/// index. Each takes the best worker that has room: by GPU kind in its order, its preferred pool,
/// pool priority, affinity, the server's own part, then the pool's strategy, then the seed.
#[must_use]
pub fn plan(view: &FleetView, input: &PlanInput<'_>) -> Plan {
    let shapes: BTreeMap<ShapeHash, &Arc<Shape>> = input.shapes.iter().map(|(hash, shape)| (*hash, shape)).collect();
    let mut turn = Turn {
        view,
        input,
        overlay: Overlay::new(view, input.session, input.sessions, input.seed, input.now),
        full: BTreeSet::new(),
        kept_room: false,
        plan: Plan::default(),
    };
    for entry in line(view, input) {
        match entry {
            Entry::Claimed(claimed) => match shapes.get(&claimed.shape) {
                Some(shape) => turn.on_claimed(claimed, shape),
                None => turn.plan.returned.push(claimed.container),
            },
            Entry::Blocked(blocked) => turn.on_blocked(blocked),
        }
    }
    turn.unknown_rechecks();
    turn.hold();
    turn.plan
}

/// One place in the line.
enum Entry<'a> {
    Blocked(&'a BlockedShape),
    Claimed(&'a Claimed),
}

/// Claimed containers, and the blocked heads that may fit again, in one order.
fn line<'a>(view: &'a FleetView, input: &PlanInput<'a>) -> Vec<Entry<'a>> {
    let worst = input.containers.iter().map(|claimed| claimed.score).max();
    let again = |blocked: &&BlockedShape| {
        let stale = blocked.at < view.growth();
        input.recheck.contains(&blocked.hash) || (stale && worst.is_some_and(|worst| blocked.best < worst))
    };
    let mut line: Vec<Entry<'a>> = view.blocked.values().filter(again).map(Entry::Blocked).collect();
    line.extend(input.containers.iter().map(Entry::Claimed));
    line.sort_by_key(|entry| match entry {
        Entry::Blocked(blocked) => (blocked.best, None),
        Entry::Claimed(claimed) => (claimed.score, Some(claimed.container)),
    });
    line
}

struct Turn<'a> {
    view: &'a FleetView,
    input: &'a PlanInput<'a>,
    overlay: Overlay<'a>,
    /// Shapes of which nothing more fits in this turn.
    full: BTreeSet<ShapeHash>,
    /// Room was kept for a blocked head: what did not fit beside it is not blocked for good.
    kept_room: bool,
    plan: Plan,
}

impl Turn<'_> {
    fn on_claimed(&mut self, claimed: &Claimed, shape: &Arc<Shape>) {
        let asker = Asker { shape, hash: claimed.shape, score: claimed.score };
        let found = if self.full.contains(&claimed.shape) { None } else { self.overlay.take(asker) };
        if let Some((number, gpus)) = found {
            let worker = &self.view.slot(number).worker;
            let (epoch, revision) = (worker.epoch, worker.revision);
            let worker = worker.worker.id.clone();
            self.plan.placements.push(Planned { container: claimed.clone(), worker, epoch, revision, gpus });
            return;
        }
        let first = self.full.insert(claimed.shape);
        if claimed.fail_if_unplaceable
            && let Some(reason) = reasons::unplaceable(self.view, shape)
        {
            self.plan.unplaceable.push((claimed.container, reason));
            return;
        }
        self.plan.returned.push(claimed.container);
        if first && !self.kept_room {
            self.block(claimed.shape, shape);
        }
    }

    /// Keeps room for as many of a blocked shape as wait and fit, so that worse-scored work does not take it.
    fn on_blocked(&mut self, blocked: &BlockedShape) {
        let asker = Asker { shape: &blocked.shape, hash: blocked.hash, score: blocked.best };
        let most = blocked.count.min(self.input.containers.len() as u64).max(1);
        let kept = (0..most).take_while(|_| self.overlay.take(asker).is_some()).count();
        if kept > 0 {
            self.kept_room = true;
            self.plan.unblocked.push(blocked.hash);
        } else if self.input.recheck.contains(&blocked.hash) {
            // Room kept for a better head may come free again: look again then.
            if self.kept_room {
                self.plan.unblocked.push(blocked.hash);
            } else {
                self.block(blocked.hash, &blocked.shape);
            }
        }
    }

    fn block(&mut self, hash: ShapeHash, shape: &Arc<Shape>) {
        let reasons = reasons::reasons(self.view, shape, hash, self.input.now);
        self.plan.blocked.push(BlockedMark { shape: hash, at: self.view.version(), reasons });
    }

    /// Shapes to look at again that the view does not know as blocked: their heads tell more next turn.
    fn unknown_rechecks(&mut self) {
        let unknown = self.input.recheck.iter().filter(|hash| !self.view.blocked.contains_key(hash));
        self.plan.unblocked.extend(unknown);
    }

    /// After `hold_after`, the best waiting container of a pool gets room kept on one worker.
    fn hold(&mut self) {
        let waiting_long = |since: Timestamp| self.input.now.since(since) >= self.input.hold_after;
        let mut heads: Vec<(volley_model::Score, ShapeHash, Arc<Shape>)> = Vec::new();
        let marked: BTreeSet<ShapeHash> = self.plan.blocked.iter().map(|mark| mark.shape).collect();
        for claimed in self.input.containers.iter().filter(|c| marked.contains(&c.shape) && waiting_long(c.since)) {
            if let Some((hash, shape)) = self.input.shapes.iter().find(|(hash, _)| *hash == claimed.shape) {
                heads.push((claimed.score, *hash, Arc::clone(shape)));
            }
        }
        for hash in &marked {
            let blocked = self.view.blocked.get(hash).filter(|blocked| waiting_long(blocked.since));
            heads.extend(blocked.map(|blocked| (blocked.best, *hash, Arc::clone(&blocked.shape))));
        }
        heads.sort_by_key(|(score, hash, _)| (*score, *hash));
        let mut pools: BTreeSet<PoolName> = BTreeSet::new();
        let mut done = BTreeSet::new();
        for number in &self.view.held {
            let worker = &self.view.slot(*number).worker;
            pools.insert(worker.worker.pool.clone());
            done.extend(worker.hold.as_ref().map(|hold| hold.shape));
        }
        for (_, hash, shape) in heads {
            if !done.insert(hash) {
                continue;
            }
            if let Some((worker, pool)) = reasons::worker_to_hold(self.view, &shape, &pools) {
                pools.insert(pool);
                self.plan.holds.push(HoldRequest { shape: hash, worker, term: self.input.hold_term });
            }
        }
    }
}
