//! Containers and groups: submit, list, show, stop, read output.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Json, Response};
use http::{HeaderMap, StatusCode};
use volley_control::ledger::{Answer, ContainerRecord, ListQuery, PrefixMatch, Query, StopTarget};
use volley_model::{ContainerId, GroupId, TenantName};

use super::parameters::Parameters;
use super::{BODY_BYTES_MAX, Shared, unexpected};
use crate::auth::Caller;
use crate::bodies::{self, schemas};
use crate::logs::{Reader, Which};
use crate::problem::{Problem, ProblemBody};
use crate::trace_context;

/// Accepts a group of containers, or gives the group that the same key made before. Acknowledged means on disk.
#[utoipa::path(post, path = "/v1/containers", request_body = schemas::Submission,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same group."),
        ("tenant" = Option<String>, Query, description = "Whose they are to be; admins only."),
    ),
    responses(
        (status = 201, description = "Accepted.", body = bodies::Accepted),
        (status = 200, description = "The same key made it before.", body = bodies::Accepted),
        (status = 409, description = "The key was used with another body.", body = ProblemBody),
        (status = 413, description = "Too large a body.", body = ProblemBody),
        (status = 422, description = "A field is wrong; nothing was accepted.", body = ProblemBody),
        (status = 429, description = "The backlog is full or the tenant too fast; Retry-After says when.", body = ProblemBody),
        (status = 503, description = "The outcome is unknown: send the same again with the same key.", body = ProblemBody),
    ))]
pub(super) async fn submit(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let parameters = parameters.known(&["tenant"])?;
    let tenant = tenant_of(&caller, &parameters)?.unwrap_or_else(|| caller.tenant.clone());
    let body = body.map_err(|error| {
        let limit = BODY_BYTES_MAX >> 20;
        Problem::new(error.status(), format!("{}; a body has at most {limit} MiB: submit in parts", error.body_text()))
    })?;
    let key = match headers.get("idempotency-key").map(|key| key.to_str()) {
        None => None,
        Some(Ok(key)) => Some(key.to_owned()),
        Some(Err(_)) => return Err(Problem::new(StatusCode::BAD_REQUEST, "Idempotency-Key: give ASCII text")),
    };
    let mut submission = volley_wire::json::submission_from(&body, tenant, key)?;
    let digest = submission.digest();
    let parent = headers.get(trace_context::TRACEPARENT).and_then(|parent| parent.to_str().ok());
    trace_context::carry(&mut submission, parent);
    let reply = shared.control.submit(submission, digest).await?;
    let status = if reply.repeated { StatusCode::OK } else { StatusCode::CREATED };
    let answer = bodies::Accepted { group: reply.group.to_string(), count: reply.count, repeated: reply.repeated };
    Ok((status, Json(answer)).into_response())
}

/// The tenant that a request names. Whoever is no operator may name its own.
fn tenant_of(caller: &Caller, parameters: &Parameters) -> Result<Option<TenantName>, Problem> {
    let named = parameters.value::<TenantName>("tenant")?;
    match (named, caller.scope()) {
        (Some(named), Some(own)) if named != own => {
            Err(Problem::new(StatusCode::FORBIDDEN, format!("this token is of tenant {own}, not of {named}")))
        }
        (named, own) => Ok(named.or(own)),
    }
}

/// A page of containers: groups newest first, containers by index.
#[utoipa::path(get, path = "/v1/containers",
    params(
        ("state" = Option<String>, Query, description = "Only these states, divided by commas."),
        ("label" = Option<Vec<String>>, Query, description = "Only groups with this label, as KEY=VALUE; may be repeated."),
        ("group" = Option<String>, Query, description = "Only this group, by id or a unique beginning."),
        ("tenant" = Option<String>, Query, description = "Only this tenant's; others than one's own for admins only."),
        ("after" = Option<String>, Query, description = "The `next` of the page before."),
        ("max" = Option<u32>, Query, description = "At most this many, up to 1,000."),
    ),
    responses((status = 200, description = "A page.", body = bodies::Containers),
        (status = 400, description = "A parameter is wrong.", body = ProblemBody)))]
pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
) -> Result<Json<bodies::Containers>, Problem> {
    let parameters = parameters.known(&["state", "label", "group", "tenant", "after", "max"])?;
    let mut query = ListQuery { max: parameters.max()?, after: parameters.value("after")?, ..ListQuery::default() };
    query.tenant = tenant_of(&caller, &parameters)?;
    if let Some(text) = parameters.text("group")? {
        let (Named::Group(id) | Named::Container(ContainerId { group: id, .. })) =
            resolve(&shared, &caller, text).await?;
        query.group = Some(id);
    }
    for state in parameters.all("state").flat_map(|states| states.split(',')) {
        query.states.push(state.parse().map_err(|error| Problem::parameter("state", error))?);
    }
    for label in parameters.all("label") {
        let (key, value) = label.split_once('=').ok_or_else(|| Problem::parameter("label", "give KEY=VALUE"))?;
        query.labels.insert(key.to_owned(), value.to_owned());
    }
    let Answer::List(page) = shared.control.read(Query::List(query)).await? else { return Err(unexpected()) };
    let containers = page.containers.iter().map(|record| with_detail(&shared, record)).collect();
    Ok(Json(bodies::Containers { containers, next: page.next.map(|id| id.to_string()) }))
}

fn with_detail(shared: &Shared, record: &ContainerRecord) -> bodies::Container {
    let mut container = bodies::Container::from(record);
    container.detail = shared.control.details().of(record);
    container
}

pub(super) enum Named {
    Container(ContainerId),
    Group(GroupId),
}

