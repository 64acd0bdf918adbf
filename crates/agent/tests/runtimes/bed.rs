//! What a test runs containers on: a runtime of either kind in a folder of its own, and the check
//! that nothing of it is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use volley_agent::image::{ImageOptions, Images, RegistryOptions};
use volley_agent::{Engine, Happened, KeptOptions, Launch, OciOptions, OciRuntime, PIDS_MAX, ProcessRuntime, Runtime};
use volley_model::{Attempt, Bytes, ContainerId, GroupId, Mount, Nonce, Outcome, Spec, StopCause, WorkerId};

use crate::image;

pub const CONTAINER: ContainerId = ContainerId { group: GroupId(1), index: 0 };
pub const ATTEMPT: Attempt = Attempt { number: 1, nonce: Nonce(9) };
pub const STOPPED: Outcome = Outcome::Stopped { by: StopCause::Client };
/// Whatever a test waits for comes within this, or never.
const PATIENCE: Duration = Duration::from_secs(60);

pub type Receiver = mpsc::UnboundedReceiver<(ContainerId, Attempt, Happened)>;
pub type Sender = mpsc::UnboundedSender<(ContainerId, Attempt, Happened)>;

/// A kind of runtime.
pub trait Kind {
    fn start(options: KeptOptions, dir: &Path, happened: Sender) -> Arc<dyn Runtime>;
    fn spec(dir: &Path, script: &str) -> Spec;
}

pub struct Processes;
pub struct Containers;

impl Kind for Processes {
    fn start(options: KeptOptions, _: &Path, happened: Sender) -> Arc<dyn Runtime> {
        Arc::new(ProcessRuntime::new(options, happened).unwrap())
    }

    fn spec(_: &Path, script: &str) -> Spec {
        Spec::of_command("sh", &["-c", script])
    }
}

impl Kind for Containers {
    fn start(options: KeptOptions, dir: &Path, happened: Sender) -> Arc<dyn Runtime> {
        Arc::new(OciRuntime::new(oci_options(options, dir), happened).unwrap())
    }

    fn spec(dir: &Path, script: &str) -> Spec {
        let mut spec = Spec::of_command("sh", &["-c", script]);
        spec.image = Some(image::busybox());
        let shared = shared(dir).display().to_string();
        spec.sandbox.mounts.push(Mount::Host { source: shared.clone(), target: shared, read_only: false });
        spec
    }
}

/// All that tests of images want to be different from the default.
pub fn oci_options(kept: KeptOptions, dir: &Path) -> OciOptions {
    OciOptions {
        kept,
        engine: Engine::find("runc").unwrap(),
        images: Images::open(image_options(dir)).unwrap(),
        mount_roots: vec![shared(dir)],
        host_network: false,
        pids_max: PIDS_MAX,
        cdi_dirs: vec![dir.join("cdi")],
    }
}

pub fn image_options(dir: &Path) -> ImageOptions {
    ImageOptions {
        dir: dir.join("images"),
        disk_max: Bytes(1 << 30),
        roots: vec![image::fixtures(), dir.to_owned()],
        downloads_max: 2,
        registry: RegistryOptions::default(),
    }
}

/// A folder that containers of either kind see under the same path.
pub fn shared(dir: &Path) -> PathBuf {
    let shared = dir.join("shared");
    fs::create_dir_all(&shared).unwrap();
    shared
}

/// A name for each test's own folder: control groups are named after worker and container, and tests run side by side.
pub fn worker_of(dir: &Path) -> WorkerId {
    let name = dir.file_name().unwrap().to_string_lossy();
    WorkerId::new(&format!("w{}", name.trim_start_matches('.'))).unwrap()
}

pub fn kept_options(dir: &Path) -> KeptOptions {
    KeptOptions {
        worker: worker_of(dir),
        state_dir: dir.to_owned(),
        keeper: vec![env!("CARGO_BIN_EXE_volley-test-keeper").to_owned()],
    }
}

/// One life of a runtime.
pub struct Bed {
    pub runtime: Arc<dyn Runtime>,
    pub receiver: Receiver,
}

impl Bed {
    pub fn new<K: Kind>(dir: &Path) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { runtime: K::start(kept_options(dir), dir, sender), receiver }
    }

    /// With a container that starts.
    pub fn with<K: Kind>(dir: &Path, spec: Spec) -> Self {
        let bed = Self::new::<K>(dir);
        assert!(bed.runtime.adopt().unwrap().is_empty());
        bed.runtime.start(launch(spec));
        bed
    }

    /// The next thing beside how far a start is.
    pub async fn next(&mut self) -> Happened {
        loop {
            match self.next_of_all().await {
                Happened::Waits(_) => {}
                other => return other,
            }
        }
    }

    pub async fn next_of_all(&mut self) -> Happened {
        tokio::time::timeout(PATIENCE, self.receiver.recv()).await.expect("something happens").unwrap().2
    }

    pub async fn outcome(&mut self) -> Outcome {
        loop {
            if let Happened::Ended(outcome) = self.next().await {
                return outcome;
            }
        }
    }

    pub fn printed(&self, stderr: bool) -> String {
        let output = self.runtime.output(CONTAINER, 1, stderr, 0, usize::MAX).unwrap();
        String::from_utf8(output.bytes).unwrap()
    }

    /// Waits for a whole line of output.
    pub async fn line(&self) -> String {
        let mut found = None;
        until("a line of output", || {
            found = self.printed(false).strip_suffix('\n').map(str::to_owned);
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}

pub fn launch(spec: Spec) -> Launch {
    Launch { container: CONTAINER, attempt: ATTEMPT, spec: Arc::new(spec), gpus: Vec::new() }
}

/// Runs a script in a container of the busybox image; what it printed and how it ended.
pub async fn run(dir: &Path, spec: Spec) -> (String, Outcome) {
    let mut bed = Bed::with::<Containers>(dir, spec);
    let outcome = bed.outcome().await;
    let printed = bed.printed(false) + &bed.printed(true);
    nothing_left(dir).await;
    (printed, outcome)
}

pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} was waited for in vain");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Numbers of the processes whose command line has this in it.
pub fn processes(text: &str) -> Vec<u32> {
    let has = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&words).replace('\0', " ").contains(text).then_some(id)
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(has).filter(|id| *id != std::process::id()).collect()
}

/// What a test's runtime has left on the machine.
fn left(dir: &Path) -> BTreeSet<String> {
    let path = dir.display().to_string();
    let mut left: BTreeSet<String> = processes(&path).iter().map(|id| format!("process {id}")).collect();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let mounts = fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        left.extend(mounts.lines().filter(|line| line.contains(&path)).map(|line| format!("mount {line}")));
    }
    let worker = worker_of(dir).to_string();
    for root in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let groups = fs::read_dir(root.path().join("volley")).into_iter().flatten().flatten();
        let ours = groups.filter(|group| group.file_name().to_string_lossy().starts_with(&worker));
        left.extend(ours.map(|group| format!("cgroup {}", group.path().display())));
    }
    for attempt in fs::read_dir(dir).unwrap().flatten() {
        for name in ["bundle", "runtime"] {
            let path = attempt.path().join(name);
            left.extend(path.exists().then(|| format!("folder {}", path.display())));
        }
    }
    let work = fs::read_dir(dir.join("images/work")).into_iter().flatten().flatten();
    left.extend(work.map(|entry| format!("folder {}", entry.path().display())));
    left
}

/// No process, mount, control group or file of a container of this runtime is there any more.
pub async fn nothing_left(dir: &Path) {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = left(dir);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left behind: {left:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
