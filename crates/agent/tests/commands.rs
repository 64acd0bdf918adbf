//! The process runtime against real commands.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use volley_agent::{Happened, Launch, ProcessOptions, ProcessRuntime};
use volley_model::{Attempt, Bytes, ContainerId, GroupId, Millis, Nonce, Outcome, Spec, StopCause, WorkerId};

const CONTAINER: ContainerId = ContainerId { group: GroupId(1), index: 0 };
const ATTEMPT: Attempt = Attempt { number: 1, nonce: Nonce(9) };

type Receiver = mpsc::UnboundedReceiver<(ContainerId, Attempt, Happened)>;

fn start(dir: &Path, spec: Spec) -> (ProcessRuntime, Receiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let options = ProcessOptions { worker: WorkerId::new("w1").unwrap(), state_dir: dir.to_owned() };
    let runtime = ProcessRuntime::new(options, sender).unwrap();
    runtime.start(Launch { container: CONTAINER, attempt: ATTEMPT, spec: Arc::new(spec), gpus: Vec::new() });
    (runtime, receiver)
}

async fn outcome(receiver: &mut Receiver) -> Outcome {
    loop {
        if let (_, _, Happened::Ended(outcome)) = receiver.recv().await.unwrap() {
            return outcome;
        }
    }
}

fn shell(script: &str) -> Spec {
    Spec::of_command("sh", &["-c", script])
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
    let mut spec = shell("echo $VOLLEY_CONTAINER_ID $VOLLEY_ATTEMPT $VOLLEY_WORKER $MINE; echo bad >&2");
    spec.env.insert("MINE".to_owned(), "yes".to_owned());
    let (runtime, mut receiver) = start(dir.path(), spec);
    outcome(&mut receiver).await;
    let (stdout, stderr) = runtime.output(CONTAINER, 1).unwrap();
    assert_eq!(String::from_utf8(stdout).unwrap(), format!("{CONTAINER} 1 w1 yes\n"));
    assert_eq!(stderr, b"bad\n");
}

#[tokio::test]
async fn output_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell("yes | head -c 1000000");
    spec.log_limit = Bytes(4096);
    let (runtime, mut receiver) = start(dir.path(), spec);
    outcome(&mut receiver).await;
    let kept = runtime.output(CONTAINER, 1).unwrap().0.len();
    assert!((1024..=2048).contains(&kept), "{kept}");
}

#[tokio::test]
async fn a_stop_asks_first_and_kills_the_whole_group_after_the_grace() {
    for grace in [Millis(0), Millis(50)] {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, mut receiver) = start(dir.path(), shell("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000"));
        let child = loop {
            let printed = String::from_utf8(runtime.output(CONTAINER, 1).unwrap().0).unwrap();
            if let Some(pid) = printed.strip_suffix('\n') {
                break pid.to_owned();
            }
            tokio::task::yield_now().await;
        };
        assert!(runtime.stop(CONTAINER, ATTEMPT, grace));
        assert_eq!(outcome(&mut receiver).await, Outcome::Stopped { by: StopCause::Client });
        // The kernel ends a killed process in its own time; one that lives on is waited for until the run is ended.
        let gone = || std::fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z"));
        while !gone() {
            tokio::task::yield_now().await;
        }
        assert!(!runtime.stop(CONTAINER, ATTEMPT, grace), "it is gone");
    }
}
