//! The store of images on a worker's disk: each image is pulled once, each layer unpacked once,
//! and what was not used for long goes when the bound is reached.
//!
//! | path | what |
//! | --- | --- |
//! | `lock` | held by the worker that uses the store |
//! | `images/HEX.json` | an image that is whole; touched when it was used |
//! | `layers/NAME/` | an unpacked layer, as overlayfs wants it |
//! | `downloads/HEX.part` | a layer as it comes from a registry |
//! | `work/N/` | what is being made; removed at the next start |

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, Semaphore};
use volley_metrics::ImageMetrics;
use volley_model::{Bytes, PullPolicy};

use super::archive::{digest_of, find_layout, find_saved, hex, unfold};
use super::progress::Progress;
use super::registry::{Pull, Registry, RegistryOptions};
use super::source::{Blob, Found, Source};
use super::space::{Goner, ImageRecord, LayerRecord, Space, aside};
use super::unpack::unpack;
use super::{ImageConfig, ImageError, LayerError};

/// Most layers of an image: what one overlay mount takes.
const LAYERS_MAX: usize = 127;
/// Digits of a layer's digest that name its folder: all layers of an image go into one page of mount options.
const NAME_DIGITS: usize = 24;
/// A download that broke off is kept for so long.
const PART_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How far a pull is is said this often.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// The settings of a store.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// Where it lies; one worker process at a time.
    pub dir: PathBuf,
    /// What its images may take of the disk.
    pub disk_max: Bytes,
    /// Layouts and archives are taken from below these folders only.
    pub roots: Vec<PathBuf>,
    /// Layers that are fetched at a time.
    pub downloads_max: usize,
    /// How registries are spoken to.
    pub registry: RegistryOptions,
}

/// A pull that goes on.
#[derive(Default)]
struct Flight {
    done: OnceCell<Result<(), Arc<ImageError>>>,
    progress: Progress,
}

struct Inner {
    options: ImageOptions,
    registry: Registry,
    space: Mutex<Space>,
    /// Pulls that go on, by reference: whoever comes later waits for the same.
    flights: Mutex<BTreeMap<String, Arc<Flight>>>,
    /// One at a time makes a layer.
    making: Mutex<BTreeMap<String, Arc<AsyncMutex<()>>>>,
    downloads: Semaphore,
    unpacks: Semaphore,
    work: AtomicU64,
    /// Of the worker, once it is known.
    metrics: OnceLock<ImageMetrics>,
    #[allow(dead_code, reason = "closing the file unlocks the store")]
    lock: File,
}

/// The images of a worker.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("dir", &self.inner.options.dir).finish_non_exhaustive()
    }
}

/// An image in use: it stays while this lives.
pub struct ImageHold {
    inner: Arc<Inner>,
    record: Arc<ImageRecord>,
}

impl ImageHold {
    /// How it wants to be run.
    #[must_use]
    pub fn config(&self) -> &ImageConfig {
        &self.record.config
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.record.digest
    }

    /// Names of its layers' folders, lowest first.
    #[must_use]
    pub fn layers(&self) -> Vec<String> {
        self.record.layers.iter().map(|layer| layer.name.clone()).collect()
    }
}

