//! The routes under `/v1`. Each one: read the request, ask control, answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query as Params, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Json, Response, Sse, sse};
use axum::routing::{get, post};
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use volley_control::Control;
use volley_control::ledger::{
    Answer, ContainerRecord, Event, EventPage, ListQuery, PrefixMatch, Query, Schedulable, StopTarget,
};
use volley_model::{ContainerId, EventNumber, GroupId, Millis, TenantName, WorkerId};
use volley_wire::proto::volley_server::{self, VolleyServer};
use volley_wire::proto::workers_server::{self, WorkersServer};

use crate::WorkerStreams;
use crate::logs::{Reader, Which};
use crate::metrics::{self, timed};
use crate::problem::Problem;
use crate::records;
use crate::volley_service::VolleyService;
use crate::workers_service::WorkersService;

/// Largest body of a submission.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Largest message of a worker: an inventory of 100,000 attempts takes 5 MiB.
const GRPC_BYTES_MAX: usize = 32 << 20;
/// Most containers or events of one page.
const PAGE_MAX: u32 = 1_000;
/// Longest wait of a read of events.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Shared {
    control: Arc<Control>,
    streams: Arc<WorkerStreams>,
}

type Answered = Result<Json<Value>, Problem>;

pub(crate) fn routes(control: Arc<Control>, streams: Arc<WorkerStreams>) -> Router {
    let workers_service = WorkersService { control: Arc::clone(&control), streams: Arc::clone(&streams) };
    let workers_service = WorkersServer::new(workers_service).max_decoding_message_size(GRPC_BYTES_MAX);
    let volley_service = VolleyServer::new(VolleyService { control: Arc::clone(&control) });
    let volley_service = volley_service.max_decoding_message_size(BODY_BYTES_MAX);
    let metrics = control.shared_metrics();
    Router::new()
        .route("/v1/containers", get(list).post(submit))
        .route("/v1/containers/{id}", get(container).delete(stop))
        .route("/v1/containers/{id}/logs", get(logs_of))
        .route("/v1/groups/{id}", get(group).delete(stop))
        .route("/v1/workers", get(workers))
        .route("/v1/workers/{id}/{action}", post(schedulable))
        .route("/v1/events", get(events))
        .route("/v1/audit", get(audit))
        .route("/v1/stats", get(stats))
        .route("/v1/backup", post(backup))
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(audit_ready))
        .fallback(async || Problem::not_found("such path; see docs/architecture.md"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Shared { control, streams })
        .route_service(&format!("/{}/{{*method}}", workers_server::SERVICE_NAME), workers_service)
        .route_service(&format!("/{}/{{*method}}", volley_server::SERVICE_NAME), volley_service)
        .layer(from_fn_with_state(metrics, timed))
}

pub(crate) fn unexpected() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the store answered another question; this is a bug in volley")
}

async fn submit(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|error| {
        let limit = BODY_BYTES_MAX >> 20;
        Problem::new(error.status(), format!("{}; a body has at most {limit} MiB: submit in parts", error.body_text()))
    })?;
    let key = match headers.get("idempotency-key").map(|key| key.to_str()) {
        None => None,
        Some(Ok(key)) => Some(key.to_owned()),
        Some(Err(_)) => return Err(Problem::new(StatusCode::BAD_REQUEST, "Idempotency-Key: give ASCII text")),
    };
    let submission = volley_wire::json::submission_from(&body, TenantName::default(), key)?;
    let digest = submission.digest();
    let reply = shared.control.submit(submission, digest).await?;
    let status = if reply.repeated { StatusCode::OK } else { StatusCode::CREATED };
    let answer = json!({ "group": reply.group.to_string(), "count": reply.count, "repeated": reply.repeated });
    Ok((status, Json(answer)).into_response())
}

async fn list(State(shared): State<Shared>, Params(params): Params<HashMap<String, String>>) -> Answered {
    let mut query = ListQuery { max: PAGE_MAX, ..ListQuery::default() };
    for (name, value) in &params {
        let wrong = |error: &dyn std::fmt::Display| {
            Problem::new(StatusCode::BAD_REQUEST, format!("parameter '{name}': {error}"))
        };
        match name.as_str() {
            "group" => match resolve(&shared, value).await? {
                Named::Group(id) | Named::Container(ContainerId { group: id, .. }) => query.group = Some(id),
            },
            "after" => query.after = Some(value.parse().map_err(|error| wrong(&error))?),
            "max" => query.max = value.parse::<u32>().map_err(|error| wrong(&error))?.clamp(1, PAGE_MAX),
            "state" => {
                for state in value.split(',') {
                    query.states.push(state.parse().map_err(|error| wrong(&error))?);
                }
            }
            _ => return Err(wrong(&"not known; there are group, state, after, max")),
        }
    }
    let Answer::List(page) = shared.control.read(Query::List(query)).await? else { return Err(unexpected()) };
    let containers: Vec<Value> = page.containers.iter().map(records::container).collect();
    Ok(Json(json!({ "containers": containers, "next": page.next.map(|id| id.to_string()) })))
}

