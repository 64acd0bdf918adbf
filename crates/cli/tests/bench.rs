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
    let cases: [(&[&str], &str); 4] = [
        (&["bench", "burst", "--store", "redis"], "--store redis"),
        (&["bench", "burst", "--servers", "2"], "--servers 2"),
        (&["bench", "compare", "/nonexistent", "/nonexistent"], "/nonexistent"),
        (&["bench", "burst", "--containers", "1", "--dir", "/nonexistent"], "/nonexistent"),
    ];
    for (args, named) in cases {
        let ran = volley(args);
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && said.lines().count() == 1 && said.contains(named), "{args:?}: {ran:?}");
    }
}
