//! Without tokens: who is kept out all the same, and where such a server may not listen.

use http::{HeaderMap, Method, StatusCode};
use volley_api::{ApiOptions, Server};
use volley_ledger::LedgerOptions;

use crate::scene::{Scene, ask_with, options};

#[tokio::test]
async fn a_web_page_cannot_send_commands_to_a_server_without_tokens() {
    let scene = Scene::start(options(), LedgerOptions::default()).await;
    let body = r#"{"spec": {"command": "true"}}"#;
    let submit = |name: &'static str, value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header"));
        let access = scene.access(None);
        async move { ask_with(&access, Method::POST, "/v1/containers", body, headers).await.expect("it answers") }
    };
    assert_eq!(submit("content-type", "text/plain").await.status, StatusCode::CREATED, "curl needs no token");
    let page = submit("origin", "https://evil.example").await;
    assert_eq!((page.status, page.detail().contains("evil.example")), (StatusCode::FORBIDDEN, true));
    let rebound = submit("host", "evil.example").await;
    assert_eq!(rebound.status, StatusCode::FORBIDDEN, "a name that resolves to this machine");
    scene.end().await;
}

#[tokio::test]
async fn an_address_that_others_can_reach_needs_tokens_and_tls() {
    let anywhere = ApiOptions { listen: "0.0.0.0:0".parse().expect("an address"), ..options() };
    let refused =
        |options: ApiOptions| async move { Server::bind(&options).await.map(drop).map_err(|error| error.to_string()) };
    let without = refused(anywhere.clone()).await.expect_err("no tokens");
    assert!(without.contains("not a loopback address") && without.contains("--insecure"), "{without}");
    let plain = refused(ApiOptions { tokens: true, ..anywhere.clone() }).await.expect_err("no TLS");
    assert!(plain.contains("without TLS"), "{plain}");
    assert_eq!(refused(ApiOptions { insecure: true, ..anywhere }).await, Ok(()), "whoever says so may");
}
