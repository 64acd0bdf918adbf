//! Tenants side by side: none sees, stops or names what is another's.

use http::{Method, StatusCode};
use volley_model::Role;

use crate::scene::Scene;

#[tokio::test]
async fn another_tenants_things_are_not_there() {
    let scene = Scene::with_tokens().await;
    let (a, b) = (scene.token("a", Role::Submit).await, scene.token("b", Role::Submit).await);
    let admin = scene.token("ops", Role::Admin).await;
    let accepted = scene.submit(&a, 3).await;
    assert_eq!(accepted.status, StatusCode::CREATED, "{accepted:?}");
    let group = accepted.json()["group"].as_str().expect("an id").to_owned();
    let paths = [
        (Method::GET, format!("/v1/groups/{group}")),
        (Method::GET, format!("/v1/containers/{group}")),
        (Method::GET, format!("/v1/containers/{group}-1")),
        (Method::GET, format!("/v1/containers/{}", &group[..6])),
        (Method::GET, format!("/v1/containers/{group}-1/logs")),
        (Method::GET, format!("/v1/containers?group={group}")),
        (Method::DELETE, format!("/v1/containers/{group}-1")),
        (Method::DELETE, format!("/v1/groups/{group}")),
    ];
    for (method, path) in paths {
        let reply = scene.ask(Some(&b), method.clone(), &path, "").await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{method} {path}");
        assert!(reply.detail().starts_with("there is no "), "{}", reply.detail());
    }
    let count = |reply: crate::scene::Reply, name: &str| reply.json()[name].as_array().map(Vec::len);
    assert_eq!(count(scene.get(&b, "/v1/containers").await, "containers"), Some(0));
    assert_eq!(count(scene.get(&b, "/v1/events").await, "events"), Some(0));
    assert_eq!(count(scene.get(&a, "/v1/events").await, "events"), Some(1));
    let events = scene.get(&admin, "/v1/events").await.json();
    assert!(events["events"].as_array().is_some_and(|events| events.len() > 3), "tokens are made, too: {events}");
    let named = scene.get(&b, "/v1/containers?tenant=a").await;
    assert_eq!((named.status, named.detail().contains("of tenant b")), (StatusCode::FORBIDDEN, true));
    assert_eq!(count(scene.get(&a, "/v1/containers?tenant=a&label=kind=test").await, "containers"), Some(3));
    assert_eq!(count(scene.get(&a, "/v1/containers?label=kind=other").await, "containers"), Some(0));
    assert_eq!(count(scene.get(&admin, "/v1/containers?tenant=a&state=queued").await, "containers"), Some(3));
    // The operator of all stops anybody's, and its owner does.
    let stop = |secret: String, path: String| {
        let scene = &scene;
        async move { scene.ask(Some(&secret), Method::DELETE, &path, "").await.json() }
    };
    assert_eq!(stop(admin, format!("/v1/containers/{group}-0")).await["finished"], 1);
    assert_eq!(stop(a, format!("/v1/groups/{group}")).await["finished"], 2);
    scene.end().await;
}

#[tokio::test]
async fn a_key_is_its_tenants_own() {
    let scene = Scene::with_tokens().await;
    let (a, b) = (scene.token("a", Role::Submit).await, scene.token("b", Role::Submit).await);
    let body = r#"{"spec": {"command": "true"}, "client_key": "k"}"#;
    let first = scene.ask(Some(&a), Method::POST, "/v1/containers", body).await.json();
    let again = scene.ask(Some(&a), Method::POST, "/v1/containers", body).await.json();
    let other = scene.ask(Some(&b), Method::POST, "/v1/containers", body).await.json();
    assert_eq!((&again["group"], &again["repeated"]), (&first["group"], &true.into()));
    assert!(other["group"] != first["group"] && other["repeated"] == false);
    scene.end().await;
}

#[tokio::test]
async fn an_operator_submits_for_a_tenant_and_nobody_else_does() {
    let scene = Scene::with_tokens().await;
    let (admin, b) = (scene.token("ops", Role::Admin).await, scene.token("b", Role::Submit).await);
    let body = r#"{"spec": {"command": "true"}}"#;
    let path = "/v1/containers?tenant=a";
    let made = scene.ask(Some(&admin), Method::POST, path, body).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let shown = scene.get(&admin, &format!("/v1/groups/{}", made.json()["group"].as_str().unwrap())).await.json();
    assert_eq!(shown["tenant"], "a");
    assert_eq!(scene.ask(Some(&b), Method::POST, path, body).await.status, StatusCode::FORBIDDEN);
    scene.end().await;
}
