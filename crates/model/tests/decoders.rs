//! Units, ids and words, random or nearly right: read, or refused with a short reason.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::prelude::*;
use volley_model::{
    Bytes, ContainerId, CpuMilli, GpuRequest, GroupId, Millis, PoolName, TenantName, WorkerId, WorkerStatus,
};

/// Longest reason in bytes: of a long text only the beginning is repeated.
const REASON_BYTES_MAX: usize = 1_000;

/// What is read is read the same when it is written; what is refused says so in a few words.
fn check<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            let again = written.parse::<T>();
            assert_eq!(again.ok().as_ref(), Some(&value), "{text:?} was read and written as {written:?}");
        }
        Err(reason) => {
            let reason = reason.to_string();
            assert!(!reason.is_empty() && reason.len() < REASON_BYTES_MAX, "{reason}");
        }
    }
}

fn check_all(text: &str) {
    check::<CpuMilli>(text);
    check::<Bytes>(text);
    check::<Millis>(text);
    check::<GpuRequest>(text);
    check::<GroupId>(text);
    check::<ContainerId>(text);
    check::<PoolName>(text);
    check::<WorkerId>(text);
    check::<TenantName>(text);
    check::<WorkerStatus>(text);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        check_all(&text);
    }

    #[test]
    fn texts_that_look_right(text in "[-+]?[0-9]{0,24}(\\.[0-9]{0,12})?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei|ms|s|h|d)?") {
        check_all(&text);
    }

    #[test]
    fn texts_that_look_like_gpus(text in "([A-Za-z0-9]{0,8}[|,:]?){0,4}(:[0-9.]{0,24})?") {
        check_all(&text);
    }

    #[test]
    fn texts_that_look_like_ids(text in "[0-9a-z]{11,15}(-[0-9]{0,14})?") {
        check_all(&text);
    }
}

#[test]
fn long_texts_are_refused_in_few_words() {
    for text in ["9".repeat(1 << 20), "é".repeat(1 << 20), "a-".repeat(1 << 20)] {
        check_all(&text);
    }
}
