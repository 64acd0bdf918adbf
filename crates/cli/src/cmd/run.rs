//! `volley run`: submit, show progress and output, end with the containers' result. With
//! `--local` server and workers are in this process.

mod follow;
mod local;
mod sandbox;
mod summary;

use std::collections::BTreeMap;
use std::io::Read;

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use volley_model::{
    Bytes, CpuMilli, GpuRequest, Millis, OnDisconnect, OnUnplaceable, PoolName, PoolSelector, Retry, RetryOn, Spec,
    Submission, SubmissionBody, TenantName,
};
use volley_wire::access::ServerAccess;
use volley_wire::client::{Client, ClientError};
use volley_wire::json::{spec_to, submission_from};

use crate::command_error::{CommandError, INTERRUPTED};
use crate::fleet::Interrupts;
use crate::output::{self, Format};
use follow::{Accepted, Followed};

/// Most local workers.
const LOCAL_WORKERS_MAX: i64 = 256;
/// Wait after the first failure, and the longest, of `--retry`.
const RETRY_BACKOFF: (Millis, Millis) = (Millis(100), Millis(10_000));
/// Largest file of `--file` in bytes: what a server takes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The same submission is sent so often when its outcome is unknown.
const SUBMIT_TRIES: u32 = 10;
/// Wait between two of them.
const SUBMIT_WAIT: std::time::Duration = std::time::Duration::from_millis(300);

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
    #[arg(long, default_value = "100m", allow_hyphen_values = true)]
    cpu: CpuMilli,
    /// Memory of each, as in 128Mi.
    #[arg(long, default_value = "32Mi", value_name = "BYTES", allow_hyphen_values = true)]
    memory: Bytes,
    /// GPUs of each, as in H100:2, A10G:0.5 or any:1; local workers declare what is asked for.
    #[arg(long)]
    gpu: Option<GpuRequest>,
    /// Environment of each.
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Absolute working directory (default: a fresh one each).
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// Only on workers of this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<PoolName>,
    /// On workers of this pool if there is room, else on others.
    #[arg(long, value_name = "NAME", conflicts_with = "pool")]
    prefer_pool: Option<PoolName>,
    /// Only on workers with this label.
    #[arg(long = "require", value_name = "KEY=VALUE")]
    require: Vec<String>,
    /// Rather on workers that ran something with this key lately.
    #[arg(long, value_name = "KEY")]
    affinity: Option<String>,
    /// Higher goes first, -128 to 127.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i8,
    /// Attempts in all when a container fails, exits with a code other than 0, or loses its worker.
    #[arg(long, value_name = "ATTEMPTS", conflicts_with = "no_retry")]
    retry: Option<u32>,
    /// Never a second attempt, not even when the worker is lost.
    #[arg(long)]
    no_retry: bool,
    /// Goes on when its worker loses the server; only with --no-retry.
    #[arg(long, requires = "no_retry")]
    keep_on_disconnect: bool,
    /// Longest wait for room, as in 30s.
    #[arg(long, value_name = "TIME")]
    max_wait: Option<Millis>,
    /// Fail what no worker or pool could ever serve instead of waiting (always with --local).
    #[arg(long)]
    fail_unplaceable: bool,
    /// Between SIGTERM and SIGKILL of a stop.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    stop_grace: Millis,
    /// Output kept of each.
    #[arg(long, value_name = "BYTES", default_value = "1Mi")]
    log_limit: Bytes,
    /// Name of the group.
    #[arg(long)]
    name: Option<String>,
    /// Labels of the group.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// The same key gives the same group, however often it is sent.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// A submission as JSON, as for POST /v1/containers, instead of a command; - reads stdin.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["command", "count"])]
    file: Option<std::path::PathBuf>,
    /// Submit, print the group's id, and do not wait.
    #[arg(short, long, conflicts_with = "local")]
    detach: bool,
    /// Go on trying so long when the server stops answering.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    patience: Millis,
    /// Local workers.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=LOCAL_WORKERS_MAX))]
    workers: i64,
    /// Local workers have room for only so many of each shape (default: for all at once).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    per_worker: Option<u32>,
    #[command(flatten)]
    flags: crate::server::ServerFlags,
    #[command(flatten)]
    sandbox: sandbox::SandboxFlags,
    #[command(flatten)]
    runtime: crate::runtime_flags::RuntimeFlags,
    /// The command and its arguments; with an image the one that it names when there is none.
    #[arg(last = true, required_unless_present_any = ["file", "image"], value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it to the end.
pub async fn run(run: Run, access: &ServerAccess, format: Format) -> Result<(), CommandError> {
    let submission = if run.file.is_some() { from_file(&run)? } else { from_flags(&run)? };
    if run.local {
        return local::run(&run, &submission, format).await;
    }
    let client = Client::new(access)?;
    let mut interrupts = Interrupts::new();
    let submitted = async {
        let after = follow::last_event(&client).await?;
        let (group, repeated) = submit(&client, &submission, run.patience).await?;
        Ok::<_, CommandError>(Accepted { group, count: count(&submission), after, repeated })
    };
    let accepted = tokio::select! {
        submitted = submitted => submitted?,
        () = interrupts.next() => return Err(CommandError::Ended(INTERRUPTED)),
    };
    if run.detach {
        match format {
            Format::Json => {
                output::write_json_object(json!({ "group": accepted.group, "containers": accepted.count }))?
            }
            _ => output::write_line(&accepted.group)?,
        }
        return Ok(());
    }
    let followed = follow::follow(&client, &accepted, run.patience, format, &mut interrupts).await?;
    let records = summary::Summary::of(&client, &accepted.group).await?;
    records.write(None, format)?;
    end(&followed, &records)
}

