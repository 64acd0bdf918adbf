//! Tokens and tenants' limits.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Json, Response};
use http::StatusCode;
use volley_control::NewToken;
use volley_control::ledger::{Answer, Query};
use volley_model::{Rate, Tenant, TenantName, TokenId, ValidationError};

use super::parameters::Parameters;
use super::{Shared, read_body, unexpected};
use crate::bodies;
use crate::problem::{Problem, ProblemBody};

/// A page of tokens in order of id, ended ones included; never a secret.
#[utoipa::path(get, path = "/v1/tokens",
    params(("after" = Option<String>, Query, description = "The `next` of the page before."),
        ("max" = Option<u32>, Query, description = "At most this many, up to 1,000.")),
    responses((status = 200, description = "A page.", body = bodies::TokenPage)))]
pub(super) async fn tokens(
    State(shared): State<Shared>,
    parameters: Parameters,
) -> Result<Json<bodies::TokenPage>, Problem> {
    let parameters = parameters.known(&["after", "max"])?;
    let query = Query::Tokens { after: parameters.value("after")?, max: parameters.max()? };
    let Answer::Tokens { tokens, more } = shared.control.read(query).await? else { return Err(unexpected()) };
    let next = tokens.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Json(bodies::TokenPage { tokens: tokens.iter().map(bodies::TokenBody::from).collect(), next }))
}

/// Makes a token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", request_body = bodies::NewTokenBody,
    responses((status = 201, description = "Made.", body = bodies::CreatedToken),
        (status = 409, description = "Too many are kept.", body = ProblemBody),
        (status = 422, description = "A field is wrong.", body = ProblemBody)))]
pub(super) async fn create_token(State(shared): State<Shared>, body: Bytes) -> Result<Response, Problem> {
    let asked: bodies::NewTokenBody = read_body(&body)?;
    let field = |path: &str, problem: String| ValidationError { path: path.to_owned(), problem };
    let tenant = asked.tenant.map(|name| TenantName::new(&name)).transpose();
    let expires_in = asked.expires_in.map(|life| life.parse()).transpose();
    let new = NewToken {
        tenant: tenant.map_err(|error| field("tenant", error.to_string()))?.unwrap_or_default(),
        role: asked.role.parse().map_err(|error: volley_model::NameError| field("role", error.to_string()))?,
        note: asked.note,
        expires_in: expires_in.map_err(|error: volley_model::UnitError| field("expires_in", error.to_string()))?,
    };
    let (token, secret) = shared.control.create_token(&new).await?;
    let created = bodies::CreatedToken { token: bodies::TokenBody::from(&token), secret };
    Ok((StatusCode::CREATED, [(http::header::CACHE_CONTROL, "no-store")], Json(created)).into_response())
}

/// Ends a token: at once here, and within seconds at every other server of the cell.
#[utoipa::path(delete, path = "/v1/tokens/{id}",
    params(("id" = String, Path, description = "The id of its record, not its secret.")),
    responses((status = 200, description = "It has ended.", body = bodies::TokenBody),
        (status = 404, description = "There is none.", body = ProblemBody)))]
pub(super) async fn revoke_token(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<bodies::TokenBody>, Problem> {
    let token: TokenId = id.parse().map_err(|_| Problem::not_found(format!("token '{id}'")))?;
    let token = shared.control.revoke_token(token).await?;
    shared.auth.forget();
    Ok(Json(bodies::TokenBody::from(&token)))
}

/// A page of tenants that have limits or waiting containers, in order of name.
#[utoipa::path(get, path = "/v1/tenants",
    params(("after" = Option<String>, Query, description = "The `next` of the page before."),
        ("max" = Option<u32>, Query, description = "At most this many, up to 1,000.")),
    responses((status = 200, description = "A page.", body = bodies::Tenants)))]
pub(super) async fn tenants(
    State(shared): State<Shared>,
    parameters: Parameters,
) -> Result<Json<bodies::Tenants>, Problem> {
    let parameters = parameters.known(&["after", "max"])?;
    let query = Query::Tenants { after: parameters.value("after")?, max: parameters.max()? };
    let Answer::Tenants { tenants, more } = shared.control.read(query).await? else { return Err(unexpected()) };
    let next = tenants.last().filter(|_| more).map(|last| last.tenant.name.to_string());
    Ok(Json(bodies::Tenants { tenants: tenants.iter().map(bodies::TenantBody::from).collect(), next }))
}

fn tenant_from(name: &str) -> Result<TenantName, Problem> {
    TenantName::new(name).map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
}

/// Sets a tenant's limits, all of them: what is left out is no limit.
#[utoipa::path(put, path = "/v1/tenants/{name}", request_body = bodies::Limits,
    params(("name" = String, Path, description = "The tenant.")),
    responses((status = 204, description = "Set."),
        (status = 409, description = "Too many tenants have limits.", body = ProblemBody),
        (status = 422, description = "A limit is out of range.", body = ProblemBody)))]
pub(super) async fn apply_tenant(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let limits: bodies::Limits = read_body(&body)?;
    let rate = limits.rate.map(|rate| Rate { per_second: rate.per_second, burst: rate.burst });
    let tenant = Tenant { name: tenant_from(&name)?, backlog_max: limits.backlog_max, rate };
    shared.control.apply_tenant(tenant).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a tenant's limits. Its containers and tokens stay.
#[utoipa::path(delete, path = "/v1/tenants/{name}",
    params(("name" = String, Path, description = "The tenant.")),
    responses((status = 204, description = "Removed."),
        (status = 404, description = "It has none.", body = ProblemBody)))]
pub(super) async fn remove_tenant(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    shared.control.remove_tenant(tenant_from(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
