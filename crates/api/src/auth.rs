//! Who calls, and whether they may: the bearer token of a request, looked up, remembered for a
//! moment, and held against what the route asks for. Knows nothing of what a route does.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use tokio::time::Instant;
use tonic::Status;
use volley_control::Control;
use volley_control::ledger::{Answer, Query, Scope};
use volley_model::access::is_secret;
use volley_model::{Role, SecretHash, TenantName, Timestamp, Token};

use crate::problem::Problem;

/// A token is looked up again after this: so long may one that was revoked at another server still be taken here.
pub(crate) const KNOWN_FOR: Duration = Duration::from_secs(5);
/// Most tokens that are remembered; as many as a cell keeps.
const KNOWN_MAX: usize = 10_000;

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// No token.
    Anybody,
    /// To see a tenant's own things.
    Read,
    /// To submit and stop.
    Submit,
    /// To offer capacity.
    Worker,
    /// To see and change the fleet, tenants and tokens.
    Admin,
}

impl Access {
    /// The roles that may.
    pub(crate) fn roles(self) -> &'static [Role] {
        match self {
            Access::Anybody => &[],
            Access::Read => &[Role::Read, Role::Submit, Role::Admin],
            Access::Submit => &[Role::Submit, Role::Admin],
            Access::Worker => &[Role::Worker],
            Access::Admin => &[Role::Admin],
        }
    }
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Whose things it makes.
    pub(crate) tenant: TenantName,
    /// Its token; `None` while the server asks for none, and anybody may do everything.
    token: Option<Arc<Token>>,
    /// How it said so, to be passed on to another server; never shown.
    pub(crate) authorization: Option<HeaderValue>,
}

impl Caller {
    /// What it may see and stop: everything as an operator, else its tenant's.
    pub(crate) fn scope(&self) -> Scope {
        match &self.token {
            Some(token) if token.role != Role::Admin => Some(self.tenant.clone()),
            _ => None,
        }
    }

    pub(crate) fn may(&self, access: Access) -> bool {
        self.token.as_ref().is_none_or(|token| access.roles().contains(&token.role))
    }
}

/// Why a caller is not heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("a token is needed: send 'Authorization: Bearer SECRET' (for volley: --token or VOLLEY_TOKEN)")]
    NoToken,
    #[error("the token is not known; 'volley token create' makes one")]
    Unknown,
    #[error("the token was revoked; ask for a new one")]
    Revoked,
    #[error("the token has expired; ask for a new one")]
    Expired,
    #[error("a token with the role {has} may not do this; it takes {needs}")]
    Role { has: Role, needs: String },
    #[error("{0} is no address of this machine's own; without tokens only local callers are heard")]
    Host(String),
    #[error("requests from the web page {0} are not heard: without tokens anybody's page could send them")]
    Origin(String),
    #[error("the token cannot be looked up: {0}")]
    Store(String),
}

impl AuthError {
    fn status(&self) -> StatusCode {
        match self {
            AuthError::NoToken | AuthError::Unknown | AuthError::Revoked | AuthError::Expired => {
                StatusCode::UNAUTHORIZED
            }
            AuthError::Role { .. } | AuthError::Host(_) | AuthError::Origin(_) => StatusCode::FORBIDDEN,
            AuthError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn grpc(&self) -> Status {
        let words = self.to_string();
        match self.status() {
            StatusCode::UNAUTHORIZED => Status::unauthenticated(words),
            StatusCode::FORBIDDEN => Status::permission_denied(words),
            _ => Status::unavailable(words),
        }
    }
}

/// Whether tokens are asked for, and who else is kept out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// Every call but a few needs one.
    On,
    /// None: anybody who can connect may do everything. On loopback, callers whose requests come through a browser from
    /// somewhere else are kept out.
    Off {
        /// The port is a loopback one.
        loopback: bool,
    },
}

/// Tells who calls.
pub(crate) struct Auth {
    control: Arc<Control>,
    tokens: Tokens,
    known: Mutex<HashMap<SecretHash, (Arc<Token>, Instant)>>,
}

impl Auth {
    pub(crate) fn new(control: Arc<Control>, tokens: Tokens) -> Self {
        Self { control, tokens, known: Mutex::default() }
    }

    /// Who sent these headers.
    async fn caller(&self, uri: &Uri, headers: &HeaderMap) -> Result<Caller, AuthError> {
        if let Tokens::Off { loopback } = self.tokens {
            if loopback {
                check_local(uri, headers)?;
            }
            return Ok(Caller { tenant: TenantName::default(), token: None, authorization: None });
        }
        let secret = bearer(headers).ok_or(AuthError::NoToken)?;
        if !is_secret(secret) {
            return Err(AuthError::Unknown);
        }
        let token = self.token(SecretHash::of(secret)).await?;
        let mut authorization = headers.get(header::AUTHORIZATION).cloned();
        if let Some(authorization) = &mut authorization {
            authorization.set_sensitive(true);
        }
        Ok(Caller { tenant: token.tenant.clone(), token: Some(token), authorization })
    }

