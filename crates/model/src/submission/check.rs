//! The checks of a submission and of workers. Every error names the field, says
//! what is wrong and what would be right.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Display;
use std::sync::Arc;

use super::{CLIENT_KEY_BYTES_MAX, GROUP_CONTAINERS_MAX, Run, Submission, SubmissionBody, ValidationError};
use crate::{
    Bytes, Capacity, CpuMilli, GPU_DEVICES_MAX, GPU_WHOLE, GpuKinds, GpuRequest, HOST_NETWORK_ALLOWED,
    HOST_NETWORK_LABEL, Millis, Mount, Network, OnDisconnect, RUNTIME_LABEL, RUNTIME_OCI, Resources, Retry, Sandbox,
    Spec, TenantName, Worker, image_affinity, is_gpu_kind,
};

/// Most specs of a list: what fits a body of some MiB and one transaction.
pub const LIST_SPECS_MAX: usize = 10_000;
/// Longest command in bytes: the kernel's PATH_MAX.
pub const COMMAND_BYTES_MAX: usize = 4096;
/// Arguments and environment together in bytes: half of the kernel's usual 2 MiB for both.
pub const ARGS_ENV_BYTES_MAX: usize = 1 << 20;
/// Most arguments.
pub const ARGS_MAX: usize = 10_000;
/// Most environment variables of a spec.
pub const ENV_MAX: usize = 1_000;
/// Most labels of a submission, worker or spec.
pub const LABELS_MAX: usize = 64;
/// Longest label value, affinity key, name in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;
/// Most mounts of a spec.
pub const MOUNTS_MAX: usize = 32;
/// Longest image reference in bytes.
pub const IMAGE_BYTES_MAX: usize = 1024;
/// Most CPU of a worker or spec: 10,000 cores.
pub const CPU_MAX: CpuMilli = CpuMilli(10_000_000);
/// Most memory of a worker or spec: 1 PiB.
pub const MEMORY_MAX: Bytes = Bytes(1 << 50);
/// Most captured output of a container.
pub const LOG_LIMIT_MAX: Bytes = Bytes(1 << 30);
/// Longest stop grace.
pub const STOP_GRACE_MAX: Millis = Millis::from_secs(3600);
/// Longest wait or backoff.
pub const WAIT_MAX: Millis = Millis::from_secs(30 * 24 * 3600);
/// Most attempts.
pub const ATTEMPTS_MAX: u32 = 100;
/// Most slots of a worker.
pub const SLOTS_MAX: u32 = 100_000;

type Checked = Result<(), ValidationError>;

fn error(path: impl Into<String>, problem: impl Into<String>) -> ValidationError {
    ValidationError { path: path.into(), problem: problem.into() }
}

fn at_most<T: PartialOrd + Display>(path: &str, value: T, max: T) -> Checked {
    if value > max { Err(error(path, format!("{value} is too much; at most {max} is allowed"))) } else { Ok(()) }
}

impl SubmissionBody {
    /// Checks all of it. Nothing is accepted when one field of one spec is wrong.
    pub fn check(
        self,
        tenant: TenantName,
        client_key: Option<String>,
        name: Option<String>,
        labels: BTreeMap<String, String>,
    ) -> Result<Submission, ValidationError> {
        check_client_key(client_key.as_deref())?;
        if let Some(name) = &name {
            check_text("name", name, LABEL_VALUE_BYTES_MAX)?;
        }
        check_labels("labels", &labels)?;
        let runs = match self {
            SubmissionBody::Count { spec, count } => {
                if count == 0 || count > u64::from(GROUP_CONTAINERS_MAX) {
                    return Err(error("count", format!("{count} is out of range; give 1 to {GROUP_CONTAINERS_MAX}")));
                }
                vec![Run { spec: Arc::new(checked("spec", spec)?), count: count as u32 }]
            }
            SubmissionBody::List(specs) => check_list(specs)?,
        };
        Ok(Submission { tenant, client_key, name, labels, runs })
    }
}

