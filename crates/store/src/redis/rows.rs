//! Records as the scripts pack them (MessagePack arrays), and from there to the model. The order
//! of fields is that of `lua/base.lua` and `lua/worker.lua`. Knows no operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use volley_ledger::WorkerRecord;
use volley_model::{
    Attempt, Capacity, ContainerState, Cost, CpuMilli, Epoch, Free, GpuGrant, GpuMilli, HoldView, MachineWorker,
    Millis, Nonce, OnDisconnect, OnUnplaceable, Outcome, PoolName, PoolStanding, PoolVersion, Provisioning,
    RetireCause, Retry, Revision, Score, ShapeHash, Spec, Stage, StopCause, Tenant, Timestamp, Token, TokenId, Worker,
    WorkerId, WorkerStatus, WorkerView,
};

use super::arguments::{cause, ends};
use super::replies::{Malformed, json, role_from};
use super::words::from_hex;

/// What the scripts' rules need of a spec.
#[derive(Debug, Serialize)]
pub(super) struct Rules {
    cpu: u64,
    memory: u64,
    gpus: u16,
    gpu_milli: u64,
    affinity: Option<String>,
    retry: u8,
    attempts_max: u32,
    backoff: u64,
    backoff_max: u64,
    on: String,
    max_wait: i64,
    fail_if_unplaceable: bool,
    keep_on_disconnect: bool,
    stop_grace: u64,
}

impl Rules {
    pub(super) fn of(spec: &Spec) -> Self {
        let gpu = spec.resources.gpu.as_ref();
        let (retry, attempts_max, backoff, backoff_max, on) = match &spec.retry {
            Retry::Never => (0, 0, Millis(0), Millis(0), String::new()),
            Retry::OnLost => (1, 0, Millis(0), Millis(0), String::new()),
            Retry::UpTo { attempts_max, backoff, backoff_max, on } => {
                (2, *attempts_max, *backoff, *backoff_max, ends(on))
            }
        };
        Self {
            cpu: spec.resources.cpu.0,
            memory: spec.resources.memory.0,
            gpus: gpu.map_or(0, |gpu| gpu.count),
            gpu_milli: gpu.map_or(0, |gpu| gpu.milli.0),
            affinity: spec.affinity.clone(),
            retry,
            attempts_max,
            backoff: backoff.0,
            backoff_max: backoff_max.0,
            on,
            max_wait: spec.max_wait.map_or(-1, |wait| i64::try_from(wait.0).unwrap_or(i64::MAX)),
            fail_if_unplaceable: spec.on_unplaceable == OnUnplaceable::Fail,
            keep_on_disconnect: spec.on_disconnect == OnDisconnect::Keep,
            stop_grace: spec.stop_grace.0,
        }
    }

    pub(super) fn packed(&self) -> Vec<u8> {
        rmp_serde::to_vec(self).expect("rules are plain data")
    }
}

/// A worker less its capacity, which may be another than it came back with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WorkerStatic {
    id: WorkerId,
    pool: PoolName,
    labels: BTreeMap<String, String>,
    notes: Vec<String>,
}

impl WorkerStatic {
    pub(super) fn of(worker: &Worker) -> Self {
        let Worker { id, pool, labels, notes, .. } = worker.clone();
        Self { id, pool, labels, notes }
    }
}

/// Lua's `false` or a value.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Maybe<T> {
    No(#[allow(dead_code, reason = "it is always false")] bool),
    Yes(T),
}

fn unpack<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, Malformed> {
    rmp_serde::from_slice(bytes).map_err(|error| Malformed::new(what, error))
}

fn nonce(text: &str) -> Result<Nonce, Malformed> {
    from_hex(text).map(Nonce).ok_or_else(|| Malformed::new("a nonce", text))
}

fn time_maybe(at: i64) -> Option<Timestamp> {
    u64::try_from(at).ok().map(Timestamp)
}

