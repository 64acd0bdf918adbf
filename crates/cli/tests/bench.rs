//! `volley bench` by the real binary: small runs, whose figures are looked at for being there
//! and belonging together, never for how fast they are.

use std::process::{Command, Output};

use serde_json::Value;

fn volley(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volley"));
    command.args(args).env_remove("VOLLEY_OUTPUT").output().expect("the binary was built")
}

fn json(args: &[&str]) -> Value {
    let ran = volley(&[&["-o", "json"], args].concat());
    assert!(ran.status.success(), "{ran:?}");
    serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
}

#[test]
fn a_burst_is_measured_from_the_client_to_the_workers_and_back() {
    let report = json(&[
        "bench",
        "burst",
        "--containers",
        "40",
        "--workers",
        "3",
        "--submit",
        "batch,single",
        "--repetitions",
        "2",
    ]);
    assert_eq!((&report["version"], &report["bench"]), (&1.into(), &"burst".into()));
    assert!(report["obtained"].as_str().is_some_and(|how| how.contains("simulated workers")), "{report}");
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 2);
    for run in runs {
        let number = |field: &str| run[field].as_f64().unwrap_or_else(|| panic!("no {field} in {run}"));
        let half = |field: &str| run[field]["p50"].as_f64().unwrap_or_else(|| panic!("no {field} in {run}"));
        assert_eq!((number("containers"), number("lost"), number("turn_calls_per_batch")), (40.0, 0.0, 2.0), "{run}");
        assert!(number("batches") >= 1.0 && number("store_calls") >= 5.0 && number("containers_per_s") > 0.0, "{run}");
        assert!(half("submit_to_delivered_ms") <= half("submit_to_finished_ms"), "{run}");
        assert!(
            half("submit_to_finished_ms") <= number("wall_ms") + 0.01 && half("submit_to_assigned_ms") >= 0.0,
            "{run}"
        );
        assert!(run["batch_sizes"].as_array().is_some_and(|sizes| !sizes.is_empty()), "{run}");
        assert!(number("refusals") == 0.0 && number("fleet_reloads") == 0.0 && number("fdatasync_ms_p50") > 0.0);
        for process in ["server", "workers", "bench"] {
            assert!(run["peak_rss_bytes"][process].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{run}");
        }
    }
}

