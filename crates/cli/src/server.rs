//! A server in this process: store, loops and port, wired together, and its end in the right
//! order. Used by `serve`, `dev` and `run --local`.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use volley_api::{ApiOptions, Server, TlsFiles, WorkerStreams};
use volley_control::pools::{Lifeline, Lifetime, ProcessOptions, ProcessProvisioner, Provisioners};
use volley_control::{Control, ControlError, NewToken, Options, Profile, Random, ScaleOptions, has_admin};
use volley_ledger::LedgerOptions;
use volley_model::{Millis, Role, TenantName};
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore};
use volley_store::redis::{RedisOptions, RedisTls};
use volley_store::{Store, StoreError};
use volley_wire::access::ServerAccess;

use crate::command_error::CommandError;
use crate::output::{self, Format};
use crate::shared_store;

/// Where a server keeps its state.
#[derive(Debug, Clone)]
pub enum StoreChoice {
    /// In a folder of its own.
    Folder(PathBuf),
    /// In Redis or Valkey, together with other servers.
    Redis {
        /// Of the server.
        url: String,
        /// Which cell there.
        cell: String,
        /// Whom to trust, for `rediss://`.
        tls: RedisTls,
        /// How long one that does not answer yet is waited for.
        patience: Duration,
    },
}

impl StoreChoice {
    async fn open(self, ledger: LedgerOptions) -> Result<Arc<dyn Store>, CommandError> {
        let cannot = |error: &dyn std::fmt::Display| CommandError::Unreachable(error.to_string());
        match self {
            Self::Folder(data) => {
                let options = EmbeddedOptions { ledger, ..EmbeddedOptions::new(data) };
                Ok(Arc::new(EmbeddedStore::open(options).map_err(|error| cannot(&error))?))
            }
            Self::Redis { url, cell, tls, patience } => {
                let options = RedisOptions { ledger, cell, tls, ..RedisOptions::new(&url) };
                Ok(Arc::new(shared_store::open(options, patience).await?))
            }
        }
    }

    /// Where the first admin's token is written: beside the data, or for a shared cell in the current folder.
    fn admin_token_file(&self) -> PathBuf {
        match self {
            Self::Folder(data) => data.join(ADMIN_FILE),
            Self::Redis { .. } => PathBuf::from(ADMIN_FILE),
        }
    }

    /// Where processes that a pool starts on this machine have their folders.
    fn folder(&self) -> PathBuf {
        match self {
            Self::Folder(data) => data.clone(),
            Self::Redis { cell, .. } => std::env::temp_dir().join(format!("volley-{cell}")),
        }
    }

    /// For people; never with a password.
    pub fn name(&self) -> String {
        match self {
            Self::Folder(data) => data.display().to_string(),
            Self::Redis { url, cell, .. } => format!("{} (cell {cell})", volley_store::redis::without_secret(url)),
        }
    }
}

/// Requests that are under way when a server ends have so long.
const END_WAIT: Duration = Duration::from_secs(2);

/// How batches are gathered.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Batching {
    /// 10 ms, at most 20 containers.
    Latency,
    /// 50 ms, at most 100.
    Balanced,
    /// 100 ms, at most 200.
    Throughput,
    /// No fixed wait: what gathered while the last batch committed, at most 1,000.
    Auto,
}

/// The flags of every command that starts a server.
#[derive(Debug, Clone, Args)]
pub struct ServerFlags {
    /// Batch window and size in one word.
    #[arg(long, value_enum, default_value = "auto", env = "VOLLEY_PROFILE")]
    profile: Batching,
    /// Most containers of a batch; 1 is one-at-a-time scheduling.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_size: Option<u32>,
    /// A batch closes so long after its first container.
    #[arg(long, value_name = "TIME")]
    window: Option<Millis>,
    /// The best waiting container of a pool gets room held for it after this wait.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    hold_after: Millis,
    /// A worker that is silent for so long is lost.
    #[arg(long, value_name = "TIME", default_value = "60s", env = "VOLLEY_WORKER_LEASE")]
    worker_lease: Millis,
    /// What a server that died had claimed goes back to the queue after this.
    #[arg(long, value_name = "TIME", default_value = "15s")]
    session_lease: Millis,
    /// Most containers that may wait.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    backlog_max: u64,
    /// Most finished containers that are kept.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    keep_finished: u64,
    /// How long finished containers are kept.
    #[arg(long, value_name = "TIME", default_value = "168h")]
    keep_finished_for: Millis,
    /// Most events that are kept.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    keep_events: u64,
    /// How long events are kept.
    #[arg(long, value_name = "TIME", default_value = "168h")]
    keep_events_for: Millis,
}