fn grants(flat: &[u64]) -> Vec<GpuGrant> {
    flat.chunks_exact(2).map(|pair| GpuGrant { device: pair[0] as u16, milli: GpuMilli(pair[1]) }).collect()
}

/// A worker's record.
#[derive(Debug, Deserialize)]
pub(super) struct WorkerRow {
    _pool: String,
    epoch: u32,
    epoch_nonce: String,
    _previous: u32,
    _previous_nonce: String,
    revision: u64,
    admin: String,
    lost_at: i64,
    _drain_until: i64,
    cpu: u64,
    memory: u64,
    slots: u32,
    gpus: Vec<u64>,
    _all_cpu: u64,
    _all_memory: u64,
    _all_slots: u32,
    _all_gpus: u32,
    wanted: Maybe<(u64, u64, u64, u64, String)>,
    affinities: Vec<String>,
    hold: Maybe<(String, u64, u64)>,
    session: String,
    _stream: String,
    lease_until: u64,
    _last_delivery: u64,
    finished: u64,
    idle_since: u64,
    quarantine: String,
    _failing: Vec<String>,
    attempts: u32,
}

impl WorkerRow {
    pub(super) fn from(bytes: &[u8]) -> Result<Self, Malformed> {
        unpack("a worker", bytes)
    }

    /// For lists.
    pub(super) fn record(&self, of_worker: &[u8], capacity: &[u8]) -> Result<WorkerRecord, Malformed> {
        Ok(WorkerRecord {
            view: self.view(of_worker, capacity)?,
            connected: !self.session.is_empty(),
            lease_until: Timestamp(self.lease_until),
            containers: self.attempts,
            finished: self.finished,
            idle_since: Timestamp(self.idle_since),
            quarantine: Some(self.quarantine.clone()).filter(|why| !why.is_empty()),
        })
    }

    /// For a scale plan.
    pub(super) fn machine_worker(&self) -> Result<MachineWorker, Malformed> {
        Ok(MachineWorker {
            status: self.status()?,
            containers: self.attempts,
            idle_since: Timestamp(self.idle_since),
            quarantined: !self.quarantine.is_empty(),
        })
    }

    fn status(&self) -> Result<WorkerStatus, Malformed> {
        let status = if self.lost_at >= 0 { "lost" } else { &self.admin };
        status.parse().map_err(|error| Malformed::new("a worker", error))
    }

    /// What is free, whether new work is let in or not.
    pub(super) fn free(&self) -> Free {
        let gpus = self.gpus.iter().copied().map(GpuMilli).collect();
        Free { cpu: CpuMilli(self.cpu), memory: volley_model::Bytes(self.memory), slots: self.slots, gpus }
    }

    /// With its static part and capacity, as the fleet sees it.
    pub(super) fn view(&self, of_worker: &[u8], capacity: &[u8]) -> Result<WorkerView, Malformed> {
        let WorkerStatic { id, pool, labels, notes } = json("a worker", of_worker)?;
        let capacity: Capacity = json("a capacity", capacity)?;
        let status = self.status()?;
        let hold = match &self.hold {
            Maybe::No(_) => None,
            Maybe::Yes((shape, score, until)) => Some(HoldView {
                shape: ShapeHash(from_hex(shape).ok_or_else(|| Malformed::new("a hold", shape))?),
                score: Score(*score),
                until: Timestamp(*until),
            }),
        };
        let mut free = self.free();
        if matches!(self.wanted, Maybe::Yes(_)) {
            free.slots = 0;
        }
        Ok(WorkerView {
            worker: Arc::new(Worker { id, pool, labels, capacity, notes }),
            epoch: Epoch { number: self.epoch, nonce: nonce(&self.epoch_nonce)? },
            revision: Revision(self.revision),
            status,
            free,
            affinities: Arc::new(self.affinities.clone()),
            hold,
        })
    }
}

/// A live container's record.
#[derive(Debug)]
pub(super) enum LiveRow {
    Queued { ready_at: Timestamp },
    Claimed { ready_at: Timestamp },
    Bound(Box<BoundRow>),
}

