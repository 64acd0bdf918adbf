//! The Rust client of the HTTP API: requests with JSON in and out, problem details as errors.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::access::{AccessError, ServerAccess};

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
    authorization: Option<String>,
    client: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// For a server. Connects with the first request.
    ///
    /// # Errors
    /// When TLS is asked for and cannot be set up.
    pub fn new(access: &ServerAccess) -> Result<Self, AccessError> {
        let client = HyperClient::builder(TokioExecutor::new()).build(access.connector()?);
        let server = access.server.trim_end_matches('/').to_owned();
        Ok(Self { server, authorization: access.authorization(), client })
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable { server: self.server.clone(), reason }
    }

    /// One request; the good reply, or the problem that the server tells.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Incoming>, ClientError> {
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        let mut request = request.header("content-type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Full::new(bytes));
        let request = request.map_err(|error| self.unreachable(error.to_string()))?;
        let reply = self.client.request(request).await.map_err(|error| self.unreachable(innermost(&error)))?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let body = self.collect(reply).await?;
        let problem: Option<Value> = serde_json::from_slice(&body).ok();
        let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
        let detail = detail.map_or_else(|| format!("the server answered {status}"), str::to_owned);
        Err(ClientError::Problem { status, detail })
    }

    async fn collect(&self, reply: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(reply.into_body(), REPLY_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| self.unreachable(error.to_string()))?.to_bytes())
    }

    /// One request; the reply's bytes.
    pub async fn bytes(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, ClientError> {
        let reply = self.send(method, path, body).await?;
        self.collect(reply).await
    }

    /// Reads a reply piece by piece, until its end or until `on` says false.
    pub async fn stream(&self, path: &str, mut on: impl FnMut(&[u8]) -> bool) -> Result<(), ClientError> {
        let reply = self.send(Method::GET, path, None).await?;
        let mut body = reply.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.unreachable(innermost(&error)))?;
            if frame.data_ref().is_some_and(|data| !on(data)) {
                return Ok(());
            }
        }
        Ok(())
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
