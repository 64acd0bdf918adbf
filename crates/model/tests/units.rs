//! Units as people write them: what is read, what is refused, and that what is printed is read back.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::prelude::*;
use volley_model::{Bytes, CpuMilli, GPU_WHOLE, GpuKinds, GpuMilli, GpuRequest, Millis, UnitError};

fn check<T: FromStr<Err = UnitError> + PartialEq + Debug>(good: &[(&str, T)], bad: &[&str]) {
    for (text, expected) in good {
        assert_eq!(text.parse::<T>().as_ref(), Ok(expected), "{text:?}");
    }
    for text in bad {
        let error = text.parse::<T>().expect_err(text);
        assert!(error.to_string().contains(" as in "), "the error of {text:?} gives examples: {error}");
    }
}

#[test]
fn cpu_is_cores_or_thousandths() {
    let good = [("500m", 500), ("0.5", 500), ("2", 2_000), ("1.25", 1_250), ("0", 0), ("0m", 0)];
    let bad = ["", "m", "-1", "+1", ".5", "1.", "0.0001", "1.5m", "1e3", "1 ", " 1", "1c", "99999999999999999999", "½"];
    check(&good.map(|(text, milli)| (text, CpuMilli(milli))), &bad);
}

#[test]
fn bytes_take_binary_and_decimal_units() {
    let good = [
        ("0", 0),
        ("1048576", 1 << 20),
        ("128Mi", 128 << 20),
        ("128MiB", 128 << 20),
        ("1.5Gi", 3 << 29),
        ("500M", 500_000_000),
        ("1K", 1_000),
        ("1k", 1_000),
        ("1Ti", 1 << 40),
        ("2B", 2),
    ];
    let bad = ["", "Mi", "-1Mi", "1 Mi", "1Q", "1mi", "0.1", "1.0000000001Gi", "99999999Pi", "1..5Gi", "1Mi2"];
    check(&good.map(|(text, bytes)| (text, Bytes(bytes))), &bad);
}

#[test]
fn spans_of_time_take_several_parts() {
    let good = [("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("2h", 7_200_000), ("0.5s", 500), ("0s", 0)];
    let bad = ["", "30", "s", "-1s", "1.0001s", "1y", "1s ", "99999999999999999999d", "1mm"];
    check(&good.map(|(text, millis)| (text, Millis(millis))), &bad);
}

#[test]
fn gpus_are_kinds_in_order_and_an_amount() {
    let request = |kinds: &[&str], count, milli| {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        GpuRequest { kinds: GpuKinds::Ordered(kinds), count, milli: GpuMilli(milli) }
    };
    let good = [
        ("H100", request(&["H100"], 1, 1000)),
        ("H100:2", request(&["H100"], 2, 1000)),
        ("A10G:0.5", request(&["A10G"], 1, 500)),
        ("H100|A100:2", request(&["H100", "A100"], 2, 1000)),
        ("any:1", GpuRequest { kinds: GpuKinds::Any, count: 1, milli: GPU_WHOLE }),
    ];
    check(&good, &["", ":1", "H100:", "H100:0", "H100:1.5", "H100:-1", "H100|:1", "H100:70000", "H 100", "any|H100"]);
}

fn read_back<T: FromStr<Err = UnitError> + Display + PartialEq + Debug>(value: T) -> Result<(), TestCaseError> {
    let text = value.to_string();
    let read = text.parse::<T>();
    prop_assert_eq!(read.as_ref(), Ok(&value), "{}", text);
    Ok(())
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(number in any::<u64>(), small in 0u64..100_000) {
        read_back(CpuMilli(number))?;
        read_back(CpuMilli(small))?;
        read_back(Bytes(number))?;
        read_back(Bytes(small << 20))?;
        read_back(Millis(number))?;
        read_back(Millis(small))?;
        let (count, milli) = if small % 2 == 0 { (1 + (number % 64) as u16, GPU_WHOLE) } else { (1, GpuMilli(1 + number % 999)) };
        read_back(GpuRequest { kinds: GpuKinds::Ordered(vec!["H100".to_owned(), "A-10.G".to_owned()]), count, milli })?;
    }

    #[test]
    fn no_text_makes_a_unit_panic(text in "[0-9a-zA-Z.:|+ -]{0,40}", other in ".{0,40}") {
        for text in [text, other] {
            // Read or refused; what is read is printed and read back the same.
            if let Ok(cpu) = text.parse::<CpuMilli>() { read_back(cpu)?; }
            if let Ok(bytes) = text.parse::<Bytes>() { read_back(bytes)?; }
            if let Ok(span) = text.parse::<Millis>() { read_back(span)?; }
            if let Ok(gpu) = text.parse::<GpuRequest>() { read_back(gpu)?; }
        }
    }
}
