//! Every route and every role: the document says who may, and the server does as it says.

use http::{Method, StatusCode};
use serde_json::Value;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use volley_model::{Millis, Role, TokenId};
use volley_wire::access::ServerAccess;
use volley_wire::proto::volley_client::VolleyClient;
use volley_wire::proto::workers_client::WorkersClient;
use volley_wire::proto::{self, from_worker, to_worker};

use crate::scene::Scene;

const ROLES: [Role; 4] = [Role::Admin, Role::Submit, Role::Read, Role::Worker];

/// A documented route: method, a path to ask, and who may (nobody named: anybody).
pub struct Route {
    pub method: Method,
    pub path: String,
    pub roles: Vec<String>,
}

pub async fn routes(scene: &Scene) -> Vec<Route> {
    let document = scene.ask(None, Method::GET, "/v1/openapi.json", "").await.json();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let description = operation["description"].as_str().unwrap_or_default();
            let roles = description.split_once("Roles: ").map(|(_, roles)| roles.trim_end_matches('.').split(", "));
            let roles = roles.map(|roles| roles.map(str::to_owned).collect()).unwrap_or_default();
            // Names that are nowhere, so that nothing happens.
            let path = path.replace("{id}", "zzzzzzzzzzzzz").replace("{action}", "cordon").replace("{name}", "nobody");
            routes.push(Route { method, path, roles });
        }
    }
    routes
}