fn check_list(specs: Vec<Spec>) -> Result<Vec<Run>, ValidationError> {
    if specs.is_empty() || specs.len() > LIST_SPECS_MAX {
        let problem = format!("{} specs; give 1 to {LIST_SPECS_MAX}, or one spec and a count", specs.len());
        return Err(error("specs", problem));
    }
    let mut runs: Vec<Run> = Vec::new();
    // A long list usually has few distinct specs: each is checked and kept once.
    let mut known: HashSet<Arc<Spec>> = HashSet::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let spec = match known.get(&spec) {
            Some(known) => Arc::clone(known),
            None => {
                let spec = Arc::new(checked(&format!("specs[{index}]"), spec)?);
                // The check may have brought it into the form of one that is known.
                known.get(&spec).cloned().unwrap_or_else(|| {
                    known.insert(Arc::clone(&spec));
                    spec
                })
            }
        };
        match runs.last_mut() {
            Some(run) if Arc::ptr_eq(&run.spec, &spec) => run.count += 1,
            _ => runs.push(Run { spec, count: 1 }),
        }
    }
    Ok(runs)
}

fn check_client_key(key: Option<&str>) -> Checked {
    let Some(key) = key else { return Ok(()) };
    if key.is_empty() || key.len() > CLIENT_KEY_BYTES_MAX || key.chars().any(char::is_control) {
        let problem = format!("give 1 to {CLIENT_KEY_BYTES_MAX} bytes without control characters");
        return Err(error("client_key", problem));
    }
    Ok(())
}

pub(crate) fn check_text(path: &str, text: &str, max: usize) -> Checked {
    if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
        return Err(error(path, format!("give 1 to {max} bytes without control characters")));
    }
    Ok(())
}

pub(crate) fn check_labels(path: &str, labels: &BTreeMap<String, String>) -> Checked {
    if labels.len() > LABELS_MAX {
        return Err(error(path, format!("{} labels; at most {LABELS_MAX} are allowed", labels.len())));
    }
    for (key, value) in labels {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
        if key.is_empty() || key.len() > LABEL_VALUE_BYTES_MAX || !key.bytes().all(good) {
            let problem = format!("'{}' is not a label key: use a-z, A-Z, 0-9, '-', '_', '.', '/'", short(key));
            return Err(error(path, problem));
        }
        if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            let problem =
                format!("the value is too long or has control characters; at most {LABEL_VALUE_BYTES_MAX} bytes");
            return Err(error(format!("{path}.{key}"), problem));
        }
    }
    Ok(())
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Checks a spec and makes it canonical: what means the same has the same hash.
fn checked(path: &str, mut spec: Spec) -> Result<Spec, ValidationError> {
    if let Retry::UpTo { on, .. } = &mut spec.retry {
        on.sort();
        on.dedup();
    }
    check_process(path, &spec)?;
    check_sandbox(path, &mut spec)?;
    check_resources(&format!("{path}.resources"), &spec.resources)?;
    check_labels(&format!("{path}.require_labels"), &spec.require_labels)?;
    if let Some(affinity) = &spec.affinity {
        check_text(&format!("{path}.affinity"), affinity, LABEL_VALUE_BYTES_MAX)?;
    }
    check_retry(&format!("{path}.retry"), &spec.retry)?;
    if let Some(wait) = spec.max_wait {
        if wait.0 == 0 {
            return Err(error(
                format!("{path}.max_wait"),
                "0 would end it at once; give a longer time, or leave it out",
            ));
        }
        at_most(&format!("{path}.max_wait"), wait, WAIT_MAX)?;
    }
    if spec.on_disconnect == OnDisconnect::Keep && spec.retry != Retry::Never {
        let problem = "'keep' could run two at once with retries; give retry 'never' too";
        return Err(error(format!("{path}.on_disconnect"), problem));
    }
    at_most(&format!("{path}.stop_grace"), spec.stop_grace, STOP_GRACE_MAX)?;
    at_most(&format!("{path}.log_limit"), spec.log_limit, LOG_LIMIT_MAX)?;
    Ok(spec)
}

