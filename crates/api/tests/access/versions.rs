//! Workers and clients of one version before and after, as far as they can be told by what they
//! say: heard where there is a version that both speak, refused with the reason where not.

use http::{HeaderMap, Method, StatusCode};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use volley_ledger::LedgerOptions;
use volley_wire::proto::workers_client::WorkersClient;
use volley_wire::proto::{self, from_worker, to_worker};
use volley_wire::protocol::{WORKERS_MAX, WORKERS_MIN};

use crate::roles::{channel, with_token};
use crate::scene::{Scene, ask_with, options};

/// The version that a worker's stream goes on in, or why it does not.
async fn attach(scene: &Scene, name: &str, (min, max): (u32, u32)) -> Result<u32, tonic::Status> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let hello = proto::Hello {
        worker: name.to_owned(),
        cpu_milli: 1000,
        memory_bytes: 1 << 30,
        slots: 1,
        protocol_min: min,
        protocol_max: max,
        ..proto::Hello::default()
    };
    let hello = proto::FromWorker { message: Some(from_worker::Message::Hello(hello)) };
    sender.try_send(hello).expect("there is room");
    let channel = channel(&scene.access(None)).await;
    let request = with_token(ReceiverStream::new(receiver), None);
    let mut inbound = WorkersClient::new(channel).attach(request).await?.into_inner();
    match inbound.message().await?.and_then(|first| first.message) {
        Some(to_worker::Message::Welcome(welcome)) => Ok(welcome.protocol),
        other => panic!("no welcome: {other:?}"),
    }
}

#[tokio::test]
async fn a_worker_goes_on_in_a_version_that_both_speak_or_is_refused_with_the_reason() {
    let scene = Scene::start(options(), LedgerOptions::default()).await;
    let spoken = [("silent", (0, 0)), ("same", (WORKERS_MIN, WORKERS_MAX)), ("newer", (WORKERS_MAX, WORKERS_MAX + 1))];
    for (name, versions) in spoken {
        let version = attach(&scene, name, versions).await.expect(name);
        assert!((WORKERS_MIN..=WORKERS_MAX).contains(&version), "{name}: {version}");
    }
    let refused = attach(&scene, "future", (WORKERS_MAX + 1, WORKERS_MAX + 2)).await.expect_err("nobody knows it yet");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().ends_with("update the server"), "{}", refused.message());
    scene.end().await;
}

#[tokio::test]
async fn a_client_of_a_later_version_is_refused_before_anything_else_is_asked() {
    let scene = Scene::with_tokens().await;
    let ask = async |versions: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("volley-protocol", versions.parse().expect("ASCII"));
        ask_with(&scene.access(None), Method::GET, "/v1/audit", "", headers).await.expect("it answers")
    };
    let reply = ask("2-2").await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.detail().contains("update the server"), "{}", reply.detail());
    let reply = ask("1-2").await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "the version is good, the token is missing");
    assert_eq!(reply.headers.get("volley-protocol").map(|version| version.as_bytes()), Some(&b"1"[..]));
    scene.end().await;
}
