//! The JSON of the cell at a glance.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use volley_control::ledger::{self, ShapeBacklog};
use volley_model::{Shape, Timestamp, WaitReason};

/// The cell at a glance: containers by state, what waits by shape, the fleet by pool.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Overview {
    version: u32,
    /// The store's time.
    now_ms: u64,
    /// Containers ever accepted.
    accepted: u64,
    /// Finished containers that were forgotten.
    pruned: u64,
    /// By state, zeros included.
    containers: BTreeMap<String, u64>,
    /// How long the container in front that waited longest has waited.
    oldest_wait_ms: Option<u64>,
    /// How many shapes have something waiting.
    shapes: u64,
    /// Of these: of how many nothing fits at present.
    blocked_shapes: u64,
    /// Containers behind them.
    blocked_containers: u64,
    /// The shapes in front, the best first; at most `max`.
    backlog: Vec<Backlog>,
    /// By name.
    pools: Vec<Pool>,
    /// Live servers.
    sessions: u32,
}

/// What waits of one shape.
#[derive(Debug, Serialize, ToSchema)]
struct Backlog {
    /// Its content's address.
    shape: String,
    tenant: String,
    /// What it asks for, in words.
    asks: String,
    waiting: u64,
    /// How long the first of them has waited.
    waited_ms: u64,
    /// Nothing of it fits at present.
    blocked: bool,
    /// Why, while it is blocked.
    #[schema(value_type = Vec<Object>)]
    reasons: Vec<WaitReason>,
    /// The same in words.
    words: String,
}

/// The workers of one pool.
#[derive(Debug, Serialize, ToSchema)]
struct Pool {
    pool: String,
    /// By status; only those there are.
    workers: BTreeMap<String, u32>,
    /// Ready ones on which nothing runs.
    empty: u32,
    /// Attempts on all of them.
    containers: u64,
    /// Workers on which room is kept.
    holds: u32,
    /// What the ready ones offer.
    capacity: Amounts,
    /// What is free of it.
    free: Amounts,
}

/// Sums over workers.
#[derive(Debug, Serialize, ToSchema)]
struct Amounts {
    cpu_milli: u64,
    memory_bytes: u64,
    slots: u64,
    gpu_milli: u64,
}

impl From<&ledger::Amounts> for Amounts {
    fn from(amounts: &ledger::Amounts) -> Self {
        let ledger::Amounts { cpu_milli, memory_bytes, slots, gpu_milli } = *amounts;
        Self { cpu_milli, memory_bytes, slots, gpu_milli }
    }
}

impl Overview {
    /// With at most `max` shapes.
    pub(crate) fn of(overview: &ledger::Overview, max: usize) -> Self {
        let waited = |since: Timestamp| overview.now.since(since).0;
        Self {
            version: 1,
            now_ms: overview.now.0,
            accepted: overview.accepted,
            pruned: overview.pruned,
            containers: overview.containers.iter().map(|(state, count)| (state.to_string(), *count)).collect(),
            oldest_wait_ms: overview.oldest.map(waited),
            shapes: overview.shapes,
            blocked_shapes: overview.blocked.shapes,
            blocked_containers: overview.blocked.containers,
            backlog: overview.backlog.iter().take(max).map(|shape| backlog(shape, waited(shape.since))).collect(),
            pools: overview.pools.iter().map(|(name, pool)| pool_of(name.to_string(), pool)).collect(),
            sessions: overview.sessions,
        }
    }
}

fn backlog(found: &ShapeBacklog, waited_ms: u64) -> Backlog {
    let reasons: Vec<WaitReason> = found.blocked.as_deref().cloned().unwrap_or_default();
    Backlog {
        shape: found.hash.to_string(),
        tenant: found.shape.tenant.to_string(),
        asks: asks(&found.shape),
        waiting: found.waiting,
        waited_ms,
        blocked: found.blocked.is_some(),
        words: reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        reasons,
    }
}

fn pool_of(pool: String, found: &ledger::PoolOverview) -> Pool {
    Pool {
        pool,
        workers: found.workers.iter().map(|(status, count)| (status.to_string(), *count)).collect(),
        empty: found.empty,
        containers: found.containers,
        holds: found.holds,
        capacity: Amounts::from(&found.capacity),
        free: Amounts::from(&found.free),
    }
}

/// What a shape asks for, as in `500m CPU, 1Gi, H100:2, pool gpu, zone=a`.
fn asks(shape: &Shape) -> String {
    let resources = &shape.resources;
    let mut words = vec![format!("{} CPU", resources.cpu), resources.memory.rounded()];
    words.extend(resources.gpu.as_ref().map(ToString::to_string));
    match &shape.pool {
        volley_model::PoolSelector::Any => {}
        volley_model::PoolSelector::Preferred(pool) => words.push(format!("pool {pool} if it can")),
        volley_model::PoolSelector::Required(pool) => words.push(format!("pool {pool}")),
    }
    words.extend(shape.require_labels.iter().map(|(key, value)| format!("{key}={value}")));
    words.join(", ")
}
