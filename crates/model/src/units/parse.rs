//! Parsing and printing of what people write: `500m`, `0.5`, `128Mi`, `1Gi`, `30s`,
//! `H100:2`, `A10G:0.5`. Fixed-point decimals, no floats, no overflow, no panic.

use std::fmt;
use std::str::FromStr;

use crate::{Bytes, CpuMilli, GPU_WHOLE, GpuKinds, GpuMilli, GpuRequest, Millis};

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct UnitError {
    /// What was given (cut to 64 characters).
    pub text: String,
    /// What was expected, with examples.
    pub expected: &'static str,
}

fn unit_error(text: &str, expected: &'static str) -> UnitError {
    UnitError { text: text.chars().take(64).collect(), expected }
}

/// Digits after the point that count; more are refused.
const DECIMALS_MAX: usize = 9;

/// `text` times `scale`, exactly: `None` when it is no plain decimal, too large, or not a whole number of units.
pub(crate) fn decimal(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let point_without_digits = text.contains('.') && fraction.is_empty();
    if whole.is_empty() || point_without_digits || fraction.len() > DECIMALS_MAX || !digits(whole) || !digits(fraction)
    {
        return None;
    }
    let whole: u128 = if whole.len() > 20 { return None } else { whole.parse().ok()? };
    let mut sum = whole * u128::from(scale);
    if !fraction.is_empty() {
        let part = fraction.parse::<u128>().ok()? * u128::from(scale);
        let divisor = 10u128.pow(fraction.len() as u32);
        if !part.is_multiple_of(divisor) {
            return None;
        }
        sum += part / divisor;
    }
    u64::try_from(sum).ok()
}

/// Splits a text into its number and what follows.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

impl FromStr for CpuMilli {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const EXPECTED: &str = "an amount of CPU: cores as in '2' or '0.5', or thousandths as in '500m'";
        let value = match text.strip_suffix('m') {
            Some(milli) => decimal(milli, 1),
            None => decimal(text, 1000),
        };
        value.map(CpuMilli).ok_or_else(|| unit_error(text, EXPECTED))
    }
}

impl fmt::Display for CpuMilli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { f.pad(&(self.0 / 1000).to_string()) } else { f.pad(&format!("{}m", self.0)) }
    }
}

const BYTE_UNITS: [(&str, u64); 12] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("K", 1_000),
    ("Pi", 1 << 50),
    ("P", 1_000_000_000_000_000),
    ("", 1),
];

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const EXPECTED: &str = "an amount of bytes as in '128Mi', '1.5Gi', '500M' or '1048576'";
        let (number, unit) = split_number(text);
        let unit = unit.strip_suffix('B').unwrap_or(unit);
        let scale = BYTE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        let value = scale.and_then(|scale| decimal(number, scale));
        value.map(Bytes).ok_or_else(|| unit_error(text, EXPECTED))
    }
}

impl fmt::Display for Bytes {
    /// Exact: the largest binary unit that divides it, else with up to three decimals that are exact, else bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = BYTE_UNITS[..4].iter().find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        match exact {
            Some((unit, scale)) => f.pad(&format!("{}{unit}", self.0 / scale)),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl Bytes {
    /// For people: about three digits, as in `1.2Gi`. Does not parse back exactly.
    #[must_use]
    pub fn rounded(self) -> String {
        let Some((unit, scale)) = BYTE_UNITS[..4].iter().find(|(_, scale)| self.0 >= *scale) else {
            return self.0.to_string();
        };
        let tenths = u128::from(self.0) * 10 / u128::from(*scale);
        if tenths.is_multiple_of(10) {
            format!("{}{unit}", tenths / 10)
        } else {
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        }
    }
}

const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Millis {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const EXPECTED: &str = "a span of time as in '30s', '500ms', '1m30s' or '2h'";
        let mut rest = text;
        let mut sum: u64 = 0;
        while !rest.is_empty() {
            let (number, after) = split_number(rest);
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let scale = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
            let part = scale.and_then(|scale| decimal(number, scale));
            sum = part.and_then(|part| sum.checked_add(part)).ok_or_else(|| unit_error(text, EXPECTED))?;
            rest = after;
        }
        if text.is_empty() { Err(unit_error(text, EXPECTED)) } else { Ok(Millis(sum)) }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut text = String::new();
        for (unit, scale) in TIME_UNITS {
            if rest >= scale {
                text.push_str(&format!("{}{unit}", rest / scale));
                rest %= scale;
            }
        }
        f.pad(if text.is_empty() { "0s" } else { &text })
    }
}

impl FromStr for GpuRequest {
    type Err = UnitError;

    /// `KIND`, `KIND:COUNT`, `KIND:0.5`, `KIND|KIND:COUNT` (kinds in order of preference), `any:COUNT`.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        const EXPECTED: &str = "GPUs as in 'H100', 'H100:2', 'A10G:0.5', 'H100|A100:2' or 'any:1'";
        let error = || unit_error(text, EXPECTED);
        let (kinds, amount) = text.split_once(':').unwrap_or((text, "1"));
        let milli = decimal(amount, GPU_WHOLE.0).filter(|milli| *milli > 0).ok_or_else(error)?;
        let (count, milli) = if milli < GPU_WHOLE.0 {
            (1, GpuMilli(milli))
        } else if milli.is_multiple_of(GPU_WHOLE.0) {
            (u16::try_from(milli / GPU_WHOLE.0).map_err(|_| error())?, GPU_WHOLE)
        } else {
            return Err(error());
        };
        let kinds = if kinds == "any" {
            GpuKinds::Any
        } else {
            let kinds: Vec<String> = kinds.split('|').map(str::to_owned).collect();
            if kinds.iter().any(|kind| !is_gpu_kind(kind)) {
                return Err(error());
            }
            GpuKinds::Ordered(kinds)
        };
        Ok(GpuRequest { kinds, count, milli })
    }
}

/// Whether a text can name a GPU kind.
#[must_use]
pub fn is_gpu_kind(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= crate::NAME_BYTES_MAX && text != "any" && text.bytes().all(good)
}

impl fmt::Display for GpuRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = match &self.kinds {
            GpuKinds::Any => "any".to_owned(),
            GpuKinds::Ordered(kinds) => kinds.join("|"),
        };
        if self.milli == GPU_WHOLE {
            f.pad(&format!("{kinds}:{}", self.count))
        } else {
            let digits = format!("{:03}", self.milli.0);
            f.pad(&format!("{kinds}:0.{}", digits.trim_end_matches('0')))
        }
    }
}
