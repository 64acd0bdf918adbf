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

#[test]
fn a_provisioner_that_fails_or_lies_stops_nobody() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let failing = command(&scene, "fails.sh", "echo 'quota exceeded' >&2; exit 1");
    apply(&scene, &server, &pool("fails", json!({ "provisioner": failing, "priority": 9, "fallback_after": "1s" })));
    let lies =
        r#"case $(cat) in *create*) echo '{"machine": "i-1"}';; *list*) echo '{"machines": []}';; *) echo '{}';; esac"#;
    let lying = command(&scene, "lies.sh", lies);
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
fn a_plan_says_what_has_nothing_in_sight() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    apply(&scene, &server, &pool("burst", json!({ "max": 1 })));
    let planned = server.volley(&["plan", "-n", "11", "--cpu", "1", "--", "true"]);
    let said = out(&planned);
    assert_eq!(planned.status.code(), Some(2), "{said}");
    assert!(said.contains("10 on machines to be bought") && said.contains("1 nowhere in sight"), "{said}");
    assert_eq!(server.volley(&["plan", "--cpu", "1", "--", "true"]).status.code(), Some(0));
    let wrong = scene.path("wrong.json");
    std::fs::write(&wrong, r#"{"name": "x", "provisioner": "process", "machine": {"cpu": "much"}, "max": 1}"#).unwrap();
    let refused = server.volley(&["pools", "apply", wrong.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(out(&refused).contains("machine.cpu"), "{}", out(&refused));
}
