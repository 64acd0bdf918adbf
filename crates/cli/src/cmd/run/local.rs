//! `volley run --local`: a server and a few workers in this process and a folder that goes
//! with them; what is submitted takes the same way as to a server elsewhere.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::Method;
use volley_model::{
    Bytes, Capacity, CpuMilli, GPU_DEVICES_MAX, GPU_WHOLE, GpuKinds, GpuRequest, OnUnplaceable, PoolName, PoolSelector,
    Spec, Submission, Worker, WorkerId, submission,
};
use volley_wire::client::Client;

use super::{Accepted, LOCAL_WORKERS_MAX, Run, count, end, follow, submit, summary};
use crate::cmd::worker::leave;
use crate::command_error::CommandError;
use crate::fleet::{Fleet, Interrupts, state_dir};
use crate::output::Format;
use crate::runtime_flags::Kind;
use crate::server::{RunningServer, StoreChoice};
use crate::words;

pub(super) async fn run(run: &Run, submission: &Submission, format: Format) -> Result<(), CommandError> {
    let image = submission.runs.iter().find_map(|run| run.spec.image.as_deref());
    if let Some(image) = image.filter(|_| run.runtime.runtime == Kind::Process) {
        let words =
            format!("--image {image}: workers of this process run commands; give --runtime oci as well (needs root)");
        return Err(CommandError::Usage(words));
    }
    let dir = tempfile::tempdir().map_err(|error| {
        CommandError::Failed(format!("no temporary folder ({error}); set TMPDIR to a writable one"))
    })?;
    // From here on an interrupt ends what was begun instead of leaving it behind.
    let mut interrupts = Interrupts::new();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let runtimes = run.runtime.open(dir.path())?;
    let server = RunningServer::start(listen, StoreChoice::Folder(dir.path().join("data")), &run.flags).await?;
    let mut fleet = Fleet::new(&server.access(), runtimes);
    let submission = closed(submission);
    let workers = workers(run, &submission)?;
    let slots: u64 = workers.iter().map(|worker| u64::from(worker.capacity.slots)).sum();
    let workers_count = workers.len() as u64;
    for worker in workers {
        worker.check().map_err(|error| CommandError::Usage(error.to_string()))?;
        let state = state_dir(dir.path(), &worker);
        fleet.start(worker, &state)?;
    }
    fleet.attached(workers_count).await?;
    if format == Format::Table {
        eprintln!(
            "{} in this process with {} (virtual: declared, whatever the machine has)",
            words::count(workers_count, "worker", "workers"),
            words::count(slots, "slot", "slots"),
        );
    }
    let client = Client::new(&server.access())?;
    let done = async {
        let after = follow::last_event(&client).await?;
        let (group, repeated) = submit(&client, &submission, run.patience).await?;
        let accepted = Accepted { group, count: count(&submission), after, repeated };
        let followed = follow::follow(&client, &accepted, run.patience, format, &mut interrupts).await?;
        let summary = summary::Summary::of(&client, &accepted.group).await?;
        summary.write(Some(&server.control.turn_stats()), format)?;
        check_laws(&client).await?;
        Ok::<_, CommandError>((followed, summary))
    };
    let done = done.await;
    let left = leave(fleet).await;
    server.end().await;
    let (followed, summary) = done?;
    left?;
    end(&followed, &summary)
}

/// Whatever the burst was, every law of the ledger must hold in the end.
async fn check_laws(client: &Client) -> Result<(), CommandError> {
    let audit = client.json(Method::GET, "/v1/audit", None).await?;
    if audit["ok"] == true {
        return Ok(());
    }
    Err(CommandError::Failed(format!("laws are broken: {}; this is a bug in volley", audit["violations"])))
}

/// Nobody can add a worker to a fleet in this process: what can never be placed fails.
fn closed(submission: &Submission) -> Submission {
    let mut submission = submission.clone();
    for run in &mut submission.runs {
        Arc::make_mut(&mut run.spec).on_unplaceable = OnUnplaceable::Fail;
    }
    submission
}

/// Where some of the containers can run: a pool, labels, and whether GPUs are there.
type Place = (PoolName, BTreeMap<String, String>, bool);

fn place_of(spec: &Spec) -> Place {
    let pool = match &spec.pool {
        PoolSelector::Any => PoolName::default(),
        PoolSelector::Preferred(name) | PoolSelector::Required(name) => name.clone(),
    };
    (pool, spec.require_labels.clone(), spec.resources.gpu.is_some())
}

/// The local workers: some for each place, with room for its containers.
fn workers(run: &Run, submission: &Submission) -> Result<Vec<Worker>, CommandError> {
    let mut places: BTreeMap<Place, Vec<&submission::Run>> = BTreeMap::new();
    for part in &submission.runs {
        places.entry(place_of(&part.spec)).or_default().push(part);
    }
    // A place without a worker could never run anything.
    let asked = usize::try_from(run.workers).unwrap_or(1).max(places.len());
    if asked > LOCAL_WORKERS_MAX as usize {
        let problem =
            format!("{} pools and labels are asked for; --local has at most {LOCAL_WORKERS_MAX}", places.len());
        return Err(CommandError::Usage(problem));
    }
    let (each, more) = (asked / places.len().max(1), asked % places.len().max(1));
    let mut workers = Vec::new();
    for (index, ((pool, labels, _), parts)) in places.into_iter().enumerate() {
        let of_place = each + usize::from(index < more);
        let capacity = capacity(run, &parts, of_place);
        for _ in 0..of_place {
            let id = WorkerId::new(&format!("local-{}", workers.len() + 1));
            let id = id.map_err(|error| CommandError::Usage(error.to_string()))?;
            let notes = vec!["virtual slots: capacity is declared, whatever the machine has".to_owned()];
            let (pool, labels, capacity) = (pool.clone(), labels.clone(), capacity.clone());
            workers.push(Worker { id, pool, labels, capacity, notes });
        }
    }
    Ok(workers)
}

/// What one of so many workers offers: room for its part of the containers.
fn capacity(run: &Run, parts: &[&submission::Run], workers: usize) -> Capacity {
    let mut offered = Capacity { cpu: CpuMilli(0), memory: Bytes(0), slots: 0, gpus: Vec::new() };
    for part in parts {
        let share = part.count.div_ceil(u32::try_from(workers).unwrap_or(1));
        let room = run.per_worker.unwrap_or(share);
        let (times, resources) = (u64::from(room), &part.spec.resources);
        offered.cpu = CpuMilli((offered.cpu.0 + resources.cpu.0 * times).min(submission::CPU_MAX.0));
        offered.memory = Bytes((offered.memory.0 + resources.memory.0 * times).min(submission::MEMORY_MAX.0));
        offered.slots = (offered.slots + room).min(submission::SLOTS_MAX);
        if let Some(gpu) = &resources.gpu {
            offered.gpus.extend(devices(gpu, times));
        }
    }
    offered.gpus.truncate(GPU_DEVICES_MAX);
    offered
}

/// Devices for so many containers with one request.
fn devices(gpu: &GpuRequest, times: u64) -> Vec<String> {
    let kind = match &gpu.kinds {
        // Any name that a device can have.
        GpuKinds::Any => "local",
        GpuKinds::Ordered(kinds) => kinds[0].as_str(),
    };
    let per_device = (GPU_WHOLE.0 / gpu.milli.0).max(1);
    let devices = (times * u64::from(gpu.count)).div_ceil(per_device).min(GPU_DEVICES_MAX as u64);
    vec![kind.to_owned(); usize::try_from(devices).unwrap_or(GPU_DEVICES_MAX)]
}
