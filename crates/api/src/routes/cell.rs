//! The cell as a whole: audit, backup, health.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{Json, Response};
use http::StatusCode;
use volley_control::ledger::{Answer, Query};

use super::parameters::Parameters;
use super::{Shared, read_body, unexpected};
use crate::bodies;
use crate::overview::Overview;
use crate::problem::{Problem, ProblemBody};

/// Counts of all containers, and whether every law holds.
#[utoipa::path(get, path = "/v1/audit",
    responses((status = 200, description = "The counts.", body = bodies::Audit)))]
pub(super) async fn audit(State(shared): State<Shared>) -> Result<Json<bodies::Audit>, Problem> {
    let Answer::Audit(found) = shared.control.read(Query::Audit).await? else { return Err(unexpected()) };
    Ok(Json(bodies::Audit::of(&found, shared.control.warnings())))
}

/// Counts of this server since its start.
#[utoipa::path(get, path = "/v1/stats",
    responses((status = 200, description = "The counts.", body = bodies::Stats)))]
pub(super) async fn stats(State(shared): State<Shared>) -> Json<bodies::Stats> {
    Json(bodies::Stats::of(&shared.control.turn_stats(), shared.control.store_stats()))
}

/// The cell at a glance: containers by state, what waits by shape and why, the fleet by pool.
#[utoipa::path(get, path = "/v1/overview",
    params(("max" = Option<u32>, Query, description = "At most this many shapes, up to 1,000.")),
    responses((status = 200, description = "The cell.", body = Overview),
        (status = 400, description = "A parameter is wrong.", body = ProblemBody)))]
pub(super) async fn overview(State(shared): State<Shared>, parameters: Parameters) -> Result<Json<Overview>, Problem> {
    let max = parameters.known(&["max"])?.max()?;
    let Answer::Overview(found) = shared.control.read(Query::Overview { ahead_of: None }).await? else {
        return Err(unexpected());
    };
    Ok(Json(Overview::of(&found, max as usize)))
}

/// Writes a consistent copy of the store to a new file on the server, while it runs.
#[utoipa::path(post, path = "/v1/backup", request_body = bodies::Backup,
    responses((status = 200, description = "Written.", body = bodies::Backup),
        (status = 422, description = "No absolute path.", body = ProblemBody),
        (status = 503, description = "It cannot be written.", body = ProblemBody)))]
pub(super) async fn backup(State(shared): State<Shared>, body: Bytes) -> Result<Json<bodies::Backup>, Problem> {
    let asked: bodies::Backup = read_body(&body)?;
    if !asked.file.starts_with('/') {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "file: give an absolute path on the server"));
    }
    shared.control.backup(asked.file.clone().into()).await?;
    Ok(Json(asked))
}

/// Counts of this server and the state of the cell, as OpenMetrics text.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "The text.", body = String,
    content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(shared): State<Shared>) -> Result<Response, Problem> {
    crate::metrics::text(&shared.control).await
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "It does.", body = String)))]
pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

/// The store answers.
#[utoipa::path(get, path = "/readyz", responses((status = 200, description = "It does.", body = String),
    (status = 503, description = "It does not.", body = ProblemBody)))]
pub(super) async fn ready(State(shared): State<Shared>) -> Result<String, Problem> {
    shared.control.read(Query::Pools).await?;
    // With a line for each thing that the store's settings can lose.
    let warnings: String = shared.control.warnings().iter().map(|warning| format!("warning: {warning}\n")).collect();
    Ok(format!("ready\n{warnings}"))
}
