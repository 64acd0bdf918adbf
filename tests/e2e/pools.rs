//! Elastic pools with real machines: exactly what a burst needs is bought, and goes when idle; a provisioner that fails or
//! lies stops nobody.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::scene::{Scene, Server, out, until};

/// Machines of ten containers of one core.
fn pool(name: &str, more: Value) -> Value {
    let mut pool = json!({
        "name": name, "provisioner": "process", "machine": { "cpu": "10", "memory": "4Gi", "slots": 10 },
        "max": 50, "idle_timeout": "2s", "cost_per_hour": "0.5",
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        pool[field] = value.clone();
    }
    pool
}

fn apply(scene: &Scene, server: &Server, pool: &Value) {
    let file = scene.path("pool.json");
    std::fs::write(&file, pool.to_string()).expect("the folder is ours");
    let applied = server.volley(&["pools", "apply", file.to_str().expect("a plain path")]);
    assert!(applied.status.success(), "{}", out(&applied));
}

/// How many machines were ever bought.
fn bought(server: &Server) -> usize {
    server.events().iter().filter(|event| event["status"] == "provisioning").count()
}

fn machines(server: &Server, pool: &str) -> usize {
    server.get(&format!("/v1/pools/{pool}"))["machines"].as_array().map_or(0, Vec::len)
}

/// What was bought registered or was destroyed, or both; no machine is left.
fn each_record_came_to_an_end(server: &Server) {
    let (mut open, mut idle_ms) = (std::collections::BTreeMap::new(), 0);
    let (events, mut last_end_ms) = (server.events(), 0);
    for event in &events {
        let at = event["at_ms"].as_u64().expect("a time");
        if event["state"] == "finished" {
            last_end_ms = at;
        }
        let Some(worker) = event["worker"].as_str().filter(|_| event["status"].is_string()) else { continue };
        match event["status"].as_str() {
            Some("provisioning") => assert!(open.insert(worker.to_owned(), at).is_none(), "{worker} is bought twice"),
            Some("gone") => {
                // Told of the worker that leaves, and of its machine when it is destroyed.
                open.remove(worker);
                idle_ms = at - last_end_ms;
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "machines that came to no end: {open:?}");
    println!("the last machine went {idle_ms} ms after the last container had ended");
}

fn until_empty(server: &Server, pool: &str) {
    until("all machines of the pool are destroyed", || (machines(server, pool) == 0).then_some(()));
}

fn one_core() -> Value {
    json!({ "resources": { "cpu": "1", "memory": "8Mi" } })
}

#[test]
fn a_burst_buys_exactly_what_it_needs_and_it_goes_when_idle() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    apply(&scene, &server, &pool("burst", json!({})));
    let plan = server.json(&["plan", "-n", "100", "--cpu", "1", "--", "true"]);
    assert_eq!((&plan["purchases"][0]["count"], &plan["cost_per_hour"]), (&10.into(), &"5".into()), "{plan}");
    assert_eq!(bought(&server), 0, "a plan buys nothing");
    let group = server.submit(100, "sleep 0.2", one_core());
    for container in server.until_finished(&group) {
        assert_eq!(container["success"], true, "{container}");
    }
    assert_eq!(bought(&server), 10);
    until_empty(&server, "burst");
    each_record_came_to_an_end(&server);
    server.audit();
    // Half of what is needed is there.
    apply(&scene, &server, &pool("burst", json!({ "min": 5 })));
    until("five are ready", || (server.get("/v1/pools/burst")["workers"]["ready"] == 5).then_some(()));
    let group = server.submit(100, "sleep 0.2", one_core());
    server.until_finished(&group);
    assert_eq!(bought(&server), 20, "five for the least number, five for the burst");
    apply(&scene, &server, &pool("burst", json!({})));
    until_empty(&server, "burst");
    assert!(server.volley(&["pools", "remove", "burst"]).status.success());
    server.audit();
}

#[test]
fn a_killed_server_goes_on_with_what_it_bought() {
    let scene = Scene::new();
    let mut server = scene.server(&[]);
    apply(&scene, &server, &pool("burst", json!({ "idle_timeout": "4s" })));
    let group = server.submit(30, "sleep 0.3", one_core());
    until("something is bought", || (bought(&server) > 0).then_some(()));
    server.kill_and_restart(&scene, &[]);
    server.until_finished(&group);
    assert_eq!(bought(&server), 3);
    until_empty(&server, "burst");
    server.audit();
}

/// A pool's command that does what a script says.
fn command(scene: &Scene, name: &str, body: &str) -> Value {
    let path = scene.path(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("the folder is ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
    json!({ "command": path, "timeout": "5s" })
}

/// Says that it made a machine, of which nothing is ever heard.
const LIES: &str =
    r#"case $(cat) in *create*) echo '{"machine": "i-1"}';; *list*) echo '{"machines": []}';; *) echo '{}';; esac"#;

#[test]
fn a_provisioner_that_fails_or_lies_stops_nobody() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let failing = command(&scene, "fails.sh", "echo 'quota exceeded' >&2; exit 1");
    apply(&scene, &server, &pool("fails", json!({ "provisioner": failing, "priority": 9, "fallback_after": "1s" })));
    let lying = command(&scene, "lies.sh", LIES);
    let more = json!({ "provisioner": lying, "priority": 5, "fallback_after": "1s", "boot_limit": "2s" });
    apply(&scene, &server, &pool("lies", more));
    apply(&scene, &server, &pool("works", json!({})));
    let group = server.submit(1, "true", one_core());
    let id = format!("{group}-0");
    until("it is explained", || {
        let said = out(&server.volley(&["explain", &id]));
        (said.contains("quota exceeded") || said.contains("does not wait")).then_some(())
    });
    server.until_finished(&group);
    let state = out(&server.volley(&["pools", "list"]));
    assert!(state.contains("quota exceeded"), "{state}");
    let workers = server.json(&["workers"]);
    let coming = workers["provisioning"].as_array().expect("a list");
    assert!(coming.iter().all(|machine| machine["status"] == "provisioning" && machine["pool"] == "lies"), "{workers}");
    until("the liar is found out", || {
        let standing = server.get("/v1/pools/lies")["standing"].clone();
        standing["last_failure"].as_str().is_some_and(|failure| failure.contains("did not register")).then_some(())
    });
    for name in ["lies", "works"] {
        until_empty(&server, name);
    }
    server.audit();
}

#[test]
fn a_pool_at_its_maximum_or_that_hangs_stops_nobody() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let hangs = r#"case $(cat) in *create*) exec sleep 600;; *list*) echo '{"machines": []}';; *) echo '{}';; esac"#;
    let mut hanging = command(&scene, "hangs.sh", hangs);
    hanging["timeout"] = "1s".into();
    let more = json!({ "provisioner": hanging, "priority": 9, "fallback_after": "1s", "boot_limit": "4s" });
    apply(&scene, &server, &pool("hangs", more));
    apply(&scene, &server, &pool("small", json!({ "max": 1, "priority": 5, "fallback_after": "1s" })));
    apply(&scene, &server, &pool("works", json!({})));
    let group = server.submit(20, "sleep 0.5", one_core());
    for container in server.until_finished(&group) {
        assert_eq!(container["success"], true, "{container}");
    }
    let of = |pool: &str| {
        let records = server.events().into_iter().filter(|event| event["status"] == "provisioning");
        records.filter(|event| event["worker"].as_str().is_some_and(|name| name.starts_with(pool))).count()
    };
    assert_eq!((of("small"), of("works")), (1, 1), "ten on each");
    for name in ["hangs", "small", "works"] {
        until_empty(&server, name);
    }
    server.audit();
}

#[test]
fn a_pool_whose_provisioner_is_mended_buys_again_when_its_owner_says_so() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let mended = scene.path("mended");
    let body = format!("test -e {} || {{ echo 'no credit' >&2; exit 1; }}; {LIES}", mended.display());
    let failing = command(&scene, "fails.sh", &body);
    apply(&scene, &server, &pool("cloud", json!({ "provisioner": failing, "boot_limit": "2s" })));
    let group = server.submit(1, "true", one_core());
    let standing = || server.get("/v1/pools/cloud")["standing"].clone();
    until("it waits after a failure", || (!standing()["retry_at_ms"].is_null()).then_some(()));
    std::fs::write(&mended, "").expect("the folder is ours");
    assert!(server.volley(&["pools", "resume", "cloud"]).status.success());
    until("it is bought from at once", || (machines(&server, "cloud") == 1).then_some(()));
    assert!(server.volley(&["stop", &group]).status.success());
    until_empty(&server, "cloud");
    server.audit();
}

#[test]
fn a_worker_that_eats_containers_is_quarantined_until_its_owner_opens_it() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let worker = scene.worker(&server, "hungry", &["--cpu", "4", "--memory", "1Gi"]);
    for number in 0..5 {
        let spec = json!({ "command": format!("/no/such/program-{number}"), "resources": { "memory": "8Mi" } });
        let reply = server.post(&json!({ "spec": spec, "count": 1 })).json();
        server.until_finished(reply["group"].as_str().expect("a group"));
    }
    let found = || server.get("/v1/workers")["workers"][0].clone();
    assert_eq!(found()["status"], "cordoned", "{}", found());
    assert!(found()["quarantine"].as_str().is_some_and(|why| why.contains("program-4")), "{}", found());
    let shown = out(&server.volley(&["workers"]));
    assert!(shown.contains("in quarantine: it could not run 5 different specs in a row"), "{shown}");
    assert!(server.volley(&["uncordon", &worker.name]).status.success());
    assert_eq!((found()["status"].as_str(), found()["quarantine"].as_str()), (Some("ready"), None));
    server.until_finished(&server.submit(1, "true", one_core()));
    server.audit();
}

