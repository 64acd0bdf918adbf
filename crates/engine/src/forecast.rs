//! When a waiting container is likely to be placed: the planner itself, played forward over what runs now and what waits
//! now, several times with spans drawn from those that were observed; the middle one is told. Pure: time, spans and seed
//! are arguments. What will be submitted later, and machines that will come, are not in it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use volley_model::{
    ClaimNumber, Claimed, ContainerId, FleetChanges, FleetVersion, GpuGrant, GroupId, HoldView, Millis, Nonce,
    Placement, Resources, Score, SessionId, Shape, ShapeHash, Timestamp, WorkerId, WorkerView,
};

use crate::{FleetView, Plan, PlanInput, plan};

/// Times that it is played; odd, so that one is in the middle.
const PLAYS: u64 = 9;
/// Plans of one play at most: what takes more is too far away to be played.
const PLANS_MAX: usize = 2_000;
/// Containers of each shape that a plan is given: of the same shape the later ones cannot go first.
const OF_SHAPE_MAX: usize = 8;
/// Ends so close to each other are one turn. More would let large work into room that small work takes bit by bit.
const TURN: Millis = Millis(5);

/// How long containers of one kind held their room: those that ended, and those that have not yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spans {
    /// Rising, each with its weight; the weights sum to 1 unless there are none.
    weighted: Vec<(Millis, f64)>,
}

impl Spans {
    /// The distribution behind spans that ended and the ages of those that have not: each of these hands its weight to
    /// what is longer (Efron's redistribution, which gives the Kaplan-Meier estimate); the longest keep theirs.
    #[must_use]
    pub fn of(ended: &[Millis], ages: &[Millis]) -> Self {
        let mut all: Vec<(Millis, bool)> = ended.iter().map(|span| (*span, false)).collect();
        let longest = ended.iter().max().copied().unwrap_or_default();
        // An age beyond all that ended says nothing that could be drawn.
        all.extend(ages.iter().filter(|age| **age < longest).map(|age| (*age, true)));
        all.sort_unstable();
        let mut weighted = Vec::with_capacity(ended.len());
        let mut each = 1.0 / all.len().max(1) as f64;
        for (index, (span, goes_on)) in all.iter().enumerate() {
            let longer = all.len() - index - 1;
            match goes_on {
                false => weighted.push((*span, each)),
                true if longer > 0 => each += each / longer as f64,
                true => {}
            }
        }
        Self { weighted }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.weighted.is_empty()
    }

    /// The longest of them.
    #[must_use]
    pub fn longest(&self) -> Millis {
        self.weighted.last().map_or(Millis(0), |(span, _)| *span)
    }

    /// One of them that is longer than an age, by a draw of 64 bits. What has outlived all of them goes on for as long as
    /// it has outlived the longest, and a little more the fewer they are.
    fn draw_beyond(&self, age: Millis, draw: u64) -> Millis {
        let from = self.weighted.partition_point(|(span, _)| *span <= age);
        let beyond = &self.weighted[from..];
        let Some((longest, _)) = beyond.last() else {
            let longest = self.longest();
            let more = longest.0 / (self.weighted.len() as u64 + 1);
            return Millis(age.0.saturating_add(age.0 - longest.0).saturating_add(more));
        };
        let sum: f64 = beyond.iter().map(|(_, weight)| weight).sum();
        let mut left = draw as f64 / u64::MAX as f64 * sum;
        for (span, weight) in beyond {
            left -= weight;
            if left <= 0.0 {
                return *span;
            }
        }
        *longest
    }
}

/// Containers of one shape that wait one behind the other.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Their place in the order.
    pub score: Score,
    /// Their shape.
    pub shape: ShapeHash,
    /// How many.
    pub count: u32,
    /// When the first of them joined the queue.
    pub since: Timestamp,
    /// Their kind: a place in [`Outset::kinds`].
    pub kind: usize,
}

/// A live attempt.
#[derive(Debug, Clone)]
pub struct Live {
    /// Where.
    pub worker: WorkerId,
    /// What it holds.
    pub resources: Resources,
    /// Its devices.
    pub gpus: Vec<GpuGrant>,
    /// Since when.
    pub since: Timestamp,
    /// Its kind: a place in [`Outset::kinds`].
    pub kind: usize,
}

