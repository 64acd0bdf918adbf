//! What every runtime must do. Each function is a test of each kind of runtime.

use std::path::Path;

use tempfile::TempDir;
use volley_agent::{Happened, Launch, limits_notes};
use volley_model::{Bytes, ContainerId, Millis, Outcome, Progress};

use crate::bed::{
    ATTEMPT, Bed, CONTAINER, Containers, Kind, Processes, STOPPED, launch, nothing_left, processes, shared, until,
};

macro_rules! for_all_runtimes {
    ($($test:ident),* $(,)?) => {
        mod processes {
            use super::*;
            $(#[tokio::test] async fn $test() { super::$test::<Processes>(folder().path()).await; })*
        }
        mod containers {
            use super::*;
            $(#[tokio::test] async fn $test() { super::$test::<Containers>(folder().path()).await; })*
        }
    };
}

for_all_runtimes!(
    exit_codes_and_signals,
    what_cannot_run_fails_with_a_remedy,
    output_and_environment,
    output_is_bounded,
    a_stop_asks_first_and_kills_all_of_it_after_the_grace,
    a_command_that_ends_when_asked_is_not_killed,
    a_stop_before_the_keeper_is_there_is_not_lost,
    what_leaves_its_session_ends_with_it,
    more_memory_than_the_limit_ends_it_and_says_so,
    a_keeper_that_is_killed_is_a_loss_and_leaves_nothing_running,
    a_keeper_that_begins_afresh_loses_nothing,
    the_next_life_adopts_what_runs_and_what_has_ended,
    an_adopted_container_can_be_stopped,
);

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn exited(code: i32, signal: Option<i32>) -> Outcome {
    Outcome::Exited { code, signal }
}

/// A command that runs for very long, and can be told from all others.
fn long(dir: &Path) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    format!("sleep {}", 1_000_000_000 + hasher.finish() % 1_000_000_000)
}

async fn exit_codes_and_signals<K: Kind>(dir: &Path) {
    // The first process of a container is not killed by its own signals; its parent's word counts.
    for (script, expected) in [("true", exited(0, None)), ("exit 7", exited(7, None))] {
        let mut bed = Bed::with::<K>(dir, K::spec(dir, script));
        assert_eq!(bed.outcome().await, expected, "{script}");
        bed.runtime.forget(CONTAINER, ATTEMPT);
        drop(bed);
        nothing_left(dir).await;
    }
}

async fn what_cannot_run_fails_with_a_remedy<K: Kind>(dir: &Path) {
    for (command, words) in
        [("no-such-command-here", ["was not found", "is not in image"]), ("/etc/passwd", ["may not be executed"; 2])]
    {
        let mut spec = K::spec(dir, "true");
        spec.command = command.to_owned();
        let mut bed = Bed::with::<K>(dir, spec);
        match bed.outcome().await {
            Outcome::Failed { reason } => assert!(words.iter().any(|words| reason.contains(words)), "{reason}"),
            other => panic!("{command}: {other:?}"),
        }
        bed.runtime.forget(CONTAINER, ATTEMPT);
        drop(bed);
        nothing_left(dir).await;
    }
}

async fn output_and_environment<K: Kind>(dir: &Path) {
    let mut spec = K::spec(dir, "echo $VOLLEY_CONTAINER_ID $VOLLEY_ATTEMPT $VOLLEY_WORKER $MINE; echo bad >&2");
    spec.env.insert("MINE".to_owned(), "yes".to_owned());
    let mut bed = Bed::with::<K>(dir, spec);
    assert_eq!(bed.next().await, Happened::Running);
    bed.outcome().await;
    assert_eq!(bed.printed(false), format!("{CONTAINER} 1 {} yes\n", crate::bed::worker_of(dir)));
    assert_eq!(bed.printed(true), "bad\n");
    assert!(bed.runtime.ended(CONTAINER, 1));
    nothing_left(dir).await;
}

async fn output_is_bounded<K: Kind>(dir: &Path) {
    let mut spec = K::spec(dir, "yes | head -c 1000000");
    spec.log_limit = Bytes(4096);
    let mut bed = Bed::with::<K>(dir, spec);
    bed.outcome().await;
    let kept = bed.runtime.output(CONTAINER, 1, false, 0, usize::MAX).unwrap();
    assert!((1024..=2048).contains(&kept.bytes.len()), "{}", kept.bytes.len());
    assert_eq!(kept.next, 1_000_000, "places count what went, too");
}

async fn a_stop_asks_first_and_kills_all_of_it_after_the_grace<K: Kind>(dir: &Path) {
    let long = long(dir);
    for grace in [Millis(0), Millis(50)] {
        let script = format!("trap '' TERM; {long} & echo here; wait; {long}");
        let mut bed = Bed::with::<K>(dir, K::spec(dir, &script));
        bed.line().await;
        assert!(bed.runtime.stop(CONTAINER, ATTEMPT, grace));
        assert_eq!(bed.outcome().await, STOPPED);
        until("the end of its child", || processes(&long).is_empty()).await;
        assert!(!bed.runtime.stop(CONTAINER, ATTEMPT, grace), "it is gone");
        bed.runtime.forget(CONTAINER, ATTEMPT);
        drop(bed);
        nothing_left(dir).await;
    }
}

async fn a_command_that_ends_when_asked_is_not_killed<K: Kind>(dir: &Path) {
    let script = "trap 'echo bye; exit 0' TERM; echo here; while :; do sleep 0.01; done";
    let mut bed = Bed::with::<K>(dir, K::spec(dir, script));
    bed.line().await;
    assert!(bed.runtime.stop(CONTAINER, ATTEMPT, Millis::from_secs(1000)));
    assert_eq!(bed.outcome().await, STOPPED);
    assert_eq!(bed.printed(false), "here\nbye\n");
}

async fn a_stop_before_the_keeper_is_there_is_not_lost<K: Kind>(dir: &Path) {
    let mut bed = Bed::with::<K>(dir, K::spec(dir, &long(dir)));
    assert!(bed.runtime.stop(CONTAINER, ATTEMPT, Millis(0)));
    assert_eq!(bed.outcome().await, STOPPED);
    nothing_left(dir).await;
}

async fn what_leaves_its_session_ends_with_it<K: Kind>(dir: &Path) {
    if !limits_notes().is_empty() {
        // Where there are no control groups there is nothing to hold it by; `volley workers` says so.
        return;
    }
    let long = long(dir);
    let mut spec = K::spec(dir, &format!("setsid {long} & echo here; wait"));
    spec.resources.memory = Bytes(64 << 20);
    let mut bed = Bed::with::<K>(dir, spec);
    bed.line().await;
    until("its child", || !processes(&long).is_empty()).await;
    assert!(bed.runtime.stop(CONTAINER, ATTEMPT, Millis(0)));
    bed.outcome().await;
    until("the end of its child", || processes(&long).is_empty()).await;
    nothing_left(dir).await;
}

async fn more_memory_than_the_limit_ends_it_and_says_so<K: Kind>(dir: &Path) {
    let mut spec = K::spec(dir, "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}");
    spec.resources.memory = Bytes(32 << 20);
    let mut bed = Bed::with::<K>(dir, spec);
    let found = bed.outcome().await;
    if limits_notes().iter().any(|note| note.starts_with("memory")) {
        assert_eq!(found, exited(0, None), "not enforced here, as the note says");
    } else {
        assert!(matches!(&found, Outcome::Failed { reason } if reason.contains("limit of 32Mi")), "{found:?}");
    }
    nothing_left(dir).await;
}

async fn a_keeper_that_is_killed_is_a_loss_and_leaves_nothing_running<K: Kind>(dir: &Path) {
    let long = long(dir);
    let mut bed = Bed::with::<K>(dir, K::spec(dir, &format!("echo here; {long}")));
    bed.line().await;
    let keepers = processes(&format!("volley-test-keeper {}", dir.display()));
    assert_eq!(keepers.len(), 1);
    let killed = std::process::Command::new("kill").args(["-9", &keepers[0].to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(bed.outcome().await, Outcome::Lost);
    until("the end of its command", || processes(&long).is_empty()).await;
    nothing_left(dir).await;
}

/// As after a kill -9 of the worker: all its tasks are gone, its keepers live on. The work of a life is done in a
/// thread of its own, for a test's thread has a life of tasks already.
pub fn life<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let life = scope.spawn(|| {
            let tasks = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            tasks.block_on(work())
        });
        life.join().unwrap()
    })
}

