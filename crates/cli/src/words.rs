//! Numbers and times as people read them.

use volley_model::Millis;

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
    fn medians_are_of_the_lower_middle() {
        let spans = |millis: &[u64]| millis.iter().map(|m| Millis(*m)).collect::<Vec<_>>();
        assert_eq!(median_and_worst(&mut spans(&[])), None);
        assert_eq!(median_and_worst(&mut spans(&[5])), Some((Millis(5), Millis(5))));
        assert_eq!(median_and_worst(&mut spans(&[9, 1, 3, 2])), Some((Millis(2), Millis(9))));
    }
}