/// What is played from.
#[derive(Debug, Clone)]
pub struct Outset<'a> {
    /// Workers as they are.
    pub workers: Vec<WorkerView>,
    /// The version that they are of.
    pub view: &'a FleetView,
    /// What holds room on them.
    pub live: &'a [Live],
    /// What waits beside the container asked about.
    pub queued: &'a [Queued],
    /// Of all that waits.
    pub shapes: &'a [(ShapeHash, Arc<Shape>)],
    /// The container asked about; its count is 1.
    pub asked: Queued,
    /// The kinds' spans: what each may be like, of which each play draws one. None of them empty.
    pub kinds: &'a [Vec<Spans>],
    /// The store's time.
    pub now: Timestamp,
    /// As of [`PlanInput`].
    pub hold_after: Millis,
    /// As of [`PlanInput`].
    pub hold_term: Millis,
    /// Of all draws.
    pub seed: u64,
}

/// How long until it is placed, in the middle of several plays; `None` when most of them do not get there.
#[must_use]
pub fn forecast(outset: &Outset<'_>) -> Option<Millis> {
    let mut ends: Vec<Option<Millis>> = (0..PLAYS).map(|number| Play::new(outset, number).run()).collect();
    ends.sort_unstable_by_key(|end| end.unwrap_or(Millis(u64::MAX)));
    ends[PLAYS as usize / 2]
}

/// What ends when, and what it gives back.
type End = (Timestamp, WorkerId, u64);

struct Play<'a> {
    outset: &'a Outset<'a>,
    view: FleetView,
    now: Timestamp,
    waiting: Vec<Claimed>,
    kinds: BTreeMap<ContainerId, usize>,
    ends: BinaryHeap<Reverse<End>>,
    /// What is given back at an end, by its number.
    held: Vec<(Resources, Vec<GpuGrant>)>,
    random: u64,
    /// What each kind is like in this play.
    spans: Vec<&'a Spans>,
}

/// The one asked about: behind all others of its score and shape.
const ASKED: ContainerId = ContainerId { group: GroupId(u64::MAX), index: u32::MAX };

impl<'a> Play<'a> {
    fn new(outset: &'a Outset<'a>, number: u64) -> Self {
        let mut view = FleetView::new();
        let pools = outset.view.pools().cloned().collect();
        let workers = outset.workers.clone();
        view.apply(&FleetChanges { version: FleetVersion(1), workers, pools, ..FleetChanges::default() });
        let random = outset.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (waiting, kinds) = (Vec::new(), BTreeMap::new());
        let (ends, held) = (BinaryHeap::new(), Vec::new());
        let mut play = Self { outset, view, now: outset.now, waiting, kinds, ends, held, random, spans: Vec::new() };
        for alike in outset.kinds {
            let drawn = play.random() as usize % alike.len();
            play.spans.push(&alike[drawn]);
        }
        for (group, queued) in outset.queued.iter().enumerate() {
            for index in 0..queued.count {
                play.wait(ContainerId { group: GroupId(group as u64), index }, queued);
            }
        }
        play.wait(ASKED, &outset.asked);
        play.waiting.sort_by_key(|waiting| (waiting.score, waiting.container));
        for live in outset.live {
            let age = outset.now.since(live.since);
            let span = play.draw(live.kind, age);
            play.end_at(live.since.after(span), &live.worker, &live.resources, &live.gpus);
        }
        play
    }

    fn wait(&mut self, container: ContainerId, queued: &Queued) {
        self.waiting.push(Claimed {
            container,
            claim: ClaimNumber(1),
            shape: queued.shape,
            score: queued.score,
            since: queued.since,
            fail_if_unplaceable: false,
        });
        self.kinds.insert(container, queued.kind);
    }

