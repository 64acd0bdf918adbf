//! Containers from images, from the command line to runc and back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::image::{busybox, fixtures};
use crate::scene::{Scene, Server, Worker, out, until};

fn worker(scene: &Scene, server: &Server) -> Worker {
    let (images, shared) = (fixtures().display().to_string(), scene.path("shared").display().to_string());
    std::fs::create_dir_all(&shared).expect("the folder is ours");
    let flags = ["--cpu", "4", "--memory", "4Gi", "--runtime", "oci", "--image-root", &images, "--mount-root", &shared];
    scene.worker(server, "w", &flags)
}

#[test]
fn an_image_is_run_entered_measured_and_stopped() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = worker(&scene, &server);
    let ran = server.volley(&["run", "--image", &busybox()]);
    assert!(ran.status.success() && out(&ran).contains("from the image"), "{}", out(&ran));
    let ran = server.volley(&[
        "run",
        "--image",
        &busybox(),
        "--user",
        "ann",
        "--read-only",
        "--",
        "sh",
        "-c",
        "touch /x; id -u; exit 6",
    ]);
    assert_eq!(ran.status.code(), Some(6));
    assert!(out(&ran).contains("Read-only file system") && out(&ran).contains("1000"), "{}", out(&ran));
    let ran = server.volley(&["run", "--no-retry", "--image", &busybox(), "--", "no-such-command"]);
    assert!(out(&ran).contains("command 'no-such-command' is not in image"), "{}", out(&ran));
    let ran = server.volley(&["run", "--no-retry", "--pull", "always", "--image", &busybox(), "--", "true"]);
    assert!(ran.status.success(), "{}", out(&ran));
    let absent = format!("{}:absent", busybox());
    let ran = server.volley(&["run", "--no-retry", "--pull", "never", "--image", &absent, "--", "true"]);
    assert!(out(&ran).contains("is not on this worker"), "{}", out(&ran));
    let ran = server.volley(&["run", "--no-retry", "--image", "oci:/etc", "--", "true"]);
    assert!(out(&ran).contains("--image-root"), "{}", out(&ran));

    let group = server.submit(1, "echo up; sleep 1000", json!({ "image": busybox(), "stop_grace": "1s" }));
    let id = format!("{group}-0");
    server.until_state(&id, "running");
    let mut exec = server.command(&["exec", "-i", &id, "--", "sh", "-c", "cat; echo bad >&2; exit 4"]);
    let mut exec =
        exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary was built");
    exec.stdin.take().expect("piped").write_all(b"a line\n").expect("it reads");
    let entered = exec.wait_with_output().expect("it is ours");
    assert_eq!((entered.status.code(), out(&entered).as_str()), (Some(4), "a line\nbad\n"));
    let failed = server.volley(&["exec", &id, "--", "no-such-command"]);
    assert!(!failed.status.success(), "{}", out(&failed));
    let found = server.json(&["inspect", &id]);
    assert!(found["stats"]["memory_bytes"].as_u64() > Some(0), "{found}");
    assert!(found["stats"]["image_digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{found}");
    assert!(server.volley(&["stop", &id]).status.success());
    assert_eq!(server.until_state(&id, "finished")["outcome_words"], "stopped");
    let found = server.json(&["inspect", &id]);
    assert!(found["stats"]["memory_peak_bytes"].as_u64() > Some(0), "{found}");
    let late = server.volley(&["exec", &id, "--", "true"]);
    assert!(out(&late).contains("does not run here any more"), "{}", out(&late));
    server.audit();
}

/// What the environment of a container has is for its processes alone.
#[test]
fn secrets_are_in_no_process_list_and_no_log() {
    const SECRET: &str = "hunter2-is-not-for-the-list";
    let scene = Scene::new();
    let server = scene.server(&[]);
    let worker = worker(&scene, &server);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // All the time, for the OCI runtime and its first process are there for a moment only.
        let looks = scope.spawn(|| {
            let mut found = Vec::new();
            while !done.load(Ordering::SeqCst) {
                for process in std::fs::read_dir("/proc").expect("there is a /proc").flatten() {
                    let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                    let words = String::from_utf8_lossy(&words).into_owned();
                    found.extend(words.contains(SECRET).then_some(words));
                }
            }
            found
        });
        let more = json!({ "image": busybox(), "env": { "TOKEN": SECRET }, "stop_grace": "0s" });
        let id = format!("{}-0", server.submit(1, "test -n \"$TOKEN\" || exit 3; sleep 1000", more));
        server.until_state(&id, "running");
        let entered = server.volley(&["exec", &id, "--", "sh", "-c", "echo ${#TOKEN}"]);
        assert_eq!(out(&entered).trim(), SECRET.len().to_string());
        let failed = json!({ "image": "oci:/nowhere", "env": { "TOKEN": SECRET }, "retry": "never" });
        server.until_state(&format!("{}-0", server.submit(1, "true", failed)), "finished");
        assert!(server.volley(&["stop", &id]).status.success());
        server.until_state(&id, "finished");
        done.store(true, Ordering::SeqCst);
        assert_eq!(looks.join().expect("it only looks"), Vec::<String>::new());
    });
    for process in [&worker.process, &server.process] {
        assert!(!process.log().contains(SECRET), "{}", process.log());
    }
}

