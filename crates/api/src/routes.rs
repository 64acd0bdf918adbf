//! The routes: which there are, what each asks of its caller, and their OpenAPI document. What
//! they do is in the rooms below; each one reads the request, asks control, answers.

mod access;
mod cell;
mod containers;
mod events;
mod exec;
mod explain;
mod parameters;
mod pools;
#[cfg(test)]
mod reference;
mod workers;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use http::{HeaderValue, Method, StatusCode};
use serde::de::DeserializeOwned;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Info, OpenApi, PathItem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use volley_control::Control;
use volley_wire::proto::servers_server::{self, ServersServer};
use volley_wire::proto::volley_server::{self, VolleyServer};
use volley_wire::proto::workers_server::{self, WorkersServer};
use volley_wire::protocol;

use crate::WorkerStreams;
use crate::auth::{Access, Auth, Gate, Tokens, admit};
use crate::metrics::timed;
use crate::patience::{Patience, bodies as patient_bodies};
use crate::peers::Peers;
use crate::problem::Problem;
use crate::servers_service::ServersService;
use crate::volley_service::VolleyService;
use crate::workers_service::WorkersService;

/// Largest body of a submission.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Largest message of a worker: an inventory of 100,000 attempts takes 5 MiB.
const GRPC_BYTES_MAX: usize = 32 << 20;
/// Most containers, events or other records of one page.
const PAGE_MAX: u32 = 1_000;

/// What every route asks of its caller. What is not here does not answer.
const TABLE: &[(&str, &str, Access)] = &[
    ("GET", "/healthz", Access::Anybody),
    ("GET", "/readyz", Access::Anybody),
    ("GET", OPENAPI_PATH, Access::Anybody),
    // Counts of the cell, without ids and without tenants.
    ("GET", "/metrics", Access::Read),
    ("GET", "/v1/containers", Access::Read),
    ("POST", "/v1/containers", Access::Submit),
    ("GET", "/v1/containers/{id}", Access::Read),
    ("DELETE", "/v1/containers/{id}", Access::Submit),
    ("GET", "/v1/containers/{id}/logs", Access::Read),
    ("GET", "/v1/containers/{id}/explain", Access::Read),
    // It tells of the fleet, of which only an operator may know all.
    ("POST", "/v1/plan", Access::Admin),
    ("GET", "/v1/pools", Access::Admin),
    ("GET", "/v1/pools/{name}", Access::Admin),
    ("PUT", "/v1/pools/{name}", Access::Admin),
    ("DELETE", "/v1/pools/{name}", Access::Admin),
    ("GET", "/v1/containers/{id}/stats", Access::Read),
    ("POST", "/v1/containers/{id}/exec", Access::Submit),
    ("GET", "/v1/containers/{id}/exec/{number}", Access::Submit),
    ("DELETE", "/v1/containers/{id}/exec/{number}", Access::Submit),
    ("POST", "/v1/containers/{id}/exec/{number}/stdin", Access::Submit),
    ("GET", "/v1/groups/{id}", Access::Read),
    ("DELETE", "/v1/groups/{id}", Access::Submit),
    ("GET", "/v1/events", Access::Read),
    ("GET", "/v1/workers", Access::Admin),
    ("POST", "/v1/workers/{id}/{action}", Access::Admin),
    ("GET", "/v1/audit", Access::Admin),
    // It tells of all tenants' shapes.
    ("GET", "/v1/overview", Access::Admin),
    ("GET", "/v1/stats", Access::Admin),
    ("POST", "/v1/backup", Access::Admin),
    ("GET", "/v1/tokens", Access::Admin),
    ("POST", "/v1/tokens", Access::Admin),
    ("DELETE", "/v1/tokens/{id}", Access::Admin),
    ("GET", "/v1/tenants", Access::Admin),
    ("PUT", "/v1/tenants/{name}", Access::Admin),
    ("DELETE", "/v1/tenants/{name}", Access::Admin),
    ("POST", "/volley.v1.Volley/Submit", Access::Submit),
    ("POST", "/volley.v1.Volley/WatchGroup", Access::Read),
    ("POST", "/volley.v1.Volley/WatchEvents", Access::Read),
    ("POST", "/volley.v1.Workers/Attach", Access::Worker),
    // From other servers, with their callers' tokens. A call that changes something asks for more in its place.
    ("POST", "/volley.v1.Servers/Call", Access::Read),
    ("POST", "/volley.v1.Servers/Page", Access::Read),
];
/// Where the document is.
const OPENAPI_PATH: &str = "/v1/openapi.json";

#[derive(Clone)]
struct Shared {
    control: Arc<Control>,
    peers: Arc<Peers>,
    auth: Arc<Auth>,
    patience: Patience,
}

fn access_of(method: &Method, path: &str) -> Option<Access> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    TABLE.iter().find(|(name, route, _)| *name == method.as_str() && *route == path).map(|(.., access)| *access)
}

fn documented() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(containers::list, containers::submit))
        .routes(routes!(containers::container, containers::stop))
        .routes(routes!(containers::logs))
        .routes(routes!(explain::explain))
        .routes(routes!(exec::stats))
        .routes(routes!(exec::start))
        .routes(routes!(exec::output, exec::kill))
        .routes(routes!(exec::input))
        .routes(routes!(containers::group, containers::stop_group))
        .routes(routes!(workers::list))
        .routes(routes!(workers::schedulable))
        .routes(routes!(pools::plan))
        .routes(routes!(pools::list))
        .routes(routes!(pools::show, pools::apply, pools::remove))
        .routes(routes!(events::events))
        .routes(routes!(cell::audit))
        .routes(routes!(cell::stats))
        .routes(routes!(cell::overview))
        .routes(routes!(cell::backup))
        .routes(routes!(cell::metrics))
        .routes(routes!(cell::healthy))
        .routes(routes!(cell::ready))
        .routes(routes!(access::tokens, access::create_token))
        .routes(routes!(access::revoke_token))
        .routes(routes!(access::tenants))
        .routes(routes!(access::apply_tenant, access::remove_tenant))
}

