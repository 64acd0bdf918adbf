//! The servers and workers of a run: started, killed, frozen and thawed.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use volley_agent::{WorkerOptions, run_over};
use volley_api::WorkerStreams;
use volley_control::{Control, Options, Random};
use volley_model::Worker;

use crate::cell::Cell;
use crate::chance::Chance;
use crate::faults::Faults;
use crate::link::{RESTART_WAIT, SimLink, Wire};
use crate::machine::{Floor, Machine};
use crate::record::Record;
use crate::server_store::{HintSenders, ServerStore};

/// One life of a server.
pub(crate) struct Server {
    pub(crate) control: Arc<Control>,
    pub(crate) streams: Arc<WorkerStreams>,
    store: Arc<ServerStore>,
    wires: Mutex<Vec<Wire>>,
}

impl Server {
    pub(crate) fn hold_wire(&self, wire: &Wire) {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner).push(wire.clone());
    }

    fn cut_wires(&self) {
        for wire in self.wires.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            wire.cut();
        }
    }
}

/// A worker's place: its machine, and its present life.
struct Place {
    worker: Worker,
    machine: Machine,
    epoch_file: PathBuf,
    freezer: Arc<Freezer>,
    life: Option<AbortHandle>,
    lives: u32,
}

/// All of them.
pub(crate) struct Cluster {
    pub(crate) cell: Cell,
    pub(crate) chance: Chance,
    pub(crate) faults: Faults,
    pub(crate) record: Record,
    pub(crate) floor: Floor,
    options: Options,
    hints: HintSenders,
    servers: Mutex<Vec<Option<Arc<Server>>>>,
    places: Mutex<Vec<Place>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    pub(crate) fn new(
        cell: Cell,
        faults: Faults,
        floor: Floor,
        record: Record,
        chances: (Chance, Chance),
        (options, servers): (Options, usize),
    ) -> Self {
        let (chance, ids) = chances;
        let options = Options { random: Random::of(move || ids.number()), ..options };
        let hints = HintSenders::new(Mutex::new(vec![None; servers]));
        let servers = Mutex::new(vec![None; servers]);
        Self { cell, chance, faults, record, floor, options, hints, servers, places: Mutex::default() }
    }

    /// A server that is alive, by chance.
    pub(crate) fn any_server(&self) -> Option<Arc<Server>> {
        let servers = held(&self.servers);
        let alive: Vec<_> = servers.iter().flatten().collect();
        (!alive.is_empty()).then(|| Arc::clone(alive[self.chance.index(alive.len())]))
    }

    pub(crate) fn servers_count(&self) -> usize {
        held(&self.servers).len()
    }

    /// Starts a server, trying on while the store does not let it; nothing when it is alive.
    pub(crate) async fn start_server(&self, number: usize) {
        if held(&self.servers)[number].is_some() {
            return;
        }
        let (cell, chance, faults) = (self.cell.clone(), self.chance.clone(), self.faults.clone());
        let store = Arc::new(ServerStore::new(number, cell, chance, faults, Arc::clone(&self.hints)));
        let streams = Arc::new(WorkerStreams::default());
        let options = Options { address: format!("server-{number}"), ..self.options.clone() };
        let control = loop {
            let delivery = Arc::clone(&streams) as Arc<_>;
            match Control::start(Arc::clone(&store) as Arc<_>, delivery, options.clone()).await {
                Ok(control) => break control,
                Err(error) => self.record.note(format!("server {number} does not start: {error}")),
            }
            sleep(Duration::from_millis(200)).await;
        };
        self.record.note(format!("server {number} starts"));
        held(&self.servers)[number] = Some(Arc::new(Server { control, streams, store, wires: Mutex::default() }));
    }

    /// kill -9.
    pub(crate) async fn kill_server(&self, number: usize) {
        let Some(server) = held(&self.servers)[number].take() else { return };
        self.record.note(format!("server {number} is killed"));
        server.store.freeze(false);
        server.store.die();
        server.cut_wires();
        // Its loops end; its last words do not reach the store.
        server.control.shutdown().await;
        server.streams.close_all();
    }

    /// SIGSTOP and SIGCONT.
    pub(crate) fn freeze_server(&self, number: usize, frozen: bool) {
        if let Some(server) = &held(&self.servers)[number] {
            self.record.note(format!("server {number} frozen: {frozen}"));
            server.store.freeze(frozen);
        }
    }