fn count(submission: &Submission) -> u64 {
    submission.runs.iter().map(|run| u64::from(run.count)).sum()
}

/// The exit code: 0 all good; with one container its own code; 130 when interrupted.
fn end(followed: &Followed, summary: &summary::Summary) -> Result<(), CommandError> {
    match followed {
        _ if followed.interrupted => Err(CommandError::Ended(INTERRUPTED)),
        _ if summary.all_good() => Ok(()),
        _ => Err(CommandError::Ended(summary.only_code().unwrap_or(1))),
    }
}

/// Sends it until the server says what became of it: the client key makes a repeat harmless. Its group, and whether it was
/// there before.
async fn submit(client: &Client, submission: &Submission, patience: Millis) -> Result<(String, bool), CommandError> {
    let body = body(submission);
    let mut tries = 0;
    loop {
        let error = match client.json(Method::POST, "/v1/containers", Some(&body)).await {
            Ok(reply) => {
                return Ok((reply["group"].as_str().unwrap_or_default().to_owned(), reply["repeated"] == true));
            }
            Err(error) => error,
        };
        let unknown = match &error {
            ClientError::Unreachable { .. } => true,
            ClientError::Problem { status, .. } => status.as_u16() == 503,
        };
        tries += 1;
        if !unknown || tries >= SUBMIT_TRIES || patience.0 == 0 {
            return Err(error.into());
        }
        tokio::time::sleep(SUBMIT_WAIT).await;
    }
}

/// What the flags of a run ask for, as a server takes it.
pub fn body_of(run: &Run) -> Result<Value, CommandError> {
    Ok(body(&if run.file.is_some() { from_file(run)? } else { from_flags(run)? }))
}

fn body(submission: &Submission) -> Value {
    let specs: Vec<Value> = submission
        .runs
        .iter()
        .flat_map(|run| std::iter::repeat_n(&run.spec, if submission.runs.len() > 1 { run.count as usize } else { 1 }))
        .map(|spec| spec_to(spec))
        .collect();
    let key = submission.client_key.clone().unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    let mut body = json!({ "client_key": key, "name": submission.name, "labels": submission.labels });
    match submission.runs.as_slice() {
        [run] => {
            body["spec"] = specs.into_iter().next().unwrap_or_default();
            body["count"] = run.count.into();
        }
        _ => body["specs"] = specs.into(),
    }
    body
}

fn from_file(run: &Run) -> Result<Submission, CommandError> {
    let Some(file) = &run.file else { return Err(CommandError::Usage("name a file".to_owned())) };
    let wrong = |problem: String| CommandError::Usage(format!("{}: {problem}", file.display()));
    let source: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(|error| wrong(error.to_string()))?)
    };
    let mut body = Vec::new();
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut body).map_err(|error| wrong(error.to_string()))?;
    if body.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("is larger than {} MiB; submit in parts", FILE_BYTES_MAX >> 20)));
    }
    submission_from(&body, TenantName::default(), run.key.clone()).map_err(|error| wrong(error.to_string()))
}

fn pairs(flag: &str, pairs: &[String]) -> Result<BTreeMap<String, String>, CommandError> {
    let pair = |pair: &String| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(CommandError::Usage(format!("{flag} '{pair}' is not KEY=VALUE"))),
    };
    pairs.iter().map(pair).collect()
}

fn from_flags(run: &Run) -> Result<Submission, CommandError> {
    let count = u64::try_from(run.count).map_err(|_| CommandError::Usage("count: give 1 to 100000".to_owned()))?;
    let body = SubmissionBody::Count { spec: spec(run)?, count };
    body.check(TenantName::default(), run.key.clone(), run.name.clone(), pairs("--label", &run.labels)?)
        .map_err(|error| CommandError::Usage(error.to_string()))
}

fn spec(run: &Run) -> Result<Spec, CommandError> {
    let words: Vec<&str> = run.command.iter().map(String::as_str).collect();
    let (command, args) = words.split_first().map_or(("", &[][..]), |(command, args)| (*command, args));
    let mut spec = Spec::of_command(command, args);
    run.sandbox.apply(&mut spec);
    spec.resources.cpu = run.cpu;
    spec.resources.memory = run.memory;
    spec.resources.gpu.clone_from(&run.gpu);
    spec.env = pairs("--env", &run.env)?;
    if let Ok(parent) = std::env::var("TRACEPARENT") {
        // Run within a trace, its containers are part of it.
        spec.env.entry("TRACEPARENT".to_owned()).or_insert(parent);
    }
    spec.working_dir.clone_from(&run.workdir);
    spec.pool = match (&run.pool, &run.prefer_pool) {
        (Some(name), _) => PoolSelector::Required(name.clone()),
        (None, Some(name)) => PoolSelector::Preferred(name.clone()),
        (None, None) => PoolSelector::Any,
    };
    spec.require_labels = pairs("--require", &run.require)?;
    spec.affinity.clone_from(&run.affinity);
    spec.priority = run.priority;
    spec.max_wait = run.max_wait;
    spec.stop_grace = run.stop_grace;
    spec.log_limit = run.log_limit;
    if run.fail_unplaceable {
        spec.on_unplaceable = OnUnplaceable::Fail;
    }
    if run.keep_on_disconnect {
        spec.on_disconnect = OnDisconnect::Keep;
    }
    if run.no_retry {
        spec.retry = Retry::Never;
    }
    if let Some(attempts_max) = run.retry {
        let (backoff, backoff_max) = RETRY_BACKOFF;
        let on = vec![RetryOn::ExitNonzero, RetryOn::Failed, RetryOn::Lost];
        spec.retry = Retry::UpTo { attempts_max, backoff, backoff_max, on };
    }
    Ok(spec)
}
