//! Money: what a machine costs in an hour, in millionths of a unit of whatever currency its owner uses. No floats.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnitError;
use crate::units::decimal;

/// A cost per hour in millionths of the currency's unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cost(pub u64);

impl Cost {
    /// So many of it, stopping at the end of 64 bits.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// The sum, stopping at the end of 64 bits.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl FromStr for Cost {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let value = decimal(text, 1_000_000);
        value.map(Cost).ok_or_else(|| UnitError {
            text: text.chars().take(64).collect(),
            expected: "a cost per hour with at most six decimals, as in '0.096' or '12'",
        })
    }
}

impl fmt::Display for Cost {
    /// Exact, and parses back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest == 0 {
            return f.pad(&whole.to_string());
        }
        let text = format!("{whole}.{rest:06}");
        f.pad(text.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_and_printed_exactly() {
        for (text, micro) in [("0", 0), ("12", 12_000_000), ("0.096", 96_000), ("1.000001", 1_000_001)] {
            let cost: Cost = text.parse().unwrap();
            assert_eq!((cost.0, cost.to_string().as_str()), (micro, text));
        }
        for text in ["", "-1", "0.0000001", "1e3", "€1"] {
            assert!(text.parse::<Cost>().is_err(), "{text}");
        }
    }
}
