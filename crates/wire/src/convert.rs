//! Protobuf to model and back: the one conversion of this format. What comes in is checked:
//! a missing or absurd field is an error that names its path, never a panic.

use volley_model::{
    Attempt, Bytes, Capacity, ContainerId, CpuMilli, Epoch, GpuGrant, GpuKinds, GpuMilli, GpuRequest, GroupId, Millis,
    Network, Nonce, OnDisconnect, OnUnplaceable, Outcome, PoolName, PoolSelector, Progress, PullPolicy, Resources,
    Retry, RetryOn, Sandbox, Spec, SpecHash, StopCause, SubmissionBody, ValidationError, Worker, WorkerId,
};

use crate::proto;
use crate::protocol;

type Checked<T> = Result<T, ValidationError>;

fn error<T>(path: impl Into<String>, problem: impl std::fmt::Display) -> Checked<T> {
    Err(ValidationError { path: path.into(), problem: problem.to_string() })
}

fn present<T>(path: &str, value: Option<T>) -> Checked<T> {
    value.map_or_else(|| error(path, "is missing"), Ok)
}

/// A container's id.
pub fn container_from(path: &str, id: Option<proto::ContainerId>) -> Checked<ContainerId> {
    let id = present(path, id)?;
    Ok(ContainerId { group: GroupId(id.group), index: id.index })
}

/// As [`container_from`] reads it.
#[must_use]
pub fn container_to(id: ContainerId) -> proto::ContainerId {
    proto::ContainerId { group: id.group.0, index: id.index }
}

/// An attempt.
pub fn attempt_from(path: &str, attempt: Option<proto::Attempt>) -> Checked<Attempt> {
    let attempt = present(path, attempt)?;
    Ok(Attempt { number: attempt.number, nonce: Nonce(attempt.nonce) })
}

/// As [`attempt_from`] reads it.
#[must_use]
pub fn attempt_to(attempt: Attempt) -> proto::Attempt {
    proto::Attempt { number: attempt.number, nonce: attempt.nonce.0 }
}

/// An epoch.
#[must_use]
pub fn epoch_from(epoch: proto::Epoch) -> Epoch {
    Epoch { number: epoch.number, nonce: Nonce(epoch.nonce) }
}

/// As [`epoch_from`] reads it.
#[must_use]
pub fn epoch_to(epoch: Epoch) -> proto::Epoch {
    proto::Epoch { number: epoch.number, nonce: epoch.nonce.0 }
}

/// An outcome.
pub fn outcome_from(path: &str, outcome: proto::Outcome) -> Checked<Outcome> {
    use proto::outcome::Kind;
    Ok(match present(path, outcome.kind)? {
        Kind::Exited(exited) => Outcome::Exited { code: exited.code, signal: exited.signal },
        Kind::StoppedBy(by) => Outcome::Stopped {
            by: match by.as_str() {
                "client" => StopCause::Client,
                "drain" => StopCause::Drain,
                _ => return error(format!("{path}.stopped_by"), "give 'client' or 'drain'"),
            },
        },
        Kind::Expired(_) => Outcome::Expired,
        Kind::Unplaceable(reason) => Outcome::Unplaceable { reason },
        Kind::Lost(_) => Outcome::Lost,
        Kind::Failed(reason) => Outcome::Failed { reason },
    })
}

/// As [`outcome_from`] reads it.
#[must_use]
pub fn outcome_to(outcome: &Outcome) -> proto::Outcome {
    use proto::outcome::Kind;
    let kind = match outcome {
        Outcome::Exited { code, signal } => Kind::Exited(proto::Exited { code: *code, signal: *signal }),
        Outcome::Stopped { by: StopCause::Client } => Kind::StoppedBy("client".to_owned()),
        Outcome::Stopped { by: StopCause::Drain } => Kind::StoppedBy("drain".to_owned()),
        Outcome::Expired => Kind::Expired(true),
        Outcome::Unplaceable { reason } => Kind::Unplaceable(reason.clone()),
        Outcome::Lost => Kind::Lost(true),
        Outcome::Failed { reason } => Kind::Failed(reason.clone()),
    };
    proto::Outcome { kind: Some(kind) }
}

