//! `bench engine` on small fleets: its plans are right and its report can be read by others.

use std::time::Duration;

use volley_bench::{EngineBench, Report, Runs, Submit, compare, engine};

fn small() -> EngineBench {
    EngineBench {
        workers: vec![60],
        shapes: vec![1, 40],
        batches: vec![7],
        submits: vec![Submit::Batch, Submit::Single],
        containers: 300,
        repetitions_min: 2,
        run_time: Duration::ZERO,
        ..EngineBench::default()
    }
}

fn runs(report: &Report) -> Vec<volley_bench::EngineRun> {
    match &report.runs {
        Runs::Engine(runs) => runs.clone(),
        other => panic!("another bench: {other:?}"),
    }
}

#[test]
fn every_case_is_run_and_told_of() {
    let mut told = Vec::new();
    let report = engine(&small(), |run| told.push(run.clone())).unwrap();
    let runs = runs(&report);
    assert_eq!(told, runs);
    assert_eq!(runs.len(), 8, "2 counts of shapes, 2 strategies, 2 ways to submit");
    for run in &runs {
        assert!(run.unplaced < 30, "a half-full fleet takes most: {run:?}");
        assert!(run.ns_per_placement_min <= run.ns_per_placement, "{run:?}");
        assert!(run.ns_per_placement <= run.ns_per_placement_max, "{run:?}");
        assert_eq!(run.repetitions, 2);
    }
}

#[test]
fn the_json_has_the_published_fields() {
    let report = engine(&small(), |_| {}).unwrap();
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!((&json["version"], &json["bench"]), (&1.into(), &"engine".into()));
    assert!(json["machine"]["cores"].as_u64().unwrap() >= 1);
    for field in ["workers", "containers", "shapes", "batch", "ns_per_placement", "placements_per_s"] {
        assert!(json["runs"][0][field].is_number(), "{field}: {}", json["runs"][0]);
    }
    assert_eq!(Report::from_json(&report.to_json()).unwrap(), report);
}

#[test]
fn a_report_compared_with_itself_says_one_for_each_run() {
    let report = engine(&small(), |_| {}).unwrap();
    let comparison = compare(&report, &report);
    assert_eq!(comparison.compared.len(), 8);
    assert!(comparison.compared.iter().all(|row| row.ratio.median == 1.0 && !row.is_certain()));
    assert!(comparison.only_a.is_empty() && comparison.only_b.is_empty() && comparison.caveats.is_empty());
}
