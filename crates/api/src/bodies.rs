//! The JSON of the answers, as types that also describe themselves in the OpenAPI document.
//! Times are milliseconds since 1970-01-01 UTC by the store's clock.

mod access;
mod counts;
mod events;
pub(crate) mod schemas;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use volley_control::ledger::{ContainerRecord, GroupRecord, WorkerRecord};
use volley_model::{Capacity, Free, GpuGrant, Outcome, WaitReason};

pub(crate) use self::access::{CreatedToken, Limits, NewTokenBody, TenantBody, Tenants, TokenBody, TokenPage};
pub(crate) use self::counts::{Audit, Stats};
pub(crate) use self::events::{Event, Events};

/// A container.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Container {
    /// Group and index: `GROUP-INDEX`.
    id: String,
    /// Its owner.
    tenant: String,
    /// Its group's name.
    name: Option<String>,
    /// queued, claimed, assigned, starting, running, stopping, finished.
    state: String,
    /// The program and its arguments.
    command: Vec<String>,
    /// As it was submitted, with what was left out filled in.
    #[schema(value_type = schemas::Spec)]
    spec: Value,
    /// The present or last attempt, from 1.
    attempt: Option<u32>,
    /// Where the present or last attempt runs.
    worker: Option<String>,
    /// Its devices.
    #[schema(value_type = Vec<Object>)]
    gpus: Vec<GpuGrant>,
    /// When it was accepted.
    submitted_at_ms: u64,
    /// When the present or last attempt was assigned.
    assigned_at_ms: Option<u64>,
    /// When its process started.
    started_at_ms: Option<u64>,
    /// When it finished.
    finished_at_ms: Option<u64>,
    /// How it ended.
    #[schema(value_type = Option<Object>)]
    outcome: Option<Outcome>,
    /// The same in words.
    outcome_words: Option<String>,
    /// Whether it ended with exit code 0.
    success: Option<bool>,
    /// Why it waits, while it does.
    waiting: Option<Waiting>,
    /// How far its start is, in words; while its worker says so, and on the server that it is connected to.
    pub(crate) detail: Option<String>,
}

/// Another program for a container.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecRequest {
    /// The command and its arguments.
    pub(crate) args: Vec<String>,
}

/// A program that was started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExecStarted {
    /// Its number.
    pub(crate) exec: u64,
}

/// A page of a program's output.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExecOutput {
    /// In base64.
    pub(crate) stdout: String,
    /// In base64.
    pub(crate) stderr: String,
    /// Where the next page begins.
    pub(crate) stdout_next: u64,
    /// Where the next page begins.
    pub(crate) stderr_next: u64,
    /// It has ended, and all of its output was told.
    pub(crate) exit_code: Option<i32>,
}

/// Input for a program.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecInput {
    /// In base64.
    #[serde(default)]
    pub(crate) bytes: String,
    /// There is no more.
    #[serde(default)]
    pub(crate) end: bool,
}

/// Done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExecDone {}

/// What a container uses.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContainerStats {
    /// CPU time in microseconds.
    pub(crate) cpu_us: u64,
    /// Memory now; 0 when it has ended.
    pub(crate) memory_bytes: u64,
    /// The most memory that it ever had.
    pub(crate) memory_peak_bytes: u64,
    /// The digest of the image that it is made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_digest: Option<String>,
}

/// Why a container waits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Waiting {
    since_ms: u64,
    /// A retry's backoff ends then.
    not_before_ms: Option<u64>,
    #[schema(value_type = Vec<Object>)]
    reasons: Vec<WaitReason>,
    words: String,
}

