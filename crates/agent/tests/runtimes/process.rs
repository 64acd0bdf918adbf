//! What only processes of the machine do.

use tokio::sync::mpsc;
use volley_agent::{KeptOptions, Launch, ProcessRuntime};
use volley_model::{GpuGrant, GpuMilli, Outcome, Spec, WorkerId};

use crate::bed::{Bed, CONTAINER, Kind as _, Processes, launch};

async fn outcome_of(spec: Spec) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    Bed::with::<Processes>(dir.path(), spec).outcome().await
}

#[tokio::test]
async fn a_signal_is_told() {
    let killed = outcome_of(Spec::of_command("sh", &["-c", "kill -9 $$"])).await;
    assert_eq!(killed, Outcome::Exited { code: 137, signal: Some(9) });
}

#[tokio::test]
async fn a_working_directory_that_is_not_there_and_an_image_are_refused() {
    let mut spec = Spec::of_command("true", &[]);
    spec.working_dir = Some("/no/such/folder".to_owned());
    let failed = outcome_of(spec.clone()).await;
    assert!(matches!(&failed, Outcome::Failed { reason } if reason.contains("is not there")), "{failed:?}");
    spec.image = Some("busybox".to_owned());
    let failed = outcome_of(spec).await;
    assert!(matches!(&failed, Outcome::Failed { reason } if reason.contains("not images")), "{failed:?}");
}

#[tokio::test]
async fn devices_are_named_in_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::new::<Processes>(dir.path());
    let gpus = [1, 3].map(|device| GpuGrant { device, milli: GpuMilli(1000) }).to_vec();
    let spec = Processes::spec(dir.path(), "echo $CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES");
    bed.runtime.start(Launch { gpus, ..launch(spec) });
    bed.outcome().await;
    assert_eq!(bed.printed(false), "1,3 1,3\n");
}

#[tokio::test]
async fn a_folder_has_one_worker_and_strangers_in_it_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, _receiver) = mpsc::unbounded_channel();
    let first = Bed::new::<Processes>(dir.path());
    let worker = WorkerId::new("w2").unwrap();
    let options = KeptOptions { worker, state_dir: dir.path().to_owned(), keeper: Vec::new() };
    let error = ProcessRuntime::new(options, sender).unwrap_err().to_string();
    assert!(error.contains("another worker uses"), "{error}");
    std::fs::create_dir(dir.path().join("stranger")).unwrap();
    std::fs::write(dir.path().join("a-file"), b"x").unwrap();
    let half = dir.path().join(format!("{CONTAINER}.1"));
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("launch.json"), b"{\"worker\":").unwrap();
    assert!(first.runtime.adopt().unwrap().is_empty());
    assert!(!half.exists() && dir.path().join("a-file").exists() && dir.path().join("stranger").exists());
}
