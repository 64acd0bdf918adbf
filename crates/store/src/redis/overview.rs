//! The cell at a glance, gathered in slices: counts of the cell, its shapes, its workers. Of one
//! moment only when nothing moves meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_ledger::{Ahead, Amounts, Overview, ShapeBacklog, WorkerRecord};
use volley_model::{ContainerId, ContainerState, Free, Score, ShapeHash, Timestamp, WaitReason, WorkerStatus};

use super::RedisStore;
use super::arguments::Arguments;
use super::replies::{Items, Malformed, json};
use super::scripts::Name;
use crate::StoreError;

/// Shapes of an overview: those in front. The rest are counted, not listed.
const SHAPES_MAX: usize = 1_000;

impl RedisStore {
    pub(super) async fn overview(&self, ahead_of: Option<ContainerId>) -> Result<Overview, StoreError> {
        let mut counts = self.ask(Name::Overview, Arguments::default()).await?;
        let mut overview = Overview {
            now: Timestamp(counts.number()?),
            accepted: counts.number()?,
            pruned: counts.number()?,
            ..Overview::default()
        };
        use ContainerState::{Assigned, Claimed, Finished, Queued, Running, Starting, Stopping};
        for state in [Queued, Claimed, Assigned, Starting, Running, Stopping, Finished] {
            overview.containers.insert(state, counts.number()?);
        }
        overview.sessions = counts.small()?;
        let shapes = self.backlog().await?;
        overview.ahead = match ahead_of {
            Some(id) => self.ahead(id, &shapes).await?,
            None => None,
        };
        add_backlog(shapes, &mut overview);
        for pool in self.pools().await? {
            overview.pools.entry(pool.name).or_default();
        }
        for (worker, free) in self.workers(None, u32::MAX).await?.0 {
            add_worker(&worker, &free, &mut overview);
        }
        Ok(overview)
    }

    /// All shapes with something waiting, by hash.
    async fn backlog(&self) -> Result<BTreeMap<ShapeHash, ShapeBacklog>, StoreError> {
        let mut shapes = BTreeMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut arguments = Arguments::default();
            arguments.text(&cursor);
            let mut items = self.ask(Name::OverviewShapes, arguments).await?;
            cursor = items.text()?;
            // A slice may bring again what another brought.
            shapes.extend(items.list()?.rest(shape_from)?.into_iter().map(|shape| (shape.hash, shape)));
            if cursor == "0" {
                return Ok(shapes);
            }
        }
    }

    /// Counts what is in front; `None` for what is in no queue now.
    async fn ahead(
        &self,
        id: ContainerId,
        shapes: &BTreeMap<ShapeHash, ShapeBacklog>,
    ) -> Result<Option<Ahead>, StoreError> {
        let (mut place, mut same_shape) = (0, 0);
        loop {
            let mut arguments = Arguments::default();
            arguments.text(id.group).number(id.index.into()).number(place).number(self.items_max().into());
            let mut items = self.ask(Name::Ahead, arguments).await?;
            if items.is_empty() {
                return Ok(None);
            }
            let (shape, score) = (ShapeHash(items.hex()?), Score(items.number()?));
            same_shape += items.number()?;
            match u64::try_from(items.signed()?) {
                Ok(next) => place = next,
                Err(_) => {
                    let others = shapes.values().filter(|other| other.hash != shape && other.best < score);
                    let others: Vec<(ShapeHash, u64)> = others.map(|other| (other.hash, other.waiting)).collect();
                    let other_shapes = others.iter().map(|(_, waiting)| waiting).sum();
                    return Ok(Some(Ahead { shape, score, same_shape, other_shapes, others }));
                }
            }
        }
    }
}

fn shape_from(items: &mut Items) -> Result<ShapeBacklog, Malformed> {
    let (hash, shape) = (ShapeHash(items.hex()?), Arc::new(items.json("a shape")?));
    let (waiting, best, since) = (items.number()?, Score(items.number()?), Timestamp(items.number()?));
    let reasons = items.bytes()?;
    let blocked = match reasons.as_slice() {
        [] => None,
        reasons => Some(Arc::new(json::<Vec<WaitReason>>("reasons", reasons)?)),
    };
    Ok(ShapeBacklog { hash, shape, waiting, best, since, blocked })
}

fn add_backlog(shapes: BTreeMap<ShapeHash, ShapeBacklog>, overview: &mut Overview) {
    let earlier = |oldest: Option<Timestamp>, since: Timestamp| Some(oldest.map_or(since, |oldest| oldest.min(since)));
    overview.shapes = shapes.len() as u64;
    for shape in shapes.values() {
        overview.oldest = earlier(overview.oldest, shape.since);
        if shape.blocked.is_some() {
            overview.blocked.shapes += 1;
            overview.blocked.containers += shape.waiting;
            overview.blocked.oldest = earlier(overview.blocked.oldest, shape.since);
        }
    }
    overview.backlog = shapes.into_values().collect();
    overview.backlog.sort_by_key(|shape| (shape.best, shape.hash));
    overview.backlog.truncate(SHAPES_MAX);
}

fn add_worker(record: &WorkerRecord, free: &Free, overview: &mut Overview) {
    let pool = overview.pools.entry(record.view.worker.pool.clone()).or_default();
    *pool.workers.entry(record.view.status).or_default() += 1;
    pool.containers += u64::from(record.containers);
    pool.holds += u32::from(record.view.hold.is_some());
    if record.view.status == WorkerStatus::Ready {
        pool.empty += u32::from(record.containers == 0);
        add(&mut pool.capacity, &record.view.worker.capacity.all_free());
        add(&mut pool.free, free);
    }
}

fn add(amounts: &mut Amounts, free: &Free) {
    amounts.cpu_milli = amounts.cpu_milli.saturating_add(free.cpu.0);
    amounts.memory_bytes = amounts.memory_bytes.saturating_add(free.memory.0);
    amounts.slots = amounts.slots.saturating_add(u64::from(free.slots));
    amounts.gpu_milli = amounts.gpu_milli.saturating_add(free.gpus.iter().map(|gpu| gpu.0).sum());
}