enum Named {
    Container(ContainerId),
    Group(GroupId),
}

/// The one thing whose id starts with a text.
async fn resolve(shared: &Shared, text: &str) -> Result<Named, Problem> {
    if let Ok(id) = text.parse() {
        return Ok(Named::Container(id));
    }
    let lower = text.to_ascii_lowercase();
    let Answer::Prefix(found) = shared.control.read(Query::Prefix(lower, None)).await? else {
        return Err(unexpected());
    };
    match found.as_slice() {
        [] => Err(Problem::not_found(format!("container or group '{text}'"))),
        [PrefixMatch::Group(group, 1)] => Ok(Named::Container(ContainerId { group: *group, index: 0 })),
        [PrefixMatch::Group(group, _)] => Ok(Named::Group(*group)),
        [PrefixMatch::Container(id)] => Ok(Named::Container(*id)),
        [one, other, ..] => {
            let (one, other) = (matched(one), matched(other));
            let words = format!("'{text}' is ambiguous ({one}, {other}); give more of the id");
            Err(Problem::new(StatusCode::CONFLICT, words))
        }
    }
}

fn matched(found: &PrefixMatch) -> String {
    match found {
        PrefixMatch::Group(id, _) => id.to_string(),
        PrefixMatch::Container(id) => id.to_string(),
    }
}

async fn record(shared: &Shared, id: ContainerId) -> Result<ContainerRecord, Problem> {
    match shared.control.read(Query::Container(id, None)).await? {
        Answer::Container(Some(record)) => Ok(*record),
        Answer::Container(None) => Err(Problem::not_found(format!("container {id}"))),
        _ => Err(unexpected()),
    }
}

async fn one_group(shared: &Shared, id: GroupId) -> Answered {
    match shared.control.read(Query::Group(id, None)).await? {
        Answer::Group(Some(record)) => Ok(Json(records::group(&record))),
        Answer::Group(None) => Err(Problem::not_found(format!("group {id}"))),
        _ => Err(unexpected()),
    }
}

async fn container(State(shared): State<Shared>, Path(text): Path<String>) -> Answered {
    match resolve(&shared, &text).await? {
        Named::Container(id) => Ok(Json(records::container(&record(&shared, id).await?))),
        Named::Group(id) => one_group(&shared, id).await,
    }
}

async fn group(State(shared): State<Shared>, Path(text): Path<String>) -> Answered {
    match resolve(&shared, &text).await? {
        Named::Group(id) | Named::Container(ContainerId { group: id, .. }) => one_group(&shared, id).await,
    }
}

async fn stop(
    State(shared): State<Shared>,
    Path(text): Path<String>,
    Params(params): Params<HashMap<String, String>>,
) -> Answered {
    let target = match resolve(&shared, &text).await? {
        Named::Container(id) => StopTarget::Container(id),
        Named::Group(id) => StopTarget::Group(id),
    };
    let force = params.get("force").is_some_and(|force| force == "true");
    let reply = shared.control.stop(target, None, force).await?;
    Ok(Json(json!({
        "finished": reply.finished, "stopping": reply.stopping, "already_finished": reply.already_finished,
    })))
}

