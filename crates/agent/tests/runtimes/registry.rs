//! Pulls from a real registry on loopback.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use volley_agent::image::{ImageError, ImageOptions, Images, RegistryOptions};
use volley_agent::{Happened, Launch};
use volley_model::{ContainerId, Millis, Outcome, Progress, PullPolicy};

use crate::bed::{
    ATTEMPT, Bed, CONTAINER, Containers, Kind as _, STOPPED, image_options, kept_options, launch, nothing_left,
    oci_options, shared,
};
use crate::image::{Image, Layer, Pack, busybox_layer, config, digest};
use crate::suite::life;

/// A registry with its own folder of storage.
struct Server {
    child: Child,
    pub at: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts it on a free port; `more` goes into its configuration.
    fn start(dir: &Path, more: &str) -> Self {
        // Freed a moment before the registry takes it; it takes no port 0 that it would tell.
        for _ in 0..20 {
            let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let file = dir.join("registry.yml");
            let storage = dir.join("registry").display().to_string();
            let settings = format!(
                "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {storage}\nhttp:\n  addr: {at}\n{more}"
            );
            fs::write(&file, settings).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("docker-registry is installed");
            let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let listens = lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
            // Its pipe is read to its end, so that it never waits for us.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            let server = Self { child, at };
            if listens {
                return server;
            }
        }
        panic!("no registry could be started");
    }

    fn call(&self, method: &str, path: &str, more: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.at).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n",
            self.at,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    fn push(&self, name: &str, image: &Image, more: &str) {
        for (digest, blob) in &image.blobs {
            let (code, answer) = self.call("POST", &format!("/v2/{name}/blobs/uploads/"), more, b"");
            assert_eq!(code, 202, "{answer}");
            let place = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
            let place = place.split_once(&self.at.to_string()).unwrap().1;
            let path = format!("{place}&digest={digest}");
            let (code, answer) =
                self.call("PUT", &path, &format!("{more}Content-Type: application/octet-stream\r\n"), blob);
            assert_eq!(code, 201, "{answer}");
        }
        self.push_manifest(name, "v1", "application/vnd.oci.image.manifest.v1+json", &image.manifest, more);
    }

    /// An image that is told from others by one variable of its environment, and by a layer of its own.
    fn push_version(&self, name: &str, version: &str) -> String {
        let mut config = config();
        config["config"] = json!({ "Env": [format!("VERSION={version}")] });
        let own = Layer::new().file("version", version.as_bytes()).bytes();
        let image = Image::new(config, &[(busybox_layer(), Pack::Gzip), (own, Pack::Plain)]);
        self.push(name, &image, "");
        digest(&image.manifest)
    }

    fn push_manifest(&self, name: &str, tag: &str, media: &str, manifest: &[u8], more: &str) {
        let more = format!("{more}Content-Type: {media}\r\n");
        let (code, answer) = self.call("PUT", &format!("/v2/{name}/manifests/{tag}"), &more, manifest);
        assert_eq!(code, 201, "{answer}");
    }
}

/// Hands bytes to a registry and back; counts downloads of layers, and breaks off each answer after so many bytes.
struct Proxy {
    at: SocketAddr,
    blobs: Arc<AtomicU64>,
    break_after: Arc<AtomicU64>,
    /// Layers are not answered.
    held: Arc<AtomicBool>,
}

impl Proxy {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (blobs, break_after) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
        let held = Arc::new(AtomicBool::new(false));
        let (count, limit, hold) = (Arc::clone(&blobs), Arc::clone(&break_after), Arc::clone(&held));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (count, limit, hold) = (Arc::clone(&count), Arc::clone(&limit), Arc::clone(&hold));
                std::thread::spawn(move || forward(client, to, &count, (&limit, &hold)));
            }
        });
        Self { at, blobs, break_after, held }
    }
}

