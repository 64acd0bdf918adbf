//! When a waiting container is expected to start in a cell that is small enough to be played forward: what runs, what
//! waits in which order, and the spans that were observed, given to the engine's forecast. Larger cells are left to the
//! work in front, where no single container matters.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_engine::{FleetView, Outset, Queued, Spans, forecast};
use volley_ledger::{Ahead, Overview};
use volley_model::{Expected, GroupId, Score, Shape, ShapeHash, Timestamp};

use crate::observed::{Observed, Waits};
use crate::rates::Lane;
use crate::{Control, Why};

/// Workers of a cell that is played.
const WORKERS_MAX: usize = 128;
/// Containers that wait there.
const WAITING_MAX: u64 = 512;

/// What is asked.
pub(crate) struct Asked<'a> {
    pub(crate) why: &'a Why,
    pub(crate) shape: &'a Shape,
    pub(crate) ahead: &'a Ahead,
    pub(crate) view: &'a FleetView,
    pub(crate) overview: &'a Overview,
}

/// The kinds of what is played, each once.
struct Kinds<'a> {
    observed: &'a Observed,
    numbers: BTreeMap<(Option<GroupId>, ShapeHash), usize>,
    spans: Vec<Vec<Spans>>,
}

impl Kinds<'_> {
    fn of(&mut self, group: Option<GroupId>, shape: ShapeHash) -> usize {
        *self.numbers.entry((group, shape)).or_insert_with(|| {
            self.spans.push(self.observed.alike(group, shape));
            self.spans.len() - 1
        })
    }
}

impl Control {
    /// By playing the cell forward; `None` when it is too large for that, or the end is too far.
    pub(crate) fn foreseen(&self, observed: &Observed, asked: &Asked<'_>) -> Option<Expected> {
        let Asked { why, shape, ahead, view, overview } = *asked;
        let waiting: u64 = overview.backlog.iter().map(|shape| shape.waiting).sum();
        let listed = overview.backlog.len() as u64 == overview.shapes;
        if observed.is_partial || !listed || waiting > WAITING_MAX || view.workers_count() > WORKERS_MAX {
            return None;
        }
        let group = Some(why.record.id.group);
        let mut kinds = Kinds { observed, numbers: BTreeMap::new(), spans: Vec::new() };
        let live = observed.live(|group, shape| kinds.of(Some(group), shape));
        let queued = queued(&mut kinds, asked);
        let since = why.record.waiting.as_ref().map_or(why.now, |waiting| waiting.since);
        let kind = kinds.of(group, ahead.shape);
        let itself = Queued { score: ahead.score, shape: ahead.shape, count: 1, since, kind };
        let mut shapes: Vec<(ShapeHash, Arc<Shape>)> =
            overview.backlog.iter().map(|backlog| (backlog.hash, Arc::clone(&backlog.shape))).collect();
        if shapes.iter().all(|(hash, _)| *hash != ahead.shape) {
            shapes.push((ahead.shape, Arc::new(shape.clone())));
        }
        let after = forecast(&Outset {
            workers: view.workers().cloned().collect(),
            view,
            live: &live,
            queued: &queued,
            shapes: &shapes,
            asked: itself,
            kinds: &kinds.spans,
            now: why.now,
            hold_after: self.options.hold_after,
            hold_term: self.options.hold_term,
            seed: why.record.id.group.0 ^ u64::from(why.record.id.index),
        })?;
        let in_front = crate::expected::in_front(overview, ahead, &Lane::of(shape));
        Some(Expected::Work { after, ahead: in_front, usual: observed.mean(ahead.shape) })
    }
}

/// All that waits beside the container asked about, group by group as far as the event record tells.
fn queued(kinds: &mut Kinds<'_>, asked: &Asked<'_>) -> Vec<Queued> {
    let Asked { why, ahead, overview, .. } = *asked;
    let (own_group, priority) = (why.record.id.group, why.record.spec.priority);
    let groups = &kinds.observed.groups;
    let own_place = groups.iter().position(|waits| waits.group == own_group).unwrap_or(0);
    let in_order = |shape: ShapeHash, places: std::ops::Range<usize>| {
        let of_shape = move |(place, waits): (usize, &Waits)| {
            let fits = waits.shape == shape && waits.priority == priority && waits.group != own_group;
            (fits && places.contains(&place)).then_some((place, *waits))
        };
        groups.iter().enumerate().filter_map(of_shape)
    };
    let mut queued = Vec::new();
    for backlog in &overview.backlog {
        let own = backlog.hash == ahead.shape;
        let before = match own {
            true => ahead.same_shape,
            false => ahead.others.iter().find(|(hash, _)| *hash == backlog.hash).map_or(0, |(_, count)| *count),
        };
        let mut add = |count: u64, score: Score, since: Timestamp, group: Option<GroupId>| {
            if count > 0 {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                queued.push((Queued { score, shape: backlog.hash, count, since, kind: 0 }, group));
            }
        };
        // Of its own group are those with a smaller index, as far as they wait.
        let siblings = if own { before.min(u64::from(why.record.id.index)) } else { 0 };
        add(siblings, ahead.score, why.record.submitted_at, Some(own_group));
        // The nearest in front are the surest; what is older than the event record is of unknown groups.
        let mut left = before - siblings;
        let mut in_front: Vec<(usize, Waits)> = in_order(backlog.hash, 0..own_place).collect();
        in_front.reverse();
        for (place, waits) in in_front {
            let count = waits.count.min(left);
            left -= count;
            add(
                count,
                Score(ahead.score.0.saturating_sub((own_place - place) as u64)),
                backlog.since,
                Some(waits.group),
            );
        }
        let oldest = Score(ahead.score.0.saturating_sub(own_place as u64 + 1));
        add(left, backlog.best.min(oldest), backlog.since, None);
        // What is behind and alike can never be in front; the rest fills gaps.
        let mut behind = if own { 0 } else { backlog.waiting.saturating_sub(before) };
        for (place, waits) in in_order(backlog.hash, own_place + 1..groups.len()) {
            let count = waits.count.min(behind);
            behind -= count;
            add(count, Score(ahead.score.0 + (place - own_place) as u64), why.now, Some(waits.group));
        }
        add(behind, Score(ahead.score.0 + groups.len() as u64), why.now, None);
    }
    let with_kind = queued.into_iter().map(|(mut queued, group)| {
        queued.kind = kinds.of(group, queued.shape);
        queued
    });
    with_kind.collect()
}
