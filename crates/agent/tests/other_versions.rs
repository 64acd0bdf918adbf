//! A worker and servers of other versions: it parts from what it does not speak, with the reason,
//! and takes the one of several that it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use volley_agent::{Inbound, KeptOptions, Link, Opening, ProcessRuntime, WorkerError, WorkerOptions};
use volley_model::{Bytes, Capacity, CpuMilli, Epoch, PoolName, Worker, WorkerId};
use volley_wire::access::ServerAccess;
use volley_wire::proto::{self, to_worker};

/// Servers that answer a hello in these versions, one after another.
struct Servers {
    versions: Vec<u32>,
    asked: AtomicUsize,
}

impl Link for Servers {
    fn open(&self, _out: mpsc::Receiver<proto::FromWorker>) -> Opening<'_> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let protocol = self.versions[asked % self.versions.len()];
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(1);
            let epoch = Some(proto::Epoch { number: 1, nonce: 1 });
            let welcome = proto::Welcome { epoch, lease_ms: 60_000, protocol, ..proto::Welcome::default() };
            let welcome = proto::ToWorker { message: Some(to_worker::Message::Welcome(welcome)) };
            sender.try_send(Ok(welcome)).expect("there is room");
            // The stream stays open.
            tokio::spawn(async move { sender.closed().await });
            Ok(Box::pin(ReceiverStream::new(receiver)) as Inbound)
        })
    }

    fn servers(&self) -> usize {
        self.versions.len()
    }
}

/// What becomes of a worker of these servers: the epoch it got, or why it gave up.
async fn attached(versions: &[u32]) -> Result<Epoch, WorkerError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let worker = Worker {
        id: WorkerId::new("w").expect("a good name"),
        pool: PoolName::default(),
        labels: Default::default(),
        capacity: Capacity { cpu: CpuMilli(1000), memory: Bytes(1 << 30), slots: 1, gpus: Vec::new() },
        notes: Vec::new(),
    };
    let (told, happened) = mpsc::unbounded_channel();
    let kept = KeptOptions {
        worker: worker.id.clone(),
        state_dir: dir.path().to_owned(),
        keeper: vec![env!("CARGO_BIN_EXE_volley-test-keeper").to_owned()],
    };
    let runtime = Arc::new(ProcessRuntime::new(kept, told).expect("the folder is ours"));
    let (sender, mut attached) = mpsc::unbounded_channel();
    let options = WorkerOptions {
        server: ServerAccess::open("http://127.0.0.1:1"),
        worker,
        epoch_file: None,
        attached: Some(sender),
        metrics: Arc::default(),
    };
    let link = Servers { versions: versions.to_vec(), asked: AtomicUsize::new(0) };
    let (_shutdown, asked) = watch::channel(0);
    let life = volley_agent::run_over(&link, options, runtime, happened, asked);
    tokio::select! {
        ended = life => Err(ended.expect_err("nobody asked it to end")),
        epoch = attached.recv() => Ok(epoch.expect("it lives")),
    }
}

#[tokio::test]
async fn a_server_that_answers_in_a_version_that_is_not_spoken_is_left_with_the_reason() {
    let refused = tokio::time::timeout(Duration::from_secs(60), attached(&[7])).await.expect("it gives up");
    let words = refused.expect_err("it does not speak 7").to_string();
    assert!(words.contains("the server speaks version 7"), "{words}");
    assert!(words.ends_with("update the worker"), "{words}");
}

#[tokio::test]
async fn of_servers_of_several_versions_the_one_that_is_spoken_is_taken() {
    let taken = tokio::time::timeout(Duration::from_secs(60), attached(&[7, 1])).await.expect("it attaches");
    assert_eq!(taken.expect("one of them will do").number, 1);
    let silent = tokio::time::timeout(Duration::from_secs(60), attached(&[0])).await.expect("it attaches");
    assert_eq!(silent.expect("a server from before versions were said").number, 1);
}