#[tokio::test]
async fn every_route_hears_its_roles_and_nobody_else() {
    let scene = Scene::with_tokens().await;
    let mut secrets = Vec::new();
    for role in ROLES {
        secrets.push((role, scene.token("a", role).await));
    }
    let routes = routes(&scene).await;
    assert!(routes.len() >= 20, "{} routes", routes.len());
    for Route { method, path, roles } in routes {
        let ask = |secret: Option<String>| {
            let (scene, method, path) = (&scene, method.clone(), path.clone());
            async move { scene.ask(secret.as_deref(), method, &path, "").await }
        };
        let without = ask(None).await;
        if roles.is_empty() {
            assert!(without.status.is_success(), "{method} {path}: {without:?}");
            continue;
        }
        assert_eq!(without.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(without.headers["www-authenticate"], "Bearer");
        assert!(without.detail().contains("VOLLEY_TOKEN"), "{}", without.detail());
        for (role, secret) in &secrets {
            let reply = ask(Some(secret.clone())).await;
            if roles.contains(&role.to_string()) {
                let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED];
                assert!(!refused.contains(&reply.status), "{method} {path} as {role}: {reply:?}");
            } else {
                assert_eq!(reply.status, StatusCode::FORBIDDEN, "{method} {path} as {role}");
                assert!(reply.detail().contains(&format!("role {role}")), "{}", reply.detail());
            }
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn no_route_hears_an_unknown_revoked_or_expired_token() {
    let scene = Scene::with_tokens().await;
    let admin = scene.token("a", Role::Admin).await;
    let revoked = scene.token("b", Role::Admin).await;
    let before = scene.get(&revoked, "/v1/tokens").await;
    assert_eq!(before.status, StatusCode::OK, "it is remembered now");
    let of_b = |tokens: &Value| tokens.as_array().unwrap().iter().find(|t| t["tenant"] == "b").unwrap()["id"].clone();
    let id = of_b(&before.json()["tokens"]);
    let path = format!("/v1/tokens/{}", id.as_str().expect("an id"));
    assert_eq!(scene.ask(Some(&admin), Method::DELETE, &path, "").await.status, StatusCode::OK);
    let expired = scene.token_for("c", Role::Admin, Some(Millis(1))).await;
    let unknown = format!("volley_{}", "0".repeat(64));
    for Route { method, path, roles } in routes(&scene).await {
        if roles.is_empty() {
            continue;
        }
        for (secret, words) in
            [(&*unknown, "not known"), ("rubbish", "not known"), (&*revoked, "revoked"), (&*expired, "expired")]
        {
            let reply = scene.ask(Some(secret), method.clone(), &path, "").await;
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{method} {path}, {words}");
            assert!(reply.detail().contains(words), "{}", reply.detail());
        }
    }
    scene.end().await;
}

pub async fn channel(access: &ServerAccess) -> Channel {
    let endpoint = Endpoint::from_shared(access.server()).expect("an address");
    endpoint.connect_with_connector(access.connector().expect("its files are good")).await.expect("it answers")
}

pub fn with_token<T>(message: T, secret: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(secret) = secret {
        request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().expect("ASCII"));
    }
    request
}

/// What becomes of a worker's stream: its first message.
pub async fn attach(
    channel: Channel,
    secret: Option<&str>,
) -> Result<(tonic::Streaming<proto::ToWorker>, tokio::sync::mpsc::Sender<proto::FromWorker>), Status> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let hello = proto::Hello {
        worker: "w".to_owned(),
        cpu_milli: 1000,
        memory_bytes: 1 << 30,
        slots: 1,
        ..proto::Hello::default()
    };
    let hello = proto::FromWorker { message: Some(from_worker::Message::Hello(hello)) };
    sender.try_send(hello).expect("there is room");
    let request = with_token(ReceiverStream::new(receiver), secret);
    let mut inbound = WorkersClient::new(channel).attach(request).await?.into_inner();
    match inbound.message().await?.and_then(|first| first.message) {
        Some(to_worker::Message::Welcome(_)) => Ok((inbound, sender)),
        other => panic!("no welcome: {other:?}"),
    }
}

#[tokio::test]
async fn grpc_hears_its_roles_and_nobody_else() {
    let scene = Scene::with_tokens().await;
    let channel = channel(&scene.access(None)).await;
    let submit = |secret: Option<String>| {
        let mut client = VolleyClient::new(channel.clone());
        async move {
            let spec = proto::Spec { command: "true".to_owned(), ..proto::Spec::default() };
            let request = proto::SubmitRequest { specs: vec![spec], count: Some(1), ..Default::default() };
            client.submit(with_token(request, secret.as_deref())).await.map(|reply| reply.into_inner().group)
        }
    };
    let watch = |group: u64, secret: Option<String>| {
        let mut client = VolleyClient::new(channel.clone());
        async move {
            let request = proto::WatchGroupRequest { group, ..Default::default() };
            client.watch_group(with_token(request, secret.as_deref())).await.map(drop)
        }
    };
    let watch_all = |secret: Option<String>| {
        let mut client = VolleyClient::new(channel.clone());
        async move {
            let request = proto::WatchEventsRequest { all_states: true, ..Default::default() };
            client.watch_events(with_token(request, secret.as_deref())).await.map(Response::into_inner)
        }
    };
    let code = |status: Status| status.code();
    let owner = scene.token("a", Role::Submit).await;
    let group = submit(Some(owner)).await.expect("its role may");
    assert_eq!(submit(None).await.map_err(code), Err(Code::Unauthenticated));
    assert_eq!(watch(group, None).await.map_err(code), Err(Code::Unauthenticated));
    assert_eq!(watch_all(None).await.map(drop).map_err(code), Err(Code::Unauthenticated));
    assert_eq!(attach(channel.clone(), None).await.map(drop).map_err(code), Err(Code::Unauthenticated));
    let expired = scene.token_for("a", Role::Worker, Some(Millis(1))).await;
    assert_eq!(attach(channel.clone(), Some(&expired)).await.map(drop).map_err(code), Err(Code::Unauthenticated));
    for role in ROLES {
        let secret = scene.token("a", role).await;
        let may = |allowed: bool| if allowed { Ok(()) } else { Err(Code::PermissionDenied) };
        let submits = submit(Some(secret.clone())).await.map(drop).map_err(code);
        assert_eq!(submits, may(matches!(role, Role::Admin | Role::Submit)), "{role} submits");
        let watches = watch(group, Some(secret.clone())).await.map_err(code);
        assert_eq!(watches, may(role != Role::Worker), "{role} watches");
        let watches = watch_all(Some(secret.clone())).await.map(drop).map_err(code);
        assert_eq!(watches, may(role != Role::Worker), "{role} watches all");
        let attaches = attach(channel.clone(), Some(&secret)).await.map(drop).map_err(code);
        assert_eq!(attaches, may(role == Role::Worker), "{role} attaches");
    }
    let other = scene.token("b", Role::Submit).await;
    assert_eq!(watch(group, Some(other.clone())).await.map_err(code), Err(Code::NotFound), "another tenant's group");
    // What the other tenant is told begins with its own, whatever happened before and between.
    let mut told = watch_all(Some(other.clone())).await.expect("its role may");
    let one = scene.token("a", Role::Submit).await;
    let mut own = 0;
    for secret in [one, other] {
        own = submit(Some(secret.clone())).await.expect("its role may");
        let stopped = format!("/v1/groups/{}", volley_model::GroupId(own));
        assert_eq!(scene.ask(Some(&secret), Method::DELETE, &stopped, "").await.status, StatusCode::OK);
    }
    let first = told.message().await.expect("it goes on").expect("there was an event");
    assert!(first.events.iter().all(|event| event.group == own), "{first:?}, not of {own}");
    scene.end().await;
}

#[tokio::test]
async fn a_worker_whose_token_is_revoked_loses_its_stream() {
    let scene = Scene::with_tokens().await;
    let admin = scene.token("ops", Role::Admin).await;
    let secret = scene.token("fleet", Role::Worker).await;
    let channel = channel(&scene.access(None)).await;
    let (mut inbound, _sender) = attach(channel, Some(&secret)).await.expect("its role may");
    let tokens = scene.get(&admin, "/v1/tokens").await.json();
    let worker = tokens["tokens"].as_array().unwrap().iter().find(|t| t["role"] == "worker").unwrap()["id"].clone();
    let id: TokenId = worker.as_str().unwrap().parse().expect("an id");
    scene.ask(Some(&admin), Method::DELETE, &format!("/v1/tokens/{id}"), "").await;
    // The stream ends, with or without a word.
    while let Ok(Some(_)) = inbound.message().await {}
    scene.end().await;
}
