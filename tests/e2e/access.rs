//! Tokens, tenants and TLS as an operator sets them up: by flags and commands alone.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::scene::{Process, Scene, out, until};

/// A server that others could reach: with tokens and TLS.
struct Guarded<'a> {
    scene: &'a Scene,
    process: Process,
    url: String,
    ca: PathBuf,
}

/// An authority's certificate, and a server's with its key.
pub fn certificates(scene: &Scene) -> [PathBuf; 3] {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a good name");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let files = ["ca.pem", "server.pem", "server.key"].map(|name| scene.path(name));
    for (file, text) in files.iter().zip([authority.pem(), certificate.pem(), key.serialize_pem()]) {
        std::fs::write(file, text).expect("the folder is ours");
    }
    files
}

impl<'a> Guarded<'a> {
    fn start(scene: &'a Scene) -> Self {
        let [ca, cert, key] = certificates(scene).map(|file| file.display().to_string());
        let flags = ["serve", "-o", "json", "--listen", "0.0.0.0:0", "--data", "data", "--tokens"];
        let (process, told) =
            scene.start(scene.command(&[&flags[..], &["--tls-cert", &cert, "--tls-key", &key]].concat()));
        let url = told["address"].as_str().expect("an address").replace("0.0.0.0", "127.0.0.1");
        assert!(url.starts_with("https://"), "{url}");
        Self { scene, process, url, ca: ca.into() }
    }

    fn command(&self, secret: &str, args: &[&str]) -> Command {
        let mut command = self.scene.command(args);
        command.env("VOLLEY_SERVER", &self.url).env("VOLLEY_CA", &self.ca).env("VOLLEY_TOKEN", secret);
        command
    }

    fn run(&self, secret: &str, args: &[&str]) -> Output {
        self.command(secret, args).output().expect("the binary was built")
    }

    fn good(&self, secret: &str, args: &[&str]) -> String {
        let ran = self.run(secret, args);
        assert!(ran.status.success(), "{args:?}: {}", out(&ran));
        String::from_utf8(ran.stdout).expect("text").trim_end().to_owned()
    }

    /// Refused with one line.
    fn bad(&self, secret: &str, args: &[&str], words: &str) {
        let ran = self.run(secret, args);
        let told = out(&ran);
        assert!(!ran.status.success() && told.contains(words) && told.lines().count() == 1, "{args:?}: {told}");
    }

    /// A new token's secret.
    fn token(&self, admin: &str, role: &str, tenant: &str) -> String {
        self.good(admin, &["token", "create", "--role", role, "--tenant", tenant, "-o", "quiet"])
    }

    fn worker(&self, secret: &str, name: &str) -> Process {
        let mut command = self.command(secret, &["worker", "-o", "json", "--name", name, "--state", name]);
        command.args(["--cpu", "2", "--memory", "1Gi", "--slots", "4"]);
        self.scene.start(command).0
    }
}

fn admin_of(file: &Path) -> String {
    let mode = std::fs::metadata(file).expect("it was written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner reads it");
    std::fs::read_to_string(file).expect("it was written").trim_end().to_owned()
}

