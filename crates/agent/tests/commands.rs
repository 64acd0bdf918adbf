//! The process runtime against real commands and real keepers.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use volley_agent::{Happened, Launch, ProcessOptions, ProcessRuntime, Runtime, limits_notes};
use volley_model::{
    Attempt, Bytes, ContainerId, GpuGrant, GpuMilli, GroupId, Millis, Nonce, Outcome, Progress, Spec, StopCause,
    WorkerId,
};

const CONTAINER: ContainerId = ContainerId { group: GroupId(1), index: 0 };
const ATTEMPT: Attempt = Attempt { number: 1, nonce: Nonce(9) };
const STOPPED: Outcome = Outcome::Stopped { by: StopCause::Client };

type Receiver = mpsc::UnboundedReceiver<(ContainerId, Attempt, Happened)>;

/// A name for each test's own folder: control groups are named after worker and container, and tests run side by side.
fn worker_of(dir: &Path) -> WorkerId {
    let name = dir.file_name().unwrap().to_string_lossy();
    WorkerId::new(&format!("w{}", name.trim_start_matches('.'))).unwrap()
}

fn runtime(dir: &Path) -> (ProcessRuntime, Receiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let options = ProcessOptions {
        worker: worker_of(dir),
        state_dir: dir.to_owned(),
        keeper: vec![env!("CARGO_BIN_EXE_volley-test-keeper").to_owned()],
    };
    (ProcessRuntime::new(options, sender).unwrap(), receiver)
}

fn launch(spec: Spec) -> Launch {
    Launch { container: CONTAINER, attempt: ATTEMPT, spec: Arc::new(spec), gpus: Vec::new() }
}

fn start(dir: &Path, spec: Spec) -> (ProcessRuntime, Receiver) {
    let (runtime, receiver) = runtime(dir);
    assert!(runtime.adopt().unwrap().is_empty());
    runtime.start(launch(spec));
    (runtime, receiver)
}

async fn next(receiver: &mut Receiver) -> Happened {
    receiver.recv().await.unwrap().2
}

async fn outcome(receiver: &mut Receiver) -> Outcome {
    loop {
        if let Happened::Ended(outcome) = next(receiver).await {
            return outcome;
        }
    }
}

fn shell(script: &str) -> Spec {
    Spec::of_command("sh", &["-c", script])
}

fn printed(runtime: &ProcessRuntime, stderr: bool) -> String {
    let output = runtime.output(CONTAINER, 1, stderr, 0, usize::MAX).unwrap();
    String::from_utf8(output.bytes).unwrap()
}

/// Waits for a whole line of output.
async fn line(runtime: &ProcessRuntime) -> String {
    loop {
        if let Some(line) = printed(runtime, false).strip_suffix('\n') {
            return line.to_owned();
        }
        tokio::task::yield_now().await;
    }
}