#[test]
fn dev_leaves_no_machine_however_it_ends() {
    for end in ["TERM", "KILL"] {
        let scene = Scene::new();
        let data = scene.path("data");
        let data = data.to_str().expect("a plain path");
        let flags = ["dev", "-o", "json", "--listen", "127.0.0.1:0", "--data", data, "--cpu", "1"];
        let (process, told) = scene.start(scene.command(&flags));
        let mut server = Server::of(process, &told);
        apply(&scene, &server, &pool("burst", json!({ "min": 2 })));
        until("two are ready", || (server.get("/v1/pools/burst")["workers"]["ready"] == 2).then_some(()));
        server.process.signal(end);
        server.process.wait();
        // The scene's end finds what is left.
    }
}

#[test]
fn a_plan_says_what_a_quota_forbids() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    apply(&scene, &server, &pool("burst", json!({})));
    assert!(server.volley(&["tenant", "set", "default", "--backlog-max", "10"]).status.success());
    let planned = server.volley(&["plan", "-n", "11", "--cpu", "1", "--", "true"]);
    let said = out(&planned);
    assert_eq!(planned.status.code(), Some(2), "{said}");
    assert!(said.contains("would be refused") && said.contains("11 nowhere") && !said.contains("buy"), "{said}");
    assert_eq!(server.volley(&["plan", "-n", "10", "--cpu", "1", "--", "true"]).status.code(), Some(0));
}

