//! The page of all metrics for the documentation, as markdown.

use std::fmt::Write;

use crate::table::{Kind, Metric, Of};
use crate::{ServerMetrics, WorkerMetrics};

const OPENING: &str = "\
# Metrics

Written by `cargo xtask docs` from `crates/metrics`; `cargo xtask tidy` fails when it is not up to date.

A server shows its metrics at `/metrics` of its port, a worker at `/metrics` of `--metrics ADDRESS`, as OpenMetrics text.
Units are base units: seconds, bytes, cores. Histograms show `_bucket`, `_sum` and `_count`; times have buckets from 50 us to
10 min. Labels have small sets of values; no metric is labelled by the id of a container, a group or a worker.

Metrics of the whole cell (containers by state, pools, blocked shapes) are the same at every server of it: take the
maximum over servers, not the sum. All others are of the process that shows them.
";

/// The page.
#[must_use]
pub fn page() -> String {
    let mut text = OPENING.to_owned();
    section(&mut text, Of::Server, ServerMetrics::default().metrics());
    section(&mut text, Of::Worker, WorkerMetrics::default().metrics());
    text
}

fn section(text: &mut String, of: Of, metrics: &[Metric]) {
    let title = match of {
        Of::Server => "Of a server",
        Of::Worker => "Of a worker",
    };
    let write = "text takes all that is written";
    writeln!(text, "\n## {title}\n\n| name | type | labels | what it says |\n| --- | --- | --- | --- |").expect(write);
    for metric in metrics {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|(name, values)| format!("`{name}`: {values}")).collect();
        let labels = labels.join("; ");
        writeln!(text, "| `{}` | {kind} | {labels} | {} |", metric.name, metric.help).expect(write);
    }
}
