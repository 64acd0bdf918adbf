//! Errors as RFC 9457 problem details: status, title, and a detail that says how to mend it.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use volley_control::ControlError;
use volley_control::ledger::RemovePoolRefusal;
use volley_control::store::StoreError;
use volley_model::ValidationError;

/// A problem to answer with.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    retry_after: Option<Duration>,
}

/// Problem details (RFC 9457): what is wrong, where, and how to mend it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// As the HTTP status.
    status: u16,
    /// The status in words.
    title: &'static str,
    /// For people, on one line.
    detail: String,
}

impl Problem {
    /// With this status and these words.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after: None }
    }

    /// Said with the wait after which the same may be answered.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// In words.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// There is no such thing.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what}"))
    }

    /// A parameter of the address is wrong.
    pub fn parameter(name: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("parameter '{name}': {problem}"))
    }
}

impl From<ValidationError> for Problem {
    fn from(error: ValidationError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let status = match &error {
            ControlError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ControlError::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            ControlError::RemovePool(RemovePoolRefusal::NotFound) => StatusCode::NOT_FOUND,
            ControlError::Submit(_)
            | ControlError::Attach(_)
            | ControlError::Token(_)
            | ControlError::Tenant(_)
            | ControlError::ApplyPool(_)
            | ControlError::RemovePool(_) => StatusCode::CONFLICT,
            ControlError::NotFound(_) => StatusCode::NOT_FOUND,
            ControlError::Store(StoreError::NoCopy { .. }) => StatusCode::UNPROCESSABLE_ENTITY,
            ControlError::Store(StoreError::Unknown { .. } | StoreError::Unavailable { .. } | StoreError::Closed) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self { retry_after: error.retry_after(), ..Self::new(status, error.to_string()) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("error");
        let body = ProblemBody { status: self.status.as_u16(), title, detail: self.detail };
        let body = serde_json::to_string(&body).expect("three plain fields");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            // Whole seconds, up: who comes a moment too early is refused again.
            let seconds = wait.as_millis().div_ceil(1000).max(1) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