#[test]
fn a_plan_says_what_has_nothing_in_sight() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let toml = "name = 'burst'\nprovisioner = 'process'\nmax = 1\n\
        [machine]\ncpu = '10'\nmemory = '4Gi'\nslots = 10\n";
    std::fs::write(scene.path("pool.toml"), toml).expect("the folder is ours");
    let applied = server.volley(&["pools", "apply", scene.path("pool.toml").to_str().expect("a plain path")]);
    assert!(applied.status.success(), "{}", out(&applied));
    let planned = server.volley(&["plan", "-n", "11", "--cpu", "1", "--", "true"]);
    let said = out(&planned);
    assert_eq!(planned.status.code(), Some(2), "{said}");
    assert!(said.contains("10 on machines to be bought") && said.contains("1 nowhere in sight"), "{said}");
    assert_eq!(server.volley(&["plan", "--cpu", "1", "--", "true"]).status.code(), Some(0));
    let mistaken = server.volley(&["plan", "--cpu", "much", "--", "true"]);
    assert!(mistaken.stdout.is_empty() && out(&mistaken).starts_with("error: "), "told apart: {mistaken:?}");
    assert!(!planned.stdout.is_empty() && planned.stderr.is_empty(), "{planned:?}");
    let wrong = scene.path("wrong.json");
    std::fs::write(&wrong, r#"{"name": "x", "provisioner": "process", "machine": {"cpu": "much"}, "max": 1}"#).unwrap();
    let refused = server.volley(&["pools", "apply", wrong.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(out(&refused).contains("machine.cpu"), "{}", out(&refused));
}