/// The kernel ends a killed process in its own time; one that lives on is waited for until the test run is ended.
async fn gone(pid: &str) {
    let alive = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
    while alive() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn exit_codes_signals_and_failures() {
    let exited = |code, signal| Outcome::Exited { code, signal };
    for (script, expected) in
        [("true", exited(0, None)), ("exit 7", exited(7, None)), ("kill -9 $$", exited(137, Some(9)))]
    {
        let dir = tempfile::tempdir().unwrap();
        let (_runtime, mut receiver) = start(dir.path(), shell(script));
        assert_eq!(outcome(&mut receiver).await, expected, "{script}");
    }
    let plain = tempfile::NamedTempFile::new().unwrap();
    let plain = plain.path().to_str().unwrap();
    for (command, working_dir, words) in [
        ("no-such-command-here", None, "was not found"),
        (plain, None, "may not be executed"),
        ("true", Some("/no/such/folder"), "is not there"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec::of_command(command, &[]);
        spec.working_dir = working_dir.map(str::to_owned);
        let (_runtime, mut receiver) = start(dir.path(), spec);
        match outcome(&mut receiver).await {
            Outcome::Failed { reason } => assert!(reason.contains(words), "{reason}"),
            other => panic!("{command}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn output_and_environment() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo $VOLLEY_CONTAINER_ID $VOLLEY_ATTEMPT $VOLLEY_WORKER $CUDA_VISIBLE_DEVICES $MINE; echo bad >&2";
    let mut spec = shell(script);
    spec.env.insert("MINE".to_owned(), "yes".to_owned());
    let (runtime, mut receiver) = runtime(dir.path());
    let gpus = [1, 3].map(|device| GpuGrant { device, milli: GpuMilli(1000) }).to_vec();
    runtime.start(Launch { gpus, ..launch(spec) });
    assert_eq!(next(&mut receiver).await, Happened::Running);
    outcome(&mut receiver).await;
    assert_eq!(printed(&runtime, false), format!("{CONTAINER} 1 {} 1,3 yes\n", worker_of(dir.path())));
    assert_eq!(printed(&runtime, true), "bad\n");
    assert!(runtime.ended(CONTAINER, 1));
}

#[tokio::test]
async fn output_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell("yes | head -c 1000000");
    spec.log_limit = Bytes(4096);
    let (runtime, mut receiver) = start(dir.path(), spec);
    outcome(&mut receiver).await;
    let kept = runtime.output(CONTAINER, 1, false, 0, usize::MAX).unwrap();
    assert!((1024..=2048).contains(&kept.bytes.len()), "{}", kept.bytes.len());
    assert_eq!(kept.next, 1_000_000, "places count what went, too");
}

#[tokio::test]
async fn a_stop_asks_first_and_kills_the_whole_group_after_the_grace() {
    for grace in [Millis(0), Millis(50)] {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, mut receiver) = start(dir.path(), shell("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000"));
        let child = line(&runtime).await;
        assert!(runtime.stop(CONTAINER, ATTEMPT, grace));
        assert_eq!(outcome(&mut receiver).await, STOPPED);
        gone(&child).await;
        assert!(!runtime.stop(CONTAINER, ATTEMPT, grace), "it is gone");
    }
}

#[tokio::test]
async fn a_command_that_ends_when_asked_is_not_killed() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'echo bye; exit 0' TERM; echo here; while :; do sleep 0.01; done";
    let (runtime, mut receiver) = start(dir.path(), shell(script));
    line(&runtime).await;
    assert!(runtime.stop(CONTAINER, ATTEMPT, Millis::from_secs(1000)));
    assert_eq!(outcome(&mut receiver).await, STOPPED);
    assert_eq!(printed(&runtime, false), "here\nbye\n");
}

#[tokio::test]
async fn a_stop_before_the_keeper_is_there_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, mut receiver) = start(dir.path(), shell("sleep 1000"));
    assert!(runtime.stop(CONTAINER, ATTEMPT, Millis(0)));
    assert_eq!(outcome(&mut receiver).await, STOPPED);
}

#[tokio::test]
async fn what_leaves_its_process_group_ends_with_its_control_group() {
    if !limits_notes().is_empty() {
        // Where there are no control groups there is nothing to hold it by; `volley workers` says so.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell("setsid sleep 1000 & echo $!; wait");
    spec.resources.memory = Bytes(64 << 20);
    let (runtime, mut receiver) = start(dir.path(), spec);
    let child = line(&runtime).await;
    assert!(runtime.stop(CONTAINER, ATTEMPT, Millis(0)));
    outcome(&mut receiver).await;
    gone(&child).await;
}

#[tokio::test]
async fn more_memory_than_the_limit_ends_it_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell("x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}");
    spec.resources.memory = Bytes(32 << 20);
    let (_runtime, mut receiver) = start(dir.path(), spec);
    let found = outcome(&mut receiver).await;
    if limits_notes().iter().any(|note| note.starts_with("memory")) {
        assert_eq!(found, Outcome::Exited { code: 0, signal: None }, "not enforced here, as the note says");
    } else {
        assert!(matches!(&found, Outcome::Failed { reason } if reason.contains("limit of 32Mi")), "{found:?}");
    }
}

