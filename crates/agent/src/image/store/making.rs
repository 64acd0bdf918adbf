//! How an image comes into the store: found, its layers fetched and unpacked aside, held against
//! their digests, and moved into their place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use futures_util::future::join_all;

use super::{Inner, LAYERS_MAX, NAME_DIGITS, boot, locked, write_whole};
use crate::image::archive::{find_layout, find_saved, hex, unfold};
use crate::image::progress::Progress;
use crate::image::registry::Pull;
use crate::image::source::{Blob, Found, Source};
use crate::image::space::{ImageRecord, LayerRecord};
use crate::image::unpack::unpack;
use crate::image::{ImageError, LayerError};

impl Inner {
    pub(super) async fn pull(self: &Arc<Self>, reference: &str, progress: &Progress) -> Result<(), ImageError> {
        let source = Source::parse(reference, &self.options.roots)?;
        let (found, pull, work) = self.find(reference, source).await?;
        let mut pinned = Vec::new();
        let made = self.make(reference, found, (pull, progress), &mut pinned).await;
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
        blocking(reference, move || inner.note(&noted).map_err(inner.disk(&noted.reference))).await?;
        locked(&self.space).add_image(record.clone(), SystemTime::now());
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
