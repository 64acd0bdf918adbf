//! The run: starts server and worker, lets bursts and bare loops take turns, and checks that what
//! came out is right before it becomes a figure.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use volley_agent::Engine;
use volley_model::{Bytes, CpuMilli, Spec};
use volley_wire::access::ServerAccess;
use volley_wire::client::{Client, ClientError};
use volley_wire::convert;
use volley_wire::proto::SubmitRequest;

use super::bare::Bare;
use super::figures::{Idle, Lone, OciCase, OciRun};
use super::{OciBench, OciError, OciPrograms, OciWorker, idle, image, unpacking};
use crate::Spread;
use crate::burst::clock::{self, Percentiles, rounded};
use crate::burst::load::Load;
use crate::burst::processes::{Process, ServerProcess};

/// Whatever is waited for comes within this, or never.
const PATIENCE: Duration = Duration::from_secs(120);
/// Most of a group, as the command line has it: one page.
const COUNT_MAX: usize = 1_000;
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// After the last start, before the idle worker is watched: what was begun is over.
const SETTLE: Duration = Duration::from_secs(2);
/// What sleeps does so for this long at most, whatever happens to the bench.
const SLEEP_S: &str = "1000";
/// Of each container.
const CPU: CpuMilli = CpuMilli(10);
const MEMORY: Bytes = Bytes(16 << 20);
/// The worker's name; its containers are told it.
const WORKER: &str = "bench-oci";

/// Asked to end with the bench, whatever happens: its containers go with it.
struct WorkerProcess(Process);

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Scene {
    worker: WorkerProcess,
    server: ServerProcess,
    http: Client,
    state: PathBuf,
    reference: String,
}

pub(super) async fn measure(
    options: &OciBench,
    programs: &dyn OciPrograms,
    progress: &mut impl FnMut(String),
) -> Result<OciRun, OciError> {
    let engine = Engine::find(&options.runtime)?;
    if !options.busybox.is_file() {
        return Err(OciError::NoBusybox(options.busybox.clone()));
    }
    let failed = OciError::own("a folder for the bench");
    let dir = tempfile::Builder::new().prefix("bench-oci").tempdir_in(&options.dir).map_err(&failed)?;
    let path = dir.path().canonicalize().map_err(&failed)?;
    let scene = Scene::start(options, &path, programs).await?;
    progress("the image is pulled".to_owned());
    let bare = scene.bare(&engine, &path).await?;
    progress(format!("{} containers sleep", options.containers));
    let idle = scene.idle(options).await?;
    let parallelism = fastest(&bare, options.containers, progress)?;
    let (mut pairs, mut starts) = (Vec::new(), Vec::new());
    let mut load = Load::connect(std::slice::from_ref(&scene.server.url)).await?;
    // The first pair warms.
    for number in 0..=options.repetitions.max(1) {
        let (wall, mut started) = scene.burst(&mut load, options.containers).await?;
        let bare_wall =
            bare.burst(options.containers, parallelism, &["true"]).map_err(OciError::own("the bare loop"))?;
        progress(format!("burst {number} of {}: {wall:.0} ms, bare {bare_wall:.0} ms", options.repetitions));
        if number > 0 {
            pairs.push((wall, bare_wall));
            starts.append(&mut started);
        }
    }
    drop(load);
    let lone = scene.lone(&bare, options.repetitions, progress).await?;
    scene.audit().await?;
    scene.end();
    progress("a layer is unpacked".to_owned());
    let unpacking = unpacking::measure(&path, options.repetitions).await?;
    let case = OciCase { containers: options.containers, runtime: engine.version().to_owned() };
    let start_ms = Percentiles::of(starts).ok_or_else(|| OciError::Wrong("nothing started".to_owned()))?;
    Ok(run_of(case, &pairs, parallelism, start_ms, (lone, idle, unpacking)))
}

/// The count of threads with which the bare loop is fastest.
fn fastest(bare: &Bare, containers: usize, progress: &mut impl FnMut(String)) -> Result<usize, OciError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut best = (1, f64::INFINITY);
    for threads in [1, cores, cores + 1, cores * 2, cores * 3, cores * 4] {
        let wall = bare.burst(containers, threads, &["true"]).map_err(OciError::own("the bare loop"))?;
        progress(format!("the bare loop in {threads} threads: {wall:.0} ms"));
        if wall < best.1 {
            best = (threads, wall);
        }
    }
    Ok(best.0)
}

