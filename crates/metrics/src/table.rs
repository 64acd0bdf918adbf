//! What there is to know of a metric, and its registration: the same line names it in
//! `/metrics` and in the documentation.

use prometheus_client::registry::{Registry, Unit};

use crate::instruments::{Count, Counts, Histogram, Histograms, Value, Values};

/// What every name begins with.
pub(crate) const PREFIX: &str = "volley";

/// Which process shows a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// `volley serve` and `volley dev`.
    Server,
    /// `volley worker`.
    Worker,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A label: its name, and which values it has.
pub type Label = (&'static str, &'static str);

/// A metric as it is documented.
#[derive(Debug, Clone)]
pub struct Metric {
    /// As Prometheus shows it, less `_bucket`, `_sum` and `_count` of histograms.
    pub name: String,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Labels with their values.
    pub labels: Vec<Label>,
    /// What it says.
    pub help: &'static str,
}

/// Registers metrics and notes them for the documentation.
pub(crate) struct Table {
    pub(crate) registry: Registry,
    pub(crate) metrics: Vec<Metric>,
}

/// 50 microseconds to 10 minutes, in seconds: from one call of a store to a large image.
const SECONDS: [f64; 20] = [
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0,
    15.0, 60.0, 180.0, 600.0,
];
/// Containers of a batch, up to the largest.
const CONTAINERS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1_000.0];

impl Table {
    pub(crate) fn new() -> Self {
        Self { registry: Registry::with_prefix(PREFIX), metrics: Vec::new() }
    }

    fn note(&mut self, name: &str, unit: &str, suffix: &str, kind: Kind, labels: &[Label], help: &'static str) {
        let unit = if unit.is_empty() { String::new() } else { format!("_{unit}") };
        let name = format!("{PREFIX}_{name}{unit}{suffix}");
        self.metrics.push(Metric { name, kind, labels: labels.to_vec(), help });
    }

    pub(crate) fn count(&mut self, name: &'static str, help: &'static str) -> Count {
        self.note(name, "", "_total", Kind::Counter, &[], help);
        let count = Count::default();
        self.registry.register(name, sentence(help), count.0.clone());
        count
    }

    pub(crate) fn counts<const N: usize>(
        &mut self,
        name: &'static str,
        labels: [Label; N],
        help: &'static str,
    ) -> Counts<N> {
        self.note(name, "", "_total", Kind::Counter, &labels, help);
        let counts = Counts::new(labels.map(|label| label.0));
        self.registry.register(name, sentence(help), counts.family.clone());
        counts
    }

    pub(crate) fn seconds<const N: usize>(
        &mut self,
        name: &'static str,
        labels: [Label; N],
        help: &'static str,
    ) -> Histograms<N> {
        self.note(name, "seconds", "", Kind::Histogram, &labels, help);
        let histograms = Histograms::new(labels.map(|label| label.0), &SECONDS);
        self.registry.register_with_unit(name, sentence(help), Unit::Seconds, histograms.family.clone());
        histograms
    }

    pub(crate) fn containers(&mut self, name: &'static str, help: &'static str) -> Histogram {
        self.note(name, "containers", "", Kind::Histogram, &[], help);
        let histogram = Histogram::new(&CONTAINERS);
        let unit = Unit::Other("containers".to_owned());
        self.registry.register_with_unit(name, sentence(help), unit, histogram.0.clone());
        histogram
    }

    pub(crate) fn value(&mut self, name: &'static str, unit: &'static str, help: &'static str) -> Value {
        self.note(name, unit, "", Kind::Gauge, &[], help);
        let value = Value::default();
        match unit {
            "" => self.registry.register(name, sentence(help), value.0.clone()),
            unit => {
                let unit = Unit::Other(unit.to_owned());
                self.registry.register_with_unit(name, sentence(help), unit, value.0.clone());
            }
        }
        value
    }

    pub(crate) fn values<const N: usize>(
        &mut self,
        name: &'static str,
        unit: &'static str,
        labels: [Label; N],
        help: &'static str,
    ) -> Values<N> {
        self.note(name, unit, "", Kind::Gauge, &labels, help);
        let values = Values::new(labels.map(|label| label.0));
        match unit {
            "" => self.registry.register(name, sentence(help), values.family.clone()),
            unit => {
                let unit = Unit::Other(unit.to_owned());
                self.registry.register_with_unit(name, sentence(help), unit, values.family.clone());
            }
        }
        values
    }
}

/// The library ends every help text with a full stop of its own.
fn sentence(help: &'static str) -> &'static str {
    help.trim_end_matches('.')
}
