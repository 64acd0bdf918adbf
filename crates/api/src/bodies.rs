//! The JSON of the answers, as types that also describe themselves in the OpenAPI document.
//! Times are milliseconds since 1970-01-01 UTC by the store's clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use volley_control::ledger::{self, ContainerRecord, EventKind, GroupRecord, TenantRecord, WorkerRecord};
use volley_control::store::StoreStats;
use volley_control::{TurnStats, TurnTimes};
use volley_model::{Capacity, Free, GpuGrant, Outcome, Tenant, Token, WaitReason};

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

/// Counts of all containers, and whether every law holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Audit {
    version: u32,
    ok: bool,
    accepted: u64,
    queued: u64,
    claimed: u64,
    assigned: u64,
    starting: u64,
    running: u64,
    stopping: u64,
    finished: u64,
    pruned: u64,
    violations: Vec<String>,
    /// What can be lost by how the store is set up.
    warnings: Vec<String>,
}

impl Audit {
    pub(crate) fn of(audit: &ledger::Audit, warnings: Vec<String>) -> Self {
        Self {
            version: 1,
            ok: audit.violations.is_empty(),
            accepted: audit.accepted,
            queued: audit.queued,
            claimed: audit.claimed,
            assigned: audit.assigned,
            starting: audit.starting,
            running: audit.running,
            stopping: audit.stopping,
            finished: audit.finished,
            pruned: audit.pruned,
            violations: audit.violations.clone(),
            warnings,
        }
    }
}

/// Counts of one server since its start.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    version: u32,
    turns: Turns,
    store: StoreCounts,
}

/// Turns of one server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Turns {
    /// Turns that placed something.
    batches: u64,
    /// Containers placed.
    placed: u64,
    /// Most containers placed by one turn.
    largest: u64,
    /// Placements refused at commit.
    refused: u64,
    /// One for each turn.
    claims: u64,
    /// Of these: claims after which there was nothing to commit.
    claims_idle: u64,
    /// One for each turn that has something to write.
    commits: u64,
    /// Fleet views made anew.
    reloads: u64,
    sizes: Vec<BatchSize>,
    /// The last turns that wrote something, oldest first.
    recent: Vec<RecentTurn>,
}

/// What one turn took, in microseconds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecentTurn {
    /// That were planned.
    containers: u64,
    claim_us: u64,
    plan_us: u64,
    commit_us: u64,
}

impl From<&TurnTimes> for RecentTurn {
    fn from(times: &TurnTimes) -> Self {
        let us = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (claim_us, plan_us, commit_us) = (us(times.claim), us(times.plan), us(times.commit));
        Self { containers: times.containers, claim_us, plan_us, commit_us }
    }
}

/// Batches of at most so many containers, and more than the size before.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchSize {
    /// Null for no bound.
    up_to: Option<u64>,
    batches: u64,
}

/// The store as seen from one server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoreCounts {
    operations: u64,
    reads: u64,
    transactions: u64,
}

impl Stats {
    pub(crate) fn of(turns: &TurnStats, store: StoreStats) -> Self {
        let sizes = turns.sizes.iter().enumerate().filter(|(_, batches)| **batches > 0);
        let size =
            |(index, batches): (usize, &u64)| BatchSize { up_to: TurnStats::size_up_to(index), batches: *batches };
        let turns = Turns {
            batches: turns.batches,
            placed: turns.placed,
            largest: turns.largest,
            refused: turns.refused,
            claims: turns.claims,
            claims_idle: turns.claims_idle,
            commits: turns.commits,
            reloads: turns.reloads,
            sizes: sizes.map(size).collect(),
            recent: turns.recent.iter().map(RecentTurn::from).collect(),
        };
        let (operations, reads, transactions) = (store.operations, store.reads, store.transactions);
        Self { version: 1, turns, store: StoreCounts { operations, reads, transactions } }
    }
}

