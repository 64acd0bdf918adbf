//! A server in a test and short ways to ask it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use volley_api::{ApiOptions, Server, WorkerStreams};
use volley_control::{Control, NewToken, Options, Profile};
use volley_ledger::LedgerOptions;
use volley_model::{Millis, Role, TenantName};
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore};
use volley_wire::access::ServerAccess;

pub fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("a good name")
}

/// A server that answers until it is dropped or ended.
pub struct Scene {
    pub url: String,
    pub control: Arc<Control>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
    _dir: TempDir,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap_or_else(|| panic!("no detail: {self:?}")).to_owned()
    }
}

impl Scene {
    pub async fn with_tokens() -> Self {
        Self::start(ApiOptions { tokens: true, ..options() }, LedgerOptions::default()).await
    }

    pub async fn start(options: ApiOptions, ledger: LedgerOptions) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let server = Server::bind(&options).await.expect("a free port");
        let port = server.address().expect("it is bound").port();
        let store = EmbeddedOptions { ledger, ..EmbeddedOptions::new(dir.path().join("data")) };
        let store = Arc::new(EmbeddedStore::open(store).expect("an empty folder"));
        let streams = Arc::new(WorkerStreams::default());
        let delivery = Arc::clone(&streams) as Arc<_>;
        let control = Control::start(store, delivery, Options::of_profile(Profile::Auto)).await.expect("it starts");
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let serving = tokio::spawn(server.serve(Arc::clone(&control), streams, shutdown));
        Self { url: format!("{scheme}://localhost:{port}"), control, stop: Some(stop), serving, _dir: dir }
    }

    pub fn access(&self, secret: Option<&str>) -> ServerAccess {
        ServerAccess { token: secret.map(str::to_owned), ..ServerAccess::open(&self.url) }
    }

    pub async fn token(&self, name: &str, role: Role) -> String {
        self.token_for(name, role, None).await
    }

    /// A token; one that expires has done so.
    pub async fn token_for(&self, name: &str, role: Role, expires_in: Option<Millis>) -> String {
        let new = NewToken { tenant: tenant(name), role, note: None, expires_in };
        let secret = self.control.create_token(&new).await.expect("nothing speaks against it").1;
        if let Some(Millis(span)) = expires_in {
            tokio::time::sleep(Duration::from_millis(span + 1)).await;
        }
        secret
    }

    pub async fn ask(&self, secret: Option<&str>, method: Method, path: &str, body: &str) -> Reply {
        let mut headers = HeaderMap::new();
        if let Some(secret) = secret {
            headers.insert("authorization", format!("Bearer {secret}").parse().expect("ASCII"));
        }
        ask_with(&self.access(None), method, path, body, headers).await.expect("it answers")
    }

    pub async fn get(&self, secret: &str, path: &str) -> Reply {
        self.ask(Some(secret), Method::GET, path, "").await
    }

    /// Submits so many for a token's tenant.
    pub async fn submit(&self, secret: &str, count: u32) -> Reply {
        let body = format!(r#"{{"spec": {{"command": "true"}}, "count": {count}, "labels": {{"kind": "test"}}}}"#);
        self.ask(Some(secret), Method::POST, "/v1/containers", &body).await
    }

    pub async fn end(mut self) {
        drop(self.stop.take());
        let abort = self.serving.abort_handle();
        if tokio::time::timeout(std::time::Duration::from_secs(5), self.serving).await.is_err() {
            abort.abort();
        }
        self.control.shutdown().await;
    }
}

pub fn options() -> ApiOptions {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ApiOptions { listen, tokens: false, tls: None, insecure: false, peers: ServerAccess::default() }
}

/// One request; an error when no connection is made.
pub async fn ask_with(
    access: &ServerAccess,
    method: Method,
    path: &str,
    body: &str,
    headers: HeaderMap,
) -> Result<Reply, String> {
    let connector = access.connector().map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let mut request = Request::builder().method(method).uri(format!("{}{path}", access.server()));
    if let Some(authorization) = access.authorization() {
        request = request.header("authorization", authorization);
    }
    request.headers_mut().expect("a good request").extend(headers);
    let request = request.body(Full::from(body.to_owned())).expect("a good request");
    let reply = client.request(request).await.map_err(|error| format!("{error:?}"))?;
    let (parts, body) = reply.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Reply { status: parts.status, headers: parts.headers, body })
}
