//! What comes from clients, workers and servers, random or mutated: an error or a value, never a
//! panic, and never more memory than a small multiple of what came.

use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;
use serde_json::{Map, Value, json};
use volley_model::{Spec, TenantName};
use volley_wire::proto::{self, from_worker, to_worker};
use volley_wire::{convert, json as body};

/// Words that the bodies know, so that random ones get past the first check.
const WORDS: &[&str] = &[
    "spec",
    "specs",
    "count",
    "client_key",
    "name",
    "labels",
    "command",
    "args",
    "env",
    "working_dir",
    "image",
    "resources",
    "cpu",
    "memory",
    "gpu",
    "pool",
    "require_labels",
    "affinity",
    "priority",
    "retry",
    "never",
    "on_lost",
    "attempts_max",
    "backoff",
    "backoff_max",
    "on",
    "max_wait",
    "on_unplaceable",
    "fail",
    "on_disconnect",
    "keep",
    "stop_grace",
    "log_limit",
    "500m",
    "1Gi",
    "H100:2",
    "A10G|H100:0.5",
    "30s",
    "required",
    "preferred",
    "any",
];

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(WORDS).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

/// Any JSON, out of known words for the most part.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        words().prop_map(Value::String),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((words(), inner), 0..8).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

fn good_body() -> Value {
    let mut spec = Spec::of_command("sh", &["-c", "true"]);
    spec.env.insert("A".to_owned(), "b".to_owned());
    spec.resources.gpu = "H100:2".parse().ok();
    json!({ "spec": body::spec_to(&spec), "count": 3, "client_key": "k", "name": "n", "labels": { "a": "b" } })
}

fn read_json(bytes: &[u8]) {
    if let Ok(submission) = body::submission_from(bytes, TenantName::default(), None) {
        let count: u64 = submission.runs.iter().map(|run| u64::from(run.count)).sum();
        assert!((1..=100_000).contains(&count));
    }
}

/// Puts a value in the place of one of those inside.
fn replace(value: &mut Value, at: usize, new: Value) {
    fn walk(value: &mut Value, left: &mut usize, new: &mut Option<Value>) {
        if *left == 0 {
            if let Some(new) = new.take() {
                *value = new;
            }
            return;
        }
        *left -= 1;
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| walk(value, left, new)),
            Value::Object(fields) => fields.values_mut().for_each(|value| walk(value, left, new)),
            _ => {}
        }
    }
    walk(value, &mut { at }, &mut Some(new));
}

fn read_from_worker(bytes: &[u8]) {
    let Ok(message) = proto::FromWorker::decode(bytes) else { return };
    match message.message {
        Some(from_worker::Message::Hello(hello)) => {
            if let Ok(worker) = convert::worker_from(&hello) {
                // Whether it will do is said without a panic, too.
                let _ = worker.check();
            }
            for report in hello.inventory {
                let _ = convert::report_from("inventory", report);
            }
        }
        Some(from_worker::Message::Reports(reports)) => {
            for report in reports.reports {
                let _ = convert::report_from("reports", report);
            }
        }
        _ => {}
    }
}

fn read_to_worker(bytes: &[u8]) {
    let Ok(message) = proto::ToWorker::decode(bytes) else { return };
    match message.message {
        Some(to_worker::Message::Starts(starts)) => {
            for entry in starts.specs {
                let _ = convert::spec_hash_from("hash", &entry.hash);
                let _ = convert::spec_from("spec", entry.spec.unwrap_or_default());
            }
            for start in starts.starts {
                let _ = convert::container_from("container", start.container);
                let _ = convert::attempt_from("attempt", start.attempt);
                let _ = convert::grants_from("gpus", &start.gpus);
            }
        }
        Some(to_worker::Message::Stops(stops)) => {
            for stop in stops.stops {
                let _ = convert::container_from("container", stop.container);
            }
        }
        _ => {}
    }
}

