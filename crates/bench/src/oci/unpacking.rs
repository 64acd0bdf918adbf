//! A layer into the store of images, beside `tar`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use volley_agent::image::{ImageOptions, Images, RegistryOptions};
use volley_model::Bytes;

use super::figures::Unpacking;
use super::measure::within;
use super::{OciError, image};
use crate::Spread;
use crate::burst::clock::rounded;

/// Far more than the layer needs.
const DISK_MAX: Bytes = Bytes(8 << 30);

/// A store of images in a folder, that takes layouts from below another.
pub(super) fn open(dir: &Path, root: &Path) -> Result<Images, OciError> {
    let options = ImageOptions {
        dir: dir.to_owned(),
        disk_max: DISK_MAX,
        roots: vec![root.to_owned()],
        downloads_max: 1,
        registry: RegistryOptions::default(),
    };
    Images::open(options).map_err(OciError::own("the store of images"))
}

/// Takes turns; the first turn warms.
pub(super) async fn measure(dir: &Path, repetitions: usize) -> Result<Unpacking, OciError> {
    let failed = "the layer to unpack";
    let layer = image::large(&dir.join("large")).map_err(OciError::own(failed))?;
    let (mut ours, mut tars) = (Vec::new(), Vec::new());
    for number in 0..=repetitions.max(1) {
        let (store, plain) = (dir.join("store"), dir.join("plain"));
        let images = open(&store, dir)?;
        let begin = Instant::now();
        within(images.get(&layer.reference), "the layer").await?.map_err(|error| OciError::Wrong(error.to_string()))?;
        let our = begin.elapsed();
        drop(images);
        fs::create_dir(&plain).map_err(OciError::own(failed))?;
        let begin = Instant::now();
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "-xzpf"]).arg(&layer.packed).arg("-C").arg(&plain).stdin(Stdio::null());
        let done = tar.status().map_err(OciError::own("tar"))?;
        let tar = begin.elapsed();
        if !done.success() {
            return Err(OciError::Own { what: "tar", problem: done.to_string() });
        }
        // Not timed: what was written goes, and leaves the next turn a disk with nothing to do.
        for dir in [store, plain] {
            fs::remove_dir_all(dir).map_err(OciError::own(failed))?;
        }
        rustix::fs::syncfs(fs::File::open(dir).map_err(OciError::own(failed))?)
            .map_err(|error| OciError::own(failed)(std::io::Error::from(error)))?;
        if number > 0 {
            ours.push(our.as_secs_f64() * 1e3);
            tars.push(tar.as_secs_f64() * 1e3);
        }
    }
    let ratios: Vec<f64> = ours.iter().zip(&tars).map(|(our, tar)| our / tar).collect();
    Ok(Unpacking {
        files: layer.files,
        bytes: layer.bytes,
        packed_bytes: layer.packed_bytes,
        wall_ms: rounded(Spread::of(&ours).median),
        tar_wall_ms: rounded(Spread::of(&tars).median),
        ratio: rounded(Spread::of(&ratios).median),
    })
}
