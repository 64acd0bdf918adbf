//! One burst on a new store: the load, the wait for its end, and what the store says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use volley_control::{Control, ControlError, Options};
use volley_ledger::{Answer, ListQuery, Query};
use volley_model::{ContainerId, ContainerState, GroupId, Spec, Submission, WaitReason, WorkerId};
use volley_store::Store;
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore};

use super::counted::{Calls, CountedStore};
use super::workers::SimulatedWorkers;
use super::{SeedBench, SeedCase, SeedError, Taken, scene};
use crate::Submit;

/// A burst takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what waits, after the measured time.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What one burst took.
pub(super) struct Figures {
    pub(super) total: Duration,
    pub(super) placed: u64,
    pub(super) waiting: u64,
    pub(super) workers_used: u64,
    pub(super) workers_bought: u64,
    pub(super) calls: Calls,
    pub(super) transactions: u64,
}

type Running = watch::Receiver<BTreeMap<ContainerId, WorkerId>>;

/// A server with its workers.
struct Scene<'a> {
    case: &'a SeedCase,
    store: Arc<EmbeddedStore>,
    counted: Arc<CountedStore>,
    control: Arc<Control>,
    running: Running,
}

pub(super) async fn burst(
    options: &SeedBench,
    case: &SeedCase,
    taken: Taken,
    settings: Options,
) -> Result<Figures, SeedError> {
    let failed = |problem| SeedError::Directory { dir: options.dir.clone(), problem };
    let dir = tempfile::tempdir_in(&options.dir).map_err(failed)?;
    let store = Arc::new(EmbeddedStore::open(EmbeddedOptions::new(dir.path().to_owned()))?);
    let counted = Arc::new(CountedStore::new(Arc::clone(&store)));
    let workers = Arc::new(SimulatedWorkers::new());
    let (counted_store, delivery) = (Arc::clone(&counted) as Arc<dyn Store>, Arc::clone(&workers));
    let control = Control::start(counted_store, delivery, settings).await?;
    let running = workers.running();
    let mut scene = Scene { case, store, counted, control, running };
    let figures = async {
        workers.attach(&scene.control, scene::workers()).await?;
        scene.fill(taken).await?;
        scene.measure().await
    };
    let figures = figures.await;
    scene.control.shutdown().await;
    figures
}

impl Scene<'_> {
    /// Fills the workers that are to be taken.
    async fn fill(&mut self, taken: Taken) -> Result<(), SeedError> {
        let Some(submission) = scene::fillers(taken) else { return Ok(()) };
        let count = submission.runs.iter().map(|run| run.count as usize).sum();
        submit(&self.control, submission).await?;
        self.until_running(count).await?;
        let full: BTreeSet<WorkerId> = self.running.borrow().values().cloned().collect();
        if full.len() == self.case.workers_taken {
            return Ok(());
        }
        Err(self.wrong(format!("{} workers were taken before the burst", full.len())))
    }

    async fn measure(&mut self) -> Result<Figures, SeedError> {
        let specs = scene::burst();
        let (calls, store) = (self.counted.calls(), self.store.stats());
        let begin = Instant::now();
        let specs = self.submit(specs).await?;
        // The workers hold as many as burst: what was there before takes the place of as many.
        self.until_running(scene::CONTAINERS).await?;
        let total = begin.elapsed();
        let waiting = self.until_settled().await?;
        let running: BTreeMap<ContainerId, WorkerId> = self.running.borrow().clone();
        let of_burst = running.iter().filter(|(container, _)| specs.contains_key(&container.group));
        let (placed, used): (Vec<ContainerId>, BTreeSet<&WorkerId>) = of_burst.map(|(c, worker)| (*c, worker)).unzip();
        if placed.len() + waiting.len() != scene::CONTAINERS {
            return Err(self.wrong(format!("{} run and {} wait", placed.len(), waiting.len())));
        }
        let spec_of = |container: &ContainerId| Arc::clone(&specs[&container.group][container.index as usize]);
        let waiting: Vec<Arc<Spec>> = waiting.iter().map(spec_of).collect();
        Ok(Figures {
            total,
            placed: placed.len() as u64,
            waiting: waiting.len() as u64,
            workers_used: used.len() as u64,
            workers_bought: scene::workers_needed(&waiting) as u64,
            calls: self.counted.calls().since(&calls),
            transactions: self.store.stats().transactions - store.transactions,
        })
    }

    /// Sends the burst; the specs of each group.
    async fn submit(&self, specs: Vec<Arc<Spec>>) -> Result<BTreeMap<GroupId, Vec<Arc<Spec>>>, SeedError> {
        let parts: Vec<Vec<Arc<Spec>>> = match self.case.submit {
            Submit::Batch => vec![specs],
            Submit::Single => specs.into_iter().map(|spec| vec![spec]).collect(),
        };
        let mut sent = JoinSet::new();
        for specs in parts {
            let control = Arc::clone(&self.control);
            sent.spawn(async move { Ok((submit(&control, scene::submission_of(&specs)).await?, specs)) });
        }
        let sent: Vec<Result<_, ControlError>> = sent.join_all().await;
        Ok(sent.into_iter().collect::<Result<_, _>>()?)
    }

    async fn until_running(&mut self, count: usize) -> Result<(), SeedError> {
        let reached = self.running.wait_for(|running| running.len() >= count);
        if tokio::time::timeout(PATIENCE, reached).await.is_ok() {
            return Ok(());
        }
        let (case, running) = (self.case.to_string(), self.running.borrow().len());
        Err(SeedError::Stuck { case, running, expected: count, seconds: PATIENCE.as_secs() })
    }

    /// Waits till everything that waits was looked at; gives it. Past the measured time, beside the counted calls.
    async fn until_settled(&self) -> Result<Vec<ContainerId>, SeedError> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let Answer::Audit(audit) = self.store.read(Query::Audit).await? else { unreachable!("asked for an audit") };
            if !audit.violations.is_empty() {
                return Err(self.wrong(audit.violations.join("; ")));
            }
            let queued = ListQuery { states: vec![ContainerState::Queued], max: 1_000, ..ListQuery::default() };
            let Answer::List(page) = self.store.read(Query::List(queued)).await? else {
                unreachable!("asked for a list")
            };
            let looked_at = |reasons: &[WaitReason]| !reasons.contains(&WaitReason::NotLookedAt);
            let mut waiting = page.containers.iter();
            if audit.claimed == 0 && waiting.all(|c| c.waiting.as_ref().is_some_and(|w| looked_at(&w.reasons))) {
                return Ok(page.containers.iter().map(|container| container.id).collect());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(self.wrong("what waits was not looked at".to_owned()))
    }

    fn wrong(&self, problem: String) -> SeedError {
        SeedError::Wrong { case: self.case.to_string(), problem }
    }
}

async fn submit(control: &Control, submission: Submission) -> Result<GroupId, ControlError> {
    let digest = submission.digest();
    Ok(control.submit(submission, digest).await?.group)
}