async fn logs_of(
    State(shared): State<Shared>,
    Path(text): Path<String>,
    Params(params): Params<HashMap<String, String>>,
) -> Result<Response, Problem> {
    let Named::Container(id) = resolve(&shared, &text).await? else {
        let words = format!("'{text}' is a group; name one of its containers, as in {text}-0");
        return Err(Problem::new(StatusCode::CONFLICT, words));
    };
    let which = match params.get("stream").map_or("both", String::as_str) {
        "both" => Which::Both,
        "stdout" => Which::Stdout,
        "stderr" => Which::Stderr,
        _ => return Err(Problem::new(StatusCode::BAD_REQUEST, "stream: give 'stdout', 'stderr' or 'both'")),
    };
    let follow = params.get("follow").is_some_and(|follow| follow == "true");
    record(&shared, id).await?;
    let body = Reader::new(shared.control, shared.streams, id, which, follow).body().await?;
    Ok(([(http::header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

async fn workers(State(shared): State<Shared>) -> Answered {
    let query = Query::Workers { after: None, max: u32::MAX };
    let Answer::Workers { workers, .. } = shared.control.read(query).await? else { return Err(unexpected()) };
    Ok(Json(json!({ "workers": workers.iter().map(records::worker).collect::<Vec<_>>() })))
}

/// The worker of this name, or the only one whose name starts so.
async fn resolve_worker(shared: &Shared, text: &str) -> Result<WorkerId, Problem> {
    let query = Query::Workers { after: None, max: u32::MAX };
    let Answer::Workers { workers, .. } = shared.control.read(query).await? else { return Err(unexpected()) };
    let mut matching: Vec<WorkerId> = workers.into_iter().map(|record| record.view.worker.id.clone()).collect();
    matching.retain(|id| id.as_str().starts_with(text));
    match matching.as_slice() {
        [] => Err(Problem::not_found(format!("worker '{text}'; 'volley workers' lists them"))),
        [only] => Ok(only.clone()),
        _ => match matching.iter().find(|id| id.as_str() == text) {
            Some(exact) => Ok(exact.clone()),
            None => {
                let words = format!("'{text}' is ambiguous ({}, {}); give more of the name", matching[0], matching[1]);
                Err(Problem::new(StatusCode::CONFLICT, words))
            }
        },
    }
}

/// Longest deadline of a drain.
const DRAIN_DEADLINE_MAX: Millis = Millis::from_secs(30 * 24 * 3600);

async fn schedulable(
    State(shared): State<Shared>,
    Path((worker, action)): Path<(String, String)>,
    Params(params): Params<HashMap<String, String>>,
) -> Answered {
    let wrong = |problem: &dyn std::fmt::Display| {
        Problem::new(StatusCode::BAD_REQUEST, format!("parameter 'deadline': {problem}"))
    };
    let deadline = params.get("deadline").map(|text| text.parse::<Millis>()).transpose();
    let deadline = deadline.map_err(|error| wrong(&error))?;
    if deadline.is_some_and(|deadline| deadline > DRAIN_DEADLINE_MAX) {
        return Err(wrong(&format!("at most {DRAIN_DEADLINE_MAX} is allowed")));
    }
    let to = match action.as_str() {
        "cordon" => Schedulable::Cordoned,
        "uncordon" => Schedulable::Open,
        "drain" => Schedulable::Drain { deadline },
        _ => return Err(Problem::not_found(format!("action '{action}'; there are cordon, uncordon, drain"))),
    };
    if deadline.is_some() && action != "drain" {
        return Err(wrong(&format!("'{action}' has none; only 'drain' has")));
    }
    let worker = resolve_worker(&shared, &worker).await?;
    shared.control.set_schedulable(worker.clone(), to).await?;
    Ok(Json(json!({ "worker": worker, "action": action, "deadline_ms": deadline.map(|deadline| deadline.0) })))
}

async fn audit(State(shared): State<Shared>) -> Answered {
    let Answer::Audit(found) = shared.control.read(Query::Audit).await? else { return Err(unexpected()) };
    Ok(Json(records::audit(&found)))
}

async fn stats(State(shared): State<Shared>) -> Json<Value> {
    Json(records::stats(&shared.control.turn_stats(), shared.control.store_stats()))
}

async fn show_metrics(State(shared): State<Shared>) -> Result<Response, Problem> {
    metrics::text(&shared.control).await
}

async fn audit_ready(State(shared): State<Shared>) -> Result<&'static str, Problem> {
    shared.control.read(Query::Pools).await?;
    Ok("ready\n")
}

async fn backup(State(shared): State<Shared>, body: Bytes) -> Answered {
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let file = value["file"].as_str().filter(|file| file.starts_with('/'));
    let Some(file) = file else {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "file: give an absolute path on the server"));
    };
    shared.control.backup(file.into()).await?;
    Ok(Json(json!({ "file": file })))
}

async fn page(shared: &Shared, after: EventNumber) -> Result<EventPage, Problem> {
    match shared.control.read(Query::Events { after, max: PAGE_MAX, scope: None }).await? {
        Answer::Events(page) => Ok(page),
        _ => Err(unexpected()),
    }
}

/// A page as JSON (waiting for the first event with `wait=true`), or a stream for who accepts one.
async fn events(
    State(shared): State<Shared>,
    Params(params): Params<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let after = params.get("after").map(String::as_str).or(last).unwrap_or("0").parse();
    let after = EventNumber(after.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "after: give an event's number"))?);
    let accepts = headers.get("accept").and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/event-stream") {
        return Ok(stream_events(shared, after).into_response());
    }
    let mut grew = shared.control.events_grew();
    let mut found = page(&shared, after).await?;
    if found.events.is_empty() && params.get("wait").is_some_and(|wait| wait == "true") {
        // Ended by time as well as by events: the client asks again.
        let _ = tokio::time::timeout(WAIT_MAX, grew.changed()).await;
        found = page(&shared, after).await?;
    }
    let events: Vec<Value> = found.events.iter().map(records::event).collect();
    Ok(Json(json!({ "events": events, "oldest": found.oldest, "last": found.last })).into_response())
}

/// All events after a number, for ever; resumable by `Last-Event-ID`.
fn stream_events(shared: Shared, after: EventNumber) -> impl IntoResponse {
    let start = (shared.control.events_grew(), shared, after, Vec::<Event>::new().into_iter());
    let events = stream::unfold(start, |(mut grew, shared, mut after, mut waiting)| async move {
        loop {
            if let Some(event) = waiting.next() {
                after = event.number;
                let sent = sse::Event::default().id(after.to_string()).data(records::event(&event).to_string());
                return Some((Ok::<_, std::convert::Infallible>(sent), (grew, shared, after, waiting)));
            }
            let found = page(&shared, after).await.ok()?;
            if found.events.is_empty() {
                grew.changed().await.ok()?;
            }
            waiting = found.events.into_iter();
        }
    });
    Sse::new(events).keep_alive(sse::KeepAlive::default())
}