#[test]
fn a_killed_workers_containers_go_on_and_end_with_their_true_codes() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let mut first = worker(&scene, &server);
    let shared = scene.path("shared").display().to_string();
    let script = format!("until test -e {shared}/go; do sleep 0.1; done; exit 7");
    let more = json!({ "image": busybox(), "mounts": [format!("{shared}:{shared}")], "resources": { "cpu": "10m", "memory": "16Mi" } });
    let group = server.submit(20, &script, more);
    let in_state = |state: &str| {
        until(&format!("all are {state}"), || {
            let all = (0..20).map(|index| server.container(&format!("{group}-{index}")));
            all.into_iter().all(|found| found["state"] == state).then_some(())
        });
    };
    in_state("running");
    first.process.kill();
    std::fs::write(scene.path("shared/go"), "").expect("the folder is ours");
    let _second = worker(&scene, &server);
    in_state("finished");
    for index in 0..20 {
        let found = server.container(&format!("{group}-{index}"));
        assert_eq!((&found["attempt"], &found["outcome"]["code"]), (&1.into(), &7.into()), "{found}");
    }
    server.audit();
}

/// The lines of a server's stream of events, from now on.
fn events(server: &Server) -> impl Iterator<Item = String> + use<> {
    let address = server.address();
    let mut stream = TcpStream::connect(address).expect("the server answers");
    let head = format!("GET /v1/events HTTP/1.0\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the server reads");
    BufReader::new(stream).lines().map_while(Result::ok)
}

#[test]
fn how_far_a_pull_is_is_told_and_the_next_life_goes_on_with_it() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let mut first = worker(&scene, &server);
    // Takes connections and says nothing.
    let registry = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let image = format!("{}/app:v1", registry.local_addr().expect("it is bound"));
    let told = events(&server);
    let id = format!("{}-0", server.submit(1, "true", json!({ "image": image })));
    let waits = |why: &str| {
        until(why, || (server.container(&id)["detail"] == "looking its image up").then_some(()));
    };
    waits("its worker says how far it is");
    let rows = out(&server.volley(&["ps"]));
    assert!(rows.contains("looking its image up"), "{rows}");
    let mut told = told.skip_while(|line| line != "event: detail");
    let detail = told.nth(1).expect("the stream goes on");
    assert!(detail.contains("looking its image up") && detail.contains(&id), "{detail}");
    first.process.kill();
    until("the word of a worker that is gone is gone", || server.container(&id)["detail"].is_null().then_some(()));
    let _second = worker(&scene, &server);
    waits("the next life goes on");
    assert_eq!(server.container(&id)["attempt"], 1);
    assert!(server.volley(&["stop", &id]).status.success());
    assert_eq!(server.until_state(&id, "finished")["outcome_words"], "stopped");
    server.audit();
}

#[test]
fn a_pool_takes_what_its_record_allows() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = worker(&scene, &server);
    let apply = |more: serde_json::Value| {
        let mut pool = json!({ "name": "default" });
        pool.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let headers = ["Content-Type: application/json"];
        let reply = server.request("PUT", "/v1/pools/default", &headers, pool.to_string().as_bytes());
        assert!(reply.status < 300, "{reply:?}");
    };
    apply(json!({ "runtimes": ["process"] }));
    let id = format!("{}-0", server.submit(1, "true", json!({ "image": busybox() })));
    until("it is said why it waits", || {
        let why = server.container(&id)["waiting"]["words"].as_str().unwrap_or_default().to_owned();
        why.contains("the pool is for another runtime").then_some(())
    });
    apply(json!({ "runtimes": ["oci"] }));
    assert_eq!(server.until_state(&id, "finished")["outcome"]["code"], 0);
}

#[test]
fn what_names_no_image_does_not_go_to_a_worker_of_images() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = worker(&scene, &server);
    let waits = format!("{}-0", server.submit(1, "true", json!({})));
    let fails = server.post(&json!({ "spec": { "command": "true", "user": "ann" } }));
    assert_eq!(fails.status, 422, "{fails:?}");
    // One that comes later has run when the first was looked at, too.
    let ran = server.volley(&["run", "--image", &busybox()]);
    assert!(ran.status.success(), "{}", out(&ran));
    assert_eq!(server.container(&waits)["state"], "queued");
    assert!(server.volley(&["stop", &waits]).status.success());
}
