//! How a cell is reached, on a real redis-server: over TLS, by user and password, in a database of
//! a number; and that no secret is ever shown.

use std::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use volley_ledger::{Answer, Query, Submit, Sweep};
use volley_model::GroupId;
use volley_store::redis::{RedisOptions, RedisStore, RedisTls};
use volley_store::{Store, StoreExt};

use crate::bench::submission;
use crate::cell::spec;
use crate::redis_server::RedisServer;

async fn accept(store: &RedisStore, group: u64) {
    let submit = Submit { group: GroupId(group), submission: submission(&[(&spec(), 3)], None), body_digest: 1 };
    store.call(submit).await.expect("the server answers").expect("nothing speaks against it");
}

async fn accepted(store: &RedisStore) -> u64 {
    match store.read(Query::Audit).await.expect("the server answers") {
        Answer::Audit(audit) => audit.accepted,
        other => panic!("another answer: {other:?}"),
    }
}

/// Why it is not opened; never with a secret.
async fn refusal(options: RedisOptions) -> String {
    let shown = format!("{options:?}");
    let error = RedisStore::open(options).await.err().expect("it is not let in");
    let (said, debugged) = (error.to_string(), format!("{error:?} {shown}"));
    assert!(!said.contains("s3cret") && !debugged.contains("s3cret"), "{said} {debugged}");
    said
}

/// An authority, and what it signed for the server and for us.
struct Certificates {
    dir: TempDir,
    tls: RedisTls,
}

fn certificates() -> Certificates {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes what is signed by its own name as signed by itself.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let issue = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a good name");
        (params.signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem())
    };
    let (certificate, key) = issue("localhost");
    for (file, text) in [("ca.pem", issuer.pem()), ("redis.pem", certificate), ("redis.key", key)] {
        std::fs::write(dir.path().join(file), text).expect("it is ours");
    }
    let (certificate, key) = issue("volley");
    let identity = Some((certificate.into_bytes(), key.into_bytes()));
    Certificates { dir, tls: RedisTls { ca: Some(issuer.pem().into_bytes()), identity } }
}

/// A server that speaks TLS on a port, and asks for a certificate.
fn tls_server(certificates: &Certificates) -> (RedisServer, u16) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    let file = |name: &str| certificates.dir.path().join(name).display().to_string();
    let server = RedisServer::start(&[
        "--bind",
        "127.0.0.1",
        "--tls-port",
        &port.to_string(),
        "--tls-auth-clients",
        "yes",
        "--tls-cert-file",
        &file("redis.pem"),
        "--tls-key-file",
        &file("redis.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
    ]);
    (server, port)
}

#[tokio::test]
async fn a_cell_is_reached_over_tls_when_each_trusts_the_other() {
    let certificates = certificates();
    let (_server, port) = tls_server(&certificates);
    let options = |tls: &RedisTls| RedisOptions {
        tls: tls.clone(),
        ..RedisOptions::new(&format!("rediss://localhost:{port}/0"))
    };
    let RedisTls { ca, identity } = certificates.tls.clone();
    let store = RedisStore::open(options(&certificates.tls)).await.expect("both are trusted");
    accept(&store, 1).await;
    assert_eq!(accepted(&store).await, 3);
    // Hints come over a connection of their own.
    let mut hints = store.hints();
    accept(&store, 2).await;
    // Either that, or what is said when the subscription stands.
    let hint = tokio::time::timeout(std::time::Duration::from_secs(60), hints.recv()).await;
    hint.expect("it listens").expect("it goes on");
    refusal(options(&RedisTls { ca: None, identity })).await;
    refusal(options(&RedisTls { ca, identity: None })).await;
    let plain = RedisOptions { tls: certificates.tls, ..RedisOptions::new(&format!("redis://localhost:{port}/0")) };
    assert!(refusal(plain).await.contains("rediss://"));
}

#[tokio::test]
async fn a_cell_is_reached_by_user_and_password_and_neither_is_shown() {
    let server = RedisServer::start(&[]);
    // As docs/operations.md says it.
    let rights = ["~{volley:default}:*", "&{volley:default}:*", "+@all", "-@dangerous", "+info", "+config|get"];
    server.cli(&[&["ACL", "SETUSER", "volley", "on", ">s3cret@1"], &rights[..]].concat());
    let with = |user: &str, password: &str| RedisOptions::new(&format!("{}?user={user}&pass={password}", server.url()));
    let store = RedisStore::open(with("volley", "s3cret@1")).await.expect("that is it");
    store.load_scripts().await.expect("it may");
    accept(&store, 1).await;
    assert_eq!(accepted(&store).await, 3);
    store.call(Sweep { session: None, items_max: 10 }).await.expect("it may");
    let wrong = refusal(with("volley", "s3cret@2")).await;
    assert!(wrong.contains("authentication"), "{wrong}");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    // Nobody answers there.
    refusal(RedisOptions::new(&format!("redis://volley:s3cret@{free}/0"))).await;
    refusal(RedisOptions::new("redis://volley:s3cret@:port/0")).await;
    server.cli(&["ACL", "SETUSER", "volley", "-@scripting"]);
    let error = store.read(Query::Audit).await.expect_err("it may not").to_string();
    assert!(error.contains("no permissions"), "{error}");
}

#[tokio::test]
async fn cells_of_one_name_in_two_databases_know_nothing_of_each_other() {
    let server = RedisServer::start(&[]);
    let options = |number: u32| RedisOptions::new(&format!("{}?db={number}", server.url()));
    let (zero, three) = (RedisStore::open(options(0)).await.unwrap(), RedisStore::open(options(3)).await.unwrap());
    accept(&three, 1).await;
    assert_eq!((accepted(&zero).await, accepted(&three).await), (0, 3));
}