async fn the_next_life_adopts_what_runs_and_what_has_ended<K: Kind>(dir: &Path) {
    let flag = shared(dir).join("go");
    let script = format!("echo started; until test -e {}; do sleep 0.01; done; exit 5", flag.display());
    let second = ContainerId { index: 1, ..CONTAINER };
    life(async || {
        let mut bed = Bed::with::<K>(dir, K::spec(dir, &script));
        bed.runtime.start(Launch { container: second, ..launch(K::spec(dir, "exit 3")) });
        while bed.receiver.recv().await.unwrap() != (second, ATTEMPT, Happened::Ended(exited(3, None))) {}
        bed.line().await;
    });
    life(async || {
        let mut bed = Bed::new::<K>(dir);
        let mut left = bed.runtime.adopt().unwrap();
        left.sort_by_key(|left| left.launch.container);
        let found: Vec<_> = left.iter().map(|left| (left.launch.container, left.progress.clone())).collect();
        assert_eq!(found, [(CONTAINER, Progress::Running), (second, Progress::Ended(exited(3, None)))]);
        assert!(!bed.runtime.ended(CONTAINER, 1) && bed.runtime.ended(second, 1));
        bed.runtime.forget(second, ATTEMPT);
        std::fs::write(&flag, b"").unwrap();
        assert_eq!(bed.outcome().await, exited(5, None));
        assert_eq!(bed.printed(false), "started\n");
        bed.runtime.forget(CONTAINER, ATTEMPT);
    });
    nothing_left(dir).await;
    life(async || {
        assert!(Bed::new::<K>(dir).runtime.adopt().unwrap().is_empty(), "what is acknowledged is not told again");
    });
}

