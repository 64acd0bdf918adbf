//! The store of images: hostile and broken layers, sharing, the bound of the disk.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::json;
use tar::EntryType;
use volley_agent::image::{ImageError, ImageOptions, Images};
use volley_model::Bytes;

use crate::bed::image_options;
use crate::image::{Image, Layer, Pack, config, digest};

/// `cap_net_bind_service=p` as the kernel keeps it.
const CAPABILITY: [u8; 20] = [0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

async fn get(images: &Images, reference: &str) -> Result<Vec<String>, String> {
    images.get(reference).await.map(|hold| hold.layers()).map_err(|error| error.to_string())
}

/// An image of these layers is refused, and leaves nothing, inside or outside.
async fn refused(name: &str, layer: Layer, words: &str) {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let reference = Image::new(config(), &[(layer.bytes(), Pack::Plain)]).layout(&dir.path().join("image"));
    let images = Images::open(image_options(dir.path())).unwrap();
    let error = get(&images, &reference).await.unwrap_err();
    assert!(error.contains(words), "{name}: {error}");
    assert_eq!(fs::read_to_string(victim).unwrap(), "untouched", "{name}");
    for folder in ["layers", "work", "images"] {
        assert_eq!(fs::read_dir(dir.path().join("images").join(folder)).unwrap().count(), 0, "{name}: {folder}");
    }
    assert_eq!(images.used(), Bytes(0), "{name}");
}

#[tokio::test]
async fn hostile_layers_are_refused() {
    let file = |path: &str| Layer::new().file(path, b"evil");
    refused("up", file("../../victim"), "'..'").await;
    refused("up inside", file("a/../../../victim"), "'..'").await;
    refused("absolute link", Layer::new().link("out", "/etc").file("out/evil", b"evil"), "outside of itself").await;
    refused("climbing link", Layer::new().link("out", "../..").file("out/victim", b"evil"), "outside of itself").await;
    let through = Layer::new().link("a", "b").link("b", "/").file("a/etc/evil", b"evil");
    refused("link to a link", through, "outside of itself").await;
    let hard = |target: &str| Layer::new().add(EntryType::Link, "hard", target, 0o644, b"");
    refused("hard link up", hard("../../victim"), "'..'").await;
    refused("hard link to nothing", hard("missing"), "what is not there").await;
    let hard = Layer::new().link("out", "/etc").add(EntryType::Link, "hard", "out/passwd", 0o644, b"");
    refused("hard link through a link", hard, "outside of itself").await;
    let device = Layer::new().add(EntryType::Block, "disk", "", 0o666, b"");
    refused("device", device, "device node").await;
    let below = file("plain").file("plain/evil", b"evil");
    refused("below a file", below, "no folder").await;
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        refused("a header without end", Layer::new().claim(kind, 1 << 40), "a header of").await;
    }
}

#[tokio::test]
async fn broken_images_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(image_options(dir.path())).unwrap();
    let layer = Layer::new().file("a", b"x").bytes();
    let good = Image::new(config(), &[(layer.clone(), Pack::Gzip)]);
    let reference = good.layout(&dir.path().join("corrupted"));
    let blob = dir.path().join("corrupted/blobs/sha256").join(&good.blobs[0].0["sha256:".len()..]);
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let error = get(&images, &reference).await.unwrap_err();
    assert!(error.contains("is broken"), "{error}");

    fs::write(&blob, &good.blobs[0].1[..middle]).unwrap();
    let error = get(&images, &reference).await.unwrap_err();
    assert!(error.contains("is broken"), "{error}");

    let mut other = config();
    other["architecture"] = json!("s390x");
    let reference = Image::new(other, &[(layer, Pack::Plain)]).layout(&dir.path().join("other"));
    let error = get(&images, &reference).await.unwrap_err();
    assert!(error.contains("is for linux/s390x"), "{error}");
    assert_eq!(images.used(), Bytes(0));
}