impl Drop for ImageHold {
    fn drop(&mut self) {
        let now = SystemTime::now();
        locked(&self.inner.space).release(&self.record, now);
        // The order of use is remembered over restarts; an image that went meanwhile has none.
        let path = self.inner.record_path(&self.record.reference);
        let _ = File::options().write(true).open(path).and_then(|file| file.set_modified(now));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This life of the machine.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Takes the place of an earlier one in one step.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    io::Write::write_all(&mut file, bytes)?;
    fs::rename(new, path)
}

impl Images {
    /// Opens a store, or makes it. What an earlier life left half made is removed.
    ///
    /// # Errors
    /// When its folder cannot be made or written, or another worker uses it.
    pub fn open(options: ImageOptions) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("the folder of images {}: {error}", options.dir.display()))
        };
        for name in ["images", "layers", "downloads"] {
            fs::create_dir_all(options.dir.join(name)).map_err(named)?;
        }
        let dir = options.dir.canonicalize().map_err(named)?;
        let lock = File::create(dir.join("lock")).map_err(named)?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let words =
                format!("another worker uses the folder of images {}; name another with --images", dir.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, words));
        }
        let roots = options.roots.iter().map(|root| root.canonicalize().unwrap_or_else(|_| root.clone())).collect();
        let options = ImageOptions { dir, roots, ..options };
        let mut space = Space::new(options.disk_max);
        read_store(&options.dir, &mut space)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let inner = Inner {
            registry: Registry::new(options.registry.clone()),
            space: Mutex::new(space),
            flights: Mutex::default(),
            making: Mutex::default(),
            downloads: Semaphore::new(options.downloads_max.max(1)),
            unpacks: Semaphore::new(cores),
            work: AtomicU64::new(0),
            metrics: OnceLock::new(),
            lock,
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Counts pulls from now on; the first caller's metrics stay.
    pub fn measured_by(&self, metrics: &ImageMetrics) {
        drop(self.inner.metrics.set(metrics.clone()));
    }

    /// Where the folders of layers lie.
    #[must_use]
    pub fn layers_dir(&self) -> PathBuf {
        self.inner.options.dir.join("layers")
    }

    /// The images that are there, the one used last at the end.
    #[must_use]
    pub fn held(&self) -> Vec<String> {
        locked(&self.inner.space).references()
    }

    /// What they take of the disk.
    #[must_use]
    pub fn used(&self) -> Bytes {
        locked(&self.inner.space).used()
    }

    /// An image that is there already.
    #[must_use]
    pub fn hold(&self, reference: &str) -> Option<ImageHold> {
        let record = locked(&self.inner.space).hold(reference)?;
        Some(ImageHold { inner: Arc::clone(&self.inner), record })
    }

    /// An image that is there already, as its reference was understood when it had this digest.
    #[must_use]
    pub fn hold_as_it_was(&self, reference: &str, digest: &str) -> Option<ImageHold> {
        if digest.is_empty() || locked(&self.inner.space).has(reference, digest) {
            return self.hold(reference);
        }
        self.hold(&aside(reference, digest))
    }

    /// An image, pulled if it is not there; everybody who wants it meanwhile waits for the same pull.
    ///
    /// # Errors
    /// When it cannot be had; the next call tries again.
    pub async fn get(&self, reference: &str) -> Result<ImageHold, Arc<ImageError>> {
        self.get_by(reference, PullPolicy::IfNotPresent).await
    }

    /// As [`Images::get`], when its reference is to be asked for by this policy.
    ///
    /// # Errors
    /// As of [`Images::get`]; and when it is not there and must not be pulled.
    pub async fn get_by(&self, reference: &str, policy: PullPolicy) -> Result<ImageHold, Arc<ImageError>> {
        // A digest never means anything else.
        let mut asked = policy != PullPolicy::Always || reference.contains("@sha256:");
        let metrics = self.inner.metrics.get();
        let mut waited = false;
        loop {
            if asked && let Some(hold) = self.hold(reference) {
                if let Some(metrics) = metrics.filter(|_| !waited) {
                    metrics.present.add_one();
                }
                return Ok(hold);
            }
            if policy == PullPolicy::Never {
                return Err(Arc::new(ImageError::NotHere(reference.to_owned())));
            }
            waited = true;
            let mut own = false;
            let flight = Arc::clone(locked(&self.inner.flights).entry(reference.to_owned()).or_default());
            let pull = async {
                own = true;
                self.inner.pull_measured(reference, &flight.progress).await.map_err(Arc::new)
            };
            let done = flight.done.get_or_init(|| pull).await.clone();
            if let Some(metrics) = metrics.filter(|_| !own) {
                metrics.shared.add_one();
            }
            // Held before it can go again.
            let hold = self.hold(reference);
            let mut flights = locked(&self.inner.flights);
            if flights.get(reference).is_some_and(|now| Arc::ptr_eq(now, &flight)) {
                flights.remove(reference);
            }
            drop(flights);
            done?;
            asked = true;
            if let Some(hold) = hold {
                return Ok(hold);
            }
        }
    }

    /// As [`Images::get_by`]; says now and then how far the pull is.
    ///
    /// # Errors
    /// As of [`Images::get_by`].
    pub async fn get_telling(
        &self,
        reference: &str,
        policy: PullPolicy,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<ImageHold, Arc<ImageError>> {
        let get = self.get_by(reference, policy);
        tokio::pin!(get);
        loop {
            tokio::select! {
                got = &mut get => return got,
                () = tokio::time::sleep(TELL_EVERY) => {
                    let words = locked(&self.inner.flights).get(reference).map(|flight| flight.progress.words());
                    words.into_iter().for_each(tell);
                }
            }
        }
    }
}

/// All of an image is there.
fn whole(record: &ImageRecord, layers: &Path) -> bool {
    record.unsynced_in.as_ref().is_none_or(|boot_then| *boot_then == boot())
        && record.layers.iter().all(|layer| layers.join(&layer.name).is_dir())
}

/// Reads what is there, and removes what is not whole or not known.
fn read_store(dir: &Path, space: &mut Space) -> io::Result<()> {
    match fs::remove_dir_all(dir.join("work")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir(dir.join("work"))?,
    }
    let layers = dir.join("layers");
    let mut known = std::collections::BTreeSet::new();
    for entry in fs::read_dir(dir.join("images"))? {
        let entry = entry?;
        let record = fs::read(entry.path()).ok().and_then(|bytes| serde_json::from_slice::<ImageRecord>(&bytes).ok());
        match record {
            Some(record) if whole(&record, &layers) => {
                known.extend(record.layers.iter().map(|layer| layer.name.clone()));
                let used_at = entry.metadata().and_then(|metadata| metadata.modified());
                space.add_image(record, used_at.unwrap_or(SystemTime::UNIX_EPOCH));
            }
            _ => fs::remove_file(entry.path())?,
        }
    }
    for entry in fs::read_dir(layers)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    for entry in fs::read_dir(dir.join("downloads"))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let old = metadata.modified()?.elapsed().is_ok_and(|age| age > PART_AGE_MAX);
        match entry.file_name().into_string() {
            Ok(name) if !old => space.add_part(name, metadata.len()),
            _ => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

impl Inner {
    fn record_path(&self, reference: &str) -> PathBuf {
        let digest = digest_of(reference.as_bytes());
        self.options.dir.join("images").join(format!("{}.json", hex(&digest).unwrap_or_default()))
    }

    /// A new folder for something being made.
    fn work_dir(&self) -> io::Result<PathBuf> {
        let dir = self.options.dir.join("work").join(self.work.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&dir)?;
        Ok(dir)
    }

    fn disk(&self, reference: &str) -> impl Fn(io::Error) -> ImageError + use<> {
        let (reference, dir) = (reference.to_owned(), self.options.dir.clone());
        move |error| ImageError::disk(&reference, &dir, error)
    }

    /// Takes room, and removes what has to go for it.
    fn take(&self, bytes: u64) -> bool {
        let mut goners = Vec::new();
        // The lock is held while things go: who finds an image there may count on its files.
        let mut space = locked(&self.space);
        let taken = space.take(bytes, &mut goners);
        for goner in goners {
            self.remove(&goner);
        }
        taken
    }

    fn remove(&self, goner: &Goner) {
        let dir = &self.options.dir;
        let (files, folders) = match goner {
            Goner::Part(name) => (dir.join("downloads").join(name), &[][..]),
            Goner::Image { reference, layers } => {
                tracing::info!(reference, "an image goes: the room is needed");
                (self.record_path(reference), &layers[..])
            }
        };
        let removed = fs::remove_file(files);
        let removed = removed.and_then(|()| folders.iter().try_for_each(|name| self.remove_layer(name)));
        if let Err(error) = removed {
            tracing::warn!(%error, ?goner, "an image could not be removed; the next start tries again");
        }
    }

    /// At once out of the way, for its name may come again.
    fn remove_layer(&self, name: &str) -> io::Result<()> {
        let away = self.work_dir()?;
        fs::rename(self.options.dir.join("layers").join(name), away.join("layer"))?;
        fs::remove_dir_all(away)
    }

    async fn pull_measured(self: &Arc<Self>, reference: &str, progress: &Progress) -> Result<(), ImageError> {
        let begin = Instant::now();
        let pulled = self.pull(reference, progress).await;
        if let Some(metrics) = self.metrics.get() {
            let result = pulled.as_ref().map_or_else(ImageError::result, |()| "pulled");
            metrics.pull.observe([result], begin.elapsed());
        }
        pulled
    }

    async fn pull(self: &Arc<Self>, reference: &str, progress: &Progress) -> Result<(), ImageError> {
        let source = Source::parse(reference, &self.options.roots)?;
        let (found, pull, work) = self.find(reference, source).await?;
        let mut pinned = Vec::new();
        let same = locked(&self.space).has(reference, &found.digest);
        let made = if same { Ok(()) } else { self.make(reference, found, (pull, progress), &mut pinned).await };
        let gone = locked(&self.space).unpin(&pinned);
        for name in gone {
            if let Err(error) = self.remove_layer(&name) {
                tracing::warn!(%error, name, "a layer could not be removed; the next start tries again");
            }
        }
        if let Some(work) = work {
            drop(tokio::fs::remove_dir_all(work).await);
        }
        made
    }

    /// Looks an image up. An archive is unfolded into a folder first, which goes when the pull is over.
    async fn find(
        self: &Arc<Self>,
        reference: &str,
        source: Source,
    ) -> Result<(Found, Option<Arc<Pull>>, Option<PathBuf>), ImageError> {
        let name = reference.to_owned();
        let inner = Arc::clone(self);
        match source {
            Source::Registry(at) => {
                let (found, pull) = self.registry.find(reference, &at).await?;
                Ok((found, Some(pull), None))
            }
            Source::Layout(dir, tag) => {
                let found = blocking(reference, move || find_layout(&name, &dir, tag.as_deref())).await?;
                Ok((found, None, None))
            }
            Source::Archive(file, tag) => {
                blocking(reference, move || {
                    let work = inner.work_dir().map_err(inner.disk(&name))?;
                    let unfolded = unfold(&file, &work).map_err(|error| match error.raw_os_error() {
                        Some(_) => inner.disk(&name)(error),
                        None => ImageError::Broken { reference: name.clone(), problem: error.to_string() },
                    });
                    match unfolded.and_then(|()| find_saved(&name, &work, tag.as_deref())) {
                        Ok(found) => Ok((found, None, Some(work))),
                        Err(error) => {
                            drop(fs::remove_dir_all(work));
                            Err(error)
                        }
                    }
                })
                .await
            }
        }
    }

    /// Makes what is missing of an image, then notes it as whole.
    async fn make(
        self: &Arc<Self>,
        reference: &str,
        found: Found,
        (pull, progress): (Option<Arc<Pull>>, &Progress),
        pinned: &mut Vec<String>,
    ) -> Result<(), ImageError> {
        let broken = |problem: String| ImageError::Broken { reference: reference.to_owned(), problem };
        if found.layers.len() != found.blobs.len() {
            let (blobs, layers) = (found.blobs.len(), found.layers.len());
            return Err(broken(format!("it has {blobs} layers, its configuration names {layers}")));
        }
        if found.layers.is_empty() || found.layers.len() > LAYERS_MAX {
            return Err(broken(format!("it has {} layers; 1 to {LAYERS_MAX} can be run", found.layers.len())));
        }
        let mut making = Vec::new();
        for (digest, blob) in found.layers.iter().zip(&found.blobs) {
            making.push(self.layer(reference, digest, blob, (pull.as_deref(), progress)));
        }
        let made = join_all(making).await;
        pinned.extend(made.iter().flatten().map(|layer| layer.name.clone()));
        let layers = made.into_iter().collect::<Result<_, _>>()?;
        let record = ImageRecord {
            reference: reference.to_owned(),
            digest: found.digest,
            config: found.config,
            layers,
            unsynced_in: Some(boot()),
        };
        let (inner, noted) = (Arc::clone(self), record.clone());
        blocking(reference, move || {
            // Under one lock: who finds the reference finds one image or the other.
            let mut space = locked(&inner.space);
            if let Some(before) = space.set_aside(&noted.reference) {
                inner.note(&before).map_err(inner.disk(&noted.reference))?;
            }
            inner.note(&noted).map_err(inner.disk(&noted.reference))?;
            space.add_image(noted, SystemTime::now());
            Ok(())
        })
        .await?;
        // Nobody waits for the disk, and the store may be closed meanwhile.
        let (dir, inner) = (self.options.dir.clone(), Arc::downgrade(self));
        tokio::task::spawn_blocking(move || sync(&dir, &inner, record));
        Ok(())
    }

    fn note(&self, record: &ImageRecord) -> io::Result<()> {
        write_whole(&self.record_path(&record.reference), &serde_json::to_vec(record)?)
    }

    /// A layer, pinned: the one that is there, or a new one.
    async fn layer(
        self: &Arc<Self>,
        reference: &str,
        digest: &str,
        blob: &Blob,
        from: (Option<&Pull>, &Progress),
    ) -> Result<LayerRecord, ImageError> {
        let broken = |problem: String| ImageError::Broken { reference: reference.to_owned(), problem };
        let name =
            hex(digest).ok_or_else(|| broken(format!("'{digest}' is no SHA-256 digest")))?[..NAME_DIGITS].to_owned();
        let making = Arc::clone(locked(&self.making).entry(name.clone()).or_default());
        let turn = making.lock().await;
        let there = locked(&self.space).pin(&name);
        let made = match there {
            Some(bytes) => Ok(bytes),
            None => self.make_layer(reference, (digest, &name), blob, from).await,
        };
        drop(turn);
        let mut all = locked(&self.making);
        // This one and the map's: nobody waits.
        if Arc::strong_count(&making) <= 2 {
            all.remove(&name);
        }
        Ok(LayerRecord { name, bytes: made? })
    }

    async fn make_layer(
        self: &Arc<Self>,
        reference: &str,
        (digest, name): (&str, &str),
        blob: &Blob,
        (pull, progress): (Option<&Pull>, &Progress),
    ) -> Result<u64, ImageError> {
        let no_space = || ImageError::layer(reference, &self.options.dir, LayerError::TooLarge);
        let (file, fetched) = match (&blob.file, pull) {
            (Some(file), _) => (file.clone(), 0),
            (None, Some(pull)) => {
                progress.expect(blob.size);
                let _turn = self.downloads.acquire().await;
                let part = format!("{}.part", hex(blob.digest.as_deref().unwrap_or_default()).unwrap_or_default());
                let there = locked(&self.space).resume_part(&part);
                let size = blob.size.max(there);
                if !self.take(size - there) {
                    locked(&self.space).add_part(part, 0);
                    locked(&self.space).give_back(there);
                    return Err(no_space());
                }
                match pull.fetch(reference, blob, &self.options.dir.join("downloads"), progress).await {
                    Ok(file) => (file, size),
                    Err(error) => {
                        let left = fs::metadata(self.options.dir.join("downloads").join(&part)).map(|file| file.len());
                        let mut space = locked(&self.space);
                        space.give_back(size);
                        if let Ok(left) = left {
                            space.add_part(part, left);
                        }
                        return Err(error);
                    }
                }
            }
            (None, None) => return Err(no_space()),
        };
        let _turn = self.unpacks.acquire().await;
        let (inner, expected, layer) = (Arc::clone(self), (digest.to_owned(), blob.digest.clone()), name.to_owned());
        let made = blocking(reference, {
            let (file, name) = (file.clone(), reference.to_owned());
            move || {
                inner
                    .unpack(&file, &layer, &expected.0, expected.1.as_deref())
                    .map_err(|error| ImageError::layer(&name, &inner.options.dir, error))
            }
        })
        .await;
        if fetched > 0 {
            drop(fs::remove_file(&file));
            locked(&self.space).give_back(fetched);
        }
        made
    }

    /// Unpacks a layer beside the others, holds it against its digests, and puts it in its place.
    fn unpack(&self, file: &Path, name: &str, digest: &str, blob_digest: Option<&str>) -> Result<u64, LayerError> {
        let work = self.work_dir()?;
        let layer = work.join("layer");
        fs::create_dir(&layer)?;
        let mut taken = 0;
        let mut room = |bytes| {
            let more = self.take(bytes);
            taken += if more { bytes } else { 0 };
            more
        };
        let unpacked = File::open(file).map_err(LayerError::Io).and_then(|file| unpack(file, &layer, &mut room));
        let placed = unpacked.and_then(|unpacked| {
            if blob_digest.is_some_and(|expected| expected != unpacked.blob_digest) {
                let expected = blob_digest.unwrap_or_default();
                return Err(LayerError::Broken(format!("layer {expected} has the digest {}", unpacked.blob_digest)));
            }
            if digest != unpacked.digest {
                let problem = format!("layer {digest} has the digest {} when it is unpacked", unpacked.digest);
                return Err(LayerError::Broken(problem));
            }
            fs::rename(&layer, self.options.dir.join("layers").join(name))?;
            Ok(unpacked.bytes)
        });
        drop(fs::remove_dir_all(&work));
        let mut space = locked(&self.space);
        space.give_back(taken - placed.as_ref().map_or(0, |bytes| *bytes));
        if let Ok(bytes) = &placed {
            space.add_pinned(name, *bytes);
        }
        placed
    }
}

/// From here on an image survives a power failure.
fn sync(dir: &Path, inner: &Weak<Inner>, record: ImageRecord) {
    let synced = File::open(dir).and_then(|dir| rustix::fs::syncfs(dir).map_err(io::Error::from));
    let (Some(inner), Ok(())) = (inner.upgrade(), synced) else { return };
    let space = locked(&inner.space);
    // It may have gone meanwhile, and must not come back.
    if space.has(&record.reference, &record.digest)
        && let Err(error) = inner.note(&ImageRecord { unsynced_in: None, ..record })
    {
        tracing::debug!(%error, "an image is pulled again after the machine's next start");
    }
}

async fn blocking<T: Send + 'static>(
    reference: &str,
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(ImageError::Unreachable {
            reference: reference.to_owned(),
            problem: format!("its work broke off: {error}"),
        })
    })
}
