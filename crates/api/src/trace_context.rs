//! The trace that a client began (W3C `traceparent`) goes into its containers' environment: there it is durable, reaches the
//! worker, and the container's own program can go on with it. Knows nothing of spans.

use std::sync::Arc;

use volley_model::Submission;

/// The header's and the variable's name.
pub(crate) const TRACEPARENT: &str = "traceparent";
const VARIABLE: &str = "TRACEPARENT";

/// Puts a client's trace into the environment of all its containers that name none themselves. What is not a `traceparent` is not
/// heard, as the recommendation says. To be called after the submission's digest was taken: the same submission sent again
/// in another span is still the same.
pub(crate) fn carry(submission: &mut Submission, traceparent: Option<&str>) {
    let Some(text) = traceparent.filter(|text| is_traceparent(text)) else { return };
    for run in &mut submission.runs {
        if !run.spec.env.contains_key(VARIABLE) {
            Arc::make_mut(&mut run.spec).env.insert(VARIABLE.to_owned(), text.to_owned());
        }
    }
}

/// Version, trace, span and flags in lower-case hex; a later version may say more.
fn is_traceparent(text: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.len() <= 256
        && parts.len() >= lengths.len()
        && (parts.len() == lengths.len() || parts[0] != "00")
        && parts.iter().zip(lengths).all(|(part, length)| part.len() == length && hex(part))
        && parts[0] != "ff"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_traceparent_is_carried() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(is_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"));
        for bad in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