/// A worker's message about an attempt.
pub fn report_from(path: &str, report: proto::Report) -> Checked<(ContainerId, Attempt, Progress)> {
    use proto::report::Progress as Kind;
    let container = container_from(&format!("{path}.container"), report.container)?;
    let attempt = attempt_from(&format!("{path}.attempt"), report.attempt)?;
    let progress = match present(&format!("{path}.progress"), report.progress)? {
        Kind::Accepted(_) => Progress::Accepted,
        Kind::Running(_) => Progress::Running,
        Kind::Ended(outcome) => Progress::Ended(outcome_from(&format!("{path}.ended"), outcome)?),
    };
    Ok((container, attempt, progress))
}

/// As verdicts number what they answer: 1 accepted, 2 running, 3 ended.
#[must_use]
pub fn progress_number(progress: &Progress) -> u32 {
    match progress {
        Progress::Accepted => 1,
        Progress::Running => 2,
        Progress::Ended(_) => 3,
    }
}

/// As [`report_from`] reads it.
#[must_use]
pub fn report_to(container: ContainerId, attempt: Attempt, progress: &Progress) -> proto::Report {
    use proto::report::Progress as Kind;
    let progress = match progress {
        Progress::Accepted => Kind::Accepted(true),
        Progress::Running => Kind::Running(true),
        Progress::Ended(outcome) => Kind::Ended(outcome_to(outcome)),
    };
    proto::Report {
        container: Some(container_to(container)),
        attempt: Some(attempt_to(attempt)),
        progress: Some(progress),
    }
}

/// What a worker says of itself. Checked further by the model.
pub fn worker_from(hello: &proto::Hello) -> Checked<Worker> {
    let id = WorkerId::new(&hello.worker).or_else(|problem| error("worker", problem))?;
    let pool = if hello.pool.is_empty() {
        PoolName::default()
    } else {
        PoolName::new(&hello.pool).or_else(|problem| error("pool", problem))?
    };
    let capacity = Capacity {
        cpu: CpuMilli(hello.cpu_milli),
        memory: Bytes(hello.memory_bytes),
        slots: hello.slots,
        gpus: hello.gpu_kinds.clone(),
    };
    let labels = hello.labels.clone().into_iter().collect();
    Ok(Worker { id, pool, labels, capacity, notes: hello.notes.clone() })
}

/// As [`worker_from`] reads it; with no epoch and an empty inventory.
#[must_use]
pub fn worker_to(worker: &Worker) -> proto::Hello {
    proto::Hello {
        worker: worker.id.to_string(),
        pool: worker.pool.to_string(),
        labels: worker.labels.clone().into_iter().collect(),
        cpu_milli: worker.capacity.cpu.0,
        memory_bytes: worker.capacity.memory.0,
        slots: worker.capacity.slots,
        gpu_kinds: worker.capacity.gpus.clone(),
        notes: worker.notes.clone(),
        epoch: None,
        inventory: Vec::new(),
        images: Vec::new(),
        protocol_min: protocol::WORKERS_MIN,
        protocol_max: protocol::WORKERS_MAX,
    }
}

/// GPU devices that a container got.
pub fn grants_from(path: &str, grants: &[proto::GpuGrant]) -> Checked<Vec<GpuGrant>> {
    let grant = |grant: &proto::GpuGrant| {
        let device = u16::try_from(grant.device).or_else(|problem| error(format!("{path}.device"), problem))?;
        Ok(GpuGrant { device, milli: GpuMilli(grant.milli) })
    };
    grants.iter().map(grant).collect()
}

