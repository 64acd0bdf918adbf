//! Many containers at once, and what an image says about how to run it.

use std::path::Path;

use serde_json::json;
use volley_agent::{Happened, Launch};
use volley_model::{ContainerId, Millis, Outcome};

use crate::bed::{ATTEMPT, Bed, CONTAINER, Containers, Kind as _, STOPPED, launch, nothing_left, run};
use crate::image::{Image, Pack, busybox_layer, config};

const GOOD: Outcome = Outcome::Exited { code: 0, signal: None };

#[tokio::test]
async fn the_command_and_environment_are_the_images_unless_the_spec_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let mut own = Containers::spec(dir.path(), "");
    (own.command, own.args) = (String::new(), Vec::new());
    assert_eq!(run(dir.path(), own.clone()).await, ("from the image\n".to_owned(), GOOD));

    let mut config = config();
    config["config"] =
        json!({ "Entrypoint": ["echo", "entry"], "Cmd": ["image"], "WorkingDir": "/etc", "User": "ann" });
    let image = Image::new(config, &[(busybox_layer(), Pack::Zstd)]).layout(&dir.path().join("image"));
    own.image = Some(image);
    let in_new_folder = async |spec| {
        let dir = dir.path().join("state");
        std::fs::create_dir_all(&dir).unwrap();
        run_in(&dir, spec).await
    };
    assert_eq!(in_new_folder(own.clone()).await, "entry image\n");
    own.args = vec!["spec".to_owned()];
    assert_eq!(in_new_folder(own.clone()).await, "entry spec\n");
    (own.command, own.args) = ("sh".to_owned(), vec!["-c".to_owned(), "pwd; id -u".to_owned()]);
    assert_eq!(in_new_folder(own).await, "/etc\n1000\n");
}

/// Runs it with the fixtures of the folder above.
async fn run_in(dir: &Path, mut spec: volley_model::Spec) -> String {
    spec.sandbox.mounts.clear();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut images = crate::bed::image_options(dir);
    images.roots.push(dir.parent().unwrap().to_owned());
    let mut kept = crate::bed::kept_options(dir);
    kept.worker = crate::bed::worker_of(dir.parent().unwrap());
    let options = volley_agent::OciOptions {
        kept,
        engine: volley_agent::Engine::find("runc").unwrap(),
        images: volley_agent::image::Images::open(images).unwrap(),
        mount_roots: Vec::new(),
        host_network: false,
        pids_max: 100,
        cdi_dirs: Vec::new(),
    };
    let runtime = std::sync::Arc::new(volley_agent::OciRuntime::new(options, sender).unwrap());
    let mut bed = Bed { runtime, receiver };
    bed.runtime.start(launch(spec));
    let outcome = bed.outcome().await;
    assert_eq!(outcome, GOOD);
    bed.runtime.forget(CONTAINER, ATTEMPT);
    let printed = bed.printed(false);
    drop(bed);
    nothing_left(dir.parent().unwrap()).await;
    printed
}

#[tokio::test]
async fn a_hundred_run_side_by_side_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new::<Containers>(dir.path());
    for index in 0..100 {
        let container = ContainerId { index, ..CONTAINER };
        bed.runtime.start(Launch { container, ..launch(Containers::spec(dir.path(), "exit 4")) });
    }
    let mut ended = 0;
    while ended < 100 {
        if let Happened::Ended(outcome) = bed.next().await {
            assert_eq!(outcome, Outcome::Exited { code: 4, signal: None });
            ended += 1;
        }
    }
    nothing_left(dir.path()).await;
}

#[tokio::test]
async fn the_images_stop_signal_is_what_asks_it_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config["config"] = json!({ "StopSignal": "SIGUSR1" });
    let image = Image::new(config, &[(busybox_layer(), Pack::Plain)]).layout(&dir.path().join("image"));
    let mut spec =
        Containers::spec(dir.path(), "trap 'echo usr1; exit 0' USR1; echo here; while :; do sleep 0.01; done");
    spec.image = Some(image);
    let mut bed = Bed::with::<Containers>(dir.path(), spec);
    bed.line().await;
    assert!(bed.runtime.stop(CONTAINER, ATTEMPT, Millis::from_secs(1000)));
    assert_eq!(bed.outcome().await, STOPPED);
    assert_eq!(bed.printed(false), "here\nusr1\n");
    nothing_left(dir.path()).await;
}

#[tokio::test]
async fn another_program_runs_in_it_with_its_user_and_limits_and_what_it_uses_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = Containers::spec(dir.path(), "echo here; sleep 1000");
    spec.sandbox.user = Some("ann".to_owned());
    let mut bed = Bed::with::<Containers>(dir.path(), spec);
    bed.line().await;
    let words = ["sh", "-c", "id -u; cat; cat /proc/1/cmdline | tr '\\0' ' '; grep Seccomp: /proc/self/status; exit 9"];
    let mut command = bed.runtime.exec(CONTAINER, 1, &words.map(str::to_owned)).unwrap();
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"input\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    // The shell has become its last command.
    let first = "sleep 1000";
    assert_eq!((printed, output.status.code()), (format!("1000\ninput\n{first} Seccomp:\t2\n"), Some(9)));
    let usage = bed.runtime.usage(CONTAINER, 1).unwrap().unwrap();
    assert!(usage.cpu_us > 0 && usage.memory.0 > 0 && usage.memory_peak >= usage.memory, "{usage:?}");
    assert!(bed.runtime.stop(CONTAINER, ATTEMPT, Millis(0)));
    bed.outcome().await;
    let usage = bed.runtime.usage(CONTAINER, 1).unwrap().unwrap();
    assert!(usage.cpu_us > 0 && usage.memory.0 == 0 && usage.memory_peak.0 > 0, "{usage:?}");
    assert!(bed.runtime.exec(CONTAINER, 1, &["true".to_owned()]).unwrap_err().contains("not run here any more"));
    nothing_left(dir.path()).await;
}