/// One transition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    /// No gaps.
    number: u64,
    at_ms: u64,
    #[serde(flatten)]
    kind: Kind,
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = EventKind)]
pub(crate) enum Kind {
    /// A group was accepted; its containers are queued.
    GroupAccepted { group: String, tenant: String, count: u32 },
    /// A container changed its state.
    Container {
        container: String,
        state: String,
        attempt: u32,
        worker: Option<String>,
        #[schema(value_type = Option<Object>)]
        outcome: Option<Outcome>,
        outcome_words: Option<String>,
    },
    /// A worker changed its status.
    Worker { worker: String, status: String },
    /// A pool was made, changed or removed.
    Pool { pool: String, removed: bool },
    /// A token was made or revoked.
    Token { token: String, tenant: String, role: String, revoked: bool },
    /// A tenant's limits were set or removed.
    Tenant { tenant: String, removed: bool },
}

impl From<&ledger::Event> for Event {
    fn from(event: &ledger::Event) -> Self {
        let kind = match &event.kind {
            EventKind::GroupAccepted { group, tenant, count } => {
                Kind::GroupAccepted { group: group.to_string(), tenant: tenant.to_string(), count: *count }
            }
            EventKind::Container { container, state, attempt, worker, outcome } => Kind::Container {
                container: container.to_string(),
                state: state.to_string(),
                attempt: *attempt,
                worker: worker.as_ref().map(ToString::to_string),
                outcome: outcome.clone(),
                outcome_words: outcome.as_ref().map(ToString::to_string),
            },
            EventKind::Worker { worker, status } => {
                Kind::Worker { worker: worker.to_string(), status: status.to_string() }
            }
            EventKind::Pool { pool, removed } => Kind::Pool { pool: pool.to_string(), removed: *removed },
            EventKind::Token { token, tenant, role, revoked } => Kind::Token {
                token: token.to_string(),
                tenant: tenant.to_string(),
                role: role.to_string(),
                revoked: *revoked,
            },
            EventKind::Tenant { tenant, removed } => Kind::Tenant { tenant: tenant.to_string(), removed: *removed },
        };
        Self { number: event.number.0, at_ms: event.at.0, kind }
    }
}

/// A page of events, rising by number.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Events {
    pub(crate) events: Vec<Event>,
    /// The oldest number still kept: a reader below it has missed something.
    pub(crate) oldest: u64,
    /// The last number given out.
    pub(crate) last: u64,
    /// Ask again with `after` set to this.
    pub(crate) next: u64,
}

/// Where a copy of the store is to go.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backup {
    /// An absolute path on the server; a file that exists is not replaced.
    pub(crate) file: String,
}

/// A token's record.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub(crate) struct TokenBody {
    id: String,
    tenant: String,
    /// admin, submit, read or worker.
    role: String,
    note: Option<String>,
    created_at_ms: u64,
    expires_at_ms: Option<u64>,
    revoked_at_ms: Option<u64>,
}

impl From<&Token> for TokenBody {
    fn from(token: &Token) -> Self {
        Self {
            id: token.id.to_string(),
            tenant: token.tenant.to_string(),
            role: token.role.to_string(),
            note: token.note.clone(),
            created_at_ms: token.created_at.0,
            expires_at_ms: token.expires_at.map(|at| at.0),
            revoked_at_ms: token.revoked_at.map(|at| at.0),
        }
    }
}

/// A new token with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedToken {
    #[serde(flatten)]
    pub(crate) token: TokenBody,
    pub(crate) secret: String,
}

/// A page of tokens in order of id.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenPage {
    pub(crate) tokens: Vec<TokenBody>,
    /// Ask again with `after` set to this; null at the end.
    pub(crate) next: Option<String>,
}

/// What a new token is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTokenBody {
    /// Whose; `default` when left out.
    pub(crate) tenant: Option<String>,
    /// admin, submit, read or worker.
    pub(crate) role: String,
    /// What it is for.
    pub(crate) note: Option<String>,
    /// How long it counts, as in `30m` or `720h`; for ever when left out.
    pub(crate) expires_in: Option<String>,
}

/// A tenant's limits, and how much of it waits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(crate) struct TenantBody {
    name: String,
    /// Most of its containers that may wait; null for no limit but the cell's.
    backlog_max: Option<u64>,
    /// How fast it may submit; null for no limit.
    rate: Option<RateBody>,
    /// Its containers that wait.
    waiting: u64,
}

