//! Numbers and times as people read them.

use volley_model::{Millis, Timestamp};

/// A span in at most two units: `850ms`, `1.24s`, `3m 20s`, `2h 5m`, `4d 3h`.
pub fn span(span: Millis) -> String {
    let seconds = span.0 / 1000;
    match span.0 {
        0..1_000 => format!("{}ms", span.0),
        1_000..10_000 => format!("{}.{:02}s", seconds, span.0 % 1000 / 10),
        10_000..60_000 => format!("{seconds}s"),
        60_000..3_600_000 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600_000..86_400_000 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The time of this machine's clock.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A time as in `2026-03-01 12:00:00.123Z`, always in UTC.
pub fn moment(at: Timestamp) -> String {
    let (days, millis) = (at.0 / 86_400_000, at.0 % 86_400_000);
    let (hours, minutes, seconds) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
    // Days to a date of the Gregorian calendar: years are counted from March, so that a leap day comes last.
    // Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{:03}Z", millis % 1000)
}

/// `1 container`, `2 containers`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The middle and the largest of some spans; `None` when there are none.
pub fn median_and_worst(spans: &mut [Millis]) -> Option<(Millis, Millis)> {
    spans.sort_unstable();
    Some((spans[spans.len().checked_sub(1)? / 2], *spans.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let table = [
            (0, "0ms"),
            (999, "999ms"),
            (1_240, "1.24s"),
            (59_999, "59s"),
            (200_000, "3m 20s"),
            (7_500_000, "2h 5m"),
            (356_400_000, "4d 3h"),
        ];
        for (millis, text) in table {
            assert_eq!(span(Millis(millis)), text);
        }
    }

    #[test]
    fn moments_are_dates() {
        let table = [
            (0, "1970-01-01 00:00:00.000Z"),
            (951_827_696_789, "2000-02-29 12:34:56.789Z"),
            (1_709_251_200_000, "2024-03-01 00:00:00.000Z"),
            (1_798_761_599_999, "2026-12-31 23:59:59.999Z"),
        ];
        for (at, text) in table {
            assert_eq!(moment(Timestamp(at)), text);
        }
    }

    #[test]
    fn medians_are_of_the_lower_middle() {
        let spans = |millis: &[u64]| millis.iter().map(|m| Millis(*m)).collect::<Vec<_>>();
        assert_eq!(median_and_worst(&mut spans(&[])), None);
        assert_eq!(median_and_worst(&mut spans(&[5])), Some((Millis(5), Millis(5))));
        assert_eq!(median_and_worst(&mut spans(&[9, 1, 3, 2])), Some((Millis(2), Millis(9))));
    }
}
