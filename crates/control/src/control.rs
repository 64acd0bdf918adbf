//! A server's life: its session, its loops, and the calls of the API.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use volley_engine::FleetView;
use volley_ledger::{
    Answer, ApplyPool, Attach, AttachRefusal, CloseSession, Detach, Heartbeat, Hint, InventoryItem, OpenSession,
    Progress, Query, RemovePool, Report, Schedulable, Scope, Servers, SetSchedulable, Stop, StopReply, StopTarget,
    Submit, SubmitRefusal, SubmitReply, Sweep, Verdict, WorkerMessage,
};
use volley_metrics::ServerMetrics;
use volley_model::{
    Epoch, EventNumber, GroupId, Nonce, Pool, PoolName, PoolVersion, ScaleState, SessionId, Submission, Worker,
    WorkerId,
};
use volley_store::{MeasuredStore, Store, StoreError, StoreExt, StoreStats};

use crate::arrivals::Arrivals;
use crate::counted;
use crate::details::Details;
use crate::drain_rate::DrainRate;
use crate::rates::Rates;
use crate::streams::Streams;
use crate::turn_log::TurnLog;
use crate::turn_stats::{TurnCounts, TurnStats};
use crate::{AnsweredReport, Attached, ControlError, Delivery, Options};

/// Most reports of one store call.
const REPORTS_MAX: usize = 1_000;
/// Reports that wait; more wait at their streams.
const REPORTS_WAITING_MAX: usize = 10_000;
/// Most items of one sweep call.
const SWEEP_ITEMS_MAX: u32 = 10_000;
/// Heartbeats of all workers are gathered for this long into one store call.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Servers that come and go are looked for this often.
const SERVERS_INTERVAL: Duration = Duration::from_secs(2);
/// Hints may get lost: outboxes are looked at this often at least.
const TAKE_INTERVAL: Duration = Duration::from_secs(5);
/// A turn that is under way when the server ends has so long.
const TURN_END_WAIT: Duration = Duration::from_secs(2);
/// The store has so long to take the session's claims back.
const SESSION_END_WAIT: Duration = Duration::from_millis(500);
/// Random group ids tried before giving up: even one repeat is a chance in 2^64 per group.
const GROUP_IDS_TRIED: usize = 3;
/// Same request again after "unknown", at most so often.
pub(crate) const UNKNOWN_RETRIES: usize = 5;

type Reported = (WorkerMessage, Nonce);

/// One server: its session and its loops. Shared; ends with [`Control::shutdown`].
pub struct Control {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) delivery: Arc<dyn Delivery>,
    pub(crate) options: Options,
    pub(crate) session: AtomicU64,
    pub(crate) streams: Streams,
    pub(crate) arrivals: Arrivals,
    pub(crate) turns: TurnCounts,
    pub(crate) turn_log: TurnLog,
    pub(crate) rates: Rates,
    pub(crate) drain_rate: DrainRate,
    /// The fleet as the scale loop and the API look at it.
    pub(crate) observer: tokio::sync::Mutex<FleetView>,
    /// A turn found that something fits nowhere.
    pub(crate) scale: Notify,
    details: Details,
    outboxes: Notify,
    due: Notify,
    reports: mpsc::Sender<Reported>,
    events: watch::Sender<EventNumber>,
    /// The server is told to end: no turn begins any more.
    pub(crate) ending: watch::Sender<bool>,
    turns_end: Mutex<Option<JoinHandle<()>>>,
    loops: Mutex<Vec<JoinHandle<()>>>,
    scaling: Mutex<Option<AbortHandle>>,
}