#[tokio::test]
async fn layers_are_as_overlayfs_wants_them() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Layer::new()
        .folder("d")
        .file("d/file", b"content")
        .add(EntryType::Link, "d/hard", "d/file", 0o755, b"")
        .link("link", "/etc/passwd")
        .link("inside", "d")
        .file("inside/through", b"in d")
        .add(EntryType::Regular, "setuid", "", 0o4755, b"x")
        .file("d/.wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .file("twice", b"first")
        .file("twice", b"second")
        .add(EntryType::Char, "dev/null", "", 0o666, b"")
        .attributes(&[
            ("SCHILY.xattr.security.capability", &CAPABILITY),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .file("capable", b"x")
        .bytes();
    let reference = Image::new(config(), &[(layer, Pack::Gzip)]).layout(&dir.path().join("image"));
    let images = Images::open(image_options(dir.path())).unwrap();
    let layers = get(&images, &reference).await.unwrap();
    let root = images.layers_dir().join(&layers[0]);
    assert_eq!(fs::read_to_string(root.join("d/file")).unwrap(), "content");
    assert_eq!(fs::metadata(root.join("d/file")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read_to_string(root.join("d/through")).unwrap(), "in d");
    assert_eq!(fs::metadata(root.join("setuid")).unwrap().permissions().mode() & 0o7777, 0o4755);
    assert_eq!(fs::read_to_string(root.join("twice")).unwrap(), "second");
    assert_eq!(fs::metadata(root.join("d")).unwrap().mtime(), 1_700_000_000);
    let gone = fs::symlink_metadata(root.join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(root.join("d"), "trusted.overlay.opaque", &mut value[..]).unwrap(), 1);
    assert!(!root.join("dev/null").exists(), "containers have their own");
    let mut value = [0; 32];
    let length = rustix::fs::getxattr(root.join("capable"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(value[..length], CAPABILITY);
    let redirect = rustix::fs::getxattr(root.join("capable"), "trusted.overlay.redirect", &mut value[..]);
    assert!(redirect.is_err(), "what steers overlayfs is not an image's to say");
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_and_what_is_shared_stays() {
    let dir = tempfile::tempdir().unwrap();
    let options = ImageOptions { disk_max: Bytes(8 << 20), ..image_options(dir.path()) };
    let images = Images::open(options.clone()).unwrap();
    let layer = |name: &str, mib: usize| Layer::new().file(name, &vec![7; mib << 20]).bytes();
    let image = |name: &str, layers: &[Vec<u8>]| {
        let layers: Vec<_> = layers.iter().map(|layer| (layer.clone(), Pack::Gzip)).collect();
        Image::new(config(), &layers).layout(&dir.path().join(name))
    };
    let base = layer("base", 2);
    let one = image("one", &[base.clone(), layer("one", 2)]);
    let two = image("two", &[base, layer("two", 2)]);
    let three = image("three", &[layer("three", 3)]);
    get(&images, &one).await.unwrap();
    let used = images.used();
    get(&images, &two).await.unwrap();
    assert!(images.used().0 < used.0 + (3 << 20), "the base is there once");
    get(&images, &three).await.unwrap();
    assert_eq!(images.held().len(), 2, "the first one went");
    assert!(images.hold(&one).is_none());
    let held = images.hold(&three).unwrap();
    get(&images, &one).await.unwrap();
    let big = image("big", &[layer("big", 9)]);
    let error = get(&images, &big).await.unwrap_err();
    assert!(error.starts_with("no space for image"), "{error}");
    assert!(images.hold(&three).is_some(), "one in use stays");
    drop(held);
    drop(images);
    let images = Images::open(options).unwrap();
    assert!(images.hold(&three).is_some(), "the next life knows it");
}

#[tokio::test]
async fn pulls_are_counted_by_what_became_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Layer::new().file("hello", b"there").bytes();
    let reference = Image::new(config(), &[(layer, Pack::Gzip)]).layout(&dir.path().join("image"));
    let images = Images::open(image_options(dir.path())).unwrap();
    let metrics = volley_agent::metrics::WorkerMetrics::default();
    images.measured_by(&metrics.images);
    let (one, other) = tokio::join!(get(&images, &reference), get(&images, &reference));
    assert_eq!(one.unwrap(), other.unwrap());
    get(&images, &reference).await.unwrap();
    get(&images, &format!("{reference}-that-is-not-there")).await.unwrap_err();
    let text = metrics.text();
    for line in [
        "volley_worker_pull_seconds_count{result=\"pulled\"} 1",
        "volley_worker_pulls_shared_total 1",
        "volley_worker_images_present_total 1",
        "volley_worker_pull_seconds_count{result=\"not_found\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mount =
        |args: &[&str]| assert!(std::process::Command::new(args[0]).args(&args[1..]).status().unwrap().success());
    mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "none", small.to_str().unwrap()]);
    let layer = Layer::new().file("big", &vec![7; 8 << 20]).bytes();
    let reference = Image::new(config(), &[(layer, Pack::Gzip)]).layout(&dir.path().join("image"));
    let images = Images::open(ImageOptions { dir: small.join("images"), ..image_options(dir.path()) }).unwrap();
    let error = get(&images, &reference).await;
    let left = fs::read_dir(small.join("images/work")).unwrap().count();
    drop(images);
    mount(&["umount", small.to_str().unwrap()]);
    let error = error.unwrap_err();
    assert!(error.starts_with("no space for image") && error.contains("is full"), "{error}");
    assert_eq!(left, 0);
}

#[tokio::test]
async fn archives_of_docker_save_are_images_too() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Layer::new().file("hello", b"from an archive").bytes();
    let mut config = config();
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [digest(&layer), digest(&layer)] });
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": ["app:v1"], "Layers": ["a/layer.tar", "b/layer.tar"] }]);
    let archive = Layer::new()
        .file("config.json", config.to_string().as_bytes())
        .file("manifest.json", manifest.to_string().as_bytes())
        .folder("a")
        .file("a/layer.tar", &layer)
        .link("b/layer.tar", "../a/layer.tar")
        .file("../victim", b"evil")
        .bytes();
    let file = dir.path().join("saved.tar");
    fs::write(&file, archive).unwrap();
    let images = Images::open(image_options(dir.path())).unwrap();
    let layers = get(&images, &format!("docker-archive:{}:v1", file.display())).await.unwrap();
    assert_eq!(layers.len(), 2);
    assert_eq!(fs::read_to_string(images.layers_dir().join(&layers[0]).join("hello")).unwrap(), "from an archive");
    assert_eq!(fs::read_dir(dir.path().join("images/work")).unwrap().count(), 0);
    let missing = images.get(&format!("docker-archive:{}:v2", file.display())).await.err().unwrap();
    assert!(matches!(*missing, ImageError::NotFound(_)), "{missing}");
}

#[tokio::test]
async fn a_store_has_one_worker_and_forgets_what_is_half_made() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Layer::new().file("a", b"x").bytes();
    let reference = Image::new(config(), &[(layer, Pack::Plain)]).layout(&dir.path().join("image"));
    let images = Images::open(image_options(dir.path())).unwrap();
    let error = Images::open(image_options(dir.path())).err().unwrap().to_string();
    assert!(error.contains("another worker uses"), "{error}");
    get(&images, &reference).await.unwrap();
    drop(images);
    let store = dir.path().join("images");
    for half in ["work/7/layer", "layers/unknown"] {
        fs::create_dir_all(store.join(half)).unwrap();
    }
    fs::write(store.join("images/half.json"), "{").unwrap();
    let images = Images::open(image_options(dir.path())).unwrap();
    assert_eq!(images.held(), [reference]);
    assert!(!store.join("work/7").exists() && !store.join("layers/unknown").exists());
    assert!(!store.join("images/half.json").exists());
}
