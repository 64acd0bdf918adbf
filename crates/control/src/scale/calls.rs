//! Calls to provisioners: which are under way, which are to be made again and when, and what their answers mean for the
//! records. A pool's calls wait for that pool only: one that hangs blocks no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use volley_ledger::MachineSaid;
use volley_metrics::ScaleMetrics;
use volley_model::{Pool, PoolName, Provisioning, ScaleState, Stage, WorkerId};
use volley_pools::{Listed, Order, ProvisionError, Provisioner};

use super::ScaleOptions;
use crate::counted;

/// The wait before a call whose outcome is unknown is made again; doubles up to [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// What came of a call.
#[derive(Debug)]
pub(super) enum Answered {
    Machine { worker: WorkerId, said: Option<MachineSaid> },
    Listed { pool: PoolName, found: Option<Vec<Listed>> },
}

/// All calls of this server.
pub(super) struct Calls {
    options: ScaleOptions,
    metrics: ScaleMetrics,
    answers: mpsc::Sender<Answered>,
    /// Ends with the loop.
    tasks: JoinSet<()>,
    under_way: BTreeSet<WorkerId>,
    /// When a machine's next call may be made, and how many were.
    again: BTreeMap<WorkerId, (Instant, u32)>,
    permits: BTreeMap<PoolName, Arc<Semaphore>>,
    /// When each pool was listed last; `None` while it is.
    listed: BTreeMap<PoolName, Option<Instant>>,
    /// What there is of each pool, listed before the records that it is held against were read.
    found: Vec<(PoolName, Vec<Listed>)>,
}

impl Calls {
    pub(super) fn new(options: ScaleOptions, metrics: ScaleMetrics, answers: mpsc::Sender<Answered>) -> Self {
        Self {
            options,
            metrics,
            answers,
            tasks: JoinSet::new(),
            under_way: BTreeSet::new(),
            again: BTreeMap::new(),
            permits: BTreeMap::new(),
            listed: BTreeMap::new(),
            found: Vec::new(),
        }
    }

    /// Another server leads: what is under way here is its to find out.
    pub(super) fn forget(&mut self) {
        if !self.under_way.is_empty() || !self.listed.is_empty() {
            self.tasks.abort_all();
            self.under_way.clear();
            self.again.clear();
            self.listed.clear();
            self.found.clear();
        }
    }

    /// What answers mean for the records.
    pub(super) fn hear(&mut self, answers: impl Iterator<Item = Answered>) -> Vec<(WorkerId, MachineSaid)> {
        while self.tasks.try_join_next().is_some() {}
        let mut notes = Vec::new();
        for answer in answers {
            match answer {
                Answered::Machine { worker, said } => {
                    self.under_way.remove(&worker);
                    match said {
                        Some(said) => {
                            self.again.remove(&worker);
                            notes.push((worker, said));
                        }
                        None => self.later(worker),
                    }
                }
                Answered::Listed { pool, found } => {
                    self.listed.insert(pool.clone(), Some(Instant::now()));
                    self.found.extend(found.map(|found| (pool, found)));
                }
            }
        }
        notes
    }

    fn later(&mut self, worker: WorkerId) {
        let (at, tries) = self.again.entry(worker).or_insert((Instant::now(), 0));
        *at = Instant::now() + (AGAIN * 2_u32.saturating_pow(*tries)).min(AGAIN_MAX);
        *tries = (*tries + 1).min(16);
    }

    /// Makes the calls that the records ask for.
    pub(super) fn begin(&mut self, state: &ScaleState, pools: &[Pool]) {
        let records: BTreeMap<&WorkerId, &Provisioning> =
            state.machines.iter().map(|machine| (&machine.record.worker, &*machine.record)).collect();
        self.again.retain(|worker, _| records.contains_key(worker));
        for record in records.values() {
            let Some(pool) = pools.iter().find(|pool| pool.name == record.pool) else { continue };
            if self.under_way.contains(&record.worker) || self.again.get(&record.worker).is_some_and(is_later) {
                continue;
            }
            match record.stage {
                Stage::Requested => self.create(record, pool),
                Stage::Destroying { .. } => self.destroy(record, pool),
                Stage::Booting | Stage::Registered { .. } | Stage::Draining { .. } => {}
            }
        }
        for (name, found) in std::mem::take(&mut self.found) {
            if let Some(pool) = pools.iter().find(|pool| pool.name == name) {
                self.clear_away(pool, found, &records);
            }
        }
        let used: BTreeSet<&PoolName> = state.standings.iter().map(|standing| &standing.pool).collect();
        for pool in pools.iter().filter(|pool| pool.elastic.is_some() && used.contains(&pool.name)) {
            self.list(pool);
        }
    }

