//! Two reports side by side: the ratio of medians for each run that is in both, with how far
//! the repetitions let it be trusted. Pure.

use std::collections::BTreeMap;

use crate::{Measure, Report, Spread, Table};

/// A figure that is in both reports.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The run, as in `1000 workers, 16 shapes, ...`.
    pub case: String,
    /// Which figure of it.
    pub measure: &'static str,
    /// In the first report.
    pub a: Spread,
    /// In the second one.
    pub b: Spread,
    /// The second over the first: the medians, and the least and most that the repetitions allow.
    pub ratio: Spread,
}

impl Compared {
    /// Whether all repetitions of one report lie on one side of all of the other's.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.ratio.min > 1.0 || self.ratio.max < 1.0
    }
}

/// What two reports say of each other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// In the order of the first report.
    pub compared: Vec<Compared>,
    /// Runs that only the first has.
    pub only_a: Vec<String>,
    /// Runs that only the second has.
    pub only_b: Vec<String>,
    /// Why the figures may not be comparable: another machine, another build.
    pub caveats: Vec<String>,
}

/// Compares run by run.
#[must_use]
pub fn compare(a: &Report, b: &Report) -> Comparison {
    let mut comparison = Comparison { caveats: caveats(a, b), ..Comparison::default() };
    let mut of_b: BTreeMap<String, Vec<Measure>> = b.measures().into_iter().collect();
    for (case, measures) in a.measures() {
        let Some(others) = of_b.remove(&case) else {
            comparison.only_a.push(case);
            continue;
        };
        for Measure { name, spread } in measures {
            let Some(other) = others.iter().find(|other| other.name == name) else { continue };
            let (case, measure, ratio) = (case.clone(), name, ratio(spread, other.spread));
            comparison.compared.push(Compared { case, measure, a: spread, b: other.spread, ratio });
        }
    }
    comparison.only_b = b.measures().into_iter().map(|(case, _)| case).filter(|case| of_b.contains_key(case)).collect();
    comparison
}

fn ratio(a: Spread, b: Spread) -> Spread {
    let over = |b: f64, a: f64| if a == b { 1.0 } else { b / a };
    Spread { median: over(b.median, a.median), min: over(b.min, a.max), max: over(b.max, a.min) }
}

/// Three digits of it at least.
fn figure(value: f64) -> String {
    let places = if value.abs() >= 100.0 { 0 } else { 2 };
    format!("{value:.places$}")
}

fn caveats(a: &Report, b: &Report) -> Vec<String> {
    let mut caveats = Vec::new();
    let mut differ = |what: &str, a: String, b: String| {
        if a != b {
            caveats.push(format!("{what} differs: {a}, {b}"));
        }
    };
    let processor = |report: &Report| report.machine.processor.clone().unwrap_or_else(|| "unknown".to_owned());
    differ("the number of cores", a.machine.cores.to_string(), b.machine.cores.to_string());
    differ("the processor", processor(a), processor(b));
    differ("the system", a.machine.system.clone(), b.machine.system.clone());
    differ("the build", a.machine.build.clone(), b.machine.build.clone());
    differ("how it was measured", a.obtained.clone(), b.obtained.clone());
    caveats
}

impl Comparison {
    /// One row for each figure.
    #[must_use]
    pub fn table(&self) -> Table {
        let row = |compared: &Compared| {
            let Spread { median, min, max } = compared.ratio;
            let verdict = match compared.is_certain() {
                true if median < 1.0 => "better",
                true => "worse",
                false => "within the spread",
            };
            vec![
                compared.case.clone(),
                compared.measure.to_owned(),
                figure(compared.a.median),
                figure(compared.b.median),
                format!("{median:.2}"),
                format!("{min:.2} to {max:.2}"),
                verdict.to_owned(),
            ]
        };
        let header = vec!["run", "measure", "a", "b", "b/a", "spread", "verdict"];
        Table { header, rows: self.compared.iter().map(row).collect() }
    }
}

#[cfg(test)]
mod tests {
    use volley_model::Strategy;

    use super::*;
    use crate::engine::EngineCase;
    use crate::{EngineRun, Runs, Submit};

    fn run(workers: usize, median: f64) -> EngineRun {
        let (strategy, submit) = (Strategy::Pack, Submit::Single);
        EngineRun {
            case: EngineCase { workers, containers: 100, shapes: 1, batch: 10, strategy, submit },
            ns_per_placement: median,
            ns_per_placement_min: median - 10.0,
            ns_per_placement_max: median + 10.0,
            placements_per_s: 1,
            view_ns_per_placement: 1.0,
            unplaced: 0,
            repetitions: 5,
        }
    }

    fn report(runs: Vec<EngineRun>) -> Report {
        Report::of("by a test".to_owned(), Runs::Engine(runs))
    }

    #[test]
    fn the_ratio_has_the_spread_of_both() {
        let comparison = compare(&report(vec![run(1, 100.0)]), &report(vec![run(1, 50.0)]));
        let [compared] = &comparison.compared[..] else { panic!("one run in both: {comparison:?}") };
        assert_eq!(compared.ratio, Spread { median: 0.5, min: 40.0 / 110.0, max: 60.0 / 90.0 });
        assert!(compared.is_certain());
        assert_eq!(comparison.table().rows[0].last().unwrap(), "better");
        assert_eq!(comparison.table().rows[0][2..4], ["100", "50.00"]);
    }

    #[test]
    fn what_lies_within_the_spread_is_not_called_better() {
        let comparison = compare(&report(vec![run(1, 100.0)]), &report(vec![run(1, 95.0)]));
        assert!(!comparison.compared[0].is_certain());
        assert_eq!(comparison.table().rows[0].last().unwrap(), "within the spread");
    }

    #[test]
    fn runs_of_one_report_only_and_another_machine_are_named() {
        let a = report(vec![run(1, 100.0), run(2, 100.0)]);
        let mut b = report(vec![run(2, 100.0), run(3, 100.0)]);
        b.machine.cores += 1;
        let comparison = compare(&a, &b);
        assert_eq!(comparison.compared.len(), 1);
        assert!(comparison.only_a[0].starts_with("1 workers") && comparison.only_b[0].starts_with("3 workers"));
        assert_eq!(comparison.caveats.len(), 1, "{:?}", comparison.caveats);
    }
}
