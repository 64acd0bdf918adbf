//! What others count with: shared by cloning, at the cost of an atomic addition (a lookup more
//! where there are labels). Label values are a small set: never an id.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram;

/// A count that only grows.
#[derive(Debug, Clone, Default)]
pub struct Count(pub(crate) Counter);

impl Count {
    /// One more.
    pub fn add_one(&self) {
        self.0.inc();
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.inc_by(more);
    }

    /// Counted elsewhere: what it is now. Never less than before.
    pub fn raise_to(&self, total: u64) {
        let more = total.saturating_sub(self.0.get());
        self.0.inc_by(more);
    }

    /// What was counted so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

type Static<const N: usize> = [(&'static str, &'static str); N];

/// Counts by labels whose values the code names.
#[derive(Debug, Clone)]
pub struct Counts<const N: usize> {
    pub(crate) family: Family<Static<N>, Counter>,
    names: [&'static str; N],
}

impl<const N: usize> Counts<N> {
    pub(crate) fn new(names: [&'static str; N]) -> Self {
        Self { family: Family::default(), names }
    }

    /// One more with these label values.
    pub fn add_one(&self, values: [&'static str; N]) {
        self.add(values, 1);
    }

    /// So many more with these label values.
    pub fn add(&self, values: [&'static str; N], more: u64) {
        self.family.get_or_create(&labelled(self.names, values)).inc_by(more);
    }

    /// What was counted with these label values so far.
    #[must_use]
    pub fn get(&self, values: [&'static str; N]) -> u64 {
        self.family.get(&labelled(self.names, values)).map_or(0, |count| count.get())
    }
}

fn labelled<V, const N: usize>(names: [&'static str; N], values: [V; N]) -> [(&'static str, V); N] {
    let mut values = values.into_iter();
    names.map(|name| (name, values.next().expect("as many values as names")))
}

/// How often a value fell where.
#[derive(Debug, Clone)]
pub struct Histogram(pub(crate) histogram::Histogram);

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self(histogram::Histogram::new(bounds.iter().copied()))
    }

    /// One value.
    pub fn observe(&self, value: f64) {
        self.0.observe(value);
    }
}

/// Makes the histograms of a family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds(&'static [f64]);

impl MetricConstructor<histogram::Histogram> for Bounds {
    fn new_metric(&self) -> histogram::Histogram {
        histogram::Histogram::new(self.0.iter().copied())
    }
}

type Shared<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// Times by labels.
#[derive(Debug, Clone)]
pub struct Histograms<const N: usize> {
    pub(crate) family: Family<Shared<N>, histogram::Histogram, Bounds>,
    names: [&'static str; N],
}

impl<const N: usize> Histograms<N> {
    pub(crate) fn new(names: [&'static str; N], bounds: &'static [f64]) -> Self {
        Self { family: Family::new_with_constructor(Bounds(bounds)), names }
    }

    /// One time with these label values.
    pub fn observe(&self, values: [&'static str; N], time: Duration) {
        self.observe_named(values.map(Cow::Borrowed), time);
    }

    /// As [`Histograms::observe`], with label values that only the running program knows; a small set all the same.
    pub fn observe_named(&self, values: [Cow<'static, str>; N], time: Duration) {
        self.family.get_or_create(&labelled(self.names, values)).observe(time.as_secs_f64());
    }
}

type Number = Gauge<f64, AtomicU64>;

/// A value that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Value(pub(crate) Number);

impl Value {
    /// What it is now.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }
}

type Named<const N: usize> = [(&'static str, Arc<str>); N];

/// Values by labels; a value that is not set anew is not shown any more.
#[derive(Debug, Clone)]
pub struct Values<const N: usize> {
    pub(crate) family: Family<Named<N>, Number>,
    names: [&'static str; N],
}

impl<const N: usize> Values<N> {
    pub(crate) fn new(names: [&'static str; N]) -> Self {
        Self { family: Family::default(), names }
    }

    /// All values as they are now, with their label values.
    pub fn set_all<'v>(&self, all: impl IntoIterator<Item = ([&'v str; N], f64)>) {
        self.family.clear();
        for (values, value) in all {
            self.family.get_or_create(&labelled(self.names, values.map(Arc::from))).set(value);
        }
    }
}
