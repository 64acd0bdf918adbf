//! A real Prometheus scrapes a real server and worker: the alert rules are sound, the dashboard's queries are
//! answered, and a lost worker and a blocked shape raise their alerts.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const VOLLEY: &str = env!("CARGO_BIN_EXE_volley");
/// Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that is ended with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `volley` and waits for the line of JSON that says where it answers.
fn volley(args: &[&str]) -> (Started, Value) {
    let mut command = Command::new(VOLLEY);
    command.args(["-o", "json"]).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the binary was built");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a first line");
    (Started(child), serde_json::from_str(&line).expect("a line of JSON"))
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn promtool(args: &[&str]) -> Output {
    let mut command = Command::new("promtool");
    command.args(args).current_dir(deploy().join("prometheus"));
    command.output().expect("promtool is installed: cargo xtask test installs the package prometheus")
}

#[test]
fn the_alert_rules_and_their_tests_are_sound() {
    for args in [
        &["check", "rules", "alerts.yaml"][..],
        &["check", "config", "prometheus.yml"],
        &["test", "rules", "alerts.test.yaml"],
    ] {
        let ran = promtool(args);
        assert!(ran.status.success(), "{args:?}: {ran:?}");
    }
    // Every alert has a test.
    let rules = fs::read_to_string(deploy().join("prometheus/alerts.yaml")).unwrap();
    let tests = fs::read_to_string(deploy().join("prometheus/alerts.test.yaml")).unwrap();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}")), "{alert} has no test");
    }
}

/// Expressions of the dashboard, with its variable as Grafana would set it.
fn dashboard() -> Vec<String> {
    let text = fs::read_to_string(deploy().join("grafana/volley.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets.map(|target| target["expr"].as_str().expect("expr").replace("$__rate_interval", "1m")).collect()
}

#[test]
fn alerts_and_dashboard_name_only_metrics_that_there_are() {
    let page = fs::read_to_string(deploy().join("../docs/metrics.md")).unwrap();
    let rules = fs::read_to_string(deploy().join("prometheus/alerts.yaml")).unwrap();
    let texts = dashboard().into_iter().chain(rules.lines().filter(|line| line.contains("expr:")).map(str::to_owned));
    for text in texts {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("volley_")) {
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            assert!(page.contains(&format!("| `{name}` |")), "{word} is not in docs/metrics.md");
        }
    }
}

/// A Prometheus of the test's own.
struct Prometheus {
    _process: Started,
    address: String,
}

impl Prometheus {
    fn start(dir: &Path, server: &str, worker: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let address = format!("127.0.0.1:{port}");
        // The rules as they are, with times for a test instead of a night.
        let rules = fs::read_to_string(deploy().join("prometheus/alerts.yaml")).unwrap();
        let waits: Vec<&str> = rules.lines().filter(|line| !line.trim().starts_with("for: ")).collect();
        fs::write(dir.join("alerts.yaml"), waits.join("\n").replace("> 300", "> 1")).unwrap();
        let scraped = |job: &str, target: &str| {
            format!("  - job_name: {job}\n    static_configs:\n      - targets: [\"{target}\"]\n")
        };
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [alerts.yaml]\nscrape_configs:\n{}{}",
            scraped("volley-server", server),
            scraped("volley-worker", worker),
        );
        fs::write(dir.join("prometheus.yml"), config).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("series").display()));
        command.arg(format!("--web.listen-address={address}"));
        let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = started.expect("prometheus is installed: cargo xtask test installs it");
        Self { _process: Started(process), address }
    }

    /// An answer of its API; `None` while it does not answer.
    fn get(&self, path: &str) -> Option<Value> {
        let mut connection = TcpStream::connect(&self.address).ok()?;
        write!(connection, "GET {path} HTTP/1.0\r\nHost: here\r\n\r\n").ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    fn query(&self, expression: &str) -> Option<Value> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(&format!("/api/v1/query?query={escaped}"))
    }

    /// The sum of all values of an expression, once it has one and it is right.
    fn wait_for(&self, expression: &str, right: impl Fn(f64) -> bool) {
        let started = Instant::now();
        loop {
            let answer = self.query(expression);
            let results = answer.as_ref().and_then(|answer| answer["data"]["result"].as_array());
            let values = results.into_iter().flatten().filter_map(|result| result["value"][1].as_str()?.parse().ok());
            let values: Vec<f64> = values.collect();
            if !values.is_empty() && right(values.iter().sum()) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{expression}: {answer:?}");
            // Not for the clock: each answer is asked for anew until it is right.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_burst_is_seen_and_what_goes_wrong_raises_its_alert() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let state = dir.path().join("state");
    let (data, state) = (data.to_str().unwrap(), state.to_str().unwrap());
    let (_server, said) = volley(&["serve", "--listen", "127.0.0.1:0", "--worker-lease", "2s", "--data", data]);
    let server = said["address"].as_str().unwrap();
    let room = ["--cpu", "1", "--memory", "1Gi", "--metrics", "127.0.0.1:0", "--state", state];
    let (worker, said) = volley(&[&["--server", server, "worker", "--name", "one"], &room[..]].concat());
    let shown = said["metrics"].as_str().unwrap();
    let target = |url: &str| url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let prometheus = Prometheus::start(dir.path(), &target(server), &target(shown));
    prometheus.wait_for("sum(up)", |up| up == 2.0);

    let ran =
        Command::new(VOLLEY).args(["--server", server, "run", "-n", "100", "--cpu", "10m", "--", "true"]).output();
    assert!(ran.unwrap().status.success());
    prometheus.wait_for("max(volley_containers{state=\"finished\"})", |finished| finished == 100.0);
    prometheus.wait_for("volley_worker_starts_total", |starts| starts == 100.0);
    prometheus.wait_for("sum(volley_placements_total)", |placed| placed == 100.0);
    let queries = dashboard();
    assert!(queries.len() > 20);
    for query in &queries {
        let answer = prometheus.query(query).expect("it answers");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
    }
    prometheus.wait_for(&queries[0], |queued| queued == 0.0);

    let firing = |alert: &str| format!("count(ALERTS{{alertstate=\"firing\",alertname=\"{alert}\"}})");
    let large = ["--server", server, "run", "--memory", "64Gi", "--max-wait", "10m", "--", "true"];
    let mut waiting = Started(Command::new(VOLLEY).args(large).stderr(Stdio::null()).spawn().unwrap());
    prometheus.wait_for(&firing("VolleyShapeBlocked"), |alerts| alerts == 1.0);
    drop(worker);
    prometheus.wait_for(&firing("VolleyWorkersLost"), |alerts| alerts == 1.0);
    waiting.0.kill().unwrap();
}
