//! The routes of pools, and of what would become of a submission. Each one: read the request, ask control, answer.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, Path, State};
use axum::response::Json;
use http::StatusCode;
use serde_json::{Value, json};
use volley_control::engine::scale::{PoolProspect, Purchase};
use volley_control::ledger::{Answer, PoolOverview, Query};
use volley_control::{DryRun, Explanation, RunOutlook};
use volley_model::{Pool, PoolName, PoolVersion, ProvisionedMachine, ScaleState, Stage, Timestamp};
use volley_wire::pool_json::{pool_from, pool_to};

use super::parameters::Parameters;
use super::{Shared, read_body, unexpected};
use crate::auth::Caller;
use crate::bodies::schemas;
use crate::explained::Outlook;
use crate::problem::{Problem, ProblemBody};

type Answered = Result<Json<Value>, Problem>;

/// Workers named in a dry run's answer: more say nothing that their number does not.
const WORKERS_NAMED_MAX: usize = 100;

/// All pools with their workers, machines and luck.
#[utoipa::path(get, path = "/v1/pools", responses((status = 200, description = "All pools.", body = Value)))]
pub(super) async fn list(State(shared): State<Shared>) -> Answered {
    let pools = described(&shared).await?;
    Ok(Json(json!({ "version": 1, "pools": pools.into_iter().map(|(_, value)| value).collect::<Vec<_>>() })))
}

/// One pool with its workers, machines and luck.
#[utoipa::path(get, path = "/v1/pools/{name}",
    params(("name" = String, Path, description = "A pool's name.")), responses((status = 200, description = "The pool.", body = Value),
    (status = 404, description = "There is none.", body = ProblemBody)))]
pub(super) async fn show(State(shared): State<Shared>, Path(name): Path<String>) -> Answered {
    let found = described(&shared).await?.into_iter().find(|(pool, _)| pool.as_str() == name);
    found.map(|(_, value)| Json(value)).ok_or_else(|| Problem::not_found(format!("pool '{name}'")))
}

/// Creates or changes a pool.
#[utoipa::path(put, path = "/v1/pools/{name}",
    params(("name" = String, Path, description = "A pool's name."),
        ("expected" = Option<u64>, Query, description = "Only if this is its version still; 0: there is none."),
        ("renew" = Option<bool>, Query, description = "Forget its failures and its quarantine.")), request_body = Value, responses((status = 200, description = "Its new version.", body = Value),
    (status = 409, description = "It was changed meanwhile, or has machines of another provisioner.", body = ProblemBody),
    (status = 422, description = "A field is wrong.", body = ProblemBody)))]
pub(super) async fn apply(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    parameters: Parameters,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    let body = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let parameters = parameters.known(&["expected", "renew"])?;
    let pool = pool_from(read_body(&body)?)?;
    if pool.name.as_str() != name {
        let words = format!("name: the path says '{name}', the body '{}'; say the same", pool.name);
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, words));
    }
    let expected = parameters.value("expected")?.map(PoolVersion);
    let renew = parameters.flag("renew")?;
    let version = shared.control.apply_pool(pool, expected, renew).await?;
    Ok(Json(json!({ "name": name, "version": version })))
}

/// Removes a pool without workers and machines.
#[utoipa::path(delete, path = "/v1/pools/{name}",
    params(("name" = String, Path, description = "A pool's name.")), responses((status = 200, description = "It is removed.", body = Value),
    (status = 404, description = "There is none.", body = ProblemBody),
    (status = 409, description = "It has workers or machines.", body = ProblemBody)))]
pub(super) async fn remove(State(shared): State<Shared>, Path(name): Path<String>) -> Answered {
    let pool: PoolName = name.parse().map_err(|_| Problem::not_found(format!("pool '{name}'")))?;
    shared.control.remove_pool(pool).await?;
    Ok(Json(json!({ "removed": name })))
}

/// What would become of a submission, which is not made.
#[utoipa::path(post, path = "/v1/plan", request_body = schemas::Submission, responses((status = 200, description = "What would be placed, bought, and left waiting.", body = Value),
    (status = 422, description = "A field is wrong.", body = ProblemBody)))]
pub(super) async fn plan(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    let body = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let submission = volley_wire::json::submission_from(&body, caller.tenant.clone(), None)?;
    let dry = shared.control.dry_run(&submission).await?;
    Ok(Json(dry_run(&dry)))
}

/// Each pool with its workers, machines and luck.
async fn described(shared: &Shared) -> Result<Vec<(PoolName, Value)>, Problem> {
    let Answer::Pools(pools) = shared.control.read(Query::Pools).await? else { return Err(unexpected()) };
    let Answer::Overview(overview) = shared.control.read(Query::Overview { ahead_of: None }).await? else {
        return Err(unexpected());
    };
    let state = shared.control.machines().await?;
    let describe = |pool: Pool| {
        let value = describe(&pool, overview.pools.get(&pool.name), &state);
        (pool.name, value)
    };
    Ok(pools.into_iter().map(describe).collect())
}