impl Control {
    /// Opens a session and starts the loops.
    pub async fn start(
        store: Arc<dyn Store>,
        delivery: Arc<dyn Delivery>,
        options: Options,
    ) -> Result<Arc<Self>, ControlError> {
        let session = AtomicU64::new(options.random.number());
        let (reports, receiver) = mpsc::channel(REPORTS_WAITING_MAX);
        let hints = store.hints();
        let store = Arc::new(MeasuredStore::new(store, options.metrics.store.clone()));
        let control = Arc::new(Self {
            store,
            delivery,
            options,
            session,
            streams: Streams::default(),
            arrivals: Arrivals::default(),
            turns: TurnCounts::default(),
            turn_log: TurnLog::default(),
            rates: Rates::default(),
            drain_rate: DrainRate::default(),
            observer: tokio::sync::Mutex::default(),
            scale: Notify::new(),
            details: Details::default(),
            outboxes: Notify::new(),
            due: Notify::new(),
            reports,
            events: watch::channel(EventNumber(0)).0,
            ending: watch::channel(false).0,
            turns_end: Mutex::default(),
            loops: Mutex::default(),
            scaling: Mutex::default(),
        });
        control.open_session().await?;
        let mut tasks = vec![
            tokio::spawn(Arc::clone(&control).hint_loop(hints)),
            tokio::spawn(Arc::clone(&control).take_loop()),
            tokio::spawn(Arc::clone(&control).report_loop(receiver)),
            tokio::spawn(Arc::clone(&control).sweep_loop()),
            tokio::spawn(Arc::clone(&control).heartbeat_loop()),
        ];
        if control.store.take_interval().is_some() {
            tasks.push(tokio::spawn(Arc::clone(&control).servers_loop()));
        }
        if let Some(options) = control.options.scale.clone() {
            let scaling = tokio::spawn(Arc::clone(&control).scale_loop(options));
            *control.scaling.lock().unwrap_or_else(PoisonError::into_inner) = Some(scaling.abort_handle());
            tasks.push(scaling);
        }
        control.loops.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
        let turns = tokio::spawn(Arc::clone(&control).turn_loop());
        *control.turns_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(turns);
        // A restarted server looks at what waited.
        control.arrivals.add(0);
        Ok(control)
    }

    /// Buys and destroys no more machines; all else goes on.
    pub fn stop_scaling(&self) {
        if let Some(scaling) = &*self.scaling.lock().unwrap_or_else(PoisonError::into_inner) {
            scaling.abort();
        }
    }