/// A keeper that executes its program again holds what it held: lock, output, orders, and its child.
async fn a_keeper_that_begins_afresh_loses_nothing<K: Kind>(dir: &Path) {
    let flag = shared(dir).join("go");
    let waits = format!("echo one; echo two >&2; until test -e {}; do sleep 0.01; done", flag.display());
    let second = ContainerId { index: 1, ..CONTAINER };
    life(async || {
        let bed = Bed::with::<K>(dir, K::spec(dir, &format!("{waits}; echo three; exit 7")));
        let stopped = format!("trap 'echo bye; exit 0' TERM; {waits}");
        bed.runtime.start(Launch { container: second, ..launch(K::spec(dir, &stopped)) });
        for container in [CONTAINER, second] {
            let attempt = format!("{}/{container}.1", dir.display());
            until("a keeper that began afresh", || {
                let running = std::fs::read(format!("{attempt}/running.json")).unwrap_or_default();
                let running: serde_json::Value = serde_json::from_slice(&running).unwrap_or_default();
                !processes(&format!("{attempt} {} ", running["pid"])).is_empty()
            })
            .await;
        }
    });
    life(async || {
        let mut bed = Bed::new::<K>(dir);
        let left = bed.runtime.adopt().unwrap();
        assert!(left.len() == 2 && left.iter().all(|left| left.progress == Progress::Running), "{left:?}");
        assert!(bed.runtime.stop(second, ATTEMPT, Millis::from_secs(1000)));
        while bed.receiver.recv().await.unwrap() != (second, ATTEMPT, Happened::Ended(STOPPED)) {}
        let output = bed.runtime.output(second, 1, false, 0, usize::MAX).unwrap();
        assert_eq!(output.bytes, b"one\nbye\n");
        std::fs::write(&flag, b"").unwrap();
        assert_eq!(bed.outcome().await, exited(7, None));
        assert_eq!((bed.printed(false).as_str(), bed.printed(true).as_str()), ("one\nthree\n", "two\n"));
    });
    nothing_left(dir).await;
}

/// What the next life adopts it can stop, too.
async fn an_adopted_container_can_be_stopped<K: Kind>(dir: &Path) {
    life(async || {
        let bed = Bed::with::<K>(dir, K::spec(dir, &format!("echo here; {}", long(dir))));
        bed.line().await;
    });
    life(async || {
        let mut bed = Bed::new::<K>(dir);
        assert_eq!(bed.runtime.adopt().unwrap().len(), 1);
        assert!(bed.runtime.stop(CONTAINER, ATTEMPT, Millis(0)));
        assert_eq!(bed.outcome().await, STOPPED);
    });
    nothing_left(dir).await;
}
