//! `deploy/compose.yaml`: its very commands, with addresses of this machine in place of the
//! names of its network, as processes of this machine. Where Docker answers and
//! `VOLLEY_STATIC_BINARY` names a static binary, `deploy/Dockerfile` is built and run too.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::scene::{Process, Scene, Server, out, until};

const COMPOSE: &str = include_str!("../../deploy/compose.yaml");
const SERVERS: [&str; 2] = ["server-1", "server-2"];
const WORKERS: [&str; 3] = ["worker-1", "worker-2", "worker-3"];

/// A service's command.
fn command(service: &str) -> Vec<String> {
    let section = COMPOSE.split_once(&format!("\n  {service}:\n")).unwrap_or_else(|| panic!("no {service}")).1;
    let line = section.lines().find_map(|line| line.trim().strip_prefix("command: ")).expect("each has a command");
    serde_json::from_str(line).expect("a list of words")
}

/// Ends with the test.
struct Redis(Process, u16);

fn redis(scene: &Scene) -> Redis {
    let words = command("redis");
    assert_eq!(words[0], "redis-server");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    let dir = scene.path("redis");
    std::fs::create_dir(&dir).expect("the folder is ours");
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(&dir);
    scene.dress(&mut command);
    let process = scene.start_unheard(command);
    until("redis answers", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    Redis(process, port)
}

#[test]
fn the_cell_of_the_compose_file_runs_what_it_is_sent() {
    let scene = Scene::new();
    let redis = redis(&scene);
    let here = |word: &str| {
        let word = word.replace("redis://redis:6379", &format!("redis://127.0.0.1:{}", redis.1));
        word.replace("0.0.0.0:7171", "127.0.0.1:0")
    };
    let servers: Vec<Server> = SERVERS
        .iter()
        .map(|service| {
            let words: Vec<String> = command(service).iter().map(|word| here(word)).collect();
            let (process, told) = scene.start(scene.command(&[&["-o", "json"], &borrowed(&words)[..]].concat()));
            Server::of(process, &told)
        })
        .collect();
    let workers: Vec<Process> = WORKERS
        .iter()
        .map(|service| {
            let there = |word: &String| {
                let named = SERVERS.iter().zip(&servers).fold(word.clone(), |word, (name, server)| {
                    word.replace(&format!("http://{name}:7171"), &server.url)
                });
                named.replace("/state", &scene.path(service).display().to_string())
            };
            let words: Vec<String> = command(service).iter().map(there).collect();
            scene.start(scene.command(&[&["-o", "json"], &borrowed(&words)[..]].concat())).0
        })
        .collect();
    for server in &servers {
        let ran = scene.run(&["--server", &server.url, "run", "--count", "6", "--", "sh", "-c", "echo hello"]);
        assert!(ran.status.success(), "{}", out(&ran));
        let audit = scene.run(&["--server", &server.url, "audit"]);
        assert!(audit.status.success() && !out(&audit).contains("warning"), "{}", out(&audit));
        let listed = scene.run(&["--server", &server.url, "-o", "json", "workers"]);
        assert!(WORKERS.iter().all(|worker| out(&listed).contains(worker)), "{}", out(&listed));
    }
    drop(workers);
    drop(servers);
    drop(redis.0);
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Without Docker, or without a static binary, the test before this one has done the same steps.
#[test]
fn the_image_is_built_and_runs_where_docker_answers() {
    let quiet = |words: &[&str]| {
        let ran = Command::new("docker").args(words).stdin(Stdio::null()).output().ok()?;
        ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    let binary = std::env::var_os("VOLLEY_STATIC_BINARY");
    let (Some(binary), Some(_)) = (binary, quiet(&["version"])) else {
        eprintln!("no Docker answers, or VOLLEY_STATIC_BINARY names no binary: the image is not built here");
        return;
    };
    let scene = Scene::new();
    std::fs::create_dir(scene.path("context")).expect("the folder is ours");
    std::fs::copy(&binary, scene.path("context").join("volley")).expect("it names a file");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/Dockerfile");
    let (file, context) = (file.display().to_string(), scene.path("context").display().to_string());
    quiet(&["build", "--file", &file, "--tag", "volley-e2e", &context]).expect("the image is built");
    let said = quiet(&["run", "--rm", "volley-e2e", "--version"]).expect("it runs");
    assert!(said.starts_with("volley "), "{said}");
    quiet(&["image", "rm", "volley-e2e"]).expect("it goes again");
}
