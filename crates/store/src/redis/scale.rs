//! The reads of who scales: the fleet's changes without a claim, and what a scale plan needs
//! beside it. What a plan needs is one script, so of one moment; a whole fleet may take several.

use std::collections::BTreeSet;
use std::sync::Arc;

use volley_model::{
    Demand, FleetChanges, FleetVersion, PoolName, ProvisionedMachine, ScaleState, Score, ShapeHash, Timestamp, WorkerId,
};

use super::RedisStore;
use super::arguments::Arguments;
use super::replies;
use super::rows::{WorkerRow, machine_from, standing_from};
use super::scripts::Name;
use crate::StoreError;

impl RedisStore {
    pub(super) async fn fleet(&self, known: FleetVersion, max: u32) -> Result<FleetChanges, StoreError> {
        let changes = self.fleet_slice(known, max, false).await?;
        self.whole_reload(changes).await
    }

    async fn fleet_slice(&self, known: FleetVersion, max: u32, goes_on: bool) -> Result<FleetChanges, StoreError> {
        let mut arguments = self.arguments();
        arguments.number(known.0).number(max.into()).number(goes_on.into());
        Ok(replies::fleet(&mut self.ask(Name::Fleet, arguments).await?)?)
    }

    /// A reload is handed on whole, however many calls it takes. What changes meanwhile comes last, and counts.
    pub(super) async fn whole_reload(&self, mut changes: FleetChanges) -> Result<FleetChanges, StoreError> {
        while changes.reload && changes.more {
            let next = self.fleet_slice(changes.version, self.items_max(), true).await?;
            go_on(&mut changes, next);
        }
        Ok(changes)
    }

    pub(super) async fn scale(&self) -> Result<ScaleState, StoreError> {
        let mut arguments = Arguments::default();
        let limits = &self.options.ledger;
        arguments.number(limits.demand_shapes_max as u64).number(limits.demand_runs_max as u64);
        let mut items = self.ask(Name::Scale, arguments).await?;
        let (now, at) = (Timestamp(items.number()?), FleetVersion(items.number()?));
        let lead = replies::lead_maybe(&mut items)?;
        let demand = items.list()?.rest(|items| {
            let mut shape = items.list()?;
            let hash = ShapeHash(shape.hex()?);
            let (body, since) = (Arc::new(shape.json("a shape")?), Timestamp(shape.number()?));
            let runs = shape.list()?.rest(|runs| Ok((Score(runs.number()?), runs.number()?)))?;
            Ok(Demand { hash, shape: body, since, runs })
        })?;
        let mut machines = items.list()?.rest(|items| {
            let (worker, record, of_worker) = (items.parsed()?, items.bytes()?, items.bytes()?);
            let record = Arc::new(machine_from(worker, &record)?);
            let worker = if of_worker.is_empty() { None } else { Some(WorkerRow::from(&of_worker)?.machine_worker()?) };
            Ok(ProvisionedMachine { record, worker })
        })?;
        machines.sort_by(|a, b| a.record.worker.cmp(&b.record.worker));
        let mut standings = items.list()?.rest(|items| standing_from(items.parsed()?, &items.bytes()?))?;
        standings.sort_by(|a, b| a.pool.cmp(&b.pool));
        Ok(ScaleState { now, at, lead, demand, machines, standings })
    }
}

/// Later rows stand for earlier ones of the same record.
fn go_on(changes: &mut FleetChanges, next: FleetChanges) {
    let FleetChanges { version, more, workers, workers_gone, pools, pools_gone, blocked, unblocked, .. } = next;
    let again: BTreeSet<&WorkerId> = workers.iter().map(|view| &view.worker.id).chain(&workers_gone).collect();
    changes.workers.retain(|view| !again.contains(&view.worker.id));
    changes.workers_gone.retain(|id| !again.contains(id));
    let again: BTreeSet<&PoolName> = pools.iter().map(|pool| &pool.name).chain(&pools_gone).collect();
    changes.pools.retain(|pool| !again.contains(&pool.name));
    changes.pools_gone.retain(|name| !again.contains(name));
    let again: BTreeSet<ShapeHash> = blocked.iter().map(|shape| shape.hash).chain(unblocked.iter().copied()).collect();
    changes.blocked.retain(|shape| !again.contains(&shape.hash));
    changes.unblocked.retain(|hash| !again.contains(hash));
    (changes.version, changes.more) = (version, more);
    changes.workers.extend(workers);
    changes.workers_gone.extend(workers_gone);
    changes.pools.extend(pools);
    changes.pools_gone.extend(pools_gone);
    changes.blocked.extend(blocked);
    changes.unblocked.extend(unblocked);
}
