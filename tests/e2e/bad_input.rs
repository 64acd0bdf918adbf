//! Bad input: one line that says what, where and how to mend it, the right status or exit code,
//! nothing accepted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::scene::{Scene, out};

#[test]
fn what_is_wrong_in_a_submission_is_named_by_its_path() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let spec = json!({ "command": "true" });
    let with = |name: &str, value: Value| {
        let mut spec = spec.clone();
        spec[name] = value;
        json!({ "spec": spec })
    };
    let good: Vec<Value> = vec![spec.clone(); 5];
    let mut list = good;
    list[3] = json!({ "command": "true", "resources": { "memory": "3Q" } });
    let table = [
        (json!({ "spec": spec, "cuont": 3 }), "cuont: unknown field"),
        (with("resorces", json!({})), "spec.resorces: unknown field"),
        (json!({ "spec": spec, "count": 0 }), "count: 0 is out of range; give 1 to 100000"),
        (json!({ "spec": spec, "count": 100_001 }), "count: 100001 is out of range; give 1 to 100000"),
        (json!({ "spec": spec, "count": -1 }), "count: "),
        (json!({ "spec": spec, "count": 1.5 }), "count: "),
        (json!({ "spec": spec, "count": 1e300 }), "count: "),
        (with("resources", json!({ "cpu": "100q" })), "spec.resources.cpu: '100q' is not an amount of CPU"),
        (with("resources", json!({ "cpu": "-1" })), "spec.resources.cpu: '-1' is not"),
        (with("resources", json!({ "cpu": "99999999" })), "spec.resources.cpu: 99999999 is too much"),
        (with("resources", json!({ "memory": "128Mib" })), "spec.resources.memory: '128Mib' is not an amount of bytes"),
        (with("resources", json!({ "gpu": "H100:0" })), "spec.resources.gpu: "),
        (with("max_wait", json!("soon")), "spec.max_wait: 'soon' is not a span of time"),
        (with("priority", json!(1000)), "spec.priority: "),
        (with("retry", json!("always")), "spec.retry: "),
        (with("env", json!({ "A=B": "c" })), "spec.env: "),
        (with("command", json!("")), "spec.command: give the program to run"),
        (json!({ "specs": list }), "specs[3].resources.memory: '3Q' is not an amount of bytes"),
        (json!({ "specs": [] }), "specs: "),
        (json!({ "spec": spec, "specs": [spec] }), "spec: give either"),
        (json!([]), "body: give a JSON object"),
    ];
    for (body, start) in table {
        let reply = server.post(&body);
        assert_eq!(reply.status, 422, "{body}: {reply:?}");
        let problem = reply.problem();
        assert!(problem.starts_with(start), "{body}: {problem}");
    }
    for body in ["", "{", "\u{0}", "{\"spec\": {\"command\": \"true\"}} trailing"] {
        let reply = server.request("POST", "/v1/containers", &[], body.as_bytes());
        assert_eq!(reply.status, 422, "{body}: {reply:?}");
        assert!(reply.problem().starts_with("body: "), "{body}: {reply:?}");
    }
    assert_eq!(server.audit()["accepted"], 0, "nothing of it was accepted");
}

#[test]
fn the_same_mistakes_by_the_command_line() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let body = json!({ "specs": [{ "command": "true" }, { "command": "true", "resources": { "cpu": "x" } }] });
    std::fs::write(scene.path("list.json"), body.to_string()).expect("the folder is ours");
    let list = scene.path("list.json").display().to_string();
    let table: [(&[&str], i32, &str); 13] = [
        (&["run", "-f", &list], 2, "specs[1].resources.cpu"),
        (&["run", "-n", "0", "--", "true"], 2, "count: 0 is out of range"),
        (&["run", "--cpu", "100q", "--", "true"], 2, "'100q' is not an amount of CPU"),
        (&["run", "--max-wait", "soon", "--", "true"], 2, "'soon' is not a span of time"),
        (&["run", "--cuont", "3", "--", "true"], 2, "--count"),
        (&["run"], 2, "<COMMAND>"),
        (&["ps", "--state", "sleeping"], 2, "'sleeping' is not a container state"),
        (&["ps", "--group", "zzzz"], 4, "there is no"),
        (&["inspect", "0000000000000-1"], 4, "there is no container"),
        (&["logs", "0000000000000-1"], 4, "there is no container"),
        (&["stop", "a/b?c"], 4, "there is no container or group 'a/b?c'"),
        (&["cordon", "nobody"], 4, "there is no worker 'nobody'"),
        (&["backup", "/not/there/copy.db"], 2, "/not/there/copy.db"),
    ];
    for (args, code, words) in table {
        let ran = server.volley(args);
        assert_eq!(ran.status.code(), Some(code), "{args:?}: {}", out(&ran));
        assert!(out(&ran).contains(words) && out(&ran).lines().count() == 1, "{args:?}: {}", out(&ran));
        assert!(out(&ran).starts_with("error: "), "{args:?}: {}", out(&ran));
    }
    assert_eq!(server.audit()["accepted"], 0);
}