fn describe(pool: &Pool, workers: Option<&PoolOverview>, state: &ScaleState) -> Value {
    let machines: Vec<&ProvisionedMachine> =
        state.machines.iter().filter(|machine| machine.record.pool == pool.name).collect();
    let cost = pool.elastic.as_ref().map(|elastic| elastic.cost_per_hour.times(machines.len() as u64));
    let standing = state.standings.iter().find(|standing| standing.pool == pool.name).map(|standing| {
        json!({
            "failures": standing.failures, "last_failure": standing.last_failure, "quarantined": standing.quarantined,
            "retry_at_ms": Some(standing.retry_at.0).filter(|at| *at > state.now.0),
            "boot_time": standing.boot_time.map(|time| time.to_string()), "offered": standing.offered,
        })
    });
    json!({
        "version": pool.version, "pool": pool_to(pool),
        "workers": workers.map(|workers| &workers.workers), "containers": workers.map(|workers| workers.containers),
        "machines": machines.iter().map(|machine| machine_of(machine)).collect::<Vec<_>>(),
        "in_flight": machines.iter().filter(|machine| machine.record.stage.is_in_flight()).count(),
        "cost_per_hour": cost.map(|cost| cost.to_string()), "standing": standing,
    })
}

fn machine_of(machine: &ProvisionedMachine) -> Value {
    let record = &machine.record;
    let why = match record.stage {
        Stage::Draining { why, .. } | Stage::Destroying { why, .. } => Some(why),
        _ => None,
    };
    json!({
        "worker": record.worker, "machine": record.handle, "stage": record.stage.name(),
        "requested_at_ms": record.requested_at.0, "why": why, "why_words": why.map(|why| why.to_string()),
        "status": machine.worker.map(|worker| worker.status), "containers": machine.worker.map(|w| w.containers),
    })
}

fn purchase(purchase: &Purchase) -> Value {
    let cost = purchase.cost_per_hour.times(u64::from(purchase.count));
    json!({ "pool": purchase.pool, "count": purchase.count, "cost_per_hour": cost.to_string() })
}

fn prospect(prospect: &PoolProspect, now: Option<Timestamp>) -> Value {
    let since = prospect.since.map(|since| since.0);
    json!({
        "pool": prospect.pool, "prospect": prospect.prospect.to_string(), "in_flight": prospect.in_flight,
        "in_flight_since_ms": since, "in_flight_for_ms": now.zip(prospect.since).map(|(now, since)| now.since(since).0),
        "boot_time": prospect.boot_time.map(|time| time.to_string()),
        "cost_per_hour": prospect.cost_per_hour.map(|cost| cost.to_string()),
    })
}

fn dry_run(dry: &DryRun) -> Value {
    let unplaced: u64 = dry.runs.iter().map(|run| run.unplaced).sum();
    json!({
        "version": 1, "refused": dry.refused, "runs": dry.runs.iter().map(run_of).collect::<Vec<_>>(), "unplaced": unplaced,
        "purchases": dry.purchases.iter().map(purchase).collect::<Vec<_>>(),
        "cost_per_hour": dry.cost_per_hour.to_string(),
    })
}

fn run_of(run: &RunOutlook) -> Value {
    let named = run.placed.iter().take(WORKERS_NAMED_MAX);
    let placed: Vec<Value> =
        named.map(|((pool, worker), count)| json!({ "pool": pool, "worker": worker, "count": count })).collect();
    let words: Vec<String> = run.reasons.iter().map(ToString::to_string).collect();
    json!({
        "count": run.count, "placed_now": run.placed.values().sum::<u64>(), "placed": placed,
        "workers": run.placed.len(), "on_way": run.on_way, "bought_for": run.bought_for, "unplaced": run.unplaced,
        "reasons": run.reasons, "words": words,
        "pools": run.pools.iter().map(|pool| prospect(pool, None)).collect::<Vec<_>>(),
    })
}

/// What an explanation says of the fleet: by class of workers, by pool, and of the whole shape.
pub(super) fn outlook(explanation: &Explanation) -> Outlook {
    let classes: Vec<Value> = explanation
        .classes
        .iter()
        .map(|class| {
            json!({
                "pool": class.pool, "workers": class.workers, "capacity": class.capacity, "words": class.to_string(),
                "never": class.never.as_ref().map(ToString::to_string), "fit": class.fit, "held": class.held,
                "cpu_short": class.cpu.map(|(count, ..)| count), "memory_short": class.memory.map(|(count, ..)| count),
                "gpu_short": class.gpu, "slots_short": class.slots, "unavailable": class.unavailable,
            })
        })
        .collect();
    let shape = explanation.outlook.as_ref().map(|outlook| {
        json!({
            "waiting": outlook.waiting, "fit_ready": outlook.fit_ready, "fit_booting": outlook.fit_booting,
            "bought_for": outlook.bought_for, "unserved": outlook.unserved(),
        })
    });
    let pools = explanation.pools.iter().map(|pool| prospect(pool, Some(explanation.now))).collect();
    Outlook { classes, pools, shape }
}