/// The record of one that has an attempt.
#[derive(Debug)]
pub(super) struct BoundRow {
    pub(super) attempt: Attempt,
    pub(super) worker: WorkerId,
    pub(super) gpus: Vec<GpuGrant>,
    pub(super) state: ContainerState,
    pub(super) assigned_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) stop: Option<(StopCause, Millis)>,
    pub(super) spec: String,
}

type QueuedFields = (u8, u32, String, String, u64, u64);
type ClaimedFields = (u8, u32, String, String, u64, u64, String, u64);
type BoundFields =
    (u8, u32, String, String, u64, String, String, u32, String, Vec<u64>, u8, u64, i64, String, u64, u64);

impl LiveRow {
    pub(super) fn from(bytes: &[u8]) -> Result<Self, Malformed> {
        // An array of up to 15 fields has its length in the first byte, the state follows.
        let state = match bytes {
            [0x90..=0x9f, state, ..] => *state,
            [0xdc, _, _, state, ..] => *state,
            _ => return Err(Malformed::new("a container", "not an array")),
        };
        match state {
            0 => {
                let (.., ready_at): QueuedFields = unpack("a queued container", bytes)?;
                Ok(Self::Queued { ready_at: Timestamp(ready_at) })
            }
            1 => {
                let (_, _, _, _, _, ready_at, _, _): ClaimedFields = unpack("a claimed container", bytes)?;
                Ok(Self::Claimed { ready_at: Timestamp(ready_at) })
            }
            _ => Self::bound(unpack("a bound container", bytes)?),
        }
    }

    fn bound(fields: BoundFields) -> Result<Self, Malformed> {
        let (_, number, spec, _, _, attempt_nonce, worker, _, _, gpus, phase, assigned_at, started_at, stop, grace, _) =
            fields;
        let stop = match stop.as_str() {
            "" => None,
            "drain" => Some((StopCause::Drain, Millis(grace))),
            _ => Some((StopCause::Client, Millis(grace))),
        };
        let state = match (&stop, phase) {
            (Some(_), _) => ContainerState::Stopping,
            (None, 0) => ContainerState::Assigned,
            (None, 1) => ContainerState::Starting,
            (None, _) => ContainerState::Running,
        };
        Ok(Self::Bound(Box::new(BoundRow {
            attempt: Attempt { number, nonce: nonce(&attempt_nonce)? },
            worker: WorkerId::new(&worker).map_err(|error| Malformed::new("a container", error))?,
            gpus: grants(&gpus),
            state,
            assigned_at: Timestamp(assigned_at),
            started_at: time_maybe(started_at),
            stop,
            spec,
        })))
    }
}

/// A finished container's record.
#[derive(Debug)]
pub(super) struct FinishedRow {
    pub(super) outcome: Outcome,
    pub(super) finished_at: Timestamp,
    pub(super) attempt: Option<LastAttempt>,
}

/// What it ran as last: attempt, worker, devices, when assigned, when started.
pub(super) type LastAttempt = (Attempt, WorkerId, Vec<GpuGrant>, Timestamp, Option<Timestamp>);

type FinishedAttempt = (u32, String, String, Vec<u64>, u64, i64);

impl FinishedRow {
    pub(super) fn from(bytes: &[u8]) -> Result<Self, Malformed> {
        let fields: (String, u64, Maybe<FinishedAttempt>) = unpack("a finished container", bytes)?;
        let (outcome, finished_at, attempt) = fields;
        let attempt = match attempt {
            Maybe::No(_) => None,
            Maybe::Yes((number, attempt_nonce, worker, gpus, assigned_at, started_at)) => {
                let worker = WorkerId::new(&worker).map_err(|error| Malformed::new("a finished container", error))?;
                let attempt = Attempt { number, nonce: nonce(&attempt_nonce)? };
                Some((attempt, worker, grants(&gpus), Timestamp(assigned_at), time_maybe(started_at)))
            }
        };
        Ok(Self { outcome: json("an outcome", outcome.as_bytes())?, finished_at: Timestamp(finished_at), attempt })
    }
}

