//! What was lately observed of containers' spans, and what holds room now: from the event record and the records of its
//! containers. Bounded reads; decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use volley_engine::{Live, Spans};
use volley_ledger::{Answer, ContainerRecord, Event, EventKind, Query};
use volley_model::{ContainerId, ContainerState, EventNumber, GroupId, Millis, Shape, ShapeHash, Timestamp};

use crate::{Control, ControlError};

/// Events that are looked back at.
const EVENTS_BACK: u64 = 4_000;
/// Events of one read.
const PAGE: u32 = 1_000;
/// Ends that are looked at: each is a read.
const ENDS_MAX: usize = 128;
/// Live attempts that are looked at: each is a read. Where there are more, no single one of them matters much.
pub(crate) const LIVE_MAX: usize = 256;
/// Groups of which something waits that are looked at: each is a read.
const GROUPS_MAX: usize = 64;
/// Fewer ends say nothing.
const ENDS_MIN: usize = 5;
/// So many of one group say more than all of its shape.
const OF_GROUP_MIN: usize = 3;
/// Behind every event there will be; no store counts further.
const END: EventNumber = EventNumber(u64::MAX >> 1);

/// What was lately observed.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    ended: Vec<Span>,
    live: Vec<(ContainerRecord, Timestamp)>,
    /// Groups accepted lately of which something waits, the oldest first.
    pub(crate) groups: Vec<Waits>,
    /// Not all that runs is in `live`.
    pub(crate) is_partial: bool,
    now: Timestamp,
}

/// A group of which something waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    pub(crate) group: GroupId,
    /// Of its last container; most groups are of one.
    pub(crate) shape: ShapeHash,
    pub(crate) priority: i8,
    pub(crate) count: u64,
}

#[derive(Debug)]
struct Span {
    group: GroupId,
    shape: ShapeHash,
    held: Millis,
}

impl Observed {
    /// How long what is alike held its room, on average: of its shape, or of any.
    pub(crate) fn mean(&self, shape: ShapeHash) -> Millis {
        let mean = |of: &dyn Fn(&&Span) -> bool| {
            let (sum, count) =
                self.ended.iter().filter(of).fold((0, 0), |(sum, count), span| (sum + span.held.0, count + 1));
            (count > 0).then(|| Millis(sum / count))
        };
        mean(&|span| span.shape == shape).or_else(|| mean(&|_| true)).unwrap_or_default()
    }

    /// What the spans of a group's containers may be like: as those of its own, once some have ended; else as those of one
    /// of the other groups of its shape, or of any shape. Who submits together is alike, and two groups of one shape may not be.
    pub(crate) fn alike(&self, group: Option<GroupId>, shape: ShapeHash) -> Vec<Spans> {
        let own = |span: &&Span| Some(span.group) == group && span.shape == shape;
        if self.ended.iter().filter(own).count() >= OF_GROUP_MIN {
            return group.map(|group| self.of_group(group, shape)).into_iter().collect();
        }
        let of_shape = |span: &&Span| span.shape == shape;
        let known: BTreeSet<(GroupId, ShapeHash)> = match self.ended.iter().any(|span| span.shape == shape) {
            true => self.ended.iter().filter(of_shape).map(|span| (span.group, span.shape)).collect(),
            false => self.ended.iter().map(|span| (span.group, span.shape)).collect(),
        };
        let mut alike: Vec<Spans> = known.into_iter().map(|(group, shape)| self.of_group(group, shape)).collect();
        // What runs already for longer than the like of it ever did is not like it.
        let own_ages = self.live.iter().filter(|(record, _)| Some(record.id.group) == group && of(record) == shape);
        let oldest = own_ages.map(|(_, since)| self.now.since(*since)).max().unwrap_or_default();
        if alike.iter().any(|spans| spans.longest() >= oldest) {
            alike.retain(|spans| spans.longest() >= oldest);
        }
        alike
    }

    fn of_group(&self, group: GroupId, shape: ShapeHash) -> Spans {
        let ended = |span: &&Span| span.group == group && span.shape == shape;
        self.collected(&ended, |record| record.id.group == group && of(record) == shape)
    }

    fn collected(&self, ended: &dyn Fn(&&Span) -> bool, live: impl Fn(&ContainerRecord) -> bool) -> Spans {
        let ended: Vec<Millis> = self.ended.iter().filter(ended).map(|span| span.held).collect();
        let live = self.live.iter().filter(|(record, _)| live(record));
        let ages: Vec<Millis> = live.map(|(_, since)| self.now.since(*since)).collect();
        Spans::of(&ended, &ages)
    }