/// As after a kill -9 of the worker: all its tasks are gone, its keepers live on.
#[test]
fn the_next_life_adopts_what_runs_and_what_has_ended() {
    let life = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("go");
    let script = format!("echo started; until test -e {}; do sleep 0.01; done; exit 5", flag.display());
    let short = Launch { container: ContainerId { index: 1, ..CONTAINER }, ..launch(shell("exit 3")) };
    let first = life();
    first.block_on(async {
        let (runtime, mut receiver) = start(dir.path(), shell(&script));
        runtime.start(short.clone());
        while receiver.recv().await.unwrap() != (short.container, ATTEMPT, Happened::Ended(exited(3))) {}
        line(&runtime).await;
    });
    drop(first);
    let second = life();
    second.block_on(async {
        let (runtime, mut receiver) = runtime(dir.path());
        let mut left = runtime.adopt().unwrap();
        left.sort_by_key(|left| left.launch.container);
        let found: Vec<_> = left.iter().map(|left| (left.launch.container, left.progress.clone())).collect();
        assert_eq!(found, [(CONTAINER, Progress::Running), (short.container, Progress::Ended(exited(3)))]);
        assert!(!runtime.ended(CONTAINER, 1) && runtime.ended(short.container, 1));
        runtime.forget(short.container, ATTEMPT);
        std::fs::write(&flag, b"").unwrap();
        assert_eq!(outcome(&mut receiver).await, exited(5));
        assert_eq!(printed(&runtime, false), "started\n");
        runtime.forget(CONTAINER, ATTEMPT);
    });
    drop(second);
    life().block_on(async {
        assert!(runtime(dir.path()).0.adopt().unwrap().is_empty(), "what is acknowledged is not told again");
    });
}

/// What the next life adopts it can stop, too.
#[test]
fn an_adopted_container_can_be_stopped() {
    let life = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let first = life();
    first.block_on(async {
        let (runtime, _receiver) = start(dir.path(), shell("echo here; sleep 1000"));
        line(&runtime).await;
    });
    drop(first);
    life().block_on(async {
        let (runtime, mut receiver) = runtime(dir.path());
        assert_eq!(runtime.adopt().unwrap().len(), 1);
        assert!(runtime.stop(CONTAINER, ATTEMPT, Millis(0)));
        assert_eq!(outcome(&mut receiver).await, STOPPED);
    });
}

fn exited(code: i32) -> Outcome {
    Outcome::Exited { code, signal: None }
}

#[tokio::test]
async fn a_keeper_that_is_killed_is_a_loss_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let (runtime, mut receiver) = start(dir.path(), shell("echo $PPID $$; sleep 1000"));
    let pids = line(&runtime).await;
    let (keeper, shell) = pids.split_once(' ').unwrap();
    let killed = std::process::Command::new("kill").args(["-9", keeper]).status().unwrap();
    assert!(killed.success());
    assert_eq!(outcome(&mut receiver).await, Outcome::Lost);
    gone(shell).await;
}

#[tokio::test]
async fn a_folder_has_one_worker_and_strangers_in_it_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, _receiver) = mpsc::unbounded_channel();
    let (first, _) = runtime(dir.path());
    let options =
        ProcessOptions { worker: WorkerId::new("w2").unwrap(), state_dir: dir.path().to_owned(), keeper: Vec::new() };
    let error = ProcessRuntime::new(options, sender).unwrap_err().to_string();
    assert!(error.contains("another worker uses"), "{error}");
    std::fs::create_dir(dir.path().join("stranger")).unwrap();
    std::fs::write(dir.path().join("a-file"), b"x").unwrap();
    let half = dir.path().join(format!("{CONTAINER}.1"));
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("launch.json"), b"{\"worker\":").unwrap();
    assert!(first.adopt().unwrap().is_empty());
    assert!(!half.exists() && dir.path().join("a-file").exists());
}
