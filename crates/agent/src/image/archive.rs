//! Images on disk: OCI layouts, and archives of `docker save`. Every document is held against
//! its digest.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, Os};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::headers::BoundedHeaders;
use super::source::{Blob, Found};
use super::{ImageError, config, unpack};

/// Largest document (index, manifest, configuration) in bytes.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// An index may name an index, and so on, so deep.
const INDEX_DEPTH_MAX: u32 = 4;
/// Most files of an archive.
const ARCHIVE_FILES_MAX: u64 = 10_000;
/// The annotation of a layout's tags.
const TAG: &str = "org.opencontainers.image.ref.name";

fn broken(reference: &str, problem: impl Into<String>) -> ImageError {
    ImageError::Broken { reference: reference.to_owned(), problem: problem.into() }
}

/// Reads a document, bounded.
fn document(reference: &str, path: &Path) -> Result<Vec<u8>, ImageError> {
    let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| broken(reference, format!("{} cannot be read: {error}", name())))?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(broken(reference, format!("{} is larger than {} MiB", name(), DOCUMENT_BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

fn json<T: DeserializeOwned>(reference: &str, what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| broken(reference, format!("its {what} cannot be read: {error}")))
}

pub(super) fn digest_of(bytes: &[u8]) -> String {
    unpack::named(Sha256::new_with_prefix(bytes))
}

/// The hexadecimal part of a digest, if it is one of ours.
pub(super) fn hex(digest: &str) -> Option<&str> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

struct Layout<'a> {
    reference: &'a str,
    dir: &'a Path,
}

/// Finds an image in an OCI layout.
pub(super) fn find_layout(reference: &str, dir: &Path, tag: Option<&str>) -> Result<Found, ImageError> {
    let layout = Layout { reference, dir };
    let index = dir.join("index.json");
    if !index.is_file() {
        return Err(broken(reference, "it is no OCI layout: it has no index.json"));
    }
    let index: ImageIndex = json(reference, "index", &document(reference, &index)?)?;
    let chosen = choose(reference, index.manifests(), tag)?;
    layout.image(&chosen, 0)
}

/// The one with this tag, else the one for this machine, else the only one.
fn choose(reference: &str, entries: &[Descriptor], tag: Option<&str>) -> Result<Descriptor, ImageError> {
    let tagged = |entry: &&Descriptor| {
        let name = entry.annotations().as_ref().and_then(|annotations| annotations.get(TAG));
        tag.is_none_or(|tag| name.is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}"))))
    };
    let entries: Vec<&Descriptor> = entries.iter().filter(tagged).collect();
    match entries[..] {
        [] => Err(ImageError::NotFound(reference.to_owned())),
        [one] => Ok(one.clone()),
        _ => for_this_machine(reference, &entries),
    }
}

fn for_this_machine(reference: &str, entries: &[&Descriptor]) -> Result<Descriptor, ImageError> {
    let need = (Os::default(), Arch::default());
    let platforms = entries.iter().filter_map(|entry| entry.platform().as_ref().map(|platform| (entry, platform)));
    let fits = platforms.clone().find(|(_, platform)| (platform.os(), platform.architecture()) == (&need.0, &need.1));
    if let Some((entry, _)) = fits {
        return Ok((**entry).clone());
    }
    let has: Vec<String> = platforms.map(|(_, p)| format!("{}/{}", p.os(), p.architecture())).collect();
    let need = format!("{}/{}", need.0, need.1);
    Err(ImageError::Architecture { reference: reference.to_owned(), has: has.join(", "), need })
}

impl Layout<'_> {
    fn path(&self, digest: &str) -> Result<PathBuf, ImageError> {
        let hex = hex(digest).ok_or_else(|| broken(self.reference, format!("'{digest}' is no SHA-256 digest")))?;
        Ok(self.dir.join("blobs/sha256").join(hex))
    }

    /// A document that is what its digest says.
    fn verified(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let bytes = document(self.reference, &self.path(digest)?)?;
        let found = digest_of(&bytes);
        if found != digest {
            return Err(broken(self.reference, format!("{digest} has the digest {found}")));
        }
        Ok(bytes)
    }

    fn image(&self, chosen: &Descriptor, depth: u32) -> Result<Found, ImageError> {
        if depth > INDEX_DEPTH_MAX {
            return Err(broken(self.reference, "its indexes name each other without end"));
        }
        let digest = chosen.digest().to_string();
        let bytes = self.verified(&digest)?;
        if matches!(chosen.media_type(), MediaType::ImageIndex)
            || chosen.media_type().to_string().contains("manifest.list")
        {
            let index: ImageIndex = json(self.reference, "index", &bytes)?;
            let entries: Vec<&Descriptor> = index.manifests().iter().collect();
            return self.image(&for_this_machine(self.reference, &entries)?, depth + 1);
        }
        let manifest: ImageManifest = json(self.reference, "manifest", &bytes)?;
        let config_bytes = self.verified(manifest.config().digest().as_ref())?;
        let (config, layers) = config::parse(self.reference, &config_bytes)?;
        let blob = |layer: &Descriptor| {
            let digest = layer.digest().to_string();
            Ok(Blob { file: Some(self.path(&digest)?), digest: Some(digest), size: layer.size() })
        };
        let blobs = manifest.layers().iter().map(blob).collect::<Result<_, ImageError>>()?;
        Ok(Found { digest, config, layers, blobs })
    }
}

