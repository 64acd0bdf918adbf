//! The Rust client of the HTTP API: requests with JSON in and out, problem details as errors.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Most bytes of a reply.
const REPLY_BYTES_MAX: usize = 256 << 20;

/// Why a request got no good reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no server answers at {server} ({reason}); start one with 'volley dev', or name another with --server")]
    Unreachable {
        /// Where.
        server: String,
        /// What the system says.
        reason: String,
    },
    /// The server refused or failed, and says why.
    #[error("{detail}")]
    Problem {
        /// HTTP status.
        status: StatusCode,
        /// In words.
        detail: String,
    },
}

/// Talks to one server.
#[derive(Debug, Clone)]
pub struct Client {
    server: String,
    client: HyperClient<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// For a server at a base address, as in `http://127.0.0.1:7171`.
    #[must_use]
    pub fn new(server: &str) -> Self {
        let client = HyperClient::builder(TokioExecutor::new()).build_http();
        Self { server: server.trim_end_matches('/').to_owned(), client }
    }

    /// One request; the reply's bytes.
    pub async fn bytes(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { server: self.server.clone(), reason };
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        let request = request.header("content-type", "application/json").body(Full::new(bytes));
        let request = request.map_err(|error| unreachable(error.to_string()))?;
        let reply = self.client.request(request).await.map_err(|error| unreachable(innermost(&error)))?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), REPLY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let problem: Option<Value> = serde_json::from_slice(&body).ok();
        let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
        let detail = detail.map_or_else(|| format!("the server answered {status}"), str::to_owned);
        Err(ClientError::Problem { status, detail })
    }

    /// One request; the reply as JSON.
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Problem {
            status: StatusCode::BAD_GATEWAY,
            detail: format!("{} does not answer as volley does: {error}", self.server),
        })
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