/// As [`grants_from`] reads them.
#[must_use]
pub fn grants_to(grants: &[GpuGrant]) -> Vec<proto::GpuGrant> {
    grants.iter().map(|grant| proto::GpuGrant { device: u32::from(grant.device), milli: grant.milli.0 }).collect()
}

/// A spec's address: 16 bytes, big endian.
pub fn spec_hash_from(path: &str, hash: &[u8]) -> Checked<SpecHash> {
    let bytes: Result<[u8; 16], _> = hash.try_into();
    bytes.map(|bytes| SpecHash(u128::from_be_bytes(bytes))).or_else(|_| error(path, "give 16 bytes"))
}

/// As [`spec_hash_from`] reads it.
#[must_use]
pub fn spec_hash_to(hash: SpecHash) -> Vec<u8> {
    hash.0.to_be_bytes().to_vec()
}

/// A submission's body; checked further by the model. `count` with one spec, or a list.
pub fn body_from(request: proto::SubmitRequest) -> Checked<SubmissionBody> {
    let numbered = request.specs.into_iter().enumerate();
    let mut specs =
        numbered.map(|(index, spec)| spec_from(&format!("specs[{index}]"), spec)).collect::<Checked<Vec<Spec>>>()?;
    match request.count {
        None => Ok(SubmissionBody::List(specs)),
        Some(count) => match (specs.pop(), specs.is_empty()) {
            (Some(spec), true) => Ok(SubmissionBody::Count { spec, count }),
            _ => error("count", "goes with exactly one spec"),
        },
    }
}

/// A spec; checked further by the model.
pub fn spec_from(path: &str, spec: proto::Spec) -> Checked<Spec> {
    let at = |name: &str| format!("{path}.{name}");
    let mut model = Spec::of_command(&spec.command, &[]);
    model.args = spec.args;
    model.env = spec.env.into_iter().collect();
    model.working_dir = spec.working_dir;
    model.image = spec.image;
    let mounts = spec.mounts.iter().enumerate();
    let mounts =
        mounts.map(|(index, mount)| mount.parse().or_else(|problem| error(at(&format!("mounts[{index}]")), problem)));
    model.sandbox = Sandbox {
        user: spec.user,
        read_only: spec.read_only,
        network: if spec.host_network { Network::Host } else { Network::Loopback },
        mounts: mounts.collect::<Checked<_>>()?,
        pull: match spec.pull.as_str() {
            "" | "if_not_present" => PullPolicy::IfNotPresent,
            "always" => PullPolicy::Always,
            "never" => PullPolicy::Never,
            _ => return error(at("pull"), "give if_not_present, always or never"),
        },
    };
    let gpu = spec.gpu.map(|gpu| gpu_from(&at("gpu"), gpu)).transpose()?;
    model.resources = Resources { cpu: CpuMilli(spec.cpu_milli), memory: Bytes(spec.memory_bytes), gpu };
    if let Some(pool) = spec.pool {
        let name = PoolName::new(&pool.name).or_else(|problem| error(at("pool.name"), problem))?;
        model.pool = if pool.required { PoolSelector::Required(name) } else { PoolSelector::Preferred(name) };
    }
    model.require_labels = spec.require_labels.into_iter().collect();
    model.affinity = spec.affinity;
    model.priority = i8::try_from(spec.priority).or_else(|_| error(at("priority"), "give -128 to 127"))?;
    if let Some(retry) = spec.retry {
        model.retry = retry_from(&at("retry"), retry)?;
    }
    model.max_wait = spec.max_wait_ms.map(Millis);
    model.on_unplaceable = if spec.fail_if_unplaceable { OnUnplaceable::Fail } else { OnUnplaceable::Wait };
    model.on_disconnect = if spec.keep_on_disconnect { OnDisconnect::Keep } else { OnDisconnect::Stop };
    model.stop_grace = spec.stop_grace_ms.map_or(Spec::STOP_GRACE, Millis);
    model.log_limit = spec.log_limit_bytes.map_or(Spec::LOG_LIMIT, Bytes);
    Ok(model)
}