/// Unfolds an archive's files into a folder, whatever their names are.
pub(super) fn unfold(file: &Path, into: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(BoundedHeaders::new(io::BufReader::new(File::open(file)?)));
    let mut count = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let plain =
            |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let path = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        if !plain(&path) || !(kind.is_file() || kind.is_symlink() || kind.is_hard_link()) {
            continue;
        }
        count += 1;
        if count > ARCHIVE_FILES_MAX {
            return Err(io::Error::other(format!("it has more than {ARCHIVE_FILES_MAX} files")));
        }
        let target = into.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if kind.is_file() {
            io::copy(&mut entry, &mut File::create(target)?)?;
            continue;
        }
        // Layers that are the same are kept once.
        let Some(link) = entry.link_name()? else { continue };
        let from = if kind.is_symlink() { path.parent().unwrap_or(Path::new("")) } else { Path::new("") };
        if let Some(source) = inside(&from.join(link)) {
            fs::hard_link(into.join(source), target)?;
        }
    }
    Ok(())
}

/// A relative path without `..`; none when it leaves the folder.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            Component::ParentDir if inside.pop() => {}
            _ => return None,
        }
    }
    Some(inside)
}

/// One image of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Finds an image in the unfolded files of an archive.
pub(super) fn find_saved(reference: &str, dir: &Path, tag: Option<&str>) -> Result<Found, ImageError> {
    if dir.join("index.json").is_file() {
        return find_layout(reference, dir, tag);
    }
    let manifest = dir.join("manifest.json");
    if !manifest.is_file() {
        return Err(broken(reference, "it is no image: it has neither index.json nor manifest.json"));
    }
    let saved: Vec<Saved> = json(reference, "manifest.json", &document(reference, &manifest)?)?;
    let tagged = |saved: &&Saved| {
        let tags = saved.repo_tags.as_deref().unwrap_or_default();
        tag.is_none_or(|tag| tags.iter().any(|name| name == tag || name.ends_with(&format!(":{tag}"))))
    };
    let saved = saved.iter().find(tagged).ok_or_else(|| ImageError::NotFound(reference.to_owned()))?;
    let path = |name: &str| {
        let inside = inside(Path::new(name)).filter(|inside| dir.join(inside).is_file());
        inside.map(|inside| dir.join(inside)).ok_or_else(|| broken(reference, format!("it has no file {name}")))
    };
    let bytes = document(reference, &path(&saved.config)?)?;
    let (config, layers) = config::parse(reference, &bytes)?;
    let blob = |name: &String| {
        let file = path(name)?;
        let size = file.metadata().map_err(|error| broken(reference, error.to_string()))?.len();
        Ok(Blob { digest: None, size, file: Some(file) })
    };
    let blobs = saved.layers.iter().map(blob).collect::<Result<_, ImageError>>()?;
    Ok(Found { digest: digest_of(&bytes), config, layers, blobs })
}
