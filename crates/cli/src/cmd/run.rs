//! `volley run`: submit, show progress and output, end with the containers' result. With
//! `--local` server and workers are in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use volley_api::Logs;
use volley_control::{Control, ControlError, Options, Profile};
use volley_ledger::{Answer, ContainerRecord, EventKind, ListQuery, Query, StopTarget};
use volley_model::{
    Bytes, Capacity, ContainerId, ContainerState, CpuMilli, EventNumber, GPU_WHOLE, GpuKinds, GpuRequest, GroupId,
    Millis, Nonce, OnUnplaceable, Outcome, PoolName, Retry, RetryOn, Spec, Submission, SubmissionBody, TenantName,
    Worker, WorkerId,
};
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore};
use volley_store::{Store, StoreError};
use volley_wire::client::Client;

use crate::command_error::{CommandError, INTERRUPTED};
use crate::local::LocalWorkers;
use crate::output::{self, Format};
use crate::words;

/// Most events of one read.
const EVENTS_MAX: u32 = 10_000;
/// Most containers of one page.
const PAGE_MAX: u32 = 1_000;
/// Most local workers.
const LOCAL_WORKERS_MAX: i64 = 256;
/// Wait after the first failure, and the longest, of `--retry`.
const RETRY_BACKOFF: (Millis, Millis) = (Millis(100), Millis(10_000));

/// Submit containers, show their progress and output, end with their result.
#[derive(Debug, Args)]
pub struct Run {
    /// Server and workers in this process, with room for all containers at once (virtual slots).
    #[arg(long)]
    local: bool,
    /// How many containers.
    #[arg(short = 'n', long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    count: i64,
    /// CPU of each, as in 500m or 0.5.
    #[arg(long, default_value = "100m")]
    cpu: CpuMilli,
    /// Memory of each, as in 128Mi.
    #[arg(long, default_value = "32Mi", value_name = "BYTES")]
    memory: Bytes,
    /// GPUs of each, as in H100:2, A10G:0.5 or any:1; the local workers declare what is asked for.
    #[arg(long)]
    gpu: Option<GpuRequest>,
    /// Environment of each.
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Absolute working directory (default: a fresh one each).
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// Higher goes first, -128 to 127.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i8,
    /// Attempts in all when a container fails, exits with a code other than 0, or loses its worker.
    #[arg(long, value_name = "ATTEMPTS")]
    retry: Option<u32>,
    /// Longest wait for room, as in 30s.
    #[arg(long, value_name = "TIME")]
    max_wait: Option<Millis>,
    /// Between SIGTERM and SIGKILL of a stop.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    stop_grace: Millis,
    /// Name of the group.
    #[arg(long)]
    name: Option<String>,
    /// Local workers.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=LOCAL_WORKERS_MAX))]
    workers: i64,
    /// Local workers have room for only so many of these containers each (default: for all at once).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    per_worker: Option<u32>,
    /// Most containers of a batch; 1 is one-at-a-time scheduling.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_size: Option<u32>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it to the end.
pub fn run(run: Run, server: &str, format: Format) -> Result<(), CommandError> {
    let submission = submission(&run)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::Failed(format!("cannot start threads: {error}")))?;
    if run.local {
        runtime.block_on(run_local(&run, submission, format))
    } else {
        runtime.block_on(super::remote::run(&submission, &Client::new(server), format))
    }
}

fn submission(run: &Run) -> Result<Submission, CommandError> {
    let count = u64::try_from(run.count).map_err(|_| CommandError::Usage("count: give 1 to 100000".to_owned()))?;
    let args: Vec<&str> = run.command[1..].iter().map(String::as_str).collect();
    let mut spec = Spec::of_command(&run.command[0], &args);
    spec.resources.cpu = run.cpu;
    spec.resources.memory = run.memory;
    spec.resources.gpu.clone_from(&run.gpu);
    for pair in &run.env {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| CommandError::Usage(format!("--env '{pair}' is not KEY=VALUE")))?;
        spec.env.insert(key.to_owned(), value.to_owned());
    }
    spec.working_dir.clone_from(&run.workdir);
    spec.priority = run.priority;
    spec.max_wait = run.max_wait;
    spec.stop_grace = run.stop_grace;
    if run.local {
        // Nobody can add a worker to a fleet in this process.
        spec.on_unplaceable = OnUnplaceable::Fail;
    }
    if let Some(attempts_max) = run.retry {
        let (backoff, backoff_max) = RETRY_BACKOFF;
        let on = vec![RetryOn::ExitNonzero, RetryOn::Failed, RetryOn::Lost];
        spec.retry = Retry::UpTo { attempts_max, backoff, backoff_max, on };
    }
    let body = SubmissionBody::Count { spec, count };
    body.check(TenantName::default(), None, run.name.clone(), BTreeMap::new())
        .map_err(|error| CommandError::Usage(error.to_string()))
}

