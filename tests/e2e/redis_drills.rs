//! Drills of a cell in Redis: real servers, workers and a redis-server that are killed, frozen, cut
//! off, emptied of scripts and memory, and replaced by a copy that lacks writes. `VOLLEY_SEED`
//! names the first seed, `VOLLEY_REDIS_DRILLS` how many rounds; with it a round is of full size.

mod checks;
mod script;
mod storm;

use std::time::Duration;

use serde_json::json;

use crate::cell::{ALWAYS, Cell};
use crate::http;
use crate::redis_proxy::RedisProxy;
use crate::redis_server::RedisServer;
use crate::scene::{Scene, Server, until};

/// What a script of a container needs so that some are there at a time.
fn small() -> serde_json::Value {
    json!({ "resources": { "cpu": "100m", "memory": "8Mi" } })
}

/// A container that runs until the file is there.
fn until_file(scene: &Scene, file: &str) -> String {
    format!("while [ ! -e {} ]; do sleep 0.05; done", scene.path(file).display())
}

/// Asked for a long run, as `cargo xtask soak` does.
fn at_full_size() -> bool {
    std::env::var_os("VOLLEY_REDIS_DRILLS").is_some()
}

fn ready(server: &Server) -> String {
    let reply = server.request("GET", "/readyz", &[], b"");
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body
}

#[test]
fn a_storm_loses_nothing_and_does_nothing_twice() {
    storm::rounds();
}

#[test]
fn nobodys_containers_are_killed_when_redis_stands_still() {
    // A worker's lease is a minute, a call is waited for 5 seconds.
    let still = Duration::from_secs(if at_full_size() { 20 } else { 2 });
    let scene = Scene::new();
    let cell = Cell::new(&scene, &[]);
    let servers = [cell.server(&[]), cell.server(&[])];
    let _workers = [cell.worker(&servers[0], "a", &[]), cell.worker(&servers[1], "b", &[])];
    let group = servers[0].submit(8, &until_file(&scene, "go"), small());
    until("all run", || (servers[1].get("/v1/audit")["running"] == 8).then_some(()));
    cell.redis.signal("STOP");
    let refused = servers[0].request("GET", "/readyz", &[], b"");
    assert_eq!(refused.status, 503, "it says that it cannot answer: {refused:?}");
    std::thread::sleep(still);
    cell.redis.signal("CONT");
    until("the store answers again", || {
        let reply = http::request(servers[0].address(), "GET", "/v1/audit", &[], b"").ok()?;
        (reply.status == 200).then_some(())
    });
    let second = until("a new group is accepted", || {
        let body = json!({ "spec": { "command": "true" }, "count": 4 }).to_string();
        let headers = ["Idempotency-Key: after"];
        let reply = http::request(servers[1].address(), "POST", "/v1/containers", &headers, body.as_bytes()).ok()?;
        matches!(reply.status, 200 | 201).then(|| reply.json()["group"].as_str().expect("a group").to_owned())
    });
    servers[0].until_finished(&second);
    std::fs::write(scene.path("go"), "").expect("the folder is ours");
    for container in servers[1].until_finished(&group) {
        assert_eq!((&container["success"], &container["attempt"]), (&true.into(), &1.into()), "{container}");
    }
    servers[0].audit();
}

