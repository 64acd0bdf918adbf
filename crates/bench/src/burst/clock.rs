//! Instants that processes of one machine can compare, and percentiles of spans between them.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of the machine's monotonic clock, which all its processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(pub(crate) u64);

impl Instant {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        Self(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
    }

    /// Milliseconds since an earlier one.
    pub(crate) fn since_ms(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1e6
    }
}

/// Milliseconds of the calendar clock, as servers stamp their events.
pub(crate) fn calendar_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3
}

/// Of spans in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// Of spans in any order; `None` when there are none.
    pub(crate) fn of(mut spans: Vec<f64>) -> Option<Self> {
        spans.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (spans.len() * percent).div_ceil(100).max(1);
            spans.get(rank - 1).copied().map(rounded)
        };
        Some(Self { p50: at(50)?, p99: at(99)?, max: at(100)? })
    }
}

/// To a thousandth.
pub(crate) fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_spans_that_were_there() {
        assert_eq!(Percentiles::of(vec![]), None);
        let of = |spans: Vec<f64>| Percentiles::of(spans).map(|p| (p.p50, p.p99, p.max)).unwrap();
        assert_eq!(of(vec![7.0]), (7.0, 7.0, 7.0));
        assert_eq!(of((1..=200).rev().map(f64::from).collect()), (100.0, 198.0, 200.0));
    }
}