    /// What holds room, each with its kind as `kind` gives it.
    pub(crate) fn live(&self, mut kind: impl FnMut(GroupId, ShapeHash) -> usize) -> Vec<Live> {
        let live = self.live.iter().filter_map(|(record, since)| {
            Some(Live {
                worker: record.worker.clone()?,
                resources: record.spec.resources.clone(),
                gpus: record.gpus.clone(),
                since: *since,
                kind: kind(record.id.group, of(record)),
            })
        });
        live.collect()
    }
}

/// What the last events say.
#[derive(Default)]
struct Seen {
    /// Groups and their size, and how many of each are still in a queue.
    groups: Vec<((GroupId, u32), u64)>,
    /// Ended attempts' containers.
    ended: Vec<ContainerId>,
    /// Live attempts' containers, and since when.
    live: BTreeMap<ContainerId, Timestamp>,
    /// In no queue any more.
    left: BTreeSet<ContainerId>,
}

impl Seen {
    fn add(&mut self, event: &Event) {
        let (container, state, attempt) = match &event.kind {
            EventKind::GroupAccepted { group, count, .. } => {
                return self.groups.push(((*group, *count), u64::from(*count)));
            }
            EventKind::Container { container, state, attempt, .. } => (*container, *state, *attempt),
            _ => return,
        };
        match state {
            ContainerState::Finished => {
                self.left.insert(container);
                self.live.remove(&container);
                if attempt > 0 {
                    self.ended.push(container);
                }
            }
            ContainerState::Queued => {
                self.left.remove(&container);
                self.live.remove(&container);
            }
            ContainerState::Assigned => {
                self.left.insert(container);
                self.live.insert(container, event.at);
            }
            _ => {}
        }
    }
}

fn of(record: &ContainerRecord) -> ShapeHash {
    Shape::of(&record.tenant, &record.spec).hash()
}

impl Control {
    /// What was lately observed; `None` when too little ended to tell anything.
    pub(crate) async fn observed(&self, running: u64, now: Timestamp) -> Result<Option<Observed>, ControlError> {
        let seen = self.seen_lately().await?;
        let Seen { ended, live, .. } = &seen;
        let is_partial = live.len() > LIVE_MAX || (live.len() as u64) < running;
        let mut observed = Observed { is_partial, now, ..Observed::default() };
        // Spread over all of them.
        let step = ended.len().div_ceil(ENDS_MAX).max(1);
        for id in ended.iter().step_by(step) {
            if let Some(record) = self.record(*id).await?
                && let Some((assigned, finished)) = record.assigned_at.zip(record.finished_at)
            {
                observed.ended.push(Span { group: id.group, shape: of(&record), held: finished.since(assigned) });
            }
        }
        if observed.ended.len() < ENDS_MIN {
            return Ok(None);
        }
        if is_partial {
            return Ok(Some(observed));
        }
        for (id, since) in live {
            if let Some(record) = self.record(*id).await?.filter(|record| record.finished_at.is_none()) {
                observed.live.push((record, *since));
            }
        }
        for (group, count) in seen.groups.iter().rev().filter(|(_, count)| *count > 0).take(GROUPS_MAX) {
            let last = ContainerId { group: group.0, index: group.1.saturating_sub(1) };
            let Some(record) = self.record(last).await? else { continue };
            let (shape, priority) = (of(&record), record.spec.priority);
            observed.groups.push(Waits { group: group.0, shape, priority, count: *count });
        }
        observed.groups.reverse();
        Ok(Some(observed))
    }

    /// What the last events say.
    async fn seen_lately(&self) -> Result<Seen, ControlError> {
        let last = self.page(END, 1).await?.last;
        let mut after = EventNumber(last.0.saturating_sub(EVENTS_BACK));
        let mut seen = Seen::default();
        loop {
            let page = self.page(after, PAGE).await?;
            page.events.iter().for_each(|event| seen.add(event));
            if page.seen <= after {
                break;
            }
            after = page.seen;
        }
        let left: BTreeMap<GroupId, u64> = seen.left.iter().fold(BTreeMap::new(), |mut left, id| {
            *left.entry(id.group).or_default() += 1;
            left
        });
        for ((group, _), count) in &mut seen.groups {
            *count = count.saturating_sub(left.get(group).copied().unwrap_or(0));
        }
        Ok(seen)
    }

    async fn record(&self, id: ContainerId) -> Result<Option<ContainerRecord>, ControlError> {
        let Answer::Container(record) = self.read(Query::Container(id, None)).await? else { return Ok(None) };
        Ok(record.map(|record| *record))
    }
}