/// The settings of a profile, with what was said besides.
pub fn batching(profile: Batching, max_size: Option<u32>, window: Option<Millis>) -> Options {
    let mut options = Options::of_profile(match profile {
        Batching::Latency => Profile::Latency,
        Batching::Balanced => Profile::Balanced,
        Batching::Throughput => Profile::Throughput,
        Batching::Auto => Profile::Auto,
    });
    options.max_size = max_size.unwrap_or(options.max_size);
    if let Some(window) = window {
        options.window = window.to_duration();
        options.pause = options.window / 10;
    }
    options
}

impl ServerFlags {
    fn control(&self) -> Options {
        Options { hold_after: self.hold_after, ..batching(self.profile, self.max_size, self.window) }
    }

    fn ledger(&self) -> Result<LedgerOptions, CommandError> {
        for (flag, lease) in [("--worker-lease", self.worker_lease), ("--session-lease", self.session_lease)] {
            if !(Millis(1_000)..=Millis::from_secs(24 * 3600)).contains(&lease) {
                return Err(CommandError::Usage(format!("{flag}: give 1s to 24h")));
            }
        }
        Ok(LedgerOptions {
            worker_lease: self.worker_lease,
            session_lease: self.session_lease,
            backlog_max: self.backlog_max,
            finished_containers_max: self.keep_finished,
            finished_age_max: self.keep_finished_for,
            events_max: self.keep_events,
            events_age_max: self.keep_events_for,
            ..LedgerOptions::default()
        })
    }
}

/// Who may reach a server, and how. By default anybody on this machine, without a token.
#[derive(Debug, Default)]
pub struct Guard {
    /// Every call needs a token.
    pub tokens: bool,
    /// TLS instead of plain connections.
    pub tls: Option<TlsFiles>,
    /// Whatever that opens.
    pub insecure: bool,
    /// Where other servers and workers reach this one, if not where it listens.
    pub advertise: Option<String>,
    /// How other servers of the cell are reached.
    pub peers: ServerAccess,
}

/// Where the secret of the first admin's token is written, in the data folder.
const ADMIN_FILE: &str = "admin.token";

/// A server that asks for tokens needs one to begin with: it is made when there never was one, and written where only
/// the owner of the data can read it.
async fn first_admin(store: &dyn Store, file: &Path) -> Result<(), CommandError> {
    if has_admin(store).await? {
        return Ok(());
    }
    let new = NewToken {
        tenant: TenantName::default(),
        role: Role::Admin,
        note: Some("made at the first start with tokens".to_owned()),
        expires_in: None,
    };
    let cannot = |error: std::io::Error| CommandError::Unreachable(format!("cannot write {}: {error}", file.display()));
    // The file first: a secret that is written nowhere helps nobody.
    let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    let mut opened = opened.map_err(cannot)?;
    let (_, secret) = volley_control::create_token(store, &Random::default(), &new).await?;
    std::io::Write::write_all(&mut opened, format!("{secret}\n").as_bytes()).map_err(cannot)?;
    opened.sync_all().map_err(cannot)?;
    eprintln!("an admin's token was made; its secret is in {}", file.display());
    Ok(())
}

/// A server that answers.
pub struct RunningServer {
    /// Where, as in `http://127.0.0.1:7171`.
    pub url: String,
    /// Its loops.
    pub control: Arc<Control>,
    processes: ProcessProvisioner,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
    /// Makes and sends traces, where they are wanted.
    tracing: Option<JoinHandle<()>>,
}

impl RunningServer {
    /// Opens the store, starts the loops and answers whoever is on this machine. Machines that are processes end with
    /// this one.
    pub async fn start(listen: SocketAddr, store: StoreChoice, flags: &ServerFlags) -> Result<Self, CommandError> {
        let lifeline = Lifeline::new().map_err(|error| CommandError::Failed(format!("cannot open a pipe: {error}")))?;
        let lifetime = Lifetime::OfServer(Arc::new(lifeline));
        Self::start_guarded(listen, store, flags, Guard::default(), lifetime).await
    }

