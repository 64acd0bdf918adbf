//! Numbers and times as people read them.

use volley_model::{Millis, Timestamp};

/// A span in at most two units: `850ms`, `1.24s`, `3m 20s`, `2h 5m`, `4d 3h`.
pub fn span(span: Millis) -> String {
    let seconds = span.0 / 1000;
    match span.0 {
        0..1_000 => format!("{}ms", span.0),
        ..10_000 => format!("{}.{:02}s", seconds, span.0 % 1000 / 10),
        ..60_000 => format!("{seconds}s"),
        ..3_600_000 => format!("{}m {}s", seconds / 60, seconds % 60),
        ..86_400_000 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// How long ago something was; empty when it was not.
pub fn ago(now: Timestamp, at: Option<Timestamp>) -> String {
    at.map(|at| span(Millis(now.since(at).0 / 1000 * 1000))).unwrap_or_default()
}

/// A point in time as UTC: `2025-01-31 12:34:56.789Z`.
pub fn date(at: Timestamp) -> String {
    let (days, in_day) = (at.0 / 86_400_000, at.0 % 86_400_000);
    let (year, month, day) = civil(days);
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    // 400 years have the same number of days wherever they begin.
    year += days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let months = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    (year, month as u64 + 1, days + 1)
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
    fn dates_are_of_the_gregorian_calendar() {
        let table = [
            (0, "1970-01-01 00:00:00.000Z"),
            (951_782_400_000, "2000-02-29 00:00:00.000Z"),
            (1_735_689_599_999, "2024-12-31 23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000Z"),
        ];
        for (millis, text) in table {
            assert_eq!(date(Timestamp(millis)), text);
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
