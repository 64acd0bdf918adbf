//! Workers in this process: the same agents as `volley worker`, over the same streams. Used by
//! `worker`, `dev` and `run --local`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use volley_agent::metrics::WorkerMetrics;
use volley_agent::{KeptOptions, WorkerError, WorkerOptions};
use volley_model::{Epoch, Worker};
use volley_wire::access::ServerAccess;

use crate::command_error::CommandError;
use crate::runtime_flags::Runtimes;

/// The first argument that makes this program a keeper; not for people.
pub const KEEPER_COMMAND: &str = "__keeper";

/// Some workers of one server.
pub struct Fleet {
    access: ServerAccess,
    runtimes: Runtimes,
    tasks: JoinSet<Result<(), WorkerError>>,
    /// Of all of them together.
    pub metrics: Arc<WorkerMetrics>,
    shutdown: watch::Sender<u32>,
    attached: (mpsc::UnboundedSender<Epoch>, mpsc::UnboundedReceiver<Epoch>),
}

impl Fleet {
    /// No workers yet.
    pub fn new(access: &ServerAccess, runtimes: Runtimes) -> Self {
        let (shutdown, attached) = (watch::channel(0).0, mpsc::unbounded_channel());
        let (access, metrics) = (access.clone(), Arc::<WorkerMetrics>::default());
        runtimes.measured_by(&metrics);
        Self { access, runtimes, tasks: JoinSet::new(), metrics, shutdown, attached }
    }

    /// Starts a worker that keeps its containers' directories and output in a folder.
    pub fn start(&mut self, mut worker: Worker, state_dir: &Path) -> Result<(), CommandError> {
        let (sender, happened) = mpsc::unbounded_channel();
        self.runtimes.label(&mut worker);
        let options = KeptOptions {
            worker: worker.id.clone(),
            state_dir: state_dir.to_owned(),
            // This very program, also when its file was replaced meanwhile.
            keeper: vec!["/proc/self/exe".to_owned(), KEEPER_COMMAND.to_owned()],
        };
        let runtime = self.runtimes.start(options, sender)?;
        let options = WorkerOptions {
            server: self.access.clone(),
            worker,
            epoch_file: Some(state_dir.join("epoch.json")),
            attached: Some(self.attached.0.clone()),
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks.spawn(volley_agent::run(options, runtime, happened, self.shutdown.subscribe()));
        Ok(())
    }

    /// Waits until so many more attachments were told, or the first worker gave up.
    pub async fn attached(&mut self, count: u64) -> Result<(), CommandError> {
        for _ in 0..count {
            tokio::select! {
                _ = self.attached.1.recv() => {}
                Some(ended) = self.tasks.join_next() => return Err(gave_up(ended)),
            }
        }
        Ok(())
    }

    /// Waits for the first worker that gives up; for ever when none does.
    pub async fn first_to_give_up(&mut self) -> CommandError {
        match self.tasks.join_next().await {
            Some(ended) => gave_up(ended),
            None => std::future::pending().await,
        }
    }

    /// Asks all to end what they run, and again to kill it.
    pub fn ask_to_leave(&self) {
        self.shutdown.send_modify(|count| *count += 1);
    }

    /// Waits until all have left.
    pub async fn left(&mut self) -> Result<(), CommandError> {
        while let Some(ended) = self.tasks.join_next().await {
            if !matches!(ended, Ok(Ok(()))) {
                return Err(gave_up(ended));
            }
        }
        Ok(())
    }
}

fn gave_up(ended: Result<Result<(), WorkerError>, tokio::task::JoinError>) -> CommandError {
    match ended {
        Ok(Ok(())) => CommandError::Failed("a worker left by itself".to_owned()),
        Ok(Err(error @ WorkerError::Address { .. })) => CommandError::Usage(error.to_string()),
        Ok(Err(error @ WorkerError::Refused(_))) => CommandError::Refused(error.to_string()),
        Ok(Err(error @ WorkerError::State(_))) => CommandError::Failed(error.to_string()),
        Err(error) => CommandError::Failed(format!("a worker broke: {error}; this is a bug in volley")),
    }
}

/// Where the workers of a data folder keep their containers.
pub fn state_dir(data: &Path, worker: &Worker) -> PathBuf {
    data.join("workers").join(worker.id.as_str())
}

/// Ctrl-C and SIGTERM, from now on: none is missed between two waits.
pub struct Interrupts {
    /// `None` where no handler could be set: then the process ends as if it had none.
    signals: Option<(Signal, Signal)>,
}

impl Interrupts {
    /// Takes the place of what these signals do otherwise.
    pub fn new() -> Self {
        let terminate = signal(SignalKind::terminate());
        Self { signals: terminate.ok().zip(signal(SignalKind::interrupt()).ok()) }
    }

    /// The next one. At once when no handler could be set, rather than leaving the process deaf.
    pub async fn next(&mut self) {
        if let Some((terminate, interrupt)) = &mut self.signals {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
    }
}

/// Ends by the next Ctrl-C or SIGTERM.
pub async fn interrupted() {
    Interrupts::new().next().await;
}

/// Ends when standard input does, if it is asked to; never otherwise.
pub async fn stdin_ended(asked: bool) {
    if !asked {
        return std::future::pending().await;
    }
    let (sender, ended) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: a read of tokio's would keep the process from ending.
    std::thread::spawn(move || {
        // What comes is nobody's; an error is an end as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(sender);
    });
    let _ = ended.await;
}