#[test]
fn a_burst_on_two_servers_of_one_redis_is_measured() {
    let shared = ["--store", "redis", "--servers", "2", "--registered-workers", "50", "--spread", "--run-for", "20ms"];
    let small = ["--containers", "40", "--workers", "4", "--repetitions", "1", "--submit", "single"];
    let report = json(&[&["bench", "burst"], &shared[..], &small[..]].concat());
    assert!(report["obtained"].as_str().is_some_and(|how| how.contains("appendfsync always")), "{report}");
    let run = &report["runs"][0];
    assert_eq!((&run["servers"], &run["store"], &run["lost"]), (&2.into(), &"redis".into(), &0.into()), "{run}");
    assert_eq!((&run["redis"]["appendfsync"], &run["turn_calls_per_batch"]), (&"always".into(), &2.0.into()), "{run}");
    let of_redis = |field: &str| run["redis"][field].as_f64().unwrap_or_else(|| panic!("no {field} in {run}"));
    assert!(of_redis("used_memory_bytes") > 1e5 && of_redis("commands_per_container") > 0.0, "{run}");
    assert!(run["turn"]["claim_and_commit_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{run}");
    assert!(run["submit_to_started_ms"]["p50"].as_f64().is_some(), "{run}");
}

#[test]
fn an_idle_backlog_is_measured_too() {
    let small = ["--containers", "500", "--shapes", "3", "--workers", "2", "--seconds", "1"];
    let report = json(&[&["bench", "idle", "--store", "redis"], &small[..]].concat());
    let run = &report["runs"][0];
    assert_eq!(
        (&run["containers"], &run["store"], &run["seconds"]),
        (&500.into(), &"redis".into(), &1.into()),
        "{run}"
    );
    assert!(run["redis_percent"].as_f64().is_some() && run["servers_percent"].as_f64().is_some(), "{run}");
}

#[test]
fn the_plan_of_the_fleets_size_is_measured_too() {
    let small = ["--bursts", "20", "--containers", "200", "--shapes", "8", "--pools", "5", "--repetitions", "1"];
    let report = json(&[&["bench", "scale", "--pairs", "1"], &small[..]].concat());
    let median = |named: &str| {
        let mut runs = report["runs"].as_array().expect("a list").iter();
        let run = runs.find(|run| run["figure"].as_str().is_some_and(|figure| figure.contains(named)));
        run.unwrap_or_else(|| panic!("no {named} in {report}"))["median"].as_f64().expect("a number")
    };
    assert!(median("planned optimally") >= 95.0, "{report}");
    assert_eq!((median("more than one machine"), median("unserved")), (0.0, 0.0), "{report}");
    for named in ["plan of 200 waiting", "explain, the command", "plan -n 100, the request", "each pair"] {
        assert!(median(named) > 0.0, "{report}");
    }
}

#[test]
fn a_steady_rate_is_measured_too() {
    let report = json(&["bench", "burst", "--rate", "200", "--seconds", "1", "--workers", "2", "--shapes", "3"]);
    let run = &report["runs"][0];
    assert_eq!((&run["containers"], &run["lost"], &run["rate"]), (&200.into(), &0.into(), &200.into()), "{run}");
    assert!(run["server_rss_bytes"]["end"].as_u64().is_some_and(|bytes| bytes > 0), "{run}");
}

#[test]
fn a_saved_report_compared_with_itself_says_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.json");
    let file = file.to_str().unwrap();
    let engine = [
        "bench",
        "engine",
        "--workers",
        "50",
        "--shapes",
        "4",
        "--batch",
        "10",
        "--containers",
        "100",
        "--run-time",
        "1ms",
        "--save",
        file,
    ];
    let ran = volley(&engine);
    let shown = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success() && shown.contains("NS/PLACEMENT") && shown.contains("how: "), "{ran:?}");
    let compared = json(&["bench", "compare", file, file]);
    assert_eq!(compared["version"], 1);
    assert_eq!(compared["compared"][0]["ratio"]["median"], 1.0, "{compared}");
    assert_eq!(compared["compared"].as_array().map(Vec::len), Some(2), "pack and spread: {compared}");
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line() {
    let cases: [(&[&str], &str); 6] = [
        (&["bench", "burst", "--servers", "2"], "--servers 2"),
        (&["bench", "burst", "--registered-workers", "2"], "--registered-workers"),
        (&["bench", "idle", "--store", "redis", "--redis-server", "/nonexistent"], "/nonexistent"),
        (&["bench", "idle", "--redis-url", "redis://127.0.0.1:1"], "--store redis"),
        (&["bench", "compare", "/nonexistent", "/nonexistent"], "/nonexistent"),
        (&["bench", "burst", "--containers", "1", "--dir", "/nonexistent"], "/nonexistent"),
    ];
    for (args, named) in cases {
        let ran = volley(args);
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && said.lines().count() == 1 && said.contains(named), "{args:?}: {ran:?}");
    }
}

#[test]
fn containers_are_measured_beside_the_bare_runtime() {
    let report = json(&["bench", "oci", "--containers", "3", "--repetitions", "1", "--idle-seconds", "1"]);
    assert_eq!((&report["version"], &report["bench"]), (&1.into(), &"oci".into()));
    let run = &report["runs"][0];
    let number = |path: &str| run.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {run}"));
    assert_eq!(number("/containers"), 3.0);
    assert!((number("/ratio") - number("/wall_ms") / number("/bare_wall_ms")).abs() < 0.01, "{run}");
    assert!(number("/parallelism") >= 1.0 && number("/start_ms/p50") <= number("/start_ms/p99"), "{run}");
    assert!(number("/lone/first_output_ms") > 0.0 && number("/lone/bare_first_output_ms") > 0.0, "{run}");
    assert!(number("/idle/keeper_bytes_per_container") > 0.0 && number("/idle/cpu_percent") >= 0.0, "{run}");
    assert!(number("/unpacking/bytes") > 0.0 && number("/unpacking/tar_wall_ms") > 0.0, "{run}");
}
