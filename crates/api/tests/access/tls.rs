//! TLS: who is trusted, certificates that change, clients that must show one.

use std::fs;
use std::path::{Path, PathBuf};

use http::{HeaderMap, Method, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use volley_api::{ApiOptions, TlsFiles};
use volley_ledger::LedgerOptions;
use volley_model::Role;
use volley_wire::access::ServerAccess;

use crate::roles::{attach, channel};
use crate::scene::{Scene, ask_with, options};

/// An authority, and its files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("it is ours");
        Self { issuer, dir }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A new certificate for a name, over the one before.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a good name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let files = (self.dir.path().join(format!("{name}.pem")), self.dir.path().join(format!("{name}.key")));
        fs::write(&files.0, certificate.pem()).expect("it is ours");
        fs::write(&files.1, key.serialize_pem()).expect("it is ours");
        files
    }
}

async fn start(files: TlsFiles) -> Scene {
    Scene::start(ApiOptions { tokens: true, tls: Some(files), ..options() }, LedgerOptions::default()).await
}

fn trusting(scene: &Scene, ca: &Path, secret: Option<&str>) -> ServerAccess {
    ServerAccess { ca: Some(ca.to_owned()), ..scene.access(secret) }
}

async fn health(access: &ServerAccess) -> Result<StatusCode, String> {
    ask_with(access, Method::GET, "/healthz", "", HeaderMap::new()).await.map(|reply| reply.status)
}

#[tokio::test]
async fn clients_and_workers_connect_over_tls_when_they_trust_the_server() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.issue("localhost");
    let scene = start(TlsFiles { certificate, key, client_ca: None }).await;
    let access = trusting(&scene, &authority.ca(), None);
    assert_eq!(health(&access).await, Ok(StatusCode::OK));
    let distrust = health(&trusting(&scene, &stranger.ca(), None)).await.expect_err("another authority");
    assert!(distrust.contains("InvalidCertificate"), "{distrust}");
    let plain = ServerAccess::open(&scene.url.replace("https", "http"));
    assert!(health(&plain).await.is_err(), "no plain connections");
    let secret = scene.token("fleet", Role::Worker).await;
    let attached = attach(channel(&access).await, Some(&secret)).await;
    assert!(attached.is_ok(), "{:?}", attached.map(drop));
    scene.end().await;
}

#[tokio::test]
async fn a_certificate_that_changes_is_used_and_a_broken_one_is_not() {
    let (authority, next) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.issue("localhost");
    let scene = start(TlsFiles { certificate: certificate.clone(), key: key.clone(), client_ca: None }).await;
    let (old, new) = (trusting(&scene, &authority.ca(), None), trusting(&scene, &next.ca(), None));
    fs::write(&certificate, "no certificate").expect("it is ours");
    assert_eq!(health(&old).await, Ok(StatusCode::OK));
    let fresh = next.issue("localhost");
    fs::copy(fresh.1, &key).expect("it is ours");
    fs::copy(fresh.0, &certificate).expect("it is ours");
    // Looked at every two seconds; the old one counts until then.
    let changed = async {
        while health(&new).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), changed).await.expect("it is loaded again");
    assert!(health(&old).await.is_err());
    scene.end().await;
}

#[tokio::test]
async fn a_server_that_asks_for_certificates_takes_only_those_of_its_authority() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.issue("localhost");
    let scene = start(TlsFiles { certificate, key, client_ca: Some(authority.ca()) }).await;
    let without = trusting(&scene, &authority.ca(), None);
    assert!(health(&without).await.is_err(), "none is shown");
    let known = ServerAccess { identity: Some(authority.issue("client")), ..without.clone() };
    assert_eq!(health(&known).await, Ok(StatusCode::OK));
    let unknown = ServerAccess { identity: Some(stranger.issue("client")), ..without };
    assert!(health(&unknown).await.is_err(), "another authority's");
    scene.end().await;
}

#[test]
fn a_file_that_is_no_certificate_is_named() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("empty.pem");
    fs::write(&file, "").expect("it is ours");
    let access = ServerAccess { ca: Some(file.clone()), ..ServerAccess::open("https://localhost:1") };
    let error = access.connector().expect_err("it holds none").to_string();
    assert!(error.contains("empty.pem") && error.contains("holds none"), "{error}");
    let missing = ServerAccess { ca: Some(dir.path().join("missing.pem")), ..access };
    assert!(missing.connector().expect_err("there is none").to_string().contains("missing.pem"));
}
