//! The Rust client of the HTTP API: requests with JSON in and out, problem details as errors. Of
//! several servers it talks to one, and to the next when nobody answers there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
use crate::protocol;

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

/// Talks to a server of a cell.
#[derive(Debug, Clone)]
pub struct Client {
    servers: Vec<String>,
    /// Which of them answered last; clones go on there.
    current: Arc<AtomicUsize>,
    authorization: Option<String>,
    client: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// For the servers of a cell. Connects with the first request.
    ///
    /// # Errors
    /// When TLS is asked for and cannot be set up.
    pub fn new(access: &ServerAccess) -> Result<Self, AccessError> {
        let client = HyperClient::builder(TokioExecutor::new()).build(access.connector()?);
        let servers = access.servers.iter().map(|server| server.trim_end_matches('/').to_owned()).collect();
        let current = Arc::new(AtomicUsize::new(0));
        Ok(Self { servers, current, authorization: access.authorization(), client })
    }

    fn server(&self) -> &str {
        &self.servers[self.current.load(Ordering::SeqCst) % self.servers.len()]
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable { server: self.servers.join(" and "), reason }
    }

    /// One request; the good reply, or the problem that the server tells.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Incoming>, ClientError> {
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let reply = self.send_anywhere(&method, path, &bytes).await?;
        self.check_version(&reply)?;
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

    /// To the server that answered last, and on to the next where nothing can have arrived, or may arrive twice.
    async fn send_anywhere(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut left = self.servers.len();
        loop {
            let server = self.current.load(Ordering::SeqCst);
            let request = Request::builder().method(method.clone()).uri(format!("{}{path}", self.server()));
            let request = request.header("content-type", "application/json");
            let mut request = request.header(protocol::HTTP_HEADER, protocol::http_versions());
            if let Some(authorization) = &self.authorization {
                request = request.header("authorization", authorization);
            }
            let request = request.body(Full::new(body.clone()));
            let request = request.map_err(|error| self.unreachable(error.to_string()))?;
            let error = match self.client.request(request).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            left -= 1;
            if left == 0 || !(error.is_connect() || *method == Method::GET) {
                return Err(self.unreachable(innermost(&error)));
            }
            // Another request may have gone on already.
            let _ = self.current.compare_exchange(server, server + 1, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Whether a reply is in a version that is spoken here; a server that does not say is not asked.
    fn check_version(&self, reply: &Response<Incoming>) -> Result<(), ClientError> {
        let said = reply.headers().get(protocol::HTTP_HEADER).and_then(|version| version.to_str().ok());
        match said {
            Some(version) if version != protocol::HTTP.to_string() => Err(ClientError::Problem {
                status: StatusCode::NOT_IMPLEMENTED,
                detail: format!(
                    "{} answers in version {version} of the HTTP API, this client speaks version {}; use a client of \
                     the server's version",
                    self.server(),
                    protocol::HTTP
                ),
            }),
            _ => Ok(()),
        }
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
            detail: format!("{} does not answer as volley does: {error}", self.server()),
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