/// What a local worker offers: room for its part of the containers, whatever the machine has.
fn capacity(run: &Run, count: u64) -> Capacity {
    let share = count.div_ceil(run.workers.unsigned_abs());
    let room = run.per_worker.map_or(share, u64::from);
    let gpus = run.gpu.as_ref().map_or(Vec::new(), |gpu| {
        let kind = match &gpu.kinds {
            GpuKinds::Any => "any",
            GpuKinds::Ordered(kinds) => kinds[0].as_str(),
        };
        let per_device = (GPU_WHOLE.0 / gpu.milli.0).max(1);
        let devices = (room * u64::from(gpu.count)).div_ceil(per_device);
        vec![kind.to_owned(); devices.min(volley_model::GPU_DEVICES_MAX as u64) as usize]
    });
    Capacity {
        cpu: CpuMilli((run.cpu.0 * room).min(volley_model::submission::CPU_MAX.0)),
        memory: Bytes((run.memory.0 * room).min(volley_model::submission::MEMORY_MAX.0)),
        slots: u32::try_from(room).unwrap_or(u32::MAX).min(volley_model::submission::SLOTS_MAX),
        gpus,
    }
}

fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::Failed(error.to_string())
}

impl From<ControlError> for CommandError {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::Invalid(_) => CommandError::Usage(error.to_string()),
            ControlError::Submit(_) | ControlError::Attach(_) => CommandError::Refused(error.to_string()),
            ControlError::NotFound(_) | ControlError::Store(_) => CommandError::Server(error.to_string()),
        }
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        CommandError::Server(error.to_string())
    }
}

async fn run_local(run: &Run, submission: Submission, format: Format) -> Result<(), CommandError> {
    let folder = tempfile::Builder::new().prefix("volley-").tempdir().map_err(failed)?;
    let store = EmbeddedStore::open(EmbeddedOptions::new(folder.path().join("data"))).map_err(failed)?;
    let store: Arc<dyn Store> = Arc::new(store);
    let fleet = Arc::new(LocalWorkers::default());
    let mut options = Options::of_profile(Profile::Auto);
    options.address = "in process".to_owned();
    options.max_size = run.max_size.unwrap_or(options.max_size);
    let control = Control::start(store, Arc::clone(&fleet) as Arc<_>, options).await?;
    fleet.connect(&control);
    let capacity = capacity(run, run.count.unsigned_abs());
    for number in 1..=run.workers {
        let worker = Worker {
            id: WorkerId::new(&format!("local-{number}")).map_err(failed)?,
            pool: PoolName::default(),
            labels: BTreeMap::new(),
            capacity: capacity.clone(),
            notes: vec!["virtual slots: limits of CPU and memory are counted, not enforced".to_owned()],
        };
        fleet.attach(worker, Nonce(number.unsigned_abs()), &folder.path().join("workers")).await?;
    }
    if format == Format::Table {
        eprintln!(
            "{} with {} virtual slots, {} and {} each (counted, not enforced)",
            words::count(run.workers.unsigned_abs(), "local worker", "local workers"),
            capacity.slots,
            capacity.cpu,
            capacity.memory
        );
    }
    let group = control.submit(submission, 0).await?.group;
    let watched = watch(&control, &fleet, group, run.count.unsigned_abs(), format).await;
    let records = records(&control, group).await?;
    let audit = control.read(Query::Audit).await?;
    control.shutdown().await;
    let interrupted = watched?;
    if let Answer::Audit(audit) = audit
        && !audit.violations.is_empty()
    {
        return Err(CommandError::Server(format!("laws are broken: {}", audit.violations.join("; "))));
    }
    summarise(&control, group, &records, format)?;
    match (interrupted, exit_code(&records)) {
        (true, _) => Err(CommandError::Ended(INTERRUPTED)),
        (false, 0) => Ok(()),
        (false, code) => Err(CommandError::Ended(code)),
    }
}

/// 0 when all are good; with one container its own code; otherwise 1.
fn exit_code(records: &[ContainerRecord]) -> u8 {
    let good = |record: &ContainerRecord| record.outcome.as_ref().is_some_and(Outcome::is_success);
    match records {
        _ if records.iter().all(good) => 0,
        [ContainerRecord { outcome: Some(Outcome::Exited { code, .. }), .. }] => u8::try_from(*code).unwrap_or(1),
        _ => 1,
    }
}