    /// Opens the store, starts the loops and answers.
    pub async fn start_guarded(
        listen: SocketAddr,
        store: StoreChoice,
        flags: &ServerFlags,
        guard: Guard,
        lifetime: Lifetime,
    ) -> Result<Self, CommandError> {
        let cannot = |error: &dyn std::fmt::Display| CommandError::Unreachable(error.to_string());
        let ledger = flags.ledger()?;
        let traces = volley_traces::Export::from_env().map_err(|error| CommandError::Usage(error.to_string()))?;
        // The port first: it is the cheaper of the two to find taken.
        let Guard { tokens, tls, insecure, advertise, peers } = guard;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = Server::bind(&ApiOptions { listen, tokens, tls, insecure, peers }).await;
        let server = server.map_err(|error| cannot(&error))?;
        let bound = server.address().map_err(|error| cannot(&error))?;
        let url = format!("{scheme}://{bound}");
        // Where it listens on all addresses there is none to tell.
        let reached = (!bound.ip().is_unspecified()).then(|| url.clone());
        let address = advertise.or(reached).unwrap_or_default();
        if address.is_empty() && matches!(store, StoreChoice::Redis { .. }) {
            eprintln!("warning: other servers cannot reach this one at {url}; say where they can by --advertise");
        }
        let token_file = store.admin_token_file();
        let machines = std::path::absolute(store.folder()).map_err(|error| cannot(&error))?.join("machines");
        // This very program, also when its file was replaced meanwhile.
        let program = vec!["/proc/self/exe".to_owned()];
        let processes = ProcessOptions { program, server: url.clone(), state_dir: machines, lifetime };
        let processes = ProcessProvisioner::new(processes);
        let provisioners = Provisioners::with_process(Arc::new(processes.clone()), &url);
        let store = store.open(ledger).await?;
        if tokens {
            first_admin(&*store, &token_file).await?;
        }
        let streams = Arc::new(WorkerStreams::default());
        let scale = Some(ScaleOptions::new(provisioners));
        let options = Options { address, scale, ..flags.control() };
        let control = Control::start(store, Arc::clone(&streams) as Arc<_>, options).await?;
        let tracing = traces.map(|export| tokio::spawn(volley_traces::follow(Arc::clone(&control), export)));
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            // Dropped is as good as told.
            let _ = stopped.await;
        };
        let serving = tokio::spawn(server.serve(Arc::clone(&control), streams, shutdown));
        Ok(Self { url, control, processes, stop, serving, tracing })
    }

    /// How this process reaches it.
    pub fn access(&self) -> ServerAccess {
        ServerAccess::open(&self.url)
    }

    /// Says that it answers, and where.
    pub fn announce(&self, data: &str, format: Format) -> Result<(), CommandError> {
        match format {
            Format::Table => eprintln!("volley answers at {}; data in {data}; Ctrl-C ends it", self.url),
            Format::Json => output::write_json_line(json!({ "address": self.url, "data": data }))?,
            Format::Quiet => output::write_line(&self.url)?,
        }
        Ok(())
    }

    /// Buys no more machines, and ends those that are processes of this machine: while the server answers they can say
    /// what became of their containers.
    pub async fn end_machines(&self) -> Result<(), CommandError> {
        self.control.stop_scaling();
        self.processes.end_all().await.map_err(|error| CommandError::Failed(format!("cannot end machines: {error}")))
    }

    /// Takes no more requests, gives what is under way a moment, and hands the claims back.
    pub async fn end(self) {
        let _ = self.stop.send(());
        let abort = self.serving.abort_handle();
        if tokio::time::timeout(END_WAIT, self.serving).await.is_err() {
            // Readers of event streams never end by themselves.
            abort.abort();
        }
        if let Some(tracing) = self.tracing {
            tracing.abort();
        }
        self.control.shutdown().await;
    }
}

impl From<ControlError> for CommandError {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::Invalid(_) => CommandError::Usage(error.to_string()),
            ControlError::Submit(_)
            | ControlError::Busy { .. }
            | ControlError::Attach(_)
            | ControlError::Token(_)
            | ControlError::Tenant(_)
            | ControlError::ApplyPool(_)
            | ControlError::RemovePool(_) => CommandError::Refused(error.to_string()),
            ControlError::NotFound(_) | ControlError::Store(_) => CommandError::Server(error.to_string()),
        }
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        CommandError::Server(error.to_string())
    }
}