pub(crate) fn routes(control: Arc<Control>, streams: Arc<WorkerStreams>, tokens: Tokens, peers: Peers) -> Router {
    let auth = Arc::new(Auth::new(Arc::clone(&control), tokens));
    let patience = Patience::default();
    let (documented, document) = documented().split_for_parts();
    let document = Arc::new(described(document));
    let workers_service =
        WorkersService { control: Arc::clone(&control), streams: Arc::clone(&streams), auth: Arc::clone(&auth) };
    let workers_service = WorkersServer::new(workers_service).max_decoding_message_size(GRPC_BYTES_MAX);
    let volley_service = VolleyServer::new(VolleyService {
        control: Arc::clone(&control),
        auth: Arc::clone(&auth),
        patience: patience.clone(),
    });
    let volley_service = volley_service.max_decoding_message_size(BODY_BYTES_MAX);
    let servers_service = ServersService { control: Arc::clone(&control), streams };
    let servers_service = ServersServer::new(servers_service).max_decoding_message_size(BODY_BYTES_MAX);
    let metrics = control.shared_metrics();
    let grpc = |service: &str, method: &str| format!("/{service}/{method}");
    Router::new()
        .merge(documented)
        .route(OPENAPI_PATH, get(async move || Json(document)))
        .with_state(Shared { control, peers: Arc::new(peers), auth: Arc::clone(&auth), patience: patience.clone() })
        .route_service(&grpc(workers_server::SERVICE_NAME, "Attach"), workers_service)
        .route_service(&grpc(servers_server::SERVICE_NAME, "Call"), servers_service.clone())
        .route_service(&grpc(servers_server::SERVICE_NAME, "Page"), servers_service)
        .route_service(&grpc(volley_server::SERVICE_NAME, "Submit"), volley_service.clone())
        .route_service(&grpc(volley_server::SERVICE_NAME, "WatchGroup"), volley_service.clone())
        .route_service(&grpc(volley_server::SERVICE_NAME, "WatchEvents"), volley_service)
        .layer(from_fn_with_state(patience, patient_bodies))
        .layer(from_fn_with_state(Gate { auth, access: access_of }, admit))
        .layer(from_fn(speak))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(metrics, timed))
        .fallback(async || Problem::not_found("such path; /v1/openapi.json lists what there is"))
}

/// Refuses a client that speaks no version of the HTTP API that is spoken here, with the reason; says which is.
async fn speak(request: Request, next: Next) -> Response {
    let said = request.headers().get(protocol::HTTP_HEADER);
    let spoken = said.map(|said| said.to_str().ok().and_then(protocol::http_spoken));
    let refusal = match spoken {
        None | Some(Some(Ok(()))) => None,
        Some(Some(Err(mismatch))) => Some(mismatch.to_string()),
        Some(None) => Some(format!("{}: give the versions that you speak, as in 1-2", protocol::HTTP_HEADER)),
    };
    let mut response = match refusal {
        Some(words) => Problem::new(StatusCode::BAD_REQUEST, words).into_response(),
        None => next.run(request).await,
    };
    response.headers_mut().insert(protocol::HTTP_HEADER, HeaderValue::from(protocol::HTTP));
    response
}

/// The document with what the table says of each route.
fn described(mut document: OpenApi) -> OpenApi {
    document.info = Info::new("Volley", env!("CARGO_PKG_VERSION"));
    document.info.description = Some("Places bursts of containers onto a fleet of workers.".to_owned());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    for (path, item) in &mut document.paths.paths {
        for (method, access) in
            TABLE.iter().filter(|(_, route, _)| route == path).map(|(method, _, access)| (method, access))
        {
            let Some(operation) = operation_mut(item, method) else { continue };
            if *access == Access::Anybody {
                operation.security = Some(vec![]);
                continue;
            }
            operation.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>("token", [])]);
            let roles = access.roles().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let before = operation.description.take().map(|text| format!("{text} ")).unwrap_or_default();
            operation.description = Some(format!("{before}Roles: {roles}."));
        }
    }
    document
}

fn operation_mut<'i>(item: &'i mut PathItem, method: &str) -> Option<&'i mut utoipa::openapi::path::Operation> {
    match method {
        "GET" => item.get.as_mut(),
        "POST" => item.post.as_mut(),
        "PUT" => item.put.as_mut(),
        "DELETE" => item.delete.as_mut(),
        _ => None,
    }
}

/// A small body as JSON.
fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("body: {error}")))
}

pub(crate) fn unexpected() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the store answered another question; this is a bug in volley")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_in_the_table_and_documented() {
        let document = documented().split_for_parts().1;
        let methods = ["GET", "POST", "PUT", "DELETE"];
        let mut paths = document.paths.paths.clone();
        let documented: BTreeSet<(&str, String)> = paths
            .iter_mut()
            .flat_map(|(path, item)| {
                let there = methods.into_iter().filter(|method| operation_mut(item, method).is_some());
                there.map(|method| (method, path.clone())).collect::<Vec<_>>()
            })
            .collect();
        let undocumented = |path: &str| path == OPENAPI_PATH || path.starts_with("/volley.v1.");
        let table: BTreeSet<(&str, String)> = TABLE
            .iter()
            .filter(|(_, path, _)| !undocumented(path))
            .map(|(method, path, _)| (*method, (*path).to_owned()))
            .collect();
        assert_eq!(documented, table);
    }
}
