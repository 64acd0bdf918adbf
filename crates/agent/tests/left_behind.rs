//! What an earlier life of a worker left on its disk, damaged: it is taken over or passed over,
//! and never ends the worker.

use std::fs;

use proptest::prelude::*;
use proptest::sample::Index;
use volley_agent::{ProcessOptions, ProcessRuntime, Runtime};
use volley_model::WorkerId;

const FILES: &[&str] = &["launch.json", "running.json", "end.json", "how.json", "engine.json", "lock", "orders"];

/// As the worker writes them, so that a mutation gets past the first check. The process is none that can exist.
const TEXTS: &[&str] = &[
    r#"{"pid":2147483000,"started":1}"#,
    r#"{"Exited":{"code":0,"signal":null}}"#,
    r#"{"exited":{"code":0,"signal":null}}"#,
    r#""Lost""#,
    "{}",
    "[]",
    "",
];

fn contents() -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<Index>(), any::<u8>()), 0..3);
    let text = (prop::sample::select(TEXTS), edits).prop_map(|(text, edits)| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte) in edits {
            if !bytes.is_empty() && !byte.is_ascii_digit() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    });
    prop_oneof![3 => text, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("0000000000001-0.1".to_owned()),
        1 => "[0-9a-z]{13}-[0-9]{1,12}\\.[0-9]{1,12}",
        1 => "[a-z0-9.-]{1,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn folders_of_attempts_are_adopted_or_passed_over(
        folders in prop::collection::vec(
            (names(), prop::collection::vec((prop::sample::select(FILES), contents()), 0..5)),
            0..4,
        ),
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, files) in folders {
            let folder = dir.path().join(name);
            if fs::create_dir_all(&folder).is_err() {
                continue;
            }
            for (name, bytes) in files {
                // Of two with one name the later counts.
                let _ = fs::write(folder.join(name), bytes);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let (told, _happened) = tokio::sync::mpsc::unbounded_channel();
        let options = ProcessOptions {
            worker: WorkerId::new("w").expect("a good name"),
            state_dir: dir.path().to_owned(),
            keeper: vec!["false".to_owned()],
        };
        let kept = ProcessRuntime::new(options, told).expect("its folder can be used");
        // Whether there is something to take over or an error: no panic.
        let _ = kept.adopt();
    }
}