/// A token bucket of containers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Rate)]
pub(crate) struct RateBody {
    /// Containers per second in the long run.
    pub(crate) per_second: u32,
    /// Containers at once after a pause. A larger group waits for a full bucket and leaves a debt.
    pub(crate) burst: u32,
}

/// Limits to set; what is left out is no limit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) backlog_max: Option<u64>,
    pub(crate) rate: Option<RateBody>,
}

impl From<&TenantRecord> for TenantBody {
    fn from(record: &TenantRecord) -> Self {
        let Tenant { name, backlog_max, rate } = &record.tenant;
        Self {
            name: name.to_string(),
            backlog_max: *backlog_max,
            rate: rate.map(|rate| RateBody { per_second: rate.per_second, burst: rate.burst }),
            waiting: record.waiting,
        }
    }
}

/// A page of tenants that have limits or waiting containers, in order of name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tenants {
    pub(crate) tenants: Vec<TenantBody>,
    /// Ask again with `after` set to this; null at the end.
    pub(crate) next: Option<String>,
}

/// What `volley_wire::json` reads and writes by hand, described. A test holds the fields against what is written.
pub(crate) mod schemas {
    #![allow(dead_code, reason = "these types only describe")]
    use super::{BTreeMap, ToSchema, Value};

    /// Containers to run: one `spec` and a `count`, or a list of `specs`.
    #[derive(ToSchema)]
    pub(crate) struct Submission {
        /// The same key gives the same group for a day. `Idempotency-Key` as a header is the same.
        pub(crate) client_key: Option<String>,
        pub(crate) name: Option<String>,
        pub(crate) labels: Option<BTreeMap<String, String>>,
        pub(crate) spec: Option<Spec>,
        /// 1 to 100,000; 1 when left out.
        pub(crate) count: Option<u64>,
        /// At most 10,000, one container each.
        pub(crate) specs: Option<Vec<Spec>>,
    }

    /// What to run and with what.
    #[derive(ToSchema)]
    pub(crate) struct Spec {
        /// The program.
        pub(crate) command: String,
        pub(crate) args: Option<Vec<String>>,
        pub(crate) env: Option<BTreeMap<String, String>>,
        pub(crate) working_dir: Option<String>,
        pub(crate) image: Option<String>,
        /// User in the image, as in `name`, `name:group` or `1000:1000`.
        pub(crate) user: Option<String>,
        /// The image's files cannot be written.
        pub(crate) read_only: Option<bool>,
        /// `loopback` or `host`.
        pub(crate) network: Option<String>,
        /// As in `tmpfs:/path:64Mi` or `/host/path:/path:ro`.
        pub(crate) mounts: Option<Vec<String>>,
        /// `if_not_present`, `always` or `never`: when a worker asks what the image's reference means.
        pub(crate) pull: Option<String>,
        pub(crate) resources: Option<Resources>,
        /// `any`, or `{"preferred": NAME}`, or `{"required": NAME}`.
        #[schema(value_type = Option<Object>)]
        pub(crate) pool: Option<Value>,
        pub(crate) require_labels: Option<BTreeMap<String, String>>,
        /// Workers that ran something with the same key lately come first.
        pub(crate) affinity: Option<String>,
        /// -128 to 127; higher first.
        pub(crate) priority: Option<i8>,
        /// `never`, `on_lost`, or an object with attempts_max, backoff, backoff_max, on.
        #[schema(value_type = Option<Object>)]
        pub(crate) retry: Option<Value>,
        /// As in `10m`.
        pub(crate) max_wait: Option<String>,
        /// `wait` or `fail`.
        pub(crate) on_unplaceable: Option<String>,
        /// `stop` or `keep`.
        pub(crate) on_disconnect: Option<String>,
        /// As in `10s`.
        pub(crate) stop_grace: Option<String>,
        /// As in `1Mi`.
        pub(crate) log_limit: Option<String>,
    }

    /// As people write them.
    #[derive(ToSchema)]
    pub(crate) struct Resources {
        /// As in `500m` or `0.5`.
        pub(crate) cpu: Option<String>,
        /// As in `128Mi`.
        pub(crate) memory: Option<String>,
        /// As in `H100:2` or `A10G:0.5`.
        pub(crate) gpu: Option<String>,
    }
}