    /// Destroys what no record knows, and all but one of the machines of a record.
    fn clear_away(&mut self, pool: &Pool, mut found: Vec<Listed>, records: &BTreeMap<&WorkerId, &Provisioning>) {
        found.sort();
        let mut kept: BTreeSet<&WorkerId> = BTreeSet::new();
        for listed in &found {
            let record = records.get(&listed.worker);
            let same = found.iter().filter(|other| other.worker == listed.worker);
            let its_own = record.and_then(|record| record.handle.as_ref());
            let named = its_own.is_some_and(|handle| same.clone().any(|other| other.handle == *handle));
            let keep = record.is_some()
                && if named { its_own == Some(&listed.handle) } else { !kept.contains(&listed.worker) };
            if keep {
                kept.insert(&listed.worker);
                continue;
            }
            if self.under_way.contains(&listed.worker) {
                continue;
            }
            tracing::warn!(worker = %listed.worker, machine = %listed.handle, "a machine that nobody bought is destroyed");
            let Some(elastic) = &pool.elastic else { continue };
            let order = Order::of(&listed.worker, pool, elastic);
            let handle = listed.handle.clone();
            let provisioner = self.options.provisioners.of(&elastic.provisioner);
            let metrics = self.metrics.clone();
            metrics.machines.add_one(["unknown"]);
            self.spawn(pool, &listed.worker, async move {
                // Its record is none or another machine's: there is nothing to note. It is listed again when it fails.
                if let Err(error) = timed(&metrics, "destroy", provisioner.destroy(&order, Some(&handle))).await {
                    tracing::warn!(worker = %order.worker, %error, "it could not be destroyed");
                }
                None
            });
        }
    }

    fn create(&mut self, record: &Provisioning, pool: &Pool) {
        let Some(elastic) = &pool.elastic else { return };
        let order = Order::of(&record.worker, pool, elastic);
        let provisioner = self.options.provisioners.of(&elastic.provisioner);
        let metrics = self.metrics.clone();
        self.spawn(pool, &record.worker, async move {
            match timed(&metrics, "create", provisioner.create(&order)).await {
                Ok(handle) => Some(MachineSaid::Created { handle }),
                Err(ProvisionError::Refused { reason }) => Some(MachineSaid::Failed { reason }),
                Err(error @ ProvisionError::Unknown { .. }) => {
                    tracing::warn!(worker = %order.worker, %error, "asked again whether a machine was made");
                    found_out(&metrics, &*provisioner, &order).await
                }
            }
        });
    }

    fn destroy(&mut self, record: &Provisioning, pool: &Pool) {
        let Some(elastic) = &pool.elastic else { return };
        let order = Order::of(&record.worker, pool, elastic);
        let provisioner = self.options.provisioners.of(&elastic.provisioner);
        let metrics = self.metrics.clone();
        self.spawn(pool, &record.worker, async move {
            match timed(&metrics, "destroy", provisioner.destroy(&order, None)).await {
                Ok(()) => Some(MachineSaid::Destroyed),
                Err(error) => {
                    tracing::warn!(worker = %order.worker, %error, "a machine could not be destroyed; tried again");
                    None
                }
            }
        });
    }

    fn list(&mut self, pool: &Pool) {
        let Some(elastic) = &pool.elastic else { return };
        let due = match self.listed.get(&pool.name) {
            None => true,
            Some(None) => false,
            Some(Some(at)) => at.elapsed() >= self.options.list_interval,
        };
        if !due {
            return;
        }
        self.listed.insert(pool.name.clone(), None);
        let provisioner = self.options.provisioners.of(&elastic.provisioner);
        let (answers, name, options) = (self.answers.clone(), pool.name.clone(), elastic.options.clone());
        let metrics = self.metrics.clone();
        self.tasks.spawn(async move {
            let found = timed(&metrics, "list", provisioner.list(&name, &options)).await;
            let found =
                found.inspect_err(|error| tracing::warn!(pool = %name, %error, "machines were not listed")).ok();
            // Nobody listens any more: the loop has ended.
            let _ = answers.send(Answered::Listed { pool: name, found }).await;
        });
    }

    /// One call about one machine, when the pool's earlier calls leave room.
    fn spawn(
        &mut self,
        pool: &Pool,
        worker: &WorkerId,
        call: impl Future<Output = Option<MachineSaid>> + Send + 'static,
    ) {
        let permits = self.permits.entry(pool.name.clone());
        let permits = Arc::clone(permits.or_insert_with(|| Arc::new(Semaphore::new(self.options.calls_max.max(1)))));
        let (answers, worker) = (self.answers.clone(), worker.clone());
        self.under_way.insert(worker.clone());
        self.tasks.spawn(async move {
            let _permit = permits.acquire().await;
            let said = call.await;
            // Nobody listens any more: the loop has ended.
            let _ = answers.send(Answered::Machine { worker, said }).await;
        });
    }
}

/// Whether an order's machine is there after all. `None` when that is not known either, or it is not: then it is asked
/// for again, with the same id.
async fn found_out(metrics: &ScaleMetrics, provisioner: &dyn Provisioner, order: &Order) -> Option<MachineSaid> {
    let listed = timed(metrics, "list", provisioner.list(&order.pool, &order.options)).await.ok()?;
    let found = listed.into_iter().find(|listed| listed.worker == order.worker)?;
    Some(MachineSaid::Created { handle: found.handle })
}

/// A call, and its time by how it ended.
async fn timed<T>(
    metrics: &ScaleMetrics,
    call: &'static str,
    answer: impl Future<Output = Result<T, ProvisionError>>,
) -> Result<T, ProvisionError> {
    let started = Instant::now();
    let answer = answer.await;
    metrics.calls.observe([call, counted::called(&answer)], started.elapsed());
    answer
}

fn is_later((at, _): &(Instant, u32)) -> bool {
    *at > Instant::now()
}
