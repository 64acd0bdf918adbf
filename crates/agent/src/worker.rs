//! A worker's life: connects to a server, tells what it holds, takes orders, reports until it
//! is answered, and ends what it may not go on with when its lease ends.

mod opening;
mod orders;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use volley_metrics::WorkerMetrics;
use volley_model::{Attempt, ContainerId, Epoch, Millis, Outcome, Progress, Spec, SpecHash, Worker};
use volley_wire::access::ServerAccess;
use volley_wire::convert;
use volley_wire::proto::{self, from_worker, to_worker};

use crate::attempts::{Attempts, Key};
use crate::calls::Calls;
use crate::epoch_file::EpochFile;
use crate::link::{GrpcLink, Inbound, Link};
use crate::{Happened, Runtime};

/// Messages that wait for the connection.
const MESSAGES_MAX: usize = 64;
/// Connecting and the server's welcome take at most this.
const WELCOME_WAIT: Duration = Duration::from_secs(10);
/// Wait before the second try to connect, and the longest; doubles each time that all servers were tried.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Reports without a verdict are sent again after one to two of these.
const REPEAT_EVERY: Duration = Duration::from_secs(1);
/// A heartbeat this often at least; more often with a short lease.
const HEARTBEAT_MAX: Duration = Duration::from_secs(10);
/// Heartbeats in a lease.
const HEARTBEATS_PER_LEASE: u32 = 6;
/// A lease is no longer than this, whatever a server says: a day, as in a server's settings.
const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);
/// A server that ends is given so long to take the last message.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// The settings of a worker.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Where the server answers, with a worker's token if it asks for one.
    pub server: ServerAccess,
    /// What it is and offers.
    pub worker: Worker,
    /// Where its epoch is kept over its lives; `None` for a worker that is a new one each time.
    pub epoch_file: Option<PathBuf>,
    /// Told each time that it is attached.
    pub attached: Option<mpsc::UnboundedSender<Epoch>>,
    /// What it counts.
    pub metrics: Arc<WorkerMetrics>,
}