fn gpu_from(path: &str, gpu: proto::GpuRequest) -> Checked<GpuRequest> {
    let count = u16::try_from(gpu.count).or_else(|problem| error(format!("{path}.count"), problem))?;
    let kinds = if gpu.kinds.is_empty() { GpuKinds::Any } else { GpuKinds::Ordered(gpu.kinds) };
    Ok(GpuRequest { kinds, count, milli: GpuMilli(gpu.milli) })
}

fn retry_from(path: &str, retry: proto::Retry) -> Checked<Retry> {
    use proto::retry::Kind;
    Ok(match present(path, retry.kind)? {
        Kind::Never(_) => Retry::Never,
        Kind::OnLost(_) => Retry::OnLost,
        Kind::UpTo(up_to) => {
            let flags = [
                (up_to.on_exit_nonzero, RetryOn::ExitNonzero),
                (up_to.on_failed, RetryOn::Failed),
                (up_to.on_lost, RetryOn::Lost),
            ];
            Retry::UpTo {
                attempts_max: up_to.attempts_max,
                backoff: Millis(up_to.backoff_ms),
                backoff_max: Millis(up_to.backoff_max_ms),
                on: flags.into_iter().filter_map(|(set, on)| set.then_some(on)).collect(),
            }
        }
    })
}

/// As [`spec_from`] reads it.
#[must_use]
pub fn spec_to(spec: &Spec) -> proto::Spec {
    let pool = match &spec.pool {
        PoolSelector::Any => None,
        PoolSelector::Preferred(name) => Some(proto::PoolSelector { name: name.to_string(), required: false }),
        PoolSelector::Required(name) => Some(proto::PoolSelector { name: name.to_string(), required: true }),
    };
    proto::Spec {
        command: spec.command.clone(),
        args: spec.args.clone(),
        env: spec.env.clone().into_iter().collect(),
        working_dir: spec.working_dir.clone(),
        image: spec.image.clone(),
        user: spec.sandbox.user.clone(),
        read_only: spec.sandbox.read_only,
        host_network: spec.sandbox.network == Network::Host,
        mounts: spec.sandbox.mounts.iter().map(ToString::to_string).collect(),
        pull: match spec.sandbox.pull {
            PullPolicy::IfNotPresent => String::new(),
            PullPolicy::Always => "always".to_owned(),
            PullPolicy::Never => "never".to_owned(),
        },
        cpu_milli: spec.resources.cpu.0,
        memory_bytes: spec.resources.memory.0,
        gpu: spec.resources.gpu.as_ref().map(gpu_to),
        pool,
        require_labels: spec.require_labels.clone().into_iter().collect(),
        affinity: spec.affinity.clone(),
        priority: i32::from(spec.priority),
        retry: Some(retry_to(&spec.retry)),
        max_wait_ms: spec.max_wait.map(|wait| wait.0),
        fail_if_unplaceable: spec.on_unplaceable == OnUnplaceable::Fail,
        keep_on_disconnect: spec.on_disconnect == OnDisconnect::Keep,
        stop_grace_ms: Some(spec.stop_grace.0),
        log_limit_bytes: Some(spec.log_limit.0),
    }
}

fn gpu_to(gpu: &GpuRequest) -> proto::GpuRequest {
    let kinds = match &gpu.kinds {
        GpuKinds::Any => Vec::new(),
        GpuKinds::Ordered(kinds) => kinds.clone(),
    };
    proto::GpuRequest { kinds, count: u32::from(gpu.count), milli: gpu.milli.0 }
}