/// The one thing of the caller's whose id starts with a text.
pub(super) async fn resolve(shared: &Shared, caller: &Caller, text: &str) -> Result<Named, Problem> {
    if let Ok(id) = text.parse() {
        return Ok(Named::Container(id));
    }
    let query = Query::Prefix(text.to_ascii_lowercase(), caller.scope());
    let Answer::Prefix(found) = shared.control.read(query).await? else { return Err(unexpected()) };
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

pub(super) async fn record(shared: &Shared, caller: &Caller, id: ContainerId) -> Result<ContainerRecord, Problem> {
    match shared.control.read(Query::Container(id, caller.scope())).await? {
        Answer::Container(Some(record)) => Ok(*record),
        Answer::Container(None) => Err(Problem::not_found(format!("container {id}"))),
        _ => Err(unexpected()),
    }
}

async fn one_group(shared: &Shared, caller: &Caller, id: GroupId) -> Result<bodies::Group, Problem> {
    match shared.control.read(Query::Group(id, caller.scope())).await? {
        Answer::Group(Some(record)) => Ok(bodies::Group::from(&*record)),
        Answer::Group(None) => Err(Problem::not_found(format!("group {id}"))),
        _ => Err(unexpected()),
    }
}

/// One container, or one group when the id is a group's of more than one container.
#[utoipa::path(get, path = "/v1/containers/{id}",
    params(("id" = String, Path, description = "An id or a unique beginning of one.")),
    responses((status = 200, description = "A container, or a group.", body = bodies::Container),
        (status = 404, description = "There is none, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "More than one begins so.", body = ProblemBody)))]
pub(super) async fn container(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Response, Problem> {
    match resolve(&shared, &caller, &text).await? {
        Named::Container(id) => Ok(Json(with_detail(&shared, &record(&shared, &caller, id).await?)).into_response()),
        Named::Group(id) => Ok(Json(one_group(&shared, &caller, id).await?).into_response()),
    }
}

/// One group.
#[utoipa::path(get, path = "/v1/groups/{id}",
    params(("id" = String, Path, description = "An id or a unique beginning of one.")),
    responses((status = 200, description = "The group.", body = bodies::Group),
        (status = 404, description = "There is none, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "More than one begins so.", body = ProblemBody)))]
pub(super) async fn group(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Json<bodies::Group>, Problem> {
    let (Named::Group(id) | Named::Container(ContainerId { group: id, .. })) = resolve(&shared, &caller, &text).await?;
    Ok(Json(one_group(&shared, &caller, id).await?))
}

/// Stops a container, or all of a group.
#[utoipa::path(delete, path = "/v1/containers/{id}",
    params(("id" = String, Path, description = "An id or a unique beginning of one."),
        ("force" = Option<bool>, Query, description = "Kill at once instead of after the grace.")),
    responses((status = 200, description = "How many were reached.", body = bodies::Stopped),
        (status = 404, description = "There is none, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "More than one begins so.", body = ProblemBody)))]
pub(super) async fn stop(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
    parameters: Parameters,
) -> Result<Json<bodies::Stopped>, Problem> {
    let force = parameters.known(&["force"])?.flag("force")?;
    let target = match resolve(&shared, &caller, &text).await? {
        Named::Container(id) => StopTarget::Container(id),
        Named::Group(id) => StopTarget::Group(id),
    };
    let reply = shared.control.stop(target, caller.scope(), force).await?;
    let (finished, stopping) = (reply.finished, reply.stopping);
    Ok(Json(bodies::Stopped { finished, stopping, already_finished: reply.already_finished }))
}

/// Stops all of a group; with a container's id only that one.
#[utoipa::path(delete, path = "/v1/groups/{id}",
    params(("id" = String, Path, description = "An id or a unique beginning of one."),
        ("force" = Option<bool>, Query, description = "Kill at once instead of after the grace.")),
    responses((status = 200, description = "How many were reached.", body = bodies::Stopped),
        (status = 404, description = "There is none, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "More than one begins so.", body = ProblemBody)))]
pub(super) async fn stop_group(
    shared: State<Shared>,
    caller: Extension<Caller>,
    id: Path<String>,
    parameters: Parameters,
) -> Result<Json<bodies::Stopped>, Problem> {
    stop(shared, caller, id, parameters).await
}

/// What a container has printed, as bytes.
#[utoipa::path(get, path = "/v1/containers/{id}/logs",
    params(("id" = String, Path, description = "An id or a unique beginning of one."),
        ("stream" = Option<String>, Query, description = "stdout, stderr or both."),
        ("follow" = Option<bool>, Query, description = "Wait for more until the container has finished.")),
    responses((status = 200, description = "Its output.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "There is none, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "More than one begins so, or it is a group.", body = ProblemBody),
        (status = 503, description = "Its worker is not connected.", body = ProblemBody)))]
pub(super) async fn logs(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let parameters = parameters.known(&["stream", "follow"])?;
    let Named::Container(id) = resolve(&shared, &caller, &text).await? else {
        let words = format!("'{text}' is a group; name one of its containers, as in {text}-0");
        return Err(Problem::new(StatusCode::CONFLICT, words));
    };
    let which = match parameters.text("stream")?.unwrap_or("both") {
        "both" => Which::Both,
        "stdout" => Which::Stdout,
        "stderr" => Which::Stderr,
        _ => return Err(Problem::parameter("stream", "give 'stdout', 'stderr' or 'both'")),
    };
    let follow = parameters.flag("follow")?;
    record(&shared, &caller, id).await?;
    let follower = follow.then(|| shared.patience.follower()).transpose()?;
    let caller = (shared.auth, caller);
    let body = Reader::new(shared.control, shared.peers, caller, id, which, follower).body().await?;
    Ok(([(http::header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}