/// Why a worker gave up.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No address of a server.
    #[error("'{server}' is not a server's address ({problem}); give one as in http://127.0.0.1:7171")]
    Address {
        /// What was given.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// The server does not take it.
    #[error("the server refuses this worker: {0}")]
    Refused(String),
    /// Its own state cannot be read or written.
    #[error("{0}")]
    State(#[from] std::io::Error),
}

/// The right to go on: counts from the sending of the last acknowledged heartbeat, less a margin.
#[derive(Debug, Clone, Copy)]
struct Lease {
    term: Duration,
    renewed: Instant,
    ended: bool,
}

impl Lease {
    /// A tenth is left for clocks that differ and for ending what runs.
    fn deadline(&self) -> Instant {
        self.renewed + self.term * 9 / 10
    }
}

/// What ends a wait that is not about the stream.
enum Event {
    Happened(ContainerId, Attempt, Happened),
    LeaseEnded,
    Repeat,
    Shutdown,
}

/// An open stream.
struct Stream {
    out: mpsc::Sender<proto::FromWorker>,
    inbound: Inbound,
    specs: HashMap<SpecHash, Arc<Spec>>,
    heartbeats: BTreeMap<u64, Instant>,
    heartbeat_at: Instant,
    /// When its server said anything.
    heard: Instant,
}

struct Life {
    options: WorkerOptions,
    runtime: Arc<dyn Runtime>,
    happened: mpsc::UnboundedReceiver<(ContainerId, Attempt, Happened)>,
    shutdown: watch::Receiver<u32>,
    attempts: Attempts,
    /// How far attempts are that do not run yet, not told yet.
    details: BTreeMap<Key, String>,
    calls: Calls,
    epoch: EpochFile,
    lease: Option<Lease>,
    repeat_at: Instant,
    leaving: bool,
    /// A hello of this life may have been heard: then a name in use may be its own.
    greeted: bool,
    /// Said once per outage.
    complained: bool,
    /// Servers in a row that speak no version of the protocol that this worker does.
    mismatches: usize,
}

/// Runs a worker until `shutdown` has counted to 1 and all that runs has ended (a count of 2: at once).
///
/// # Errors
/// When it can never attach: a bad address, a name in use, settings that the server refuses.
pub async fn run(
    options: WorkerOptions,
    runtime: Arc<dyn Runtime>,
    happened: mpsc::UnboundedReceiver<(ContainerId, Attempt, Happened)>,
    shutdown: watch::Receiver<u32>,
) -> Result<(), WorkerError> {
    let link = GrpcLink::new(&options.server)?;
    run_over(&link, options, runtime, happened, shutdown).await
}

/// As [`run`], over any kind of link.
///
/// # Errors
/// As of [`run`].
pub async fn run_over(
    link: &dyn Link,
    options: WorkerOptions,
    runtime: Arc<dyn Runtime>,
    happened: mpsc::UnboundedReceiver<(ContainerId, Attempt, Happened)>,
    shutdown: watch::Receiver<u32>,
) -> Result<(), WorkerError> {
    let mut attempts = Attempts::new(options.metrics.attempts.clone());
    for left in runtime.adopt()? {
        // As for one that was stopped now: nobody asked the life before for it, or the server knows.
        let progress = match left.progress {
            Progress::Ended(Outcome::Stopped { .. }) => Progress::Ended(Outcome::Lost),
            progress => progress,
        };
        if attempts.accept(&left.launch, progress) {
            options.metrics.attempts.adopted.add_one();
        }
    }
    let epoch = EpochFile::open(options.epoch_file.clone())?;
    let repeat_at = Instant::now() + REPEAT_EVERY;
    let (leaving, greeted, complained) = (false, false, false);
    let mut life = Life {
        options,
        runtime,
        happened,
        shutdown,
        attempts,
        details: BTreeMap::new(),
        calls: Calls::default(),
        epoch,
        lease: None,
        repeat_at,
        leaving,
        greeted,
        complained,
        mismatches: 0,
    };
    life.run(link).await
}

impl Life {
    async fn run(&mut self, link: &dyn Link) -> Result<(), WorkerError> {
        let mut tries = 0;
        loop {
            let pause = tokio::time::sleep(link.spread(wait_after(tries, link.servers())));
            if self.meanwhile(pause).await.is_none() {
                return Ok(());
            }
            let opened = self.open(link).await?;
            tries += 1;
            if let Some(mut stream) = opened {
                (tries, self.mismatches, self.complained) = (1, 0, false);
                self.options.metrics.link.connected.set(1.0);
                let done = self.connected(&mut stream, link).await;
                self.options.metrics.link.connected.set(0.0);
                if done? {
                    return Ok(());
                }
            }
        }
    }

    fn complain(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            let server = self.options.server.server();
            tracing::warn!(server, reason, "no server takes this worker; it tries on");
        }
    }

    /// Waits for something of the connection and sees to all else meanwhile. `None` when the worker is done.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(what);
        loop {
            if self.leaving && self.attempts.to_stop().is_empty() {
                return None;
            }
            tokio::select! {
                biased;
                done = &mut what => return Some(done),
                event = self.event() => self.on_event(event),
            }
        }
    }

    /// Works until the stream breaks (false) or the worker is done (true).
    async fn connected(&mut self, stream: &mut Stream, link: &dyn Link) -> Result<bool, WorkerError> {
        if self.leaving {
            self.say_leave(&stream.out, false).await;
        }
        let mut left = self.leaving;
        let out = stream.out.clone();
        loop {
            if self.leaving && !left {
                self.say_leave(&stream.out, false).await;
                left = true;
            }
            if self.leaving && self.attempts.only_kept() {
                self.leave(stream).await;
                return Ok(true);
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(stream.heartbeat_at) => {
                    if link.servers() > 1 && self.unheard(stream) {
                        tracing::warn!("its server does not answer; it goes to another");
                        return Ok(false);
                    }
                    self.heartbeat(stream);
                }
                event = self.event() => {
                    self.on_event(event);
                    if self.lease.is_some_and(|lease| lease.ended) {
                        // Its server has let its heartbeats go unanswered: another stream, or another server, may do.
                        return Ok(false);
                    }
                }
                permit = out.reserve(), if self.attempts.has_due() || !self.details.is_empty() => {
                    let Ok(permit) = permit else { return Ok(false) };
                    if !self.attempts.has_due() {
                        permit.send(proto::FromWorker { message: Some(self.take_details()) });
                        continue;
                    }
                    let due = self.attempts.take_due();
                    self.options.metrics.link.reports.add(due.len() as u64);
                    let reports = due.iter().map(|((id, attempt), p)| convert::report_to(*id, *attempt, p)).collect();
                    let reports = from_worker::Message::Reports(proto::Reports { reports });
                    permit.send(proto::FromWorker { message: Some(reports) });
                }
                message = stream.inbound.next() => {
                    stream.heard = Instant::now();
                    match message {
                    Some(Ok(proto::ToWorker { message: Some(to_worker::Message::Servers(servers)) })) => {
                        link.on_servers(&servers.addresses);
                    }
                    Some(Ok(proto::ToWorker { message: Some(message) })) => self.on_message(message, stream),
                    // From a newer server.
                    Some(Ok(_)) => {}
                    None => return Ok(false),
                    Some(Err(status)) => {
                        tracing::info!(reason = status.message(), "the stream broke");
                        return Ok(false);
                    }
                }}
            }
        }
    }

    /// Its server says nothing, or has heard nothing of the store for so long that another may do better: what is left of
    /// the lease is for finding one.
    fn unheard(&self, stream: &Stream) -> bool {
        self.lease.is_some_and(|lease| {
            stream.heard.elapsed() > lease.term / 2 || lease.renewed.elapsed() > lease.term * 3 / 4
        })
    }

    fn heartbeat(&mut self, stream: &mut Stream) {
        let term = self.lease.map_or(HEARTBEAT_MAX, |lease| lease.term);
        let now = Instant::now();
        stream.heartbeat_at = now + heartbeat_every(term);
        let number = stream.heartbeats.last_key_value().map_or(1, |(last, _)| last + 1);
        let heartbeat = from_worker::Message::Heartbeat(proto::Heartbeat { number });
        // A connection that takes nothing renews nothing.
        if stream.out.try_send(proto::FromWorker { message: Some(heartbeat) }).is_ok() {
            self.options.metrics.link.heartbeats.add_one(["sent"]);
            stream.heartbeats.insert(number, now);
            while stream.heartbeats.len() > MESSAGES_MAX {
                stream.heartbeats.pop_first();
            }
        }
    }

    /// The next thing that is not about the stream.
    async fn event(&mut self) -> Event {
        let lease = self.lease.filter(|lease| !lease.ended).map(|lease| lease.deadline());
        let lease_end = async {
            match lease {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = lease_end => Event::LeaseEnded,
            changed = self.shutdown.changed() => match changed {
                Ok(()) => Event::Shutdown,
                // Whoever could end it is gone: it ends with the process.
                Err(_) => std::future::pending().await,
            },
            Some((container, attempt, happened)) = self.happened.recv() => {
                Event::Happened(container, attempt, happened)
            }
            () = tokio::time::sleep_until(self.repeat_at), if self.attempts.unanswered() => Event::Repeat,
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Happened(container, attempt, happened) => {
                self.on_happened((container, attempt), happened);
                // What has gathered goes into one report.
                while let Ok((container, attempt, happened)) = self.happened.try_recv() {
                    self.on_happened((container, attempt), happened);
                }
            }
            Event::LeaseEnded => {
                if let Some(lease) = &mut self.lease {
                    lease.ended = true;
                }
                self.options.metrics.link.leases_ended.add_one();
                let ending = self.attempts.to_stop();
                if !ending.is_empty() {
                    tracing::warn!(containers = ending.len(), "the lease has ended: its containers end");
                }
                for ((container, attempt), _) in ending {
                    self.stop(container, attempt, Millis(0));
                }
            }
            Event::Repeat => {
                self.options.metrics.link.repeated.add_one();
                self.attempts.repeat();
                self.repeat_at = Instant::now() + REPEAT_EVERY;
            }
            Event::Shutdown => {
                let at_once = *self.shutdown.borrow_and_update() > 1;
                self.leaving = true;
                for ((container, attempt), grace) in self.attempts.to_stop() {
                    self.stop(container, attempt, if at_once { Millis(0) } else { grace });
                }
            }
        }
    }

    fn on_happened(&mut self, key: Key, happened: Happened) {
        match happened {
            Happened::Waits(words) => drop(self.details.insert(key, words)),
            happened => {
                self.details.remove(&key);
                self.attempts.on_happened(key, happened);
            }
        }
    }

    /// How far attempts are; only the last word on each is told.
    fn take_details(&mut self) -> from_worker::Message {
        let detail = |((container, attempt), words): (Key, String)| proto::Detail {
            container: Some(convert::container_to(container)),
            attempt: Some(convert::attempt_to(attempt)),
            words,
        };
        from_worker::Message::Details(proto::Details {
            details: std::mem::take(&mut self.details).into_iter().map(detail).collect(),
        })
    }

    /// What does not run any more has told its end, or will.
    fn stop(&self, container: ContainerId, attempt: Attempt, grace: Millis) {
        let _ = self.runtime.stop(container, attempt, grace);
    }

    /// Nothing new is to come; unless some containers stay, for then the worker's place stays too.
    async fn say_leave(&self, out: &mpsc::Sender<proto::FromWorker>, gone: bool) {
        let leave = from_worker::Message::Leave(proto::Leave { gone });
        // A stream that takes nothing is found broken soon.
        let _ = tokio::time::timeout(LEAVE_WAIT, out.send(proto::FromWorker { message: Some(leave) })).await;
    }

    async fn leave(&self, stream: &mut Stream) {
        if !self.attempts.is_empty() {
            return;
        }
        self.say_leave(&stream.out, true).await;
        let closed = async { while let Some(Ok(_)) = stream.inbound.next().await {} };
        let _ = tokio::time::timeout(LEAVE_WAIT, closed).await;
    }
}

fn heartbeat_every(term: Duration) -> Duration {
    (term / HEARTBEATS_PER_LEASE).min(HEARTBEAT_MAX)
}

/// How long to wait before the next try: all servers are tried once before a wait grows.
fn wait_after(tries: usize, servers: usize) -> Duration {
    match tries {
        0 => Duration::ZERO,
        _ => RETRY_WAIT.0.saturating_mul(1 << ((tries - 1) / servers.max(1)).min(16)).min(RETRY_WAIT.1),
    }
}