fn run_of(
    case: OciCase,
    pairs: &[(f64, f64)],
    parallelism: usize,
    start_ms: Percentiles,
    (lone, idle, unpacking): (Lone, Idle, super::Unpacking),
) -> OciRun {
    let of = |figure: fn(&(f64, f64)) -> f64| Spread::of(&pairs.iter().map(figure).collect::<Vec<_>>());
    let (ratio, wall, bare) = (of(|pair| pair.0 / pair.1), of(|pair| pair.0), of(|pair| pair.1));
    OciRun {
        case,
        ratio: rounded(ratio.median),
        ratio_min: rounded(ratio.min),
        ratio_max: rounded(ratio.max),
        wall_ms: rounded(wall.median),
        wall_ms_min: rounded(wall.min),
        wall_ms_max: rounded(wall.max),
        bare_wall_ms: rounded(bare.median),
        bare_wall_ms_min: rounded(bare.min),
        bare_wall_ms_max: rounded(bare.max),
        parallelism,
        start_ms,
        lone,
        idle,
        unpacking,
        repetitions: pairs.len(),
    }
}

/// What comes within the bench's patience, or an error that names it.
pub(super) async fn within<T>(future: impl Future<Output = T>, what: &'static str) -> Result<T, OciError> {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.map_err(|_| OciError::Wrong(format!("{what} did not come within {} s", PATIENCE.as_secs())))
}

fn client_error(error: ClientError) -> OciError {
    OciError::Wrong(error.to_string())
}

impl Scene {
    async fn start(options: &OciBench, dir: &Path, programs: &dyn OciPrograms) -> Result<Self, OciError> {
        let reference = image::busybox(&options.busybox, &dir.join("busybox"));
        let reference = reference.map_err(OciError::own("the image of busybox"))?;
        let server = ServerProcess::of_command(programs.server(&dir.join("data")))?;
        let state = dir.join("worker");
        let worker = OciWorker {
            server: server.url.clone(),
            name: WORKER.to_owned(),
            state: state.clone(),
            image_root: dir.to_owned(),
            runtime: options.runtime.clone(),
            slots: options.containers + 1,
        };
        let attached = |line: &str| line.contains("is attached to").then_some(());
        let (process, ()) = Process::start(programs.worker(&worker), "the worker", attached)?;
        let worker = WorkerProcess(process);
        let access = ServerAccess::open(&server.url);
        let http = Client::new(&access).map_err(OciError::own("the client"))?;
        Ok(Self { worker, server, http, state, reference })
    }