fn retry_to(retry: &Retry) -> proto::Retry {
    use proto::retry::Kind;
    let kind = match retry {
        Retry::Never => Kind::Never(true),
        Retry::OnLost => Kind::OnLost(true),
        Retry::UpTo { attempts_max, backoff, backoff_max, on } => Kind::UpTo(proto::RetryUpTo {
            attempts_max: *attempts_max,
            backoff_ms: backoff.0,
            backoff_max_ms: backoff_max.0,
            on_exit_nonzero: on.contains(&RetryOn::ExitNonzero),
            on_failed: on.contains(&RetryOn::Failed),
            on_lost: on.contains(&RetryOn::Lost),
        }),
    };
    proto::Retry { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_read_as_it_is_written() {
        let mut spec = Spec::of_command("sh", &["-c", "true"]);
        assert_eq!(spec_from("spec", spec_to(&spec)).unwrap(), spec);
        spec.env.insert("A".to_owned(), "b".to_owned());
        spec.working_dir = Some("/tmp".to_owned());
        spec.image = Some("busybox".to_owned());
        let mounts = vec!["/data:/mnt:ro".parse().unwrap()];
        let pull = PullPolicy::Never;
        spec.sandbox = Sandbox { user: Some("1".to_owned()), read_only: true, network: Network::Host, mounts, pull };
        spec.resources = Resources { cpu: CpuMilli(1500), memory: Bytes(1 << 30), gpu: "H100:2".parse().ok() };
        spec.pool = PoolSelector::Required(PoolName::new("gpu").unwrap());
        spec.require_labels.insert("zone".to_owned(), "a".to_owned());
        spec.affinity = Some("key".to_owned());
        spec.priority = -128;
        spec.retry = Retry::UpTo {
            attempts_max: 3,
            backoff: Millis(1500),
            backoff_max: Millis(60_000),
            on: vec![RetryOn::ExitNonzero, RetryOn::Lost],
        };
        spec.max_wait = Some(Millis(90_000));
        spec.on_unplaceable = OnUnplaceable::Fail;
        spec.on_disconnect = OnDisconnect::Keep;
        spec.stop_grace = Millis(1);
        spec.log_limit = Bytes(7);
        assert_eq!(spec_from("spec", spec_to(&spec)).unwrap(), spec);
    }

    #[test]
    fn reports_and_outcomes_are_read_as_they_are_written() {
        let container = ContainerId { group: GroupId(u64::MAX), index: 7 };
        let attempt = Attempt { number: 2, nonce: Nonce(u64::MAX) };
        let reason = || "because".to_owned();
        let outcomes = [
            Outcome::Exited { code: -1, signal: None },
            Outcome::Exited { code: 137, signal: Some(9) },
            Outcome::Stopped { by: StopCause::Client },
            Outcome::Stopped { by: StopCause::Drain },
            Outcome::Expired,
            Outcome::Unplaceable { reason: reason() },
            Outcome::Lost,
            Outcome::Failed { reason: reason() },
        ];
        let ends = outcomes.into_iter().map(Progress::Ended);
        for progress in ends.chain([Progress::Accepted, Progress::Running]) {
            let read = report_from("report", report_to(container, attempt, &progress)).unwrap();
            assert_eq!(read, (container, attempt, progress));
        }
    }

    #[test]
    fn what_is_missing_or_absurd_is_named() {
        let cases: [(ValidationError, &str); 5] = [
            (report_from("reports[0]", proto::Report::default()).unwrap_err(), "reports[0].container"),
            (outcome_from("end", proto::Outcome::default()).unwrap_err(), "end"),
            (spec_hash_from("spec", b"short").unwrap_err(), "spec"),
            (
                spec_from("specs[3]", proto::Spec { priority: 999, ..proto::Spec::default() }).unwrap_err(),
                "specs[3].priority",
            ),
            (
                body_from(proto::SubmitRequest { count: Some(2), ..proto::SubmitRequest::default() }).unwrap_err(),
                "count",
            ),
        ];
        for (problem, path) in cases {
            assert_eq!(problem.path, path, "{problem}");
        }
    }
}
