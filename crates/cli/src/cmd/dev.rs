//! `volley dev`: a server, its store and its workers in one process, until Ctrl-C.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use volley_model::{Bytes, Capacity, CpuMilli, PoolName, Worker, WorkerId};

use crate::cmd::worker::leave;
use crate::command_error::CommandError;
use crate::fleet::{Fleet, interrupted, state_dir};
use crate::output::Format;
use crate::runtime_flags::RuntimeFlags;
use crate::server::{RunningServer, ServerFlags, StoreChoice};

/// Most workers.
const WORKERS_MAX: i64 = 256;

/// A server and its workers in one process.
#[derive(Debug, Args)]
pub struct Dev {
    /// Address to listen on; loopback only. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7171", value_name = "ADDRESS", env = "VOLLEY_LISTEN")]
    listen: SocketAddr,
    /// Folder of the store and the workers' state; one server process each.
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
    #[command(flatten)]
    flags: ServerFlags,
    #[command(flatten)]
    runtime: RuntimeFlags,
}

/// Runs until Ctrl-C or SIGTERM.
pub async fn dev(dev: &Dev, format: Format) -> Result<(), CommandError> {
    let runtimes = dev.runtime.open(&dev.data)?;
    let server = RunningServer::start(dev.listen, StoreChoice::Folder(dev.data.clone()), &dev.flags).await?;
    let mut fleet = Fleet::new(&server.access(), runtimes);
    let capacity = capacity(dev);
    let notes = volley_agent::limits_notes();
    for number in 1..=dev.workers {
        let id = WorkerId::new(&format!("dev-{number}")).map_err(|error| CommandError::Usage(error.to_string()))?;
        let (capacity, notes) = (capacity.clone(), notes.clone());
        let worker = Worker { id, pool: PoolName::default(), labels: BTreeMap::new(), capacity, notes };
        worker.check().map_err(|error| CommandError::Usage(error.to_string()))?;
        let state = state_dir(&dev.data, &worker);
        fleet.start(worker, &state)?;
    }
    fleet.attached(dev.workers.unsigned_abs()).await?;
    server.announce(&dev.data.display().to_string(), format)?;
    tokio::select! {
        error = fleet.first_to_give_up() => {
            // Why it gave up says more than that its machines are hard to end.
            let _ = server.end_machines().await;
            server.end().await;
            return Err(error);
        }
        () = interrupted() => {}
    }
    let (machines, left) = tokio::join!(server.end_machines(), leave(fleet));
    server.end().await;
    machines.and(left)
}

fn capacity(dev: &Dev) -> Capacity {
    let workers = dev.workers.unsigned_abs();
    let (cpu, memory) = volley_agent::detect();
    Capacity {
        cpu: dev.cpu.unwrap_or(CpuMilli(cpu.0 / workers)),
        memory: dev.memory.unwrap_or(Bytes(memory.0 / workers)),
        slots: dev.slots,
        gpus: Vec::new(),
    }
}
