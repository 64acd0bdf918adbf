//! The text that Prometheus reads, and the page that people read, say the same.

use std::time::Duration;

use volley_metrics::{ServerMetrics, WorkerMetrics, page};

/// Sample names of a text, less the suffixes of histograms.
fn names(text: &str) -> Vec<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    let strip = |name: String| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end).map(str::to_owned)).unwrap_or(name)
    };
    samples.map(name).map(strip).collect()
}

#[test]
fn every_name_is_on_the_page() {
    let server = ServerMetrics::default();
    server.turn.phase.observe(["plan"], Duration::from_micros(70));
    server.turn.refusals.add_one(["no_capacity"]);
    server.turn.batch.observe(3.0);
    server.scale.machines.add_one(["bought"]);
    server.scale.calls.observe(["create", "done"], Duration::from_secs(2));
    server.turn.queue_wait.observe([], Duration::from_millis(3));
    server.requests.time.observe(["/v1/containers", "POST", "2xx"], Duration::from_millis(1));
    let text = server.text(|fleet| {
        fleet.accepted.raise_to(7);
        fleet.workers.set_all([(["default", "ready"], 2.0)]);
        fleet.cpu.set_all([(["default", "total"], 4.5)]);
        fleet.machines.machines.set_all([(["burst", "booting"], 3.0)]);
        fleet.machines.oldest_boot.set_all([(["burst"], 1.5)]);
    });
    let worker = WorkerMetrics::default();
    worker.attempts.held.set(1.0);
    let page = page();
    for name in names(&text).iter().chain(&names(&worker.text())) {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not on the page");
    }
    assert!(text.contains("volley_turn_phase_seconds_bucket{le=\"0.0001\",phase=\"plan\"} 1"), "{text}");
    assert!(text.contains("volley_containers_accepted_total 7\n"), "{text}");
    assert!(text.contains("volley_pool_cpu_cores{pool=\"default\",part=\"total\"} 4.5\n"), "{text}");
    assert!(text.contains("volley_machines{pool=\"burst\",stage=\"booting\"} 3.0\n"), "{text}");
    assert!(text.contains("volley_scale_machines_total{what=\"bought\"} 1\n"), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_value_that_is_gone_is_not_shown() {
    let server = ServerMetrics::default();
    let first = server.text(|fleet| fleet.holds.set_all([(["a"], 1.0), (["b"], 1.0)]));
    assert!(first.contains("volley_holds{pool=\"b\"} 1"));
    let then = server.text(|fleet| fleet.holds.set_all([(["a"], 0.0)]));
    assert!(then.contains("volley_holds{pool=\"a\"} 0") && !then.contains("pool=\"b\""), "{then}");
}

#[test]
fn a_total_told_from_elsewhere_never_falls() {
    let count = ServerMetrics::default().store.reads;
    count.raise_to(9);
    count.raise_to(4);
    assert_eq!(count.get(), 9);
}