    /// Lets the turn that is under way finish, ends the loops and gives the session's claims back.
    pub async fn shutdown(&self) {
        self.ending.send_replace(true);
        let turns = self.turns_end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut turns) = turns
            && tokio::time::timeout(TURN_END_WAIT, &mut turns).await.is_err()
        {
            // The store does not answer; what the turn claimed goes back when the session's lease ends.
            turns.abort();
        }
        for task in self.loops.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        // The store may be gone already; then the session's lease ends by itself.
        let close = self.store.call(CloseSession { session: self.session() });
        let _ = tokio::time::timeout(SESSION_END_WAIT, close).await;
    }

    pub(crate) fn random(&self) -> u64 {
        self.options.random.number()
    }

    /// A nonce for a new stream.
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        Nonce(self.random())
    }

    pub(crate) fn session(&self) -> SessionId {
        SessionId(self.session.load(Ordering::SeqCst))
    }

    pub(crate) async fn open_session(&self) -> Result<(), StoreError> {
        let open = OpenSession { session: self.session(), address: self.options.address.clone() };
        self.store.call(open).await?;
        self.options.metrics.turn.sessions.add_one();
        Ok(())
    }

    /// Accepts a submission, or gives the group that its key made before.
    pub async fn submit(&self, submission: Submission, body_digest: u128) -> Result<SubmitReply, ControlError> {
        let answer = self.submit_once(submission, body_digest).await;
        counted::on_submit(&self.options.metrics.work, &answer);
        answer
    }

    async fn submit_once(&self, submission: Submission, body_digest: u128) -> Result<SubmitReply, ControlError> {
        let mut refused = SubmitRefusal::IdTaken;
        for _ in 0..GROUP_IDS_TRIED {
            let submit = Submit { group: GroupId(self.random()), submission: submission.clone(), body_digest };
            match self.store.call(submit).await? {
                Ok(reply) => return Ok(reply),
                Err(SubmitRefusal::IdTaken) => refused = SubmitRefusal::IdTaken,
                Err(other) => return Err(self.submit_error(other)),
            }
        }
        Err(self.submit_error(refused))
    }

    /// A refusal with the wait after which the same may be accepted.
    fn submit_error(&self, refusal: SubmitRefusal) -> ControlError {
        let retry_after = match &refusal {
            SubmitRefusal::BacklogFull { waiting, limit, asked }
            | SubmitRefusal::TenantBacklogFull { waiting, limit, asked, .. } => {
                self.drain_rate.wait_for((waiting + asked).saturating_sub(*limit))
            }
            SubmitRefusal::RateExceeded { retry_after, .. } => retry_after.to_duration(),
            SubmitRefusal::KeyReused { .. } | SubmitRefusal::IdTaken => return ControlError::Submit(refusal),
        };
        ControlError::Busy { refusal, retry_after }
    }

    /// Stops a container or a group, if it is in the scope.
    pub async fn stop(&self, target: StopTarget, scope: Scope, force: bool) -> Result<StopReply, ControlError> {
        Ok(self.store.call(Stop { target, tenant: scope, force }).await??)
    }

    /// Cordons, uncordons or drains a worker.
    pub async fn set_schedulable(&self, worker: WorkerId, to: Schedulable) -> Result<(), ControlError> {
        Ok(self.store.call(SetSchedulable { worker, to }).await??)
    }

    /// Creates or changes a pool, if `expected` is still its version; `renew` forgets its failures.
    pub async fn apply_pool(
        &self,
        pool: Pool,
        expected: Option<PoolVersion>,
        renew: bool,
    ) -> Result<PoolVersion, ControlError> {
        pool.check()?;
        let version = self.store.call(ApplyPool { pool, expected, renew }).await??;
        self.scale.notify_one();
        Ok(version)
    }

    /// Removes a pool without workers and machines.
    pub async fn remove_pool(&self, pool: PoolName) -> Result<(), ControlError> {
        Ok(self.store.call(RemovePool { pool }).await??)
    }

    /// What there is of bought machines, and of demand for them.
    pub async fn machines(&self) -> Result<ScaleState, ControlError> {
        Ok(self.scale_state().await?)
    }

    /// Writes a consistent copy of the store to a new file on the server.
    pub async fn backup(&self, file: std::path::PathBuf) -> Result<(), ControlError> {
        Ok(self.store.backup(file).await?)
    }

    /// A read.
    pub async fn read(&self, query: Query) -> Result<Answer, ControlError> {
        Ok(self.store.read(query).await?)
    }

    /// The last event that is known to be there.
    #[must_use]
    pub fn events_grew(&self) -> watch::Receiver<EventNumber> {
        self.events.subscribe()
    }

    /// What can be lost by how the store is set up, in words.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.store.warnings()
    }

    /// Counts of turns so far.
    #[must_use]
    pub fn turn_stats(&self) -> TurnStats {
        self.turns.stats()
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &ServerMetrics {
        &self.options.metrics
    }

    /// As [`Control::metrics`], to keep.
    #[must_use]
    pub fn shared_metrics(&self) -> Arc<ServerMetrics> {
        Arc::clone(&self.options.metrics)
    }

    /// Streams of workers that this server holds.
    #[must_use]
    pub fn streams_held(&self) -> usize {
        self.streams.count()
    }

    /// Counts of the store so far.
    #[must_use]
    pub fn store_stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// A worker opened a stream here. It tells what it holds: attempts, and affinity keys of images, the best last.
    pub async fn attach(
        &self,
        worker: Worker,
        stream: Nonce,
        epoch: Option<Epoch>,
        (inventory, affinities): (Vec<InventoryItem>, Vec<String>),
    ) -> Result<Attached, ControlError> {
        worker.check()?;
        let (session, id, epoch_nonce) = (self.session(), worker.id.clone(), self.nonce());
        let servers = self.servers(Some(&id)).await?;
        let replaces = servers.holder.map(|(_, stream)| stream);
        let attach = Attach { session, worker, stream, replaces, epoch, epoch_nonce, inventory, affinities };
        let reply = self.call_known(attach).await?;
        self.options.metrics.work.attached.add_one([if reply.is_ok() { "attached" } else { "refused" }]);
        if matches!(reply, Err(AttachRefusal::SessionEnded)) {
            // A turn opens a new one; the worker comes again.
            self.arrivals.add(0);
        }
        let reply = reply?;
        self.streams.attach(id, stream, reply.epoch);
        let keep = reply.inventory.iter().map(|verdict| *verdict == Verdict::Keep).collect();
        Ok(Attached { epoch: reply.epoch, lease: reply.lease, keep, servers: self.told(&servers) })
    }

    /// Where workers are told that they find a server: nothing of a store that no other server can share.
    fn told(&self, servers: &Servers) -> Vec<String> {
        if self.store.take_interval().is_none() {
            return Vec::new();
        }
        let addresses = servers.live.iter().map(|(_, address)| address.clone());
        let addresses: BTreeSet<String> = addresses.filter(|address| !address.is_empty()).collect();
        addresses.into_iter().collect()
    }

    /// Tells workers when servers come and go.
    async fn servers_loop(self: Arc<Self>) {
        let mut last = Vec::new();
        loop {
            if let Ok(servers) = self.servers(None).await {
                let told = self.told(&servers);
                if told != last {
                    self.delivery.servers(&told);
                    last = told;
                }
            }
            tokio::time::sleep(SERVERS_INTERVAL).await;
        }
    }

    /// Whether a session is this server's own.
    #[must_use]
    pub fn is_session(&self, session: SessionId) -> bool {
        self.session() == session
    }

    /// The servers of the cell, and which of them holds a worker's stream.
    pub async fn servers(&self, worker: Option<&WorkerId>) -> Result<Servers, ControlError> {
        match self.store.read(Query::Servers { worker: worker.cloned() }).await? {
            Answer::Servers(servers) => Ok(*servers),
            other => unreachable!("a store answers a query with its own answer, not {other:?}"),
        }
    }

    /// The stream has its welcome and may be handed deliveries.
    pub fn stream_ready(&self, worker: &WorkerId, stream: Nonce) {
        self.streams.ready(worker, stream);
        self.outboxes.notify_one();
    }

    /// The worker is about to leave: nothing new is placed on it.
    pub async fn leaving(&self, worker: &WorkerId) -> Result<(), ControlError> {
        self.set_schedulable(worker.clone(), Schedulable::Drain { deadline: None }).await
    }

    /// The worker leaves: its lease ends now.
    pub async fn leave(&self, worker: &WorkerId, stream: Nonce) -> Result<(), ControlError> {
        self.streams.detach(worker, stream);
        self.store.call(Detach { session: self.session(), worker: worker.clone(), stream }).await?;
        Ok(())
    }

    /// The stream is closed.
    pub fn detach(&self, worker: &WorkerId, stream: Nonce) {
        self.streams.detach(worker, stream);
        self.details.forget_worker(worker);
    }

    /// A worker's message; its verdict comes by [`Delivery::answer`].
    pub async fn report(&self, stream: Nonce, message: WorkerMessage) {
        if !matches!(message.progress, Progress::Accepted) {
            self.details.forget(&message.worker, message.container);
        }
        // Closed only at shutdown; the worker repeats it to the next server.
        let _ = self.reports.send((message, stream)).await;
    }

    /// What workers connected here say of attempts that do not run yet.
    #[must_use]
    pub fn details(&self) -> &Details {
        &self.details
    }

    /// A worker's heartbeat; passed on with those of all others.
    pub fn heartbeat(&self, worker: &WorkerId, stream: Nonce, number: u64) {
        self.streams.heartbeat(worker, stream, number);
    }

    async fn hint_loop(self: Arc<Self>, mut hints: tokio::sync::broadcast::Receiver<Hint>) {
        // Where a hint can get lost, no silence is trusted for longer than this.
        let mut ticks = self.store.take_interval().map(tokio::time::interval);
        let mut incarnation = None;
        loop {
            self.compare_if_renewed(&mut incarnation);
            let hint = tokio::select! {
                hint = hints.recv() => hint,
                () = tick(&mut ticks) => Err(RecvError::Lagged(0)),
            };
            match hint {
                Ok(Hint::Ready { containers }) => self.arrivals.add(containers),
                Ok(Hint::Outbox(workers)) => {
                    self.streams.mark(&workers);
                    self.outboxes.notify_one();
                }
                Ok(Hint::Events(last)) => drop(self.events.send_replace(last)),
                Ok(Hint::Due(_)) => self.due.notify_one(),
                Err(RecvError::Lagged(_)) => {
                    self.streams.mark_all();
                    self.arrivals.add(0);
                    self.outboxes.notify_one();
                    self.due.notify_one();
                    // Whoever follows looks for events whose hint was lost.
                    self.events.send_modify(|_| {});
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// After the store was replaced or restarted its streams are closed: the workers come again with what they hold, and
    /// what the store does not know of it ends.
    fn compare_if_renewed(&self, last: &mut Option<u64>) {
        let now = self.store.incarnation();
        let renewed = last.replace(now).is_some_and(|last| last != now && last > 0);
        if !renewed {
            return;
        }
        let streams = self.streams.give_up();
        tracing::warn!(workers = streams.len(), "the store is another process than before: all workers attach anew");
        for (worker, stream) in streams {
            self.delivery.close(&worker, stream);
        }
    }

    /// Hands outboxes to streams.
    async fn take_loop(self: Arc<Self>) {
        loop {
            let asked = self.streams.to_take();
            if asked.is_empty() {
                if tokio::time::timeout(TAKE_INTERVAL, self.outboxes.notified()).await.is_err() {
                    self.streams.mark_all();
                }
                continue;
            }
            let Ok(Answer::Take(taken)) = self.store.read(Query::Take(asked)).await else {
                self.streams.mark_all();
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let taken: Vec<_> = taken.into_iter().filter(|taken| !taken.deliveries.is_empty()).collect();
            for taken in &taken {
                let last = taken.deliveries.last().expect("filtered above").number;
                self.streams.handed(&taken.worker, taken.stream, last, taken.more);
            }
            if !taken.is_empty() {
                counted::on_taken(&self.options.metrics.work, &taken);
                self.delivery.deliver(taken);
            }
        }
    }

    /// All workers' reports, as many as wait in one call.
    async fn report_loop(self: Arc<Self>, mut reports: mpsc::Receiver<Reported>) {
        let mut waiting = Vec::new();
        while reports.recv_many(&mut waiting, REPORTS_MAX).await > 0 {
            let messages: Vec<WorkerMessage> = waiting.iter().map(|(message, _)| message.clone()).collect();
            let report = Report { session: self.session(), messages };
            match self.store.call(report).await {
                Ok(verdicts) => self.answer(waiting.drain(..).zip(verdicts)),
                // The workers repeat what is not answered.
                Err(error) => tracing::warn!(%error, "reports were not taken"),
            }
            waiting.clear();
        }
    }

    fn answer(&self, verdicts: impl Iterator<Item = (Reported, Verdict)>) {
        let mut of_stream: Vec<((WorkerId, Nonce), Vec<AnsweredReport>)> = Vec::new();
        for ((message, stream), verdict) in verdicts {
            counted::on_report(&self.options.metrics.work, &message.progress, verdict);
            let progress = match message.progress {
                Progress::Accepted => 1,
                Progress::Running => 2,
                Progress::Ended(_) => 3,
            };
            let keep = verdict == Verdict::Keep;
            let answered = AnsweredReport { container: message.container, attempt: message.attempt, progress, keep };
            let key = (message.worker, stream);
            match of_stream.last_mut().filter(|(last, _)| *last == key) {
                Some((_, answers)) => answers.push(answered),
                None => of_stream.push((key, vec![answered])),
            }
        }
        for ((worker, stream), answers) in of_stream {
            self.delivery.answer(&worker, stream, answers);
        }
    }

    async fn heartbeat_loop(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(HEARTBEAT_INTERVAL);
        loop {
            ticks.tick().await;
            let beats = self.streams.heartbeats();
            let workers = beats.iter().map(|(worker, stream, epoch, _)| (worker.clone(), *stream, *epoch)).collect();
            let Ok(reply) = self.store.call(Heartbeat { session: self.session(), workers }).await else { continue };
            if !reply.session_alive {
                // The store was restarted, or this server was not heard for too long: a turn opens a new one.
                self.arrivals.add(0);
            }
            for ((worker, stream, _, number), renewed) in beats.into_iter().zip(reply.workers) {
                self.options.metrics.work.heartbeats.add_one([if renewed { "renewed" } else { "fenced" }]);
                self.delivery.heartbeat(&worker, stream, number, renewed);
                if !renewed {
                    self.streams.detach(&worker, stream);
                    self.delivery.close(&worker, stream);
                }
            }
        }
    }

    async fn sweep_loop(self: Arc<Self>) {
        loop {
            let swept = self.store.call(Sweep { session: Some(self.session()), items_max: SWEEP_ITEMS_MAX }).await;
            let left = swept.as_ref().is_ok_and(|reply| reply.left);
            let wait = match swept {
                Ok(reply) => {
                    counted::on_sweep(&self.options.metrics.work, &reply);
                    if reply.work {
                        self.arrivals.add(0);
                    }
                    if reply.more {
                        continue;
                    }
                    let due = reply.due.map(|due| due.since(reply.now).to_duration());
                    due.map_or(self.options.sweep_interval, |due| due.min(self.options.sweep_interval))
                }
                Err(_) => self.options.sweep_interval,
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait.max(Duration::from_millis(1))) => {}
                // What is due earlier is due to the one that sweeps.
                () = self.due.notified(), if !left => {}
            }
        }
    }
}

/// The next tick; never without ticks.
async fn tick(ticks: &mut Option<tokio::time::Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}