    pub(crate) fn cut_server(&self, number: usize) {
        if let Some(server) = &held(&self.servers)[number] {
            self.record.note(format!("server {number} loses its connections"));
            server.cut_wires();
        }
    }

    pub(crate) fn add_worker(&self, worker: Worker, epoch_file: PathBuf) {
        let machine = Machine::new(worker.id.clone(), self.floor.clone(), self.chance.clone(), self.record.clone());
        let place = Place { worker, machine, epoch_file, freezer: Arc::default(), life: None, lives: 0 };
        held(&self.places).push(place);
    }

    pub(crate) fn workers_count(&self) -> usize {
        held(&self.places).len()
    }

    pub(crate) fn worker_name(&self, number: usize) -> volley_model::WorkerId {
        held(&self.places)[number].worker.id.clone()
    }

    /// Starts a worker; nothing when it is alive.
    pub(crate) fn start_worker(self: &Arc<Self>, number: usize) {
        let mut places = held(&self.places);
        let place = &mut places[number];
        if place.life.is_some() {
            return;
        }
        place.lives += 1;
        self.record.note(format!("{} starts", place.worker.id));
        let (told, happened) = mpsc::unbounded_channel();
        place.machine.worker_starts(told);
        let options = WorkerOptions {
            server: Default::default(),
            worker: place.worker.clone(),
            epoch_file: Some(place.epoch_file.clone()),
            attached: None,
            metrics: Arc::default(),
        };
        place.freezer = Arc::default();
        let (freezer, machine) = (Arc::clone(&place.freezer), place.machine.clone());
        let (cluster, life) = (Arc::clone(self), place.lives);
        let task = tokio::spawn(async move {
            let link = SimLink { cluster: Arc::clone(&cluster) };
            // Dropped with this life: a worker is not asked to leave here.
            let (_shutdown, asked) = watch::channel(0);
            let lived = freezer.run(run_over(&link, options, Arc::new(machine), happened, asked)).await;
            if let Err(error) = lived {
                cluster.record.note(format!("worker {number} gives up: {error}"));
            }
            sleep(RESTART_WAIT).await;
            cluster.restart_worker(number, life);
        });
        place.life = Some(task.abort_handle());
    }

    /// Whoever looks after workers starts one again that ended by itself.
    fn restart_worker(self: &Arc<Self>, number: usize, life: u32) {
        let ended = {
            let mut places = held(&self.places);
            let place = &mut places[number];
            let same = place.lives == life && place.life.is_some();
            if same {
                place.life = None;
                place.machine.unwatched(true);
            }
            same
        };
        if ended {
            self.start_worker(number);
        }
    }

    /// kill -9: what its containers do goes on.
    pub(crate) fn kill_worker(&self, number: usize) {
        let mut places = held(&self.places);
        let place = &mut places[number];
        self.record.note(format!("{} is killed", place.worker.id));
        if let Some(life) = place.life.take() {
            life.abort();
        }
        place.machine.unwatched(true);
    }

    /// A machine dies and all that runs on it; `lost`: another takes its place and name.
    pub(crate) fn kill_machine(&self, number: usize, lost: bool) {
        self.kill_worker(number);
        let places = held(&self.places);
        self.record.note(format!("its machine dies; lost: {lost}"));
        places[number].machine.power_off(lost);
        if lost {
            // It may not be there yet.
            let _ = std::fs::remove_file(&places[number].epoch_file);
        }
    }

    /// SIGSTOP and SIGCONT.
    pub(crate) fn freeze_worker(&self, number: usize, frozen: bool) {
        let places = held(&self.places);
        let place = &places[number];
        self.record.note(format!("{} frozen: {frozen}", place.worker.id));
        place.machine.unwatched(false);
        place.freezer.set(frozen);
    }

    /// Attempts that machines hold and nobody has acknowledged the end of.
    pub(crate) fn held_attempts(&self) -> usize {
        held(&self.places).iter().map(|place| place.machine.held().len()).sum()
    }
}

/// Stops a future from being polled.
#[derive(Default)]
struct Freezer {
    frozen: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Freezer {
    fn set(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
        if !frozen && let Some(waker) = held(&self.waker).take() {
            waker.wake();
        }
    }

    async fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|context| {
            if self.frozen.load(Ordering::SeqCst) {
                *held(&self.waker) = Some(context.waker().clone());
                return Poll::Pending;
            }
            future.as_mut().poll(context)
        })
        .await
    }
}