/// Follows the group's events to its last end and passes on what its containers printed. True when interrupted.
async fn watch(
    control: &Control,
    fleet: &LocalWorkers,
    group: GroupId,
    count: u64,
    format: Format,
) -> Result<bool, CommandError> {
    let bar = ProgressBar::with_draw_target(Some(count), target(format));
    let style = "{elapsed} [{wide_bar}] {pos}/{len} finished";
    bar.set_style(ProgressStyle::with_template(style).map_err(failed)?);
    let mut grew = control.events_grew();
    let (mut after, mut finished, mut stops) = (EventNumber(0), BTreeSet::new(), 0);
    while (finished.len() as u64) < count {
        let Answer::Events(page) = control.read(Query::Events { after, max: EVENTS_MAX }).await? else {
            return Err(CommandError::Server("the store answered something else".to_owned()));
        };
        for event in &page.events {
            after = event.number;
            if let EventKind::Container { container, state: ContainerState::Finished, attempt, worker, .. } =
                &event.kind
                && container.group == group
                && finished.insert(*container)
            {
                bar.set_position(finished.len() as u64);
                if let Some(worker) = worker {
                    bar.suspend(|| pass_on(fleet, worker, *container, *attempt))?;
                }
            }
        }
        if !page.events.is_empty() {
            continue;
        }
        tokio::select! {
            changed = grew.changed() => changed.map_err(|_| CommandError::Server("the loops ended".to_owned()))?,
            // A lost wake-up costs this, never the end.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            _ = tokio::signal::ctrl_c() => {
                stops += 1;
                control.stop(StopTarget::Group(group), TenantName::default(), stops > 1).await?;
            }
        }
    }
    bar.finish_and_clear();
    Ok(stops > 0)
}

fn target(format: Format) -> ProgressDrawTarget {
    if format == Format::Table { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

fn pass_on(fleet: &LocalWorkers, worker: &WorkerId, container: ContainerId, attempt: u32) -> Result<(), CommandError> {
    let (stdout, stderr) = fleet.output(worker, container, attempt)?;
    std::io::stderr().write_all(&stderr)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&stdout)?;
    out.flush()?;
    Ok(())
}

async fn records(control: &Control, group: GroupId) -> Result<Vec<ContainerRecord>, CommandError> {
    let mut records = Vec::new();
    let mut query = ListQuery { group: Some(group), max: PAGE_MAX, ..ListQuery::default() };
    loop {
        let Answer::List(page) = control.read(Query::List(query.clone())).await? else { return Ok(records) };
        records.extend(page.containers);
        query.after = page.next;
        if query.after.is_none() {
            return Ok(records);
        }
    }
}

/// How many ended how, and how long they took.
fn summarise(
    control: &Control,
    group: GroupId,
    records: &[ContainerRecord],
    format: Format,
) -> Result<(), CommandError> {
    let since = |at: fn(&ContainerRecord) -> Option<volley_model::Timestamp>| {
        let mut spans: Vec<Millis> =
            records.iter().filter_map(|record| at(record).map(|at| at.since(record.submitted_at))).collect();
        words::median_and_worst(&mut spans)
    };
    let spans = [
        ("assigned", since(|record| record.assigned_at)),
        ("started", since(|record| record.started_at)),
        ("finished", since(|record| record.finished_at)),
    ];
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for record in records {
        let end = record.outcome.as_ref().map_or_else(|| record.state.to_string(), ToString::to_string);
        *ends.entry(end).or_default() += 1;
    }
    let workers: BTreeSet<_> = records.iter().filter_map(|record| record.worker.as_ref()).collect();
    let turns = control.turn_stats();
    match format {
        Format::Quiet => output::write_lines([group.to_string()])?,
        Format::Json => {
            let span = |span: Option<(Millis, Millis)>| span.map(|(m, w)| json!({"median_ms": m.0, "worst_ms": w.0}));
            let spans: BTreeMap<_, _> = spans.into_iter().map(|(name, found)| (name, span(found))).collect();
            output::write_json_object(json!({
                "group": group.to_string(), "containers": records.len(), "ends": ends, "since_submit": spans,
                "batches": turns.batches, "largest_batch": turns.largest, "refused": turns.refused,
                "workers": workers.len(), "workers_bought": 0,
            }))?;
        }
        Format::Table => {
            let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
            let many = words::count(records.len() as u64, "container", "containers");
            eprintln!("group {group}: {many}: {}", output::printable(&ends.join(", ")));
            for (name, span) in spans {
                if let Some((median, worst)) = span {
                    let (median, worst) = (words::span(median), words::span(worst));
                    eprintln!("submit to {name:9} median {median:>6}  worst {worst:>6}");
                }
            }
            eprintln!(
                "{}, at most {} containers each; {} used, 0 would have been bought",
                words::count(turns.batches, "batch", "batches"),
                turns.largest,
                words::count(workers.len() as u64, "worker", "workers"),
            );
        }
    }
    Ok(())
}