fn check_process(path: &str, spec: &Spec) -> Checked {
    let field = |name: &str| format!("{path}.{name}");
    if spec.command.is_empty() && spec.image.is_none() {
        return Err(error(field("command"), "give the program to run"));
    }
    if spec.command.len() > COMMAND_BYTES_MAX {
        return Err(error(field("command"), format!("at most {COMMAND_BYTES_MAX} bytes are allowed")));
    }
    if spec.args.len() > ARGS_MAX {
        return Err(error(field("args"), format!("{} arguments; at most {ARGS_MAX} are allowed", spec.args.len())));
    }
    if spec.env.len() > ENV_MAX {
        return Err(error(field("env"), format!("{} variables; at most {ENV_MAX} are allowed", spec.env.len())));
    }
    if spec.command.contains('\0') {
        return Err(error(field("command"), "a NUL byte is not allowed"));
    }
    if let Some(index) = spec.args.iter().position(|arg| arg.contains('\0')) {
        return Err(error(format!("{path}.args[{index}]"), "a NUL byte is not allowed"));
    }
    for (key, value) in &spec.env {
        if key.is_empty() || key.contains(['=', '\0']) {
            let problem = format!("'{}' is not a variable's name: it may not be empty nor hold '='", short(key));
            return Err(error(field("env"), problem));
        }
        if value.contains('\0') {
            return Err(error(format!("{path}.env.{key}"), "a NUL byte is not allowed"));
        }
    }
    let args: usize = spec.args.iter().map(|arg| arg.len() + 1).sum();
    let env: usize = spec.env.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
    if args + env > ARGS_ENV_BYTES_MAX {
        let problem =
            format!("arguments and environment take {} bytes; at most {ARGS_ENV_BYTES_MAX} are allowed", args + env);
        return Err(error(field("args"), problem));
    }
    if let Some(dir) = &spec.working_dir
        && (!dir.starts_with('/') || dir.contains('\0') || dir.len() > COMMAND_BYTES_MAX)
    {
        return Err(error(field("working_dir"), "give an absolute path"));
    }
    Ok(())
}

/// What an image asks for is a matter of labels: workers that run images, and those that allow the machine's network.
fn check_sandbox(path: &str, spec: &mut Spec) -> Checked {
    let field = |name: &str| format!("{path}.{name}");
    let Some(image) = &spec.image else {
        if spec.sandbox != Sandbox::default() {
            let problem = "user, read_only, network, mounts and pull need an image: a process is not held in by them";
            return Err(error(field("image"), problem));
        }
        return Ok(());
    };
    check_text(&field("image"), image, IMAGE_BYTES_MAX)?;
    let sandbox = &spec.sandbox;
    if let Some(user) = &sandbox.user {
        check_text(&field("user"), user, LABEL_VALUE_BYTES_MAX)?;
    }
    if sandbox.mounts.len() > MOUNTS_MAX {
        let problem = format!("{} mounts; at most {MOUNTS_MAX} are allowed", sandbox.mounts.len());
        return Err(error(field("mounts"), problem));
    }
    let mut targets = BTreeSet::new();
    for (index, mount) in sandbox.mounts.iter().enumerate() {
        let at = format!("{path}.mounts[{index}]");
        if mount.to_string().len() > COMMAND_BYTES_MAX {
            return Err(error(at, format!("at most {COMMAND_BYTES_MAX} bytes are allowed")));
        }
        let (Mount::Tmpfs { target, .. } | Mount::Host { target, .. }) = mount;
        if !targets.insert(target) {
            return Err(error(at, format!("two mounts go to {}", short(target))));
        }
    }
    if spec.affinity.is_none() {
        // Workers that hold it, or ran it lately, have it.
        spec.affinity = image_affinity(image);
    }
    spec.require_labels.entry(RUNTIME_LABEL.to_owned()).or_insert_with(|| RUNTIME_OCI.to_owned());
    if sandbox.network == Network::Host {
        spec.require_labels.insert(HOST_NETWORK_LABEL.to_owned(), HOST_NETWORK_ALLOWED.to_owned());
    }
    Ok(())
}

