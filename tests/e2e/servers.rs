//! Several servers of one cell: any of them answers for any container, and workers go to another
//! one by themselves when theirs dies, drains or freezes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::access::certificates;
use crate::cell::Cell;
use crate::scene::{Scene, Server, Worker, out, until};

fn stdout(server: &Server, args: &[&str]) -> String {
    let ran = server.volley(args);
    assert!(ran.status.success(), "{args:?}: {}", out(&ran));
    String::from_utf8(ran.stdout).expect("text")
}

fn record(server: &Server, worker: &Worker) -> Value {
    let workers = server.get("/v1/workers");
    let found = workers["workers"].as_array().expect("a list").iter().find(|found| found["id"] == worker.name.as_str());
    found.expect("it is registered").clone()
}

/// Containers that a server's own streams have carried are those of the other one's workers here.
fn streams(server: &Server) -> f64 {
    let text = server.request("GET", "/metrics", &[], b"").body;
    let line = text.lines().find(|line| line.starts_with("volley_streams")).expect("it is counted");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

#[test]
fn any_server_answers_for_a_container_whose_worker_is_connected_to_another() {
    let scene = Scene::new();
    let cell = Cell::new(&scene, &[]);
    let holder = cell.server(&[]);
    let _worker = cell.worker(&holder, "w", &[]);
    let other = cell.server(&[]);
    let go = scene.path("go");
    let script = format!("echo one; echo oops >&2; while [ ! -e {} ]; do sleep 0.05; done; echo two", go.display());
    let group = other.submit(2, &script, json!({}));
    let id = format!("{group}-0");
    other.until_state(&id, "running");
    other.until_state(&format!("{group}-1"), "running");
    assert_eq!((streams(&holder), streams(&other)), (1.0, 0.0), "the other one holds no stream");

    let mut follow = other.command(&["logs", "-f", "--stream", "stdout", &id]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("the binary was built");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "one");
    until("its stderr is there", || (stdout(&other, &["logs", &id, "--stream", "stderr"]) == "oops\n").then_some(()));
    // The worker itself answers: a container that is a process has nothing to enter.
    let exec = other.request("POST", &format!("/v1/containers/{id}/exec"), &[], br#"{"args": ["true"]}"#);
    assert_eq!(exec.status, 409, "{exec:?}");
    assert!(exec.problem().contains("there is nothing to enter"), "{exec:?}");
    let stats = |server: &Server| server.request("GET", &format!("/v1/containers/{id}/stats"), &[], b"");
    let (here, there) = (stats(&other), stats(&holder));
    assert_eq!(here.status, there.status, "{here:?} {there:?}");
    stdout(&other, &["stop", &format!("{group}-1")]);
    holder.until_state(&format!("{group}-1"), "finished");
    std::fs::write(go, "").expect("the folder is ours");
    assert_eq!(lines.next().expect("a line").expect("text"), "two");
    assert!(lines.next().is_none(), "it ends with the container");
    assert!(follow.wait().expect("it is ours").success());
    assert_eq!(holder.until_finished(&group), other.until_finished(&group));
    assert_eq!(holder.events(), other.events());
    assert_eq!(holder.audit()["finished"], 2);
}

#[test]
fn what_is_passed_on_has_the_callers_right_and_no_other() {
    let scene = Scene::new();
    let cell = Cell::new(&scene, &["--tokens"]);
    let holder = cell.server(&[]);
    let admin = std::fs::read_to_string(scene.path("admin.token")).expect("the first admin's").trim().to_owned();
    let token = |tenant: &str, role: &str| {
        let words = ["--token", &admin, "-o", "json", "token", "create", "--tenant", tenant, "--role", role];
        let made: Value = serde_json::from_str(&stdout(&holder, &words)).expect("JSON");
        made["secret"].as_str().expect("a secret").to_owned()
    };
    let (of_worker, own, reader, stranger) =
        (token("default", "worker"), token("a", "submit"), token("a", "read"), token("b", "submit"));
    let _worker = cell.worker(&holder, "w", &["--token", &of_worker]);
    let other = cell.server(&[]);
    let words = ["--token", &own, "-o", "json", "run", "--detach", "--", "sh", "-c", "echo mine; exec sleep 300"];
    let made: Value = serde_json::from_str(&stdout(&other, &words)).expect("JSON");
    let id = format!("{}-0", made["group"].as_str().expect("a group"));
    let ask = |secret: &str, method: &str, path: &str, body: &[u8]| {
        other.request(
            method,
            &format!("/v1/containers/{id}{path}"),
            &[&format!("Authorization: Bearer {secret}")],
            body,
        )
    };
    until("its output is there", || (ask(&own, "GET", "/logs", b"").body == "mine\n").then_some(()));
    assert_eq!(ask(&reader, "GET", "/logs", b"").body, "mine\n", "who may read it may read it here");
    assert_eq!(ask(&stranger, "GET", "/logs", b"").status, 404);
    let exec = br#"{"args": ["true"]}"#;
    assert!(ask(&own, "POST", "/exec", exec).problem().contains("there is nothing to enter"), "the worker says so");
    assert_eq!(ask(&reader, "POST", "/exec", exec).status, 403);
    assert_eq!(ask(&stranger, "POST", "/exec", exec).status, 404);
    // What servers ask of each other is refused to whoever has no token, like all else.
    let inside = holder.request("POST", "/volley.v1.Servers/Page", &["Content-Type: application/grpc"], b"");
    assert!(inside.headers.to_ascii_lowercase().contains("grpc-status: 16"), "{inside:?}");
    stdout(&other, &["--token", &own, "stop", "--force", &id]);
}

#[test]
fn servers_with_tls_pass_on_to_each_other() {
    let scene = Scene::new();
    let [ca, cert, key] = certificates(&scene).map(|file| file.display().to_string());
    let cell = Cell::new(&scene, &["--tokens", "--tls-cert", &cert, "--tls-key", &key, "--ca", &ca]);
    let holder = cell.server(&[]);
    let admin = std::fs::read_to_string(scene.path("admin.token")).expect("the first admin's").trim().to_owned();
    let access = |server: &Server, args: &[&str]| {
        let mut command = scene.command(args);
        command.env("VOLLEY_SERVER", &server.url).env("VOLLEY_CA", &ca).env("VOLLEY_TOKEN", &admin);
        command
    };
    let ask = |server: &Server, args: &[&str]| {
        let ran = access(server, args).output().expect("the binary was built");
        assert!(ran.status.success(), "{args:?}: {}", out(&ran));
        String::from_utf8(ran.stdout).expect("text")
    };
    let of_worker = ask(&holder, &["token", "create", "--role", "worker", "-o", "quiet"]);
    let flags =
        ["worker", "-o", "json", "--name", "w", "--state", "w", "--cpu", "2", "--memory", "1Gi", "--slots", "4"];
    let mut worker = access(&holder, &flags);
    let _worker = scene.start({
        worker.env("VOLLEY_TOKEN", of_worker.trim());
        worker
    });
    let other = cell.server(&[]);
    assert!(holder.url.starts_with("https://") && other.url.starts_with("https://"), "{}", other.url);
    let words = ["-o", "json", "run", "--detach", "--", "sh", "-c", "echo mine; exec sleep 300"];
    let made: Value = serde_json::from_str(&ask(&other, &words)).expect("JSON");
    let id = format!("{}-0", made["group"].as_str().expect("a group"));
    until("its output is there", || {
        let ran = access(&other, &["logs", &id]).output().expect("the binary was built");
        (ran.status.success() && ran.stdout == b"mine\n").then_some(())
    });
    ask(&other, &["stop", "--force", &id]);
}

#[test]
fn a_worker_goes_to_another_server_when_its_own_is_killed_ends_or_freezes_and_its_containers_run_on() {
    let scene = Scene::new();
    // A worker leaves a silent server after half of its lease.
    let cell = Cell::new(&scene, &["--worker-lease", "6s", "--session-lease", "4s"]);
    let mut first = cell.server(&[]);
    let second = cell.server(&[]);
    // It is told of one and learns of the other.
    let worker = cell.worker(&first, "w", &[]);
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; echo done", scene.path("go").display());
    let group = second.submit(3, &script, json!({}));
    let running = |server: &Server| (server.get("/v1/audit")["running"] == 3).then_some(());
    until("all run", || running(&second));

    first.process.kill();
    until("it is connected to the second", || (streams(&second) == 1.0).then_some(()));
    cell.kill_and_restart(&mut first);
    // A new life of the first one: the worker hears of it when it attaches next.
    until("the first answers again", || running(&first));
    second.process.signal("STOP");
    until("it is connected to the first", || (streams(&first) == 1.0).then_some(()));
    second.process.signal("CONT");
    until("the second knows that it is not its worker any more", || (streams(&second) == 0.0).then_some(()));
    drop(first);
    until("it is connected to the second again", || (streams(&second) == 1.0).then_some(()));
    assert_eq!(record(&second, &worker)["status"], "ready");

    // A client that knows both takes the one that answers.
    let third = cell.server(&[]);
    let both = format!("http://127.0.0.1:1,{}", third.url);
    let ran = scene.run(&["--server", &both, "-o", "json", "ps"]);
    assert!(ran.status.success(), "{}", out(&ran));
    std::fs::write(scene.path("go"), "").expect("the folder is ours");
    for container in third.until_finished(&group) {
        assert_eq!((&container["success"], &container["attempt"]), (&true.into(), &1.into()), "{container}");
    }
    assert_eq!(stdout(&third, &["logs", &format!("{group}-0")]), "done\n");
    third.audit();
}

#[test]
fn clients_of_another_version_are_told_so() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let ask = |versions: &str| server.request("GET", "/v1/audit", &[&format!("volley-protocol: {versions}")], b"");
    for spoken in ["1", "1-1", "1-2"] {
        let reply = ask(spoken);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.headers.to_ascii_lowercase().contains("volley-protocol: 1"), "{reply:?}");
    }
    let refused = ask("2-3");
    assert_eq!(refused.status, 400);
    assert!(refused.problem().ends_with("this server version 1: update the server"), "{refused:?}");
    assert_eq!(ask("new").status, 400);
}