    /// A token that counts now.
    async fn token(&self, hash: SecretHash) -> Result<Arc<Token>, AuthError> {
        let known = self.lock().get(&hash).filter(|(_, until)| Instant::now() < *until).map(|(token, _)| token.clone());
        let token = match known {
            Some(token) => token,
            None => {
                let answer = self.control.read(Query::Token(hash)).await;
                let answer = answer.map_err(|error| AuthError::Store(error.to_string()))?;
                let Answer::Token(Some(token)) = answer else { return Err(AuthError::Unknown) };
                let token = Arc::new(*token);
                let mut known = self.lock();
                if known.len() >= KNOWN_MAX {
                    known.clear();
                }
                known.insert(hash, (token.clone(), Instant::now() + KNOWN_FOR));
                token
            }
        };
        match (token.revoked_at, token.is_live(now())) {
            (Some(_), _) => Err(AuthError::Revoked),
            (None, false) => Err(AuthError::Expired),
            (None, true) => Ok(token),
        }
    }

    /// Looks everything up again: a token was revoked here.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    /// Whether a caller whose stream is open would still be heard. When nobody can tell, it is.
    pub(crate) async fn still_counts(&self, caller: &Caller) -> bool {
        match &caller.token {
            None => true,
            Some(token) => matches!(self.token(token.hash).await, Ok(_) | Err(AuthError::Store(_))),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SecretHash, (Arc<Token>, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's clock, which a token's end is judged by.
#[allow(clippy::disallowed_methods, reason = "a token ends by the wall clock")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

/// Without tokens, a web page that the user visits must not be able to run commands: neither by a request across
/// sites, nor by a name that resolves to this machine.
fn check_local(uri: &Uri, headers: &HeaderMap) -> Result<(), AuthError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or(uri.authority().map(|authority| authority.as_str())).unwrap_or_default();
    let name = host_name(host);
    let local = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !local {
        return Err(AuthError::Host(format!("'{host}'")));
    }
    match headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("(unreadable)")) {
        Some(origin) if origin.split_once("://").is_none_or(|(_, from)| from != host) => {
            Err(AuthError::Origin(origin.to_owned()))
        }
        _ => Ok(()),
    }
}

/// A host without its port, and an IPv6 address without its brackets.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Who sent a gRPC request, as the middleware found.
pub(crate) fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::internal("nobody asked who calls; this is a bug in volley"))
}

/// What the middleware needs.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) auth: Arc<Auth>,
    /// What a method of a route asks for; `None` for what is in no table.
    pub(crate) access: fn(&Method, &str) -> Option<Access>,
}

/// Lets a request through with its [`Caller`], or answers why not.
pub(crate) async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let Some(path) = request.extensions().get::<MatchedPath>().cloned() else {
        // No such route: there is nothing to keep.
        return next.run(request).await;
    };
    let Some(access) = (gate.access)(request.method(), path.as_str()) else {
        return Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods; see /v1/openapi.json")
            .into_response();
    };
    if access == Access::Anybody {
        return next.run(request).await;
    }
    let caller = gate.auth.caller(request.uri(), request.headers()).await.and_then(|caller| {
        if caller.may(access) {
            return Ok(caller);
        }
        let has = caller.token.as_ref().map_or(Role::Admin, |token| token.role);
        let needs = access.roles().iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        Err(AuthError::Role { has, needs })
    });
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) if is_grpc(request.headers()) => error.grpc().into_http::<axum::body::Body>(),
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &AuthError) -> Response {
    let mut response = Problem::new(error.status(), error.to_string()).into_response();
    if error.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header"))).collect()
    }

    #[test]
    fn a_bearer_is_read_whatever_the_case_of_its_scheme() {
        let of = |value| bearer(&headers(&[(header::AUTHORIZATION, value)])).map(str::to_owned);
        assert_eq!(of("Bearer abc"), Some("abc".to_owned()));
        assert_eq!(of("bearer  abc "), Some("abc".to_owned()));
        assert_eq!((of("Basic abc"), of("Bearer"), of("")), (None, None, None));
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn without_tokens_no_page_of_another_site_is_heard() {
        let check = |pairs: &[(header::HeaderName, &str)]| check_local(&Uri::from_static("/v1/audit"), &headers(pairs));
        let host = |host| [(header::HOST, host)];
        for good in ["127.0.0.1:7171", "localhost:7171", "[::1]:7171", "127.0.0.1"] {
            assert_eq!(check(&host(good)), Ok(()), "{good}");
        }
        for bad in ["evil.example:7171", "", "127.0.0.1.evil.example", "[::1", "10.0.0.1:7171"] {
            assert_eq!(check(&host(bad)).is_ok(), bad == "[::1", "{bad}");
        }
        let from = |origin| check(&[(header::HOST, "127.0.0.1:7171"), (header::ORIGIN, origin)]);
        assert_eq!(from("http://127.0.0.1:7171"), Ok(()), "its own page");
        for bad in ["https://evil.example", "null", "http://127.0.0.1:8080"] {
            assert!(matches!(from(bad), Err(AuthError::Origin(_))), "{bad}");
        }
        let absolute = Uri::from_static("http://localhost:7171/v1/audit");
        assert_eq!(check_local(&absolute, &HeaderMap::new()), Ok(()), "HTTP/2 says its host in the address");
    }
}
