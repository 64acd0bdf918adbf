//! One run: trouble, then calm, then everything is to be over, and then quiet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use volley_ledger::{Query, Schedulable};

use crate::cell::Cell;
use crate::chance::Chance;
use crate::checks::Watcher;
use crate::clients::{Told, client};
use crate::cluster::Cluster;
use crate::faults::{Faults, Rates};
use crate::machine::Floor;
use crate::record::{Failure, Record};
use crate::scenario::{Scenario, Trouble};

/// After trouble everything is over in this time: leases, backoffs and runs are all shorter, and what waits for room
/// has at most this much work before it.
const DRAIN_WITHIN: Duration = Duration::from_secs(1_800);
/// Then it is quiet for this long.
const QUIET_FOR: Duration = Duration::from_secs(120);
/// Claims while it is quiet, of each server: a retried or swept thing may still come to be looked at.
const QUIET_CLAIMS_MAX: u64 = 5;
/// A server that does not answer an operator is let be.
const OPERATOR_WAIT: Duration = Duration::from_secs(5);
/// How often the run is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A run that was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Of all that happened: equal for equal seeds.
    pub hash: u64,
    /// Things that happened.
    pub steps: u64,
    /// Containers that clients were told of.
    pub containers: u64,
    /// How long it took to be over after the trouble, in virtual time.
    pub drained: Duration,
}

/// Runs a scenario to its end.
///
/// # Errors
/// When a law was broken: which, and what happened before.
pub fn run(scenario: &Scenario, verbose: bool) -> Result<Summary, Box<Failure>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
    let summary = runtime.block_on(play(scenario, verbose));
    // Tasks that wait for ever end with it.
    drop(runtime);
    summary
}

async fn play(scenario: &Scenario, verbose: bool) -> Result<Summary, Box<Failure>> {
    let dir = tempfile::tempdir().expect("a directory for the workers' epochs");
    let cluster = set_up(scenario, verbose, dir.path()).await;
    let told = Told::default();
    for order in &scenario.orders {
        tokio::spawn(client(Arc::clone(&cluster), order.clone(), told.clone()));
    }
    let mut watcher = Watcher::default();
    trouble(scenario, &cluster, &mut watcher).await?;
    let calm_since = Instant::now();
    calm(&cluster).await;
    drain(&cluster, &told, &mut watcher, calm_since).await?;
    let drained = calm_since.elapsed();
    quiet(&cluster, &mut watcher).await?;
    watcher.check(&cluster, &told);
    failed(&cluster)?;
    let containers = told.accepted().iter().flat_map(|(group, s)| crate::clients::containers(*group, s)).count();
    let record = &cluster.record;
    Ok(Summary { hash: record.hash(), steps: record.count(), containers: containers as u64, drained })
}

/// The servers and workers of a scenario, started; the workers keep their epochs in a directory.
pub(crate) async fn set_up(scenario: &Scenario, verbose: bool, dir: &Path) -> Arc<Cluster> {
    let record = Record::new(verbose);
    let chance = Chance::of_seed(scenario.seed.wrapping_mul(31).wrapping_add(1));
    let ids = Chance::of_seed(scenario.seed.wrapping_mul(37).wrapping_add(2));
    let faults = Faults::new(scenario.rates);
    let cell = Cell::new(scenario.ledger.clone(), record.clone());
    let floor = Floor::new(record.clone(), scenario.is_strict());
    let options = (scenario.options.clone(), scenario.servers);
    let cluster = Cluster::new(cell, faults, floor, record.clone(), (chance, ids), options);
    let cluster = Arc::new(cluster);
    for (number, worker) in scenario.workers.iter().enumerate() {
        cluster.add_worker(worker.clone(), dir.join(format!("epoch-{number}.json")));
    }
    for number in 0..scenario.servers {
        cluster.start_server(number).await;
    }
    for number in 0..cluster.workers_count() {
        cluster.start_worker(number);
    }
    cluster
}

fn failed(cluster: &Cluster) -> Result<(), Box<Failure>> {
    cluster.record.failure().map_or(Ok(()), |failure| Err(Box::new(failure)))
}

/// Waits and looks meanwhile.
async fn pass(cluster: &Cluster, watcher: &mut Watcher, span: Duration) -> Result<(), Box<Failure>> {
    let until = Instant::now() + span;
    while Instant::now() < until {
        sleep(LOOK_EVERY.min(until - Instant::now())).await;
        watcher.look(cluster);
        failed(cluster)?;
    }
    Ok(())
}