#[test]
fn a_key_that_is_used_again_gives_the_same_group_or_is_refused() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let send = |key: &str, count: u32| {
        let body = json!({ "spec": { "command": "true" }, "count": count }).to_string();
        server.request("POST", "/v1/containers", &[&format!("Idempotency-Key: {key}")], body.as_bytes())
    };
    let first = send("a", 3);
    let again = send("a", 3);
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!((&first.json()["group"], &again.json()["repeated"]), (&again.json()["group"], &true.into()));
    let other = send("a", 4);
    assert_eq!(other.status, 409, "{other:?}");
    assert!(other.problem().contains("use a new key"), "{other:?}");
    assert_eq!(send(&"k".repeat(129), 1).status, 422);
    assert_eq!(server.audit()["accepted"], 3);
    let ran = server.volley(&["run", "-d", "--key", "a", "-n", "4", "--", "true"]);
    assert_eq!((ran.status.code(), out(&ran).lines().count()), (Some(5), 1), "{}", out(&ran));
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let mut body = b"{\"spec\": {\"command\": \"true\"}, \"name\": \"".to_vec();
    body.resize((16 << 20) + 1, b'x');
    let reply = server.request("POST", "/v1/containers", &[], &body);
    assert_eq!(reply.status, 413, "{reply:?}");
    assert!(reply.problem().contains("submit in parts"), "{reply:?}");
    std::fs::write(scene.path("large.json"), &body).expect("the folder is ours");
    let ran = server.volley(&["run", "-f", &scene.path("large.json").display().to_string()]);
    assert_eq!((ran.status.code(), out(&ran).lines().count()), (Some(2), 1), "{}", out(&ran));
    assert!(out(&ran).contains("submit in parts"), "{}", out(&ran));
    assert_eq!(server.audit()["accepted"], 0);
}

#[test]
fn a_beginning_that_two_ids_share_is_refused() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    // One more than there are characters: two of the groups begin alike.
    let mut by_first: BTreeMap<char, Vec<String>> = BTreeMap::new();
    for _ in 0..33 {
        let group = server.submit(1, "true", json!({}));
        by_first.entry(group.chars().next().expect("an id")).or_default().push(group);
    }
    let (first, groups) = by_first.iter().find(|(_, groups)| groups.len() > 1).expect("33 groups, 32 characters");
    for args in [["inspect", &first.to_string()], ["stop", &first.to_string()], ["logs", &first.to_string()]] {
        let ran = server.volley(&args);
        assert_eq!((ran.status.code(), out(&ran).lines().count()), (Some(5), 1), "{args:?}: {}", out(&ran));
        assert!(out(&ran).contains("is ambiguous ("), "{args:?}: {}", out(&ran));
    }
    let id = format!("{first}-0");
    assert!(out(&server.volley(&["inspect", &id])).contains("is ambiguous"));
    assert_eq!(server.request("GET", &format!("/v1/containers/{first}"), &[], b"").status, 409);
    assert!(server.volley(&["inspect", &groups[0]]).status.success());
    assert_eq!(server.audit()["queued"], 33, "nothing was stopped");
}

#[test]
fn a_full_backlog_is_told_with_when_to_try_again() {
    let scene = Scene::new();
    let server = scene.server(&["--backlog-max", "10"]);
    let body = |count: u32| json!({ "spec": { "command": "true" }, "count": count });
    assert_eq!(server.post(&body(8)).status, 201);
    let full = server.post(&body(3));
    assert_eq!(full.status, 429, "{full:?}");
    assert!(full.headers.to_ascii_lowercase().contains("retry-after: "), "{full:?}");
    assert!(full.problem().contains("the backlog is full: 8 containers wait"), "{full:?}");
    assert_eq!(server.post(&body(2)).status, 201);
    assert_eq!(server.audit()["accepted"], 10);
}

#[test]
fn paths_methods_and_parameters_that_are_not_there() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let table = [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/containers/zzz", 404),
        ("GET", "/v1/containers?stat=queued", 400),
        ("GET", "/v1/containers?max=many", 400),
        ("GET", "/v1/events?after=x", 400),
        ("POST", "/v1/workers/nobody/cordon", 404),
        ("POST", "/v1/workers/nobody/dance", 404),
        ("POST", "/v1/workers/nobody/drain?deadline=soon", 400),
        ("POST", "/v1/backup", 422),
    ];
    for (method, path, status) in table {
        let reply = server.request(method, path, &[], b"");
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        reply.problem();
    }
    assert_eq!(server.request("PUT", "/v1/containers", &[], b"").status, 405);
}
