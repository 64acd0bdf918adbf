//! The reads of who scales: the fleet's changes without a claim, and what a scale plan needs
//! beside it. Each is one script, so of one moment.

use std::sync::Arc;

use volley_model::{Demand, FleetChanges, FleetVersion, ProvisionedMachine, ScaleState, Score, ShapeHash, Timestamp};

use super::RedisStore;
use super::arguments::Arguments;
use super::replies;
use super::rows::{WorkerRow, machine_from, standing_from};
use super::scripts::Name;
use crate::StoreError;

impl RedisStore {
    pub(super) async fn fleet(&self, known: FleetVersion, max: u32) -> Result<FleetChanges, StoreError> {
        let mut arguments = self.arguments();
        arguments.number(known.0).number(max.into());
        Ok(replies::fleet(&mut self.ask(Name::Fleet, arguments).await?)?)
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