    fn body(&self, words: &[&str], count: usize) -> Value {
        let (command, args) = words.split_first().map_or(("", &[][..]), |(command, args)| (*command, args));
        let resources = json!({ "cpu": CPU.to_string(), "memory": MEMORY.to_string() });
        let spec = json!({
            "command": command, "args": args, "image": self.reference, "resources": resources,
            "retry": "never", "stop_grace": "0s",
        });
        json!({ "spec": spec, "count": count })
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, OciError> {
        within(self.http.json(method, path, body), "the server's answer").await?.map_err(client_error)
    }

    async fn submit(&self, words: &[&str], count: usize) -> Result<String, OciError> {
        let reply = self.call(Method::POST, "/v1/containers", Some(&self.body(words, count))).await?;
        Ok(reply["group"].as_str().unwrap_or_default().to_owned())
    }

    /// How many of a group are in a state.
    async fn count(&self, group: &str, state: &str) -> Result<usize, OciError> {
        let path = format!("/v1/containers?group={group}&state={state}&max={COUNT_MAX}");
        let found = self.call(Method::GET, &path, None).await?;
        Ok(found["containers"].as_array().map_or(0, Vec::len))
    }

    /// Until so many of a group are in a state.
    async fn until(&self, group: &str, state: &str, count: usize) -> Result<(), OciError> {
        let end = Instant::now() + PATIENCE;
        while self.count(group, state).await? < count {
            if Instant::now() >= end || (state != "finished" && self.count(group, "finished").await? > 0) {
                return Err(OciError::Wrong(format!("{count} containers of {group} do not come to be {state}")));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn stop(&self, group: &str, count: usize) -> Result<(), OciError> {
        self.call(Method::DELETE, &format!("/v1/groups/{group}"), None).await?;
        self.until(group, "finished", count).await
    }

    /// The bare loop for the same image, with the configuration of a container that runs.
    async fn bare(&self, engine: &Engine, dir: &Path) -> Result<Bare, OciError> {
        let failed = "the bundle of a container";
        let group = self.submit(&["sleep", SLEEP_S], 1).await?;
        self.until(&group, "running", 1).await?;
        let config = std::fs::read(self.state.join(format!("{group}-0.1/bundle/config.json")));
        let config = serde_json::from_slice(&config.map_err(OciError::own(failed))?).map_err(OciError::own(failed))?;
        self.stop(&group, 1).await?;
        let images = unpacking::open(&dir.join("bare-images"), dir)?;
        let image = within(images.get(&self.reference), "the image for the bare loop")
            .await?
            .map_err(|error| OciError::Wrong(error.to_string()))?;
        let [layer] = &image.layers()[..] else { return Err(OciError::Wrong("the image has one layer".to_owned())) };
        let bare = dir.join("bare");
        std::fs::create_dir(&bare).map_err(OciError::own(failed))?;
        Ok(Bare { engine: engine.program().to_owned(), dir: bare, layer: images.layers_dir().join(layer), config })
    }

    async fn idle(&self, options: &OciBench) -> Result<Idle, OciError> {
        let pid = self.worker.0.pid();
        let before = idle::memory(pid).proportional;
        let group = self.submit(&["sleep", SLEEP_S], options.containers).await?;
        self.until(&group, "running", options.containers).await?;
        tokio::time::sleep(SETTLE).await;
        let cpu = idle::cpu_with_children_ms(pid);
        tokio::time::sleep(Duration::from_secs(options.idle_seconds)).await;
        let cpu_ms = (idle::cpu_with_children_ms(pid) - cpu).max(0.0);
        let keepers = idle::children(pid);
        if keepers.len() != options.containers {
            return Err(OciError::Wrong(format!("{} keepers of {} containers", keepers.len(), options.containers)));
        }
        let (mut proportional, mut private) = (0, 0);
        for keeper in keepers {
            let memory = idle::memory(keeper);
            proportional += memory.proportional;
            private += memory.private;
        }
        let worker = idle::memory(pid).proportional.saturating_sub(before);
        self.stop(&group, options.containers).await?;
        let each = options.containers.max(1) as u64;
        Ok(Idle {
            seconds: options.idle_seconds,
            cpu_percent: rounded(cpu_ms / (options.idle_seconds as f64 * 10.0)),
            worker_bytes_per_container: worker / each,
            keeper_bytes_per_container: proportional / each,
            keeper_private_bytes: private / each,
        })
    }

    /// All at once: the wall time, and how long each took to start.
    async fn burst(&self, load: &mut Load, containers: usize) -> Result<(f64, Vec<f64>), OciError> {
        let mut spec = Spec::of_command("true", &[]);
        spec.image = Some(self.reference.clone());
        (spec.resources.cpu, spec.resources.memory) = (CPU, MEMORY);
        spec.retry = volley_model::Retry::Never;
        let specs = vec![convert::spec_to(&spec)];
        let request = SubmitRequest { specs, count: Some(containers as u64), ..SubmitRequest::default() };
        let after = load.last_event();
        let seen = load.burst(vec![(request, containers as u32)]).await?;
        if let Some((container, outcome)) = seen.bad {
            return Err(OciError::Wrong(format!("{container} ended so: {outcome}")));
        }
        let group = seen.groups.iter().next().filter(|_| seen.ends.len() == containers);
        let Some((group, sent)) = group else {
            return Err(OciError::Wrong(format!("{} of {containers} containers ended", seen.ends.len())));
        };
        let end = seen.ends.iter().map(|(_, at)| *at).max().unwrap_or(sent.at);
        let running = load.record(after, containers).await?.started;
        let of_group = running.iter().filter(|(container, _)| container.group == *group);
        let started = of_group.map(|(_, at)| (*at as f64 - sent.at_ms).max(0.0)).collect();
        Ok((end.since_ms(sent.at), started))
    }

    async fn lone(&self, bare: &Bare, repetitions: usize, progress: &mut impl FnMut(String)) -> Result<Lone, OciError> {
        let (mut ours, mut bares) = (Vec::new(), Vec::new());
        for number in 0..=repetitions.max(1) {
            let begin = clock::Instant::now();
            let group = self.submit(&["echo", "hello"], 1).await?;
            let mut first = None;
            let path = format!("/v1/containers/{group}-0/logs?stream=stdout&follow=true");
            let read = self.http.stream(&path, |_| {
                first.get_or_insert_with(|| clock::Instant::now().since_ms(begin));
                false
            });
            within(read, "the output of a lone container").await?.map_err(client_error)?;
            self.until(&group, "finished", 1).await?;
            let our = first.ok_or_else(|| OciError::Wrong("a lone container said nothing".to_owned()))?;
            let ran = bare.lone(&["echo", "hello"]).map_err(OciError::own("the bare loop"))?;
            let Some(of_bare) = ran.first_output_ms.filter(|_| ran.printed == b"hello\n") else {
                return Err(OciError::Wrong("a bare container said nothing".to_owned()));
            };
            progress(format!("alone: first output after {our:.1} ms, bare {of_bare:.1} ms"));
            if number > 0 {
                ours.push(our);
                bares.push(of_bare);
            }
        }
        let (our, bare) = (Spread::of(&ours).median, Spread::of(&bares).median);
        Ok(Lone { first_output_ms: rounded(our), bare_first_output_ms: rounded(bare), added_ms: rounded(our - bare) })
    }

    async fn audit(&self) -> Result<(), OciError> {
        let audit = self.call(Method::GET, "/v1/audit", None).await?;
        match audit["ok"] == true {
            true => Ok(()),
            false => Err(OciError::Wrong(format!("the server's audit finds: {}", audit["violations"]))),
        }
    }

    fn end(self) {
        let Self { worker, server, .. } = self;
        drop(worker);
        server.end();
    }
}