impl From<&ContainerRecord> for Container {
    fn from(record: &ContainerRecord) -> Self {
        let waiting = record.waiting.as_ref().map(|waiting| Waiting {
            since_ms: waiting.since.0,
            not_before_ms: waiting.not_before.map(|at| at.0),
            reasons: waiting.reasons.clone(),
            words: waiting.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        });
        Self {
            id: record.id.to_string(),
            tenant: record.tenant.to_string(),
            name: record.name.clone(),
            state: record.state.to_string(),
            command: std::iter::once(&record.spec.command).chain(&record.spec.args).cloned().collect(),
            spec: volley_wire::json::spec_to(&record.spec),
            attempt: record.attempt.map(|attempt| attempt.number),
            worker: record.worker.as_ref().map(ToString::to_string),
            gpus: record.gpus.clone(),
            submitted_at_ms: record.submitted_at.0,
            assigned_at_ms: record.assigned_at.map(|at| at.0),
            started_at_ms: record.started_at.map(|at| at.0),
            finished_at_ms: record.finished_at.map(|at| at.0),
            outcome: record.outcome.clone(),
            outcome_words: record.outcome.as_ref().map(ToString::to_string),
            success: record.outcome.as_ref().map(Outcome::is_success),
            waiting,
            detail: None,
        }
    }
}

/// A page of containers, newest group first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Containers {
    pub(crate) containers: Vec<Container>,
    /// Ask again with `after` set to this; null at the end.
    pub(crate) next: Option<String>,
}

/// A group.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Group {
    id: String,
    tenant: String,
    name: Option<String>,
    labels: BTreeMap<String, String>,
    count: u32,
    submitted_at_ms: u64,
    /// How many have finished, forgotten ones included.
    finished: u32,
    /// Of these: exit code 0.
    succeeded: u32,
}

impl From<&GroupRecord> for Group {
    fn from(record: &GroupRecord) -> Self {
        Self {
            id: record.id.to_string(),
            tenant: record.tenant.to_string(),
            name: record.name.clone(),
            labels: record.labels.clone(),
            count: record.count,
            submitted_at_ms: record.submitted_at.0,
            finished: record.finished,
            succeeded: record.succeeded,
        }
    }
}

/// A group was accepted, now or before under the same key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    pub(crate) group: String,
    /// Its containers are `GROUP-0` to `GROUP-(count-1)`.
    pub(crate) count: u32,
    /// The same key made it before.
    pub(crate) repeated: bool,
}

/// How many containers a stop reached.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stopped {
    /// They waited, and have finished now.
    pub(crate) finished: u32,
    /// They were told to stop.
    pub(crate) stopping: u32,
    /// They had finished before.
    pub(crate) already_finished: u32,
}

/// A worker.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Worker {
    id: String,
    pool: String,
    /// provisioning, ready, cordoned, draining, lost, gone.
    status: String,
    /// Whether a stream is open.
    connected: bool,
    labels: BTreeMap<String, String>,
    #[schema(value_type = Object)]
    capacity: Capacity,
    #[schema(value_type = Object)]
    free: Free,
    /// Containers on it.
    containers: u32,
    /// Containers that ever finished on it.
    finished: u64,
    /// Limits that it could not set up, in words.
    notes: Vec<String>,
    /// Why it was cordoned by itself, if it was: it failed several different specs in a row.
    quarantine: Option<String>,
}

impl From<&WorkerRecord> for Worker {
    fn from(record: &WorkerRecord) -> Self {
        let worker = &record.view.worker;
        Self {
            id: worker.id.to_string(),
            pool: worker.pool.to_string(),
            status: record.view.status.to_string(),
            connected: record.connected,
            labels: worker.labels.clone(),
            capacity: worker.capacity.clone(),
            free: record.view.free.clone(),
            containers: record.containers,
            finished: record.finished,
            notes: worker.notes.clone(),
            quarantine: record.quarantine.clone(),
        }
    }
}

/// A page of workers in order of name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Workers {
    pub(crate) workers: Vec<Worker>,
    /// Ask again with `after` set to this; null at the end.
    pub(crate) next: Option<String>,
}

/// What was done to a worker.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Scheduled {
    pub(crate) worker: String,
    /// cordon, uncordon or drain.
    pub(crate) action: String,
    pub(crate) deadline_ms: Option<u64>,
}

/// Where a copy of the store is to go.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backup {
    /// An absolute path on the server; a file that exists is not replaced.
    pub(crate) file: String,
}