#[test]
fn a_cell_is_set_up_with_tokens_and_tls_by_flags_and_commands() {
    let scene = Scene::new();
    let cell = Guarded::start(&scene);
    let admin = admin_of(&scene.path("data/admin.token"));
    let mut nobody = scene.command(&["ps", "--server", &cell.url, "--ca"]);
    let told = out(&nobody.arg(&cell.ca).output().expect("the binary was built"));
    assert!(told.contains("a token is needed"), "{told}");
    let told = out(&scene.run(&["ps", "--server", &cell.url]));
    assert!(told.starts_with("error: ") && told.contains("certificate"), "without the authority: {told}");
    cell.bad("volley_nonsense", &["ps"], "the token is not known");

    let [submit, read] = ["submit", "read"].map(|role| cell.token(&admin, role, "red"));
    let blue = cell.token(&admin, "submit", "blue");
    let worker = cell.token(&admin, "worker", "red");
    let _worker = cell.worker(&worker, "w-access");

    assert!(cell.good(&submit, &["run", "--", "echo", "hello"]).contains("hello"));
    let id = cell.good(&submit, &["ps", "-a", "-o", "quiet"]);
    assert_eq!(cell.good(&read, &["logs", &id]), "hello");
    assert_eq!(cell.good(&blue, &["ps", "-a", "-o", "quiet"]), "", "a tenant sees only its own");
    cell.bad(&blue, &["inspect", &id], "there is no");
    cell.bad(&read, &["run", "--detach", "--", "true"], "a token with the role read may not do this");
    cell.bad(&submit, &["token", "list"], "it takes admin");
    cell.bad(&worker, &["ps"], "a token with the role worker may not do this");

    cell.good(&admin, &["tenant", "set", "red", "--backlog-max", "3"]);
    assert!(cell.good(&admin, &["tenant", "list"]).contains("red"));
    cell.bad(&submit, &["run", "-n", "4", "--detach", "--", "true"], "tenant red");
    cell.good(&admin, &["tenant", "remove", "red"]);
    cell.good(&submit, &["run", "-n", "4", "--", "true"]);

    let short = cell.good(&admin, &["token", "create", "--role", "read", "--expires-in", "1ms", "-o", "quiet"]);
    cell.bad(&short, &["ps"], "the token has expired");
    let listed = cell.good(&admin, &["token", "list"]);
    assert!(listed.contains("red") && ![&admin, &submit, &read].iter().any(|secret| listed.contains(*secret)));
}

#[test]
fn a_revoked_token_ends_what_its_holder_follows() {
    let scene = Scene::new();
    let cell = Guarded::start(&scene);
    let admin = admin_of(&scene.path("data/admin.token"));
    let created = cell.good(&admin, &["token", "create", "--role", "submit", "-o", "json"]);
    let created: serde_json::Value = serde_json::from_str(&created).expect("JSON");
    let (id, secret) = (created["id"].as_str().expect("an id"), created["secret"].as_str().expect("a secret"));
    let worker = cell.token(&admin, "worker", "default");
    let _worker = cell.worker(&worker, "w-revoked");
    let group = cell.good(secret, &["run", "--detach", "-o", "quiet", "--", "sh", "-c", "echo begun; exec sleep 600"]);
    let file = std::fs::File::create(scene.path("followed")).expect("the folder is ours");
    let mut follow = cell.command(secret, &["logs", "--follow", &group]);
    let mut follow = follow.stdout(file).spawn().expect("the binary was built");
    until("output is followed", || (std::fs::read(scene.path("followed")).ok()? == b"begun\n").then_some(()));
    cell.good(&admin, &["token", "revoke", id]);
    cell.bad(secret, &["ps"], "the token was revoked");
    let ended = until("the follower ends", || follow.try_wait().expect("it is ours"));
    assert!(!ended.success());
    cell.good(&admin, &["stop", "--force", &group]);
}

#[test]
fn who_has_lost_all_tokens_makes_one_where_the_data_are() {
    let scene = Scene::new();
    let mut cell = Guarded::start(&scene);
    let make = ["token", "create", "--role", "admin", "--data", "data", "-o", "quiet"];
    let told = out(&scene.run(&make));
    assert!(told.contains("stop that process"), "the server has the folder: {told}");
    assert!(cell.process.end().success());
    let made = scene.run(&make);
    assert!(made.status.success(), "{}", out(&made));
    let secret = String::from_utf8(made.stdout).expect("text").trim_end().to_owned();
    drop(cell);
    let cell = Guarded::start(&scene);
    assert!(cell.good(&secret, &["audit"]).contains("all hold"));
}

#[test]
fn what_others_can_reach_is_refused_without_tokens_and_tls_or_warned_of() {
    let scene = Scene::new();
    let refused = out(&scene.run(&["serve", "--listen", "0.0.0.0:0", "--tokens", "--data", "x"]));
    assert!(refused.contains("without TLS") && refused.contains("--insecure"), "{refused}");
    let (process, _) = scene.start(scene.command(&["serve", "-o", "json", "--listen", "0.0.0.0:0", "--insecure"]));
    assert!(process.log().contains("--insecure: without tokens anybody"), "{}", process.log());
}