/// One request of each connection.
fn forward(
    mut client: TcpStream,
    to: SocketAddr,
    blobs: &AtomicU64,
    (break_after, held): (&AtomicU64, &AtomicBool),
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    if head.starts_with("GET") && head.lines().next()?.contains("/blobs/") {
        // The first one is the configuration.
        let first = blobs.fetch_add(1, Ordering::SeqCst) == 0;
        while !first && held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let mut server = TcpStream::connect(to).ok()?;
    server.write_all(head.as_bytes()).ok()?;
    let limit = break_after.load(Ordering::SeqCst);
    std::io::copy(&mut server.take(limit), &mut client).ok()?;
    Some(())
}

fn busybox() -> Image {
    Image::new(config(), &[(busybox_layer(), Pack::Gzip)])
}

fn open(dir: &Path, change: impl FnOnce(&mut ImageOptions)) -> Images {
    let mut options = image_options(dir);
    change(&mut options);
    Images::open(options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_containers_of_an_image_cause_one_pull() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "");
    server.push("team/busybox", &busybox(), "");
    let proxy = Proxy::start(server.at);
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let options = oci_options(kept_options(dir.path()), dir.path());
    let runtime = Arc::new(volley_agent::OciRuntime::new(options, sender).unwrap());
    let mut bed = Bed { runtime, receiver };
    for index in 0..100 {
        let container = ContainerId { index, ..CONTAINER };
        let mut spec = Containers::spec(dir.path(), "true");
        spec.image = Some(format!("{}/team/busybox:v1", proxy.at));
        bed.runtime.start(Launch { container, ..launch(spec) });
    }
    for _ in 0..100 {
        assert_eq!(bed.outcome().await, Outcome::Exited { code: 0, signal: None });
    }
    assert_eq!(proxy.blobs.load(Ordering::SeqCst), 2, "one configuration and one layer");
    drop(server);
    nothing_left(dir.path()).await;
}

/// What is asked for by `always` is what the tag means now; by `if_not_present` what it meant here at first. Whoever runs
/// keeps what it started with, also in the worker's next life.
#[test]
fn a_tag_that_moves_is_followed_by_who_asks_always() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "");
    let first = server.push_version("app", "one");
    let proxy = Proxy::start(server.at);
    let flag = shared(dir.path()).join("go");
    let waits = format!("echo $VERSION; until test -e {}; do sleep 0.01; done; cat /version", flag.display());
    let of = |index, script: &str, pull| {
        let mut spec = Containers::spec(dir.path(), script);
        spec.image = Some(format!("{}/app:v1", proxy.at));
        spec.sandbox.pull = pull;
        Launch { container: ContainerId { index, ..CONTAINER }, ..launch(spec) }
    };
    life(async || {
        let mut bed = Bed::new::<Containers>(dir.path());
        bed.runtime.start(of(5, "true", PullPolicy::Never));
        let refused = bed.outcome().await;
        assert!(matches!(&refused, Outcome::Failed { reason } if reason.contains("not on this worker")), "{refused:?}");
        bed.runtime.start(of(0, &waits, PullPolicy::IfNotPresent));
        assert_eq!(bed.line().await, "one");
        let second = server.push_version("app", "two");
        for (index, pull, version, digest) in [
            (1, PullPolicy::IfNotPresent, "one", &first),
            (2, PullPolicy::Never, "one", &first),
            (3, PullPolicy::Always, "two", &second),
            (4, PullPolicy::IfNotPresent, "two", &second),
        ] {
            let launch = of(index, "echo $VERSION; cat /version", pull);
            let container = launch.container;
            bed.runtime.start(launch);
            assert_eq!(bed.outcome().await, Outcome::Exited { code: 0, signal: None }, "{pull:?}");
            let printed = bed.runtime.output(container, 1, false, 0, usize::MAX).unwrap().bytes;
            assert_eq!(String::from_utf8(printed).unwrap(), format!("{version}\n{version}"), "{pull:?}");
            assert_eq!(bed.runtime.image_digest(container, 1).as_ref(), Some(digest), "{pull:?}");
        }
        let fetched = proxy.blobs.load(Ordering::SeqCst);
        bed.runtime.start(of(6, "true", PullPolicy::Always));
        assert_eq!(bed.outcome().await, Outcome::Exited { code: 0, signal: None });
        let again = proxy.blobs.load(Ordering::SeqCst) - fetched;
        assert!(again <= 1, "what is there is not fetched again, but for its configuration: {again}");
    });
    drop(server);
    life(async || {
        let mut bed = Bed::new::<Containers>(dir.path());
        let left = bed.runtime.adopt().unwrap();
        assert!(left.iter().any(|left| left.progress == Progress::Running), "{left:?}");
        bed.runtime.start(of(7, "true", PullPolicy::Always));
        let down = bed.outcome().await;
        assert!(matches!(&down, Outcome::Failed { reason } if reason.contains("could not be pulled")), "{down:?}");
        std::fs::write(&flag, b"").unwrap();
        assert_eq!(bed.outcome().await, Outcome::Exited { code: 0, signal: None });
        assert_eq!(bed.printed(false), "one\none", "its files are there to the end");
        nothing_left(dir.path()).await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_needed_and_come_from_dockers_file() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("htpasswd");
    // user:secret, by bcrypt.
    fs::write(&password, "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n").unwrap();
    let more = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", password.display());
    let server = Server::start(dir.path(), &more);
    let basic = "Authorization: Basic dXNlcjpzZWNyZXQ=\r\n";
    server.push("private", &busybox(), basic);
    let reference = format!("{}/private:v1", server.at);
    let file = |auth: &str| -> Option<PathBuf> {
        let path = dir.path().join("config.json");
        let entries = json!({ server.at.to_string(): { "auth": auth } });
        fs::write(&path, json!({ "auths": entries }).to_string()).unwrap();
        Some(path)
    };
    // user:wrong
    for auth in ["dXNlcjp3cm9uZw==", ""] {
        let images = open(dir.path(), |options| options.registry.auth_file = file(auth));
        let error = images.get(&reference).await.err().unwrap();
        assert!(matches!(*error, ImageError::NotAllowed(_) | ImageError::Unreachable { .. }), "{auth}: {error:?}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    let images = open(dir.path(), |options| options.registry.auth_file = file("dXNlcjpzZWNyZXQ="));
    assert!(images.get(&reference).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_breaks_off_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "");
    // What does not pack well, so that it takes several tries.
    let noise: Vec<u8> = (0u32..600_000).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let image = Image::new(config(), &[(Layer::new().file("noise", &noise).bytes(), Pack::Plain)]);
    server.push("big", &image, "");
    let proxy = Proxy::start(server.at);
    let reference = format!("{}/big:v1", proxy.at);
    let images = open(dir.path(), |_| {});
    // The small documents come through; the layer comes in pieces.
    proxy.break_after.store(200_000, Ordering::SeqCst);
    let hold = images.get(&reference).await.map_err(|error| error.to_string()).unwrap();
    assert_eq!(fs::read(images.layers_dir().join(&hold.layers()[0]).join("noise")).unwrap(), noise);
    assert!(proxy.blobs.load(Ordering::SeqCst) >= 4);
    assert_eq!(fs::read_dir(dir.path().join("images/downloads")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_goes_down_is_said_and_the_next_life_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "");
    let noise: Vec<u8> = (0u32..600_000).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let image = Image::new(config(), &[(Layer::new().file("noise", &noise).bytes(), Pack::Plain)]);
    server.push("big", &image, "");
    let proxy = Proxy::start(server.at);
    let reference = format!("{}/big:v1", proxy.at);
    proxy.break_after.store(50_000, Ordering::SeqCst);
    let images = open(dir.path(), |_| {});
    let error = images.get(&reference).await.err().unwrap();
    assert!(error.to_string().contains("could not be pulled: the registry broke off"), "{error}");
    drop(images);
    let part = fs::read_dir(dir.path().join("images/downloads")).unwrap().next().unwrap().unwrap();
    let there = part.metadata().unwrap().len();
    assert!(there > 50_000, "four tries brought {there} bytes");
    proxy.break_after.store(u64::MAX, Ordering::SeqCst);
    let images = open(dir.path(), |_| {});
    assert!(images.used().0 >= there, "what is there counts");
    assert!(images.get(&reference).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_does_not_have_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "");
    let image = busybox();
    server.push("app", &image, "");
    let platform = |architecture: &str| json!({ "os": "linux", "architecture": architecture });
    let entry = |architecture: &str| {
        let media = "application/vnd.oci.image.manifest.v1+json";
        json!({ "mediaType": media, "digest": digest(&image.manifest), "size": image.manifest.len(), "platform": platform(architecture) })
    };
    let here = platform_name();
    let index_type = "application/vnd.oci.image.index.v1+json";
    for (tag, architectures) in [("multi", vec!["s390x", here]), ("other", vec!["s390x"])] {
        let manifests: Vec<_> = architectures.into_iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": index_type, "manifests": manifests });
        server.push_manifest("app", tag, index_type, index.to_string().as_bytes(), "");
    }
    let images = open(dir.path(), |_| {});
    let get = async |name: &str| images.get(&format!("{}/{name}", server.at)).await.map(|hold| hold.layers());
    assert_eq!(get("app:multi").await.unwrap().len(), 1);
    let by_digest = format!("app@{}", digest(&image.manifest));
    assert_eq!(get(&by_digest).await.unwrap().len(), 1);
    let error = get("app:other").await.unwrap_err();
    assert!(matches!(*error, ImageError::Architecture { .. }), "{error:?}");
    for name in ["app:missing", "missing:v1"] {
        let error = get(name).await.unwrap_err();
        assert!(matches!(*error, ImageError::NotFound(_)), "{error:?}");
    }
    drop(server);
    let error = images.get("127.0.0.1:9/gone:v1").await.err().unwrap();
    assert!(matches!(*error, ImageError::Unreachable { .. }), "{error:?}");
}

fn platform_name() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_asked_first_and_the_registry_when_it_does_not_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    fs::create_dir_all(&here).unwrap();
    fs::create_dir_all(&there).unwrap();
    let (registry, mirror) = (Server::start(&here, ""), Server::start(&there, ""));
    mirror.push("only/mirror", &busybox(), "");
    registry.push("only/registry", &busybox(), "");
    let mirrors = vec![(registry.at.to_string(), mirror.at.to_string())];
    let images =
        open(dir.path(), |options| options.registry = RegistryOptions { mirrors, ..RegistryOptions::default() });
    for name in ["only/mirror", "only/registry"] {
        assert!(images.get(&format!("{}/{name}:v1", registry.at)).await.is_ok(), "{name}");
    }
}

/// What waits for an image when its worker dies goes on in the next life, and how far it is is told.
#[test]
fn what_waits_for_an_image_when_its_worker_dies_goes_on_in_the_next_life() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "");
    server.push("team/busybox", &busybox(), "");
    let proxy = Proxy::start(server.at);
    proxy.held.store(true, Ordering::SeqCst);
    let mut spec = Containers::spec(dir.path(), "exit 3");
    spec.image = Some(format!("{}/team/busybox:v1", proxy.at));
    life(async || {
        let mut bed = Bed::with::<Containers>(dir.path(), spec);
        loop {
            match bed.next_of_all().await {
                Happened::Waits(words) if words.starts_with("pulling 0 of ") => break,
                Happened::Waits(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(bed.runtime.exec(CONTAINER, 1, &["true".to_owned()]).unwrap_err().contains("does not run yet"));
    });
    proxy.held.store(false, Ordering::SeqCst);
    life(async || {
        let mut bed = Bed::new::<Containers>(dir.path());
        let left = bed.runtime.adopt().unwrap();
        assert_eq!((left.len(), &left[0].progress), (1, &Progress::Accepted));
        assert_eq!(bed.outcome().await, Outcome::Exited { code: 3, signal: None });
        assert_eq!(bed.runtime.images(), [format!("{}/team/busybox:v1", proxy.at)]);
    });
    drop(server);
    life(async || nothing_left(dir.path()).await);
}

/// A stop reaches what waits, and the next life does not begin it again.
#[test]
fn what_waits_for_an_image_can_be_stopped_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "");
    server.push("team/busybox", &busybox(), "");
    let proxy = Proxy::start(server.at);
    proxy.held.store(true, Ordering::SeqCst);
    let mut spec = Containers::spec(dir.path(), "true");
    spec.image = Some(format!("{}/team/busybox:v1", proxy.at));
    life(async || {
        let mut bed = Bed::with::<Containers>(dir.path(), spec);
        assert!(bed.runtime.stop(CONTAINER, ATTEMPT, Millis(0)));
        assert_eq!(bed.outcome().await, STOPPED);
    });
    life(async || {
        let left = Bed::new::<Containers>(dir.path()).runtime.adopt().unwrap();
        assert_eq!((left.len(), &left[0].progress), (1, &Progress::Ended(STOPPED)));
    });
    proxy.held.store(false, Ordering::SeqCst);
    drop(server);
    life(async || nothing_left(dir.path()).await);
}
