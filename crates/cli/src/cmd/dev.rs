//! `volley dev`: a server, its store and its workers in one process, until Ctrl-C.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use volley_api::{ApiOptions, Server};
use volley_control::{Control, Options, Profile};
use volley_model::{Bytes, Capacity, CpuMilli, Nonce, PoolName, Worker, WorkerId};
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore};

use crate::command_error::CommandError;
use crate::local::LocalWorkers;

/// Most workers.
const WORKERS_MAX: i64 = 256;

/// How batches are gathered.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Batching {
    /// 10 ms, at most 20 containers.
    Latency,
    /// 50 ms, at most 100.
    Balanced,
    /// 100 ms, at most 200.
    Throughput,
    /// No fixed wait: what gathered while the last batch committed, at most 1,000.
    Auto,
}

/// A server and its workers in one process.
#[derive(Debug, Args)]
pub struct Dev {
    /// Address to listen on; loopback only. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7171", value_name = "ADDRESS", env = "VOLLEY_LISTEN")]
    listen: SocketAddr,
    /// Folder of the store; one server process each.
    #[arg(long, default_value = ".volley", value_name = "DIR", env = "VOLLEY_DATA")]
    data: PathBuf,
    /// How many workers.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=WORKERS_MAX))]
    workers: i64,
    /// CPU that each worker offers (default: its part of the machine's).
    #[arg(long)]
    cpu: Option<CpuMilli>,
    /// Memory that each worker offers (default: its part of the machine's).
    #[arg(long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Most containers of each worker at a time.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    slots: u32,
    /// Batch window and size in one word.
    #[arg(long, value_enum, default_value = "auto", env = "VOLLEY_PROFILE")]
    profile: Batching,
    /// Most containers of a batch; 1 is one-at-a-time scheduling.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_size: Option<u32>,
}

/// Runs until Ctrl-C or SIGTERM.
pub fn dev(dev: &Dev) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::Failed(format!("cannot start threads: {error}")))?;
    runtime.block_on(serve(dev))
}

async fn serve(dev: &Dev) -> Result<(), CommandError> {
    let cannot = |error: &dyn std::fmt::Display| CommandError::Unreachable(error.to_string());
    let server = Server::bind(&ApiOptions { listen: dev.listen }).await.map_err(|error| cannot(&error))?;
    let store = EmbeddedStore::open(EmbeddedOptions::new(dev.data.clone())).map_err(|error| cannot(&error))?;
    let address = server.address().map_err(|error| cannot(&error))?;
    let fleet = Arc::new(LocalWorkers::default());
    let mut options = Options::of_profile(match dev.profile {
        Batching::Latency => Profile::Latency,
        Batching::Balanced => Profile::Balanced,
        Batching::Throughput => Profile::Throughput,
        Batching::Auto => Profile::Auto,
    });
    options.address = format!("http://{address}");
    options.max_size = dev.max_size.unwrap_or(options.max_size);
    let control = Control::start(Arc::new(store), Arc::clone(&fleet) as Arc<_>, options).await?;
    fleet.connect(&control);
    let capacity = capacity(dev);
    for number in 1..=dev.workers {
        let worker = Worker {
            id: WorkerId::new(&format!("dev-{number}")).map_err(|error| cannot(&error))?,
            pool: PoolName::default(),
            labels: BTreeMap::new(),
            capacity: capacity.clone(),
            notes: vec!["limits of CPU and memory are counted, not enforced".to_owned()],
        };
        fleet.attach(worker, Nonce(rand::random()), &dev.data.join("workers")).await?;
    }
    eprintln!("volley answers at http://{address}; data in {}; Ctrl-C ends it", dev.data.display());
    let (signals, mut ended) = (signals(), tokio::sync::oneshot::channel::<()>());
    let shutdown = async move {
        signals.await;
        // Long reads of events do not hold the end up.
        ended.0.send(()).ok();
    };
    let serving = server.serve(Arc::clone(&control), fleet, shutdown);
    tokio::select! {
        served = serving => served.map_err(|error| cannot(&error))?,
        _ = &mut ended.1 => {}
    }
    control.shutdown().await;
    Ok(())
}

async fn signals() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        // A handler that cannot be set ends the server rather than leaving it deaf.
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn capacity(dev: &Dev) -> Capacity {
    let workers = dev.workers.unsigned_abs();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    Capacity {
        cpu: dev.cpu.unwrap_or(CpuMilli(cores * 1000 / workers)),
        memory: dev.memory.unwrap_or(Bytes(memory_total() / workers)),
        slots: dev.slots,
        gpus: Vec::new(),
    }
}

/// The machine's memory in bytes, as `/proc/meminfo` says; 1 GiB when it does not.
fn memory_total() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
    kib.map_or(1 << 30, |kib| kib * 1024)
}
