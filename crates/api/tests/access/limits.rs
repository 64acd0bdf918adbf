//! Limits: a full backlog, a tenant's own, its rate; each says when to come again.

use http::{Method, StatusCode};
use volley_api::ApiOptions;
use volley_ledger::LedgerOptions;
use volley_model::Role;

use crate::scene::{Reply, Scene, options};

fn retry_after(reply: &Reply) -> u64 {
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS, "{reply:?}");
    reply.headers["retry-after"].to_str().expect("ASCII").parse().expect("seconds")
}

#[tokio::test]
async fn a_full_backlog_says_when_to_come_again() {
    let ledger = LedgerOptions { backlog_max: 10, ..LedgerOptions::default() };
    let scene = Scene::start(ApiOptions { tokens: true, ..options() }, ledger).await;
    let secret = scene.token("a", Role::Submit).await;
    assert_eq!(scene.submit(&secret, 8).await.status, StatusCode::CREATED);
    let refused = scene.submit(&secret, 3).await;
    assert!((1..=300).contains(&retry_after(&refused)));
    assert!(refused.detail().contains("8 containers wait, at most 10 may"), "{}", refused.detail());
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    scene.end().await;
}

#[tokio::test]
async fn a_tenants_limits_are_set_shown_and_removed() {
    let scene = Scene::with_tokens().await;
    let (admin, a, b) = (
        scene.token("ops", Role::Admin).await,
        scene.token("a", Role::Submit).await,
        scene.token("b", Role::Submit).await,
    );
    let put = |body: &'static str| scene.ask(Some(&admin), Method::PUT, "/v1/tenants/a", body);
    assert_eq!(put(r#"{"rate": {"per_second": 1, "burst": 5}}"#).await.status, StatusCode::NO_CONTENT);
    assert_eq!(scene.submit(&a, 5).await.status, StatusCode::CREATED);
    assert!((1..=4).contains(&retry_after(&scene.submit(&a, 4).await)), "four at one a second");
    assert_eq!(scene.submit(&b, 50).await.status, StatusCode::CREATED, "others are not slowed");
    assert_eq!(put(r#"{"backlog_max": 7}"#).await.status, StatusCode::NO_CONTENT);
    let full = scene.submit(&a, 3).await;
    assert!(retry_after(&full) >= 1 && full.detail().contains("the backlog of tenant a is full"), "{full:?}");
    let shown = scene.get(&admin, "/v1/tenants").await.json();
    assert_eq!((&shown["tenants"][0]["backlog_max"], &shown["tenants"][0]["waiting"]), (&7.into(), &5.into()));
    for (body, words) in [
        (r#"{"backlog_max": 0}"#, "backlog_max: 0 is out of range"),
        (r#"{"rate": {"per_second": 1}}"#, "missing field `burst`"),
        (r#"{"backlog": 1}"#, "unknown field `backlog`"),
    ] {
        let wrong = put(body).await;
        assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(wrong.detail().contains(words), "{}", wrong.detail());
    }
    let remove = || scene.ask(Some(&admin), Method::DELETE, "/v1/tenants/a", "");
    assert_eq!(remove().await.status, StatusCode::NO_CONTENT);
    assert_eq!(remove().await.status, StatusCode::NOT_FOUND);
    assert_eq!(scene.submit(&a, 30).await.status, StatusCode::CREATED);
    scene.end().await;
}

#[tokio::test]
async fn a_token_is_made_over_http_and_its_secret_shown_once() {
    let scene = Scene::with_tokens().await;
    let admin = scene.token("ops", Role::Admin).await;
    let body = r#"{"tenant": "a", "role": "read", "note": "a dashboard", "expires_in": "30d"}"#;
    let made = scene.ask(Some(&admin), Method::POST, "/v1/tokens", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.headers["cache-control"], "no-store");
    let secret = made.json()["secret"].as_str().expect("a secret").to_owned();
    assert_eq!(scene.get(&secret, "/v1/containers").await.status, StatusCode::OK);
    let listed = scene.get(&admin, "/v1/tokens").await;
    assert!(!String::from_utf8_lossy(&listed.body).contains(&secret[8..]), "{listed:?}");
    let page = scene.get(&admin, "/v1/tokens?max=1").await.json();
    let next = page["next"].as_str().expect("there are two");
    let rest = scene.get(&admin, &format!("/v1/tokens?after={next}")).await.json();
    assert_eq!((rest["tokens"].as_array().map(Vec::len), &rest["next"]), (Some(1), &serde_json::Value::Null));
    for (body, words) in [
        (r#"{"role": "king"}"#, "role: 'king' is not a role"),
        (r#"{"role": "read", "tenant": "-"}"#, "tenant: '-' is not"),
        (r#"{"role": "read", "expires_in": "soon"}"#, "expires_in: "),
        (r#"{"role": "read", "expires": "1h"}"#, "unknown field `expires`"),
    ] {
        let wrong = scene.ask(Some(&admin), Method::POST, "/v1/tokens", body).await;
        assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(wrong.detail().contains(words), "{}", wrong.detail());
    }
    scene.end().await;
}