async fn trouble(scenario: &Scenario, cluster: &Arc<Cluster>, watcher: &mut Watcher) -> Result<(), Box<Failure>> {
    let until = Instant::now() + scenario.trouble_for;
    while Instant::now() < until {
        pass(cluster, watcher, cluster.chance.millis(100..10_000)).await?;
        if !scenario.troubles.is_empty() {
            let trouble = scenario.troubles[cluster.chance.index(scenario.troubles.len())];
            let (cluster, span) = (Arc::clone(cluster), cluster.chance.millis(0..90_000));
            tokio::spawn(async move { cause(&cluster, trouble, span).await });
        }
    }
    Ok(())
}

/// Brings one trouble about, and its end after a while.
async fn cause(cluster: &Arc<Cluster>, trouble: Trouble, span: Duration) {
    let server = cluster.chance.index(cluster.servers_count());
    let worker = cluster.chance.index(cluster.workers_count());
    match trouble {
        Trouble::ServerKilled => {
            cluster.kill_server(server).await;
            sleep(span / 4).await;
            cluster.start_server(server).await;
        }
        Trouble::ServerFrozen => {
            cluster.freeze_server(server, true);
            sleep(span).await;
            cluster.freeze_server(server, false);
        }
        Trouble::ServerCut => cluster.cut_server(server),
        Trouble::StoreRestarted => cluster.cell.restart(),
        Trouble::ClockJumps => {
            cluster.record.note(format!("the clock jumps by {span:?}"));
            cluster.cell.jump(span);
        }
        Trouble::WorkerKilled | Trouble::MachineDies => {
            match trouble {
                Trouble::WorkerKilled => cluster.kill_worker(worker),
                _ => cluster.kill_machine(worker, cluster.chance.per_mille(500)),
            }
            sleep(span).await;
            cluster.start_worker(worker);
        }
        Trouble::WorkerFrozen => {
            cluster.freeze_worker(worker, true);
            sleep(span).await;
            cluster.freeze_worker(worker, false);
        }
        Trouble::WorkerCordoned => set_schedulable(cluster, worker, Schedulable::Cordoned).await,
        Trouble::WorkerDrained => {
            set_schedulable(cluster, worker, Schedulable::Drain { deadline: None }).await;
        }
    }
}

async fn set_schedulable(cluster: &Cluster, worker: usize, to: Schedulable) {
    let name = cluster.worker_name(worker);
    if let Some(server) = cluster.any_server() {
        let set = timeout(OPERATOR_WAIT, server.control.set_schedulable(name.clone(), to)).await;
        cluster.record.note(format!("{name} to {to:?}: {set:?}"));
    }
}

/// Nothing goes wrong from now on, and everybody is there again.
async fn calm(cluster: &Arc<Cluster>) {
    cluster.record.note("calm");
    cluster.faults.set(Rates::CALM);
    for number in 0..cluster.servers_count() {
        cluster.start_server(number).await;
        cluster.freeze_server(number, false);
    }
    for number in 0..cluster.workers_count() {
        cluster.freeze_worker(number, false);
        cluster.start_worker(number);
    }
}

/// Law 11: everything is over in bounded time.
async fn drain(cluster: &Arc<Cluster>, told: &Told, watcher: &mut Watcher, since: Instant) -> Result<(), Box<Failure>> {
    loop {
        // Troubles that had begun may still end; an operator opens all workers.
        for number in 0..cluster.workers_count() {
            set_schedulable(cluster, number, Schedulable::Open).await;
        }
        pass(cluster, watcher, Duration::from_secs(10)).await?;
        let open = watcher.open(told);
        if open.is_empty() && told.working() == 0 && cluster.held_attempts() == 0 {
            return Ok(());
        }
        if since.elapsed() > DRAIN_WITHIN {
            let (count, held, clients) = (open.len(), cluster.held_attempts(), told.working());
            let first = open.first().and_then(|id| cluster.cell.read(Query::Container(*id, None)));
            cluster.record.fail(format!(
                "law 11: after {DRAIN_WITHIN:?} {count} containers have not ended, {clients} clients wait, machines \
                 hold {held}; the first: {first:?}"
            ));
            return failed(cluster);
        }
    }
}

/// Law 11: and then nobody spins.
async fn quiet(cluster: &Cluster, watcher: &mut Watcher) -> Result<(), Box<Failure>> {
    // Sessions that died are swept, and what they held is looked at.
    pass(cluster, watcher, Duration::from_secs(120)).await?;
    let before = cluster.cell.claims();
    pass(cluster, watcher, QUIET_FOR).await?;
    let claims = cluster.cell.claims() - before;
    if claims > QUIET_CLAIMS_MAX * cluster.servers_count() as u64 {
        cluster.record.fail(format!("law 11: {claims} claims in {QUIET_FOR:?} of quiet"));
    }
    failed(cluster)
}