fn read_submit(bytes: &[u8]) {
    let Ok(request) = proto::SubmitRequest::decode(bytes) else { return };
    let key = Some(request.client_key.clone());
    if let Ok(body) = convert::body_from(request)
        && let Ok(submission) = body.check(TenantName::default(), key, None, Default::default())
    {
        let count: u64 = submission.runs.iter().map(|run| u64::from(run.count)).sum();
        assert!((1..=100_000).contains(&count));
    }
}

fn mutate(mut bytes: Vec<u8>, edits: &[(Index, u8)], cut: Index) -> Vec<u8> {
    for (at, byte) in edits {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
    bytes
}

fn good_messages() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut spec = Spec::of_command("sh", &["-c", "true"]);
    spec.resources.gpu = "A10G:0.5".parse().ok();
    spec.require_labels.insert("zone".to_owned(), "a".to_owned());
    let spec_message = convert::spec_to(&spec);
    let container = Some(proto::ContainerId { group: 7, index: 3 });
    let attempt = Some(proto::Attempt { number: 1, nonce: 9 });
    let start = proto::Start {
        container,
        attempt,
        spec: convert::spec_hash_to(spec.hash()),
        gpus: vec![proto::GpuGrant { device: 0, milli: 500 }],
    };
    let entry = proto::SpecEntry { hash: convert::spec_hash_to(spec.hash()), spec: Some(spec_message.clone()) };
    let starts = proto::Starts { specs: vec![entry], starts: vec![start], ..proto::Starts::default() };
    let to_worker = proto::ToWorker { message: Some(to_worker::Message::Starts(starts)) };
    let report = proto::Report { container, attempt, progress: Some(proto::report::Progress::Running(true)) };
    let hello = proto::Hello {
        worker: "w".to_owned(),
        pool: "p".to_owned(),
        cpu_milli: 1_000,
        memory_bytes: 1 << 30,
        slots: 4,
        gpu_kinds: vec!["H100".to_owned()],
        inventory: vec![report],
        ..proto::Hello::default()
    };
    let from_worker = proto::FromWorker { message: Some(from_worker::Message::Hello(hello)) };
    let submit = proto::SubmitRequest { specs: vec![spec_message], count: Some(3), ..proto::SubmitRequest::default() };
    (from_worker.encode_to_vec(), to_worker.encode_to_vec(), submit.encode_to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_json(&bytes);
        read_from_worker(&bytes);
        read_to_worker(&bytes);
        read_submit(&bytes);
    }

    #[test]
    fn any_json_is_a_submission_or_names_its_mistake(value in values()) {
        read_json(value.to_string().as_bytes());
        let _ = body::spec_from("spec", value);
    }

    #[test]
    fn a_body_with_something_else_inside_is_read_or_refused(at in 0usize..40, new in values()) {
        let mut body = good_body();
        replace(&mut body, at, new);
        read_json(body.to_string().as_bytes());
    }

    #[test]
    fn mutated_bytes_are_read_or_refused(
        edits in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        cut in any::<Index>(),
    ) {
        read_json(&mutate(good_body().to_string().into_bytes(), &edits, cut));
        let (from_worker, to_worker, submit) = good_messages();
        read_from_worker(&mutate(from_worker, &edits, cut));
        read_to_worker(&mutate(to_worker, &edits, cut));
        read_submit(&mutate(submit, &edits, cut));
    }
}

#[test]
fn the_unmutated_ones_are_read() {
    assert!(body::submission_from(good_body().to_string().as_bytes(), TenantName::default(), None).is_ok());
    let (from_worker, to_worker, submit) = good_messages();
    assert!(proto::FromWorker::decode(&from_worker[..]).is_ok() && proto::ToWorker::decode(&to_worker[..]).is_ok());
    let submit = proto::SubmitRequest::decode(&submit[..]).expect("it was encoded");
    assert!(convert::body_from(submit).is_ok());
}

#[test]
fn nesting_without_end_is_refused() {
    let deep = "[".repeat(1 << 20);
    assert!(body::submission_from(deep.as_bytes(), TenantName::default(), None).is_err());
    // Groups in groups, as protobuf allows them in fields nobody knows.
    assert!(proto::SubmitRequest::decode(&vec![0x7b; 1 << 20][..]).is_err());
}