    /// A span of a kind, longer than an age.
    fn draw(&mut self, kind: usize, age: Millis) -> Millis {
        let random = self.random();
        self.spans[kind].draw_beyond(age, random)
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn end_at(&mut self, at: Timestamp, worker: &WorkerId, resources: &Resources, gpus: &[GpuGrant]) {
        self.ends.push(Reverse((at, worker.clone(), self.held.len() as u64)));
        self.held.push((resources.clone(), gpus.to_vec()));
    }

    /// How long until the one asked about is placed.
    fn run(mut self) -> Option<Millis> {
        for _ in 0..PLANS_MAX {
            self.end_holds();
            let plan = self.plan();
            if plan.placements.iter().any(|planned| planned.container.container == ASKED) {
                return Some(self.now.since(self.outset.now));
            }
            if !self.commit(&plan) && !self.advance() {
                return None;
            }
        }
        None
    }

    fn plan(&self) -> Plan {
        let mut given: BTreeMap<ShapeHash, usize> = BTreeMap::new();
        let first = |waiting: &&Claimed| {
            let given = given.entry(waiting.shape).or_default();
            *given += 1;
            *given <= OF_SHAPE_MAX
        };
        let containers: Vec<Claimed> = self.waiting.iter().filter(first).cloned().collect();
        let input = PlanInput {
            containers: &containers,
            shapes: self.outset.shapes,
            recheck: &[],
            session: SessionId(1),
            sessions: &[],
            now: self.now,
            hold_after: self.outset.hold_after,
            hold_term: self.outset.hold_term,
            seed: self.outset.seed,
        };
        plan(&self.view, &input)
    }

    /// Books a plan; whether one more at once may place more.
    fn commit(&mut self, plan: &Plan) -> bool {
        let mut gone = BTreeSet::new();
        for planned in &plan.placements {
            let container = &planned.container;
            let Some((_, shape)) = self.outset.shapes.iter().find(|(hash, _)| *hash == container.shape) else {
                continue;
            };
            let placement = Placement {
                container: container.container,
                claim: container.claim,
                worker: planned.worker.clone(),
                epoch: planned.epoch,
                revision: planned.revision,
                gpus: planned.gpus.clone(),
                nonce: Nonce(0),
            };
            self.view.reserve_committed(&placement, &shape.resources);
            let span = self.draw(self.kinds[&container.container], Millis(0));
            self.end_at(self.now.after(span), &planned.worker, &shape.resources, &planned.gpus);
            self.change(&planned.worker, |worker| {
                worker.hold = worker.hold.take().filter(|hold| hold.shape != container.shape);
            });
            gone.insert(container.container);
        }
        for request in &plan.holds {
            let best =
                self.waiting.iter().filter(|waiting| waiting.shape == request.shape).map(|waiting| waiting.score);
            let hold = HoldView {
                shape: request.shape,
                score: best.min().unwrap_or_default(),
                until: self.now.after(request.term),
            };
            self.change(&request.worker, |worker| worker.hold = Some(hold));
        }
        let mut placed: BTreeMap<ShapeHash, usize> = BTreeMap::new();
        self.waiting.retain(|waiting| {
            let stays = !gone.contains(&waiting.container);
            *placed.entry(waiting.shape).or_default() += usize::from(!stays);
            stays
        });
        placed.values().any(|placed| *placed == OF_SHAPE_MAX)
    }

    fn change(&mut self, worker: &WorkerId, change: impl FnOnce(&mut WorkerView)) {
        let Some(mut changed) = self.view.worker(worker).cloned() else { return };
        change(&mut changed);
        if self.view.worker(worker) != Some(&changed) {
            self.view.put_worker(&changed);
        }
    }

    fn end_holds(&mut self) {
        let now = self.now;
        let over = |worker: &&WorkerView| worker.hold.as_ref().is_some_and(|hold| hold.until <= now);
        let ended: Vec<WorkerId> = self.view.workers().filter(over).map(|view| view.worker.id.clone()).collect();
        ended.iter().for_each(|worker| self.change(worker, |worker| worker.hold = None));
    }

    /// To the next end, and what ends about then; false when nothing runs any more.
    fn advance(&mut self) -> bool {
        let Some(Reverse((at, ..))) = self.ends.peek() else { return false };
        // What should have ended ends now.
        let until = (*at).max(self.now).after(TURN);
        while let Some(Reverse((end, ..))) = self.ends.peek()
            && *end <= until
        {
            let Some(Reverse((end, worker, number))) = self.ends.pop() else { break };
            self.now = self.now.max(end);
            let (resources, gpus) = self.held[number as usize].clone();
            self.change(&worker, |worker| {
                let capacity = &worker.worker.capacity;
                let mut free = worker.free.clone();
                // What is given back twice changes nothing: the record of what runs was newer than the view.
                if free.release(capacity, &resources, &gpus) {
                    worker.free = free;
                }
            });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use volley_model::{
        Bytes, Capacity, CpuMilli, Epoch, OnUnplaceable, PoolName, PoolSelector, Revision, TenantName, Worker,
        WorkerStatus,
    };

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    #[test]
    fn what_goes_on_hands_its_weight_to_what_is_longer() {
        let of = |ended: &[u64], ages: &[u64]| {
            let millis = |all: &[u64]| all.iter().map(|millis| Millis(*millis)).collect::<Vec<_>>();
            Spans::of(&millis(ended), &millis(ages)).weighted
        };
        assert_eq!(of(&[1, 3], &[]), [(Millis(1), 0.5), (Millis(3), 0.5)]);
        assert_eq!(of(&[1, 2, 4], &[3]), [(Millis(1), 0.25), (Millis(2), 0.25), (Millis(4), 0.5)]);
        assert_eq!(of(&[1, 3], &[9]), [(Millis(1), 0.5), (Millis(3), 0.5)], "nothing longer takes it");
        assert!(Spans::of(&[], &[Millis(3)]).is_empty());
        let spans = Spans::of(&[Millis(10), Millis(20), Millis(30)], &[]);
        assert_eq!(spans.draw_beyond(Millis(20), 0), Millis(30));
        assert_eq!((spans.draw_beyond(Millis(0), 0), spans.draw_beyond(Millis(0), u64::MAX)), (Millis(10), Millis(30)));
        assert_eq!(spans.draw_beyond(Millis(50), 0), Millis(50 + 20 + 7), "as long again as it outlived the longest");
    }

    fn shape(cpu: u64) -> Shape {
        Shape {
            tenant: TenantName::default(),
            resources: Resources { cpu: CpuMilli(cpu), memory: Bytes(1), gpu: None },
            pool: PoolSelector::Any,
            require_labels: BTreeMap::new(),
            affinity: None,
            on_unplaceable: OnUnplaceable::Wait,
        }
    }

    /// One worker of two cores that runs two of one core since 4 s; every container takes 10 s.
    fn played(asked: &Shape, queued: &[(u64, &Shape, u32)]) -> Option<Millis> {
        let capacity = Capacity { cpu: CpuMilli(2_000), memory: Bytes(1 << 30), slots: 9, gpus: Vec::new() };
        let one = shape(1_000);
        let mut free = capacity.all_free();
        assert!(free.reserve(&one.resources, &[]) && free.reserve(&one.resources, &[]));
        let id = WorkerId::new("a").expect("a name");
        let labels = BTreeMap::new();
        let worker = WorkerView {
            worker: Arc::new(Worker { id: id.clone(), pool: PoolName::default(), labels, capacity, notes: Vec::new() }),
            epoch: Epoch { number: 1, nonce: Nonce(1) },
            revision: Revision(1),
            status: WorkerStatus::Ready,
            free,
            affinities: Arc::default(),
            hold: None,
        };
        let (resources, since) = (one.resources.clone(), Timestamp(NOW.0 - 4_000));
        let live = Live { worker: id, resources, gpus: Vec::new(), since, kind: 0 };
        let waits = |(score, shape, count): &(u64, &Shape, u32)| Queued {
            score: Score(*score),
            shape: shape.hash(),
            count: *count,
            since: NOW,
            kind: 0,
        };
        let all = queued.iter().map(|(_, shape, _)| (*shape).clone()).chain([asked.clone()]);
        let shapes: Vec<(ShapeHash, Arc<Shape>)> = all.map(|shape| (shape.hash(), Arc::new(shape))).collect();
        forecast(&Outset {
            workers: vec![worker],
            view: &FleetView::new(),
            live: &[live.clone(), live],
            queued: &queued.iter().map(waits).collect::<Vec<_>>(),
            shapes: &shapes,
            asked: waits(&(5, asked, 1)),
            kinds: &[vec![Spans::of(&[Millis(10_000)], &[])]],
            now: NOW,
            hold_after: Millis::from_secs(60),
            hold_term: Millis::from_secs(60),
            seed: 7,
        })
    }

    #[test]
    fn it_is_placed_when_its_turn_and_its_room_have_come() {
        let (small, large) = (shape(1_000), shape(2_000));
        assert_eq!(played(&small, &[]), Some(Millis(6_000)), "what runs since 4 s ends in 6");
        assert_eq!(played(&small, &[(4, &small, 2)]), Some(Millis(16_000)), "behind two others");
        assert_eq!(played(&small, &[(6, &large, 9)]), Some(Millis(6_000)), "what is behind takes nothing from it");
        assert_eq!(played(&large, &[(4, &small, 3)]), Some(Millis(26_000)), "the third leaves it too little");
        assert_eq!(played(&shape(3_000), &[]), None, "never");
    }
}