/// A token's record, as it is packed.
type TokenFields = (String, String, String, String, u64, i64, i64);

pub(super) fn token_from(id: TokenId, bytes: &[u8]) -> Result<Token, Malformed> {
    let (hash, tenant, role, note, created_at, expires_at, revoked_at): TokenFields = unpack("a token", bytes)?;
    Ok(Token {
        id,
        hash: hash.parse().map_err(|error| Malformed::new("a token", error))?,
        tenant: tenant.parse().map_err(|error| Malformed::new("a token", error))?,
        role: role_from(&role)?,
        note: note.strip_prefix('=').map(str::to_owned),
        created_at: Timestamp(created_at),
        expires_at: time_maybe(expires_at),
        revoked_at: time_maybe(revoked_at),
    })
}

/// A tenant's limits, of the record with its bucket.
pub(super) fn limits_from(bytes: &[u8]) -> Result<Tenant, Malformed> {
    let (body, _, _, _, _, _): (String, i64, u64, u64, i64, u64) = unpack("a tenant's limits", bytes)?;
    json("a tenant's limits", body.as_bytes())
}

type MachineFields = (String, u64, String, String, u64, u64, String, String, u64, String, String, u64, u64, u64, u64);

/// A bought machine's record.
pub(super) fn machine_from(worker: WorkerId, bytes: &[u8]) -> Result<Provisioning, Malformed> {
    let fields: MachineFields = unpack("a machine", bytes)?;
    let (pool, version, machine, cost, requested_at, boot_until, handle, stage, since, why, ..) = fields;
    let since = Timestamp(since);
    let stage = match stage.as_str() {
        "requested" => Stage::Requested,
        "booting" => Stage::Booting,
        "registered" => Stage::Registered { at: since },
        "draining" => Stage::Draining { since, why: cause_from(&why)? },
        _ => Stage::Destroying { since, why: cause_from(&why)? },
    };
    Ok(Provisioning {
        worker,
        pool: pool.parse().map_err(|error| Malformed::new("a machine", error))?,
        pool_version: PoolVersion(version),
        machine: json("a machine", machine.as_bytes())?,
        cost_per_hour: Cost(cost.parse().map_err(|error| Malformed::new("a cost", error))?),
        requested_at: Timestamp(requested_at),
        boot_until: Timestamp(boot_until),
        handle: handle.strip_prefix('=').map(str::to_owned),
        stage,
    })
}

fn cause_from(text: &str) -> Result<RetireCause, Malformed> {
    use RetireCause::{BootLimit, Drained, Idle, Lost, Quarantined};
    let found = [Idle, BootLimit, Lost, Drained, Quarantined].into_iter().find(|why| cause(*why) == text);
    found.ok_or_else(|| Malformed::new("a cause", text))
}

type StandingFields = (u32, u64, String, u64, bool, i64, String, u64, u32);

/// How a pool does with its provisioner.
pub(super) fn standing_from(pool: PoolName, bytes: &[u8]) -> Result<PoolStanding, Malformed> {
    let fields: StandingFields = unpack("a pool's standing", bytes)?;
    let (failures, failed_at, last_failure, retry_at, quarantined, boot_time, offered, minute, bought) = fields;
    let offered = if offered.is_empty() { None } else { Some(json("a capacity", offered.as_bytes())?) };
    Ok(PoolStanding {
        pool,
        failures,
        failed_at: Timestamp(failed_at),
        last_failure: last_failure.strip_prefix('=').map(str::to_owned),
        retry_at: Timestamp(retry_at),
        quarantined,
        boot_time: u64::try_from(boot_time).ok().map(Millis),
        offered,
        minute: Timestamp(minute),
        bought,
    })
}
