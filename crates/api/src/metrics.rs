//! `/metrics`: counts from all rooms, and the state of the cell read anew for each answer; and the
//! time of each request by its route. Knows no metric's name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use tokio::net::TcpListener;
use volley_control::Control;
use volley_control::ledger::{Amounts, Answer, Overview, Query};
use volley_control::metrics::{FleetMetrics, MachineMetrics, ServerMetrics, WorkerMetrics};
use volley_model::{ScaleState, Timestamp};

use crate::problem::Problem;
use crate::server::BindError;

/// What Prometheus asks for and understands.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text of a server's metrics.
pub(crate) async fn text(control: &Control) -> Result<Response, Problem> {
    let Answer::Overview(overview) = control.read(Query::Overview { ahead_of: None }).await? else {
        return Err(crate::routes::unexpected());
    };
    let metrics = control.metrics();
    let stats = control.store_stats();
    metrics.store.operations.raise_to(stats.operations);
    metrics.store.reads.raise_to(stats.reads);
    metrics.store.transactions.raise_to(stats.transactions);
    let streams = control.streams_held();
    let machines = control.machines().await?;
    let text = metrics.text(|fleet| {
        fleet.streams.set(streams as f64);
        set_containers(fleet, &overview);
        set_pools(fleet, &overview);
        set_machines(&fleet.machines, &machines);
    });
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn set_containers(fleet: &FleetMetrics, overview: &Overview) {
    let waited = |since: Option<Timestamp>| since.map_or(0.0, |since| overview.now.since(since).0 as f64 / 1000.0);
    fleet.accepted.raise_to(overview.accepted);
    fleet.pruned.raise_to(overview.pruned);
    let names: Vec<(String, f64)> =
        overview.containers.iter().map(|(state, count)| (state.to_string(), *count as f64)).collect();
    fleet.containers.set_all(names.iter().map(|(state, count)| ([state.as_str()], *count)));
    fleet.oldest_wait.set(waited(overview.oldest));
    fleet.shapes.set(overview.shapes as f64);
    fleet.blocked_shapes.set(overview.blocked.shapes as f64);
    fleet.blocked_containers.set(overview.blocked.containers as f64);
    fleet.blocked_oldest.set(waited(overview.blocked.oldest));
    fleet.sessions.set(f64::from(overview.sessions));
}

fn set_pools(fleet: &FleetMetrics, overview: &Overview) {
    let pools = || overview.pools.iter().map(|(name, pool)| (name.as_str(), pool));
    let mut by_status = Vec::new();
    for (name, pool) in pools() {
        by_status.extend(pool.workers.iter().map(|(status, count)| (name, status.to_string(), f64::from(*count))));
    }
    fleet.workers.set_all(by_status.iter().map(|(name, status, count)| ([*name, status.as_str()], *count)));
    fleet.workers_empty.set_all(pools().map(|(name, pool)| ([name], f64::from(pool.empty))));
    fleet.holds.set_all(pools().map(|(name, pool)| ([name], f64::from(pool.holds))));
    let parts = |amount: fn(&Amounts) -> u64, unit: f64| {
        let part = move |all: u64, free: u64| (all as f64 / unit, all.saturating_sub(free) as f64 / unit);
        pools().flat_map(move |(name, pool)| {
            let (total, reserved) = part(amount(&pool.capacity), amount(&pool.free));
            [([name, "total"], total), ([name, "reserved"], reserved)]
        })
    };
    fleet.cpu.set_all(parts(|amounts| amounts.cpu_milli, 1000.0));
    fleet.memory.set_all(parts(|amounts| amounts.memory_bytes, 1.0));
    fleet.slots.set_all(parts(|amounts| amounts.slots, 1.0));
    fleet.gpus.set_all(parts(|amounts| amounts.gpu_milli, 1000.0));
}

fn set_machines(metrics: &MachineMetrics, state: &ScaleState) {
    let (mut stages, mut costs) = (BTreeMap::new(), BTreeMap::new());
    let (mut boots, mut quarantined) = (BTreeMap::new(), BTreeMap::new());
    for machine in &state.machines {
        let (record, pool) = (&machine.record, machine.record.pool.as_str());
        *stages.entry([pool, record.stage.name()]).or_insert(0.0) += 1.0;
        *costs.entry([pool]).or_insert(0.0) += record.cost_per_hour.0 as f64 / 1e6;
        if record.stage.is_in_flight() {
            let seconds = state.now.since(record.requested_at).0 as f64 / 1000.0;
            let longest = boots.entry([pool]).or_insert(seconds);
            *longest = seconds.max(*longest);
        }
        *quarantined.entry([pool]).or_insert(0.0) += f64::from(machine.worker.is_some_and(|worker| worker.quarantined));
    }
    metrics.machines.set_all(stages);
    metrics.cost_per_hour.set_all(costs);
    metrics.oldest_boot.set_all(boots);
    metrics.workers_quarantined.set_all(quarantined);
    metrics.pools_failing.set_all(state.standings.iter().flat_map(|standing| {
        let (pool, waits) = (standing.pool.as_str(), standing.retry_at > state.now);
        [([pool, "waits"], f64::from(waits)), ([pool, "quarantined"], f64::from(standing.quarantined))]
    }));
}

/// Notes how long a request took until its answer began.
pub(crate) async fn timed(State(metrics): State<Arc<ServerMetrics>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    // The pattern, never the path: a path has ids.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = method(request.method());
    let answer = next.run(request).await;
    let route = route.map_or(Cow::Borrowed("other"), |route| Cow::Owned(route.as_str().to_owned()));
    let labels = [route, Cow::Borrowed(method), Cow::Borrowed(class(answer.status()))];
    metrics.requests.time.observe_named(labels, started.elapsed());
    answer
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// Shows a worker's metrics at an address, until it is dropped. Nothing but numbers can be asked there.
pub async fn serve_worker_metrics(
    listen: SocketAddr,
    metrics: Arc<WorkerMetrics>,
) -> Result<(SocketAddr, impl Future<Output = std::io::Result<()>> + Send), BindError> {
    let failed = |source| BindError::Bind { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let show = async move || ([(CONTENT_TYPE, OPEN_METRICS)], metrics.text());
    let routes = Router::new().route("/metrics", get(show)).route("/healthz", get(async || "ok\n"));
    Ok((address, async move { axum::serve(listener, routes).await }))
}
