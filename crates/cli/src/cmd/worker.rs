//! `volley worker`: offers this machine's capacity to a server and runs what it places here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use volley_model::{Bytes, Capacity, CpuMilli, GpuRequest, PoolName, Worker as Offer, WorkerId};
use volley_wire::access::ServerAccess;

use crate::command_error::CommandError;
use crate::fleet::{Fleet, interrupted, stdin_ended};
use crate::output::{self, Format};
use crate::runtime_flags::RuntimeFlags;

/// A worker.
#[derive(Debug, Args)]
pub struct Worker {
    /// Its name, unique in the fleet and stable over restarts (default: the machine's).
    #[arg(long, value_name = "NAME", env = "VOLLEY_WORKER_NAME")]
    name: Option<String>,
    /// Pool it belongs to.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pool: PoolName,
    /// Labels that containers can require.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// CPU that it offers (default: what this process may use).
    #[arg(long)]
    cpu: Option<CpuMilli>,
    /// Memory that it offers (default: what this process may use).
    #[arg(long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Most containers at a time.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    slots: u32,
    /// GPUs that it offers, as in H100:8; may be given for several kinds (default: what the driver shows).
    #[arg(long = "gpu", value_name = "KIND:COUNT")]
    gpus: Vec<GpuRequest>,
    /// Folder of its containers' directories and output; one worker process each (default: .volley/workers/NAME).
    #[arg(long, value_name = "DIR", env = "VOLLEY_WORKER_STATE")]
    state: Option<PathBuf>,
    /// Show metrics at /metrics of this address; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", env = "VOLLEY_WORKER_METRICS")]
    metrics: Option<SocketAddr>,
    /// End, and what it runs, when standard input does: for a program that starts this one as its child.
    #[arg(long)]
    end_with_stdin: bool,
    #[command(flatten)]
    runtime: RuntimeFlags,
}

/// Runs until it is interrupted; then ends its containers and leaves. Interrupted again, it kills them.
pub async fn worker(flags: &Worker, access: &ServerAccess, format: Format) -> Result<(), CommandError> {
    let offer = offer(flags)?;
    let state = flags.state.clone().unwrap_or_else(|| PathBuf::from(".volley/workers").join(offer.id.as_str()));
    let name = offer.id.clone();
    let server = &access.server();
    let mut fleet = Fleet::new(access, flags.runtime.open(&state)?);
    for note in &offer.notes {
        eprintln!("note: {note}");
    }
    let shown = show_metrics(flags, &fleet).await?;
    fleet.start(offer, &state)?;
    let gave_up = async {
        fleet.attached(1).await?;
        match format {
            Format::Table => {
                eprintln!("worker {name} is attached to {server}; state in {}; Ctrl-C ends it", state.display());
                if let Some(address) = shown {
                    eprintln!("metrics at http://{address}/metrics");
                }
            }
            Format::Json => output::write_json_line(
                json!({ "worker": name, "server": server, "state": state, "metrics": shown.map(|at| format!("http://{at}/metrics")) }),
            )?,
            Format::Quiet => output::write_line(name.as_str())?,
        }
        Err(fleet.first_to_give_up().await)
    };
    tokio::select! {
        gave_up = gave_up => gave_up,
        () = interrupted() => leave(fleet).await,
        () = stdin_ended(flags.end_with_stdin) => {
            // Who started it is gone, and nobody would take its containers back: they are killed.
            fleet.ask_to_leave();
            fleet.ask_to_leave();
            fleet.left().await
        }
    }
}

/// Ends what runs and leaves; a second interrupt kills what is left.
pub async fn leave(mut fleet: Fleet) -> Result<(), CommandError> {
    fleet.ask_to_leave();
    tokio::select! {
        left = fleet.left() => return left,
        () = interrupted() => {}
    }
    fleet.ask_to_leave();
    fleet.left().await
}

fn offer(flags: &Worker) -> Result<Offer, CommandError> {
    let host = || rustix_name().unwrap_or_else(|| "worker".to_owned());
    let name = flags.name.clone().unwrap_or_else(host);
    let id = WorkerId::new(&name).map_err(|error| CommandError::Usage(format!("--name: {error}")))?;
    let mut labels = BTreeMap::new();
    for pair in &flags.labels {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| CommandError::Usage(format!("--label '{pair}' is not KEY=VALUE")))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    let (cpu, memory) = volley_agent::detect();
    let gpus = if flags.gpus.is_empty() { volley_agent::detect_gpus() } else { declared_gpus(&flags.gpus)? };
    let capacity =
        Capacity { cpu: flags.cpu.unwrap_or(cpu), memory: flags.memory.unwrap_or(memory), slots: flags.slots, gpus };
    let notes = volley_agent::limits_notes();
    let offer = Offer { id, pool: flags.pool.clone(), labels, capacity, notes };
    offer.check().map_err(|error| CommandError::Usage(error.to_string()))?;
    Ok(offer)
}

/// The machine's name.
fn rustix_name() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
}

fn declared_gpus(declared: &[GpuRequest]) -> Result<Vec<String>, CommandError> {
    let mut gpus = Vec::new();
    for request in declared {
        let volley_model::GpuKinds::Ordered(kinds) = &request.kinds else {
            return Err(CommandError::Usage("--gpu: name the kind, as in H100:8".to_owned()));
        };
        if kinds.len() != 1 || request.milli != volley_model::GPU_WHOLE {
            return Err(CommandError::Usage("--gpu: give one kind and a whole number, as in H100:8".to_owned()));
        }
        gpus.extend(std::iter::repeat_n(kinds[0].clone(), usize::from(request.count)));
    }
    Ok(gpus)
}

/// Answers at the address for metrics from now on, if one was given; the address it got.
async fn show_metrics(flags: &Worker, fleet: &Fleet) -> Result<Option<SocketAddr>, CommandError> {
    let Some(listen) = flags.metrics else { return Ok(None) };
    let shown = volley_api::serve_worker_metrics(listen, Arc::clone(&fleet.metrics)).await;
    let (address, serving) = shown.map_err(|error| CommandError::Unreachable(format!("--metrics: {error}")))?;
    tokio::spawn(serving);
    Ok(Some(address))
}