fn check_resources(path: &str, resources: &Resources) -> Checked {
    at_most(&format!("{path}.cpu"), resources.cpu, CPU_MAX)?;
    at_most(&format!("{path}.memory"), resources.memory, MEMORY_MAX)?;
    match &resources.gpu {
        Some(gpu) => check_gpu(&format!("{path}.gpu"), gpu),
        None => Ok(()),
    }
}

fn check_gpu(path: &str, gpu: &GpuRequest) -> Checked {
    if gpu.count == 0 || usize::from(gpu.count) > GPU_DEVICES_MAX {
        return Err(error(path, format!("{} devices; give 1 to {GPU_DEVICES_MAX}", gpu.count)));
    }
    if gpu.milli.0 == 0 || gpu.milli > GPU_WHOLE {
        return Err(error(path, "a part of a device is 0.001 to 1"));
    }
    if gpu.milli < GPU_WHOLE && gpu.count != 1 {
        return Err(error(path, "a part of a device goes with a count of 1"));
    }
    let GpuKinds::Ordered(kinds) = &gpu.kinds else { return Ok(()) };
    if kinds.is_empty() || kinds.len() > GPU_DEVICES_MAX {
        return Err(error(path, format!("give 1 to {GPU_DEVICES_MAX} kinds, or 'any'")));
    }
    let mut seen = BTreeSet::new();
    for kind in kinds {
        if !is_gpu_kind(kind) {
            return Err(error(
                path,
                format!("'{}' is not a GPU kind; use letters, digits, '-', '_', '.'", short(kind)),
            ));
        }
        if !seen.insert(kind) {
            return Err(error(path, format!("kind '{kind}' is named twice")));
        }
    }
    Ok(())
}

fn check_retry(path: &str, retry: &Retry) -> Checked {
    let Retry::UpTo { attempts_max, backoff, backoff_max, on } = retry else { return Ok(()) };
    if !(2..=ATTEMPTS_MAX).contains(attempts_max) {
        let problem = format!("{attempts_max} is out of range; give 2 to {ATTEMPTS_MAX}, or retry 'never'");
        return Err(error(format!("{path}.attempts_max"), problem));
    }
    at_most(&format!("{path}.backoff_max"), *backoff_max, WAIT_MAX)?;
    if backoff > backoff_max {
        let problem = format!("{backoff} is longer than backoff_max ({backoff_max})");
        return Err(error(format!("{path}.backoff"), problem));
    }
    if on.is_empty() {
        return Err(error(format!("{path}.on"), "name at least one of exit_nonzero, failed, lost"));
    }
    Ok(())
}

impl Worker {
    /// Checks what a worker says of itself.
    pub fn check(&self) -> Result<(), ValidationError> {
        check_labels("labels", &self.labels)?;
        check_capacity("capacity", &self.capacity)?;
        if self.notes.len() > LABELS_MAX || self.notes.iter().any(|note| note.len() > IMAGE_BYTES_MAX) {
            return Err(error("notes", format!("at most {LABELS_MAX} notes of {IMAGE_BYTES_MAX} bytes are allowed")));
        }
        Ok(())
    }
}

/// The checks of what a worker or a machine offers; `path` leads the errors.
pub(crate) fn check_capacity(path: &str, capacity: &Capacity) -> Checked {
    let Capacity { cpu, memory, slots, gpus } = capacity;
    at_most(&format!("{path}.cpu"), *cpu, CPU_MAX)?;
    at_most(&format!("{path}.memory"), *memory, MEMORY_MAX)?;
    at_most(&format!("{path}.slots"), *slots, SLOTS_MAX)?;
    if gpus.len() > GPU_DEVICES_MAX {
        let problem = format!("{} devices; at most {GPU_DEVICES_MAX} are allowed", gpus.len());
        return Err(error(format!("{path}.gpus"), problem));
    }
    if let Some(index) = gpus.iter().position(|kind| !is_gpu_kind(kind)) {
        return Err(error(format!("{path}.gpus[{index}]"), "not a GPU kind: use letters, digits, '-', '_', '.'"));
    }
    Ok(())
}