#[test]
fn a_commit_whose_reply_is_cut_off_is_resolved_and_places_nothing_twice() {
    let scene = Scene::new();
    let cell = Cell::new(&scene, &[]);
    let servers = [cell.server(&[]), cell.server(&[])];
    let _workers = [cell.worker(&servers[0], "a", &[]), cell.worker(&servers[1], "b", &[])];
    let unknown_commits = || -> f64 {
        let count = |server: &Server| {
            let text = server.request("GET", "/metrics", &[], b"").body;
            let named = |line: &&str| line.contains("call=\"commit\"") && line.contains("error=\"unknown\"");
            let line = text.lines().find(|line| line.starts_with("volley_store_errors_total") && named(line));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        servers.iter().map(count).sum()
    };
    let mut groups = Vec::new();
    until("commits were cut off", || {
        // Which of the requests is hit is left to chance; all of them are in turns that this burst makes.
        let number = groups.len();
        let script = checks::noting(&scene);
        let spec = json!({ "command": "sh", "args": ["-c", script], "resources": small()["resources"] });
        let body = json!({ "spec": spec, "count": 5 }).to_string();
        let key = format!("Idempotency-Key: cut-{number}");
        let server = &servers[number % 2];
        let reply = http::request(server.address(), "POST", "/v1/containers", &[&key], body.as_bytes()).ok()?;
        cell.proxy.cut_replies(1);
        if matches!(reply.status, 200 | 201) {
            groups.push(reply.json()["group"].as_str().expect("a group").to_owned());
        }
        (unknown_commits() >= 3.0 && groups.len() >= 20).then_some(())
    });
    cell.proxy.cut_replies(0);
    for group in &groups {
        servers[0].until_finished(group);
    }
    checks::check_ends(&scene, &servers[1], 5 * groups.len() as u64);
}

#[test]
fn without_memory_submits_are_refused_and_what_runs_goes_on() {
    let scene = Scene::new();
    let cell = Cell::new(&scene, &[]);
    let server = cell.server(&[]);
    let _worker = cell.worker(&server, "w", &[]);
    let script = format!("{}; echo out", until_file(&scene, "go"));
    let group = server.submit(3, &script, small());
    until("all run", || (server.get("/v1/audit")["running"] == 3).then_some(()));
    cell.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = server.post(&json!({ "spec": { "command": "true" } }));
    assert!(matches!(refused.status, 503 | 429), "{refused:?}");
    assert!(refused.problem().contains("OOM"), "{refused:?}");
    std::fs::write(scene.path("go"), "").expect("the folder is ours");
    for container in server.until_finished(&group) {
        assert_eq!((&container["success"], &container["attempt"]), (&true.into(), &1.into()), "{container}");
    }
    let log = server.request("GET", &format!("/v1/containers/{group}-0/logs"), &[], b"");
    assert_eq!(log.body, "out\n");
    cell.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    server.until_finished(&server.submit(1, "true", small()));

    // Settings are looked at again while it runs.
    assert_eq!(ready(&server), "ready\n");
    cell.redis.cli(&["CONFIG", "SET", "appendfsync", "everysec"]);
    until("the weaker setting is said", || ready(&server).contains("everysec").then_some(()));
    let audit = server.audit();
    assert!(audit["warnings"].to_string().contains("everysec"), "{audit}");
    cell.redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let eviction = || Some(server.post(&json!({ "spec": { "command": "true" } }))).filter(|reply| reply.status == 503);
    let refused = until("nothing is taken on that may be dropped", eviction);
    assert!(refused.problem().contains("noeviction"), "{refused:?}");
    cell.redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    cell.redis.cli(&["CONFIG", "SET", "appendfsync", "always"]);
    until("all is well again", || (ready(&server) == "ready\n").then_some(()));
    server.until_finished(&server.submit(1, "true", small()));
}

#[test]
fn a_server_waits_at_its_start_for_redis_and_says_so() {
    let scene = Scene::new();
    let mut redis = RedisServer::start(ALWAYS);
    let proxy = RedisProxy::to(&redis.socket());
    redis.kill();
    let mut command = scene.command(&["serve", "-o", "json", "--listen", "127.0.0.1:0", "--store", &proxy.url()]);
    command.arg("--store-wait").arg("100s");
    std::thread::scope(|threads| {
        let starting = threads.spawn(|| scene.start(command));
        until("it says what it waits for", || {
            let said = std::fs::read_to_string(scene.path("0.err")).ok()?;
            said.contains("waiting for redis://127.0.0.1").then_some(())
        });
        redis.start_again();
        let (process, told) = starting.join().expect("it starts");
        assert_eq!(ready(&Server::of(process, &told)), "ready\n");
    });
    redis.kill();
    let words = ["serve", "--listen", "127.0.0.1:0", "--store", &proxy.url(), "--store-wait", "200ms"];
    let gave_up = scene.run(&words);
    assert_eq!(gave_up.status.code(), Some(3), "{gave_up:?}");
    let said = String::from_utf8_lossy(&gave_up.stderr).into_owned();
    assert!(said.contains("did not answer within 200ms"), "{said}");
}

#[test]
fn a_failover_that_lost_writes_is_said_and_the_cell_is_consistent_after_it() {
    let scene = Scene::new();
    let cell = Cell::new(&scene, &["--worker-lease", "5s", "--session-lease", "3s"]);
    let servers = [cell.server(&[]), cell.server(&[])];
    let _workers = [cell.worker(&servers[0], "a", &[]), cell.worker(&servers[1], "b", &[])];
    let before = servers[0].submit(4, &until_file(&scene, "go"), small());
    until("all run", || (servers[1].get("/v1/audit")["running"] == 4).then_some(()));
    // A replica that has all of this, and is promoted; the old one does not know, and goes on.
    let replica = RedisServer::start(ALWAYS);
    let port = cell.redis.listen();
    replica.cli(&["REPLICAOF", "127.0.0.1", &port]);
    until("the replica has followed", || (cell.redis.cli(&["WAIT", "1", "1000"]) == "1").then_some(()));
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    let folder = scene.path("").display().to_string();
    let script = format!("echo $$ > {folder}/pid.$VOLLEY_CONTAINER_ID; {}", until_file(&scene, "never"));
    let lost = servers[1].submit(4, &script, small());
    until("these run too", || (servers[0].get("/v1/audit")["running"] == 8).then_some(()));
    let pids: Vec<i32> = (0..4)
        .map(|index| {
            let file = scene.path(&format!("pid.{lost}-{index}"));
            until("it has noted its pid", || std::fs::read_to_string(&file).ok()?.trim().parse().ok())
        })
        .collect();

    cell.proxy.lead_to(&replica.socket());
    for server in &servers {
        until("the loss is said", || {
            let reply = http::request(server.address(), "GET", "/readyz", &[], b"").ok()?;
            reply.body.contains("the server went back from event").then_some(())
        });
    }
    let gone = servers[0].request("GET", &format!("/v1/groups/{lost}"), &[], b"");
    assert_eq!(gone.status, 404, "the store does not know it: {gone:?}");
    until("what only workers knew is stopped", || {
        let alive = |pid: &i32| std::path::Path::new(&format!("/proc/{pid}/cmdline")).exists();
        (!pids.iter().any(alive)).then_some(())
    });
    // What the replica knew goes on as if nothing had been, and new work finds all of the capacity.
    let after = servers[1].submit(30, "true", small());
    servers[0].until_finished(&after);
    std::fs::write(scene.path("go"), "").expect("the folder is ours");
    for container in servers[1].until_finished(&before) {
        assert_eq!((&container["success"], &container["attempt"]), (&true.into(), &1.into()), "{container}");
    }
    until("all of the capacity is free", || {
        let workers = servers[0].get("/v1/workers");
        let free = |worker: &serde_json::Value| worker["status"] == "ready" && worker["free"] == worker["capacity"];
        workers["workers"].as_array()?.iter().all(free).then_some(())
    });
    let audit = servers[0].audit();
    assert_eq!((&audit["accepted"], &audit["finished"]), (&34.into(), &34.into()), "{audit}");
    assert!(audit["warnings"].to_string().contains("the server went back"), "{audit}");
}
