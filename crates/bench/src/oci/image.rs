//! The images of the bench, written as OCI layouts: one of a static busybox, one with a layer of
//! many files. Knows nothing of what is done with them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Programs of busybox that the bench runs.
const APPLETS: [&str; 4] = ["echo", "sh", "sleep", "true"];
/// Files of the large layer, and the bytes of all: as of an image with an interpreter and its library.
const FILES: usize = 4_000;
const FILES_BYTES: usize = 128 << 20;

/// What the large layer has.
pub(super) struct Large {
    pub(super) reference: String,
    /// The layer as it is kept.
    pub(super) packed: PathBuf,
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) packed_bytes: u64,
}

fn digest(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(bytes))
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn file_digest(path: &Path) -> io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
    loop {
        let read = io::Read::read(&mut file, &mut buffer)?;
        if read == 0 {
            return Ok((hexadecimal(hasher), bytes));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

fn header(kind: tar::EntryType, mode: u32, bytes: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(bytes as u64);
    header
}

fn folder(layer: &mut tar::Builder<impl Write>, path: &str) -> io::Result<()> {
    layer.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), path, io::empty())
}

/// An image of busybox. Gives the reference to it.
pub(super) fn busybox(program: &Path, dir: &Path) -> io::Result<String> {
    let program = fs::read(program)?;
    let mut layer = tar::Builder::new(Vec::new());
    for path in ["bin", "etc", "dev", "proc", "sys", "tmp"] {
        folder(&mut layer, path)?;
    }
    let mut plain = header(tar::EntryType::Regular, 0o755, program.len());
    layer.append_data(&mut plain, "bin/busybox", &program[..])?;
    for applet in APPLETS {
        let mut link = header(tar::EntryType::Symlink, 0o777, 0);
        layer.append_link(&mut link, format!("bin/{applet}"), "busybox")?;
    }
    let layer = layer.into_inner()?;
    let name = digest(&layer);
    blob(dir, &name, &layer)?;
    layout(dir, &name, (&name, layer.len() as u64))
}

/// An image with one layer of many files, packed by `gzip`.
pub(super) fn large(dir: &Path) -> io::Result<Large> {
    fs::create_dir_all(dir)?;
    let plain = dir.join("layer.tar");
    let mut layer = tar::Builder::new(File::create(&plain)?);
    let mut words = Words(1);
    let mut bytes = 0;
    for number in 0..FILES {
        if number % 40 == 0 {
            folder(&mut layer, &format!("library/part{}", number / 40))?;
        }
        // Most are small, some are large: one to 64 parts of the mean, in turns.
        let size = (FILES_BYTES / FILES / 4) * if number % 16 == 0 { 49 } else { 1 };
        let content = words.text(size);
        bytes += size as u64;
        let path = format!("library/part{}/file{number}", number / 40);
        layer.append_data(&mut header(tar::EntryType::Regular, 0o644, size), path, &content[..])?;
    }
    layer.into_inner()?.flush()?;
    let (diff, _) = file_digest(&plain)?;
    let packed = dir.join("layer.tar.gz");
    let mut gzip = Command::new("gzip");
    gzip.args(["-6", "-c"]).arg(&plain).stdin(Stdio::null()).stdout(File::create(&packed)?);
    if !gzip.status()?.success() {
        return Err(io::Error::other("gzip failed"));
    }
    let (name, packed_bytes) = file_digest(&packed)?;
    let into = dir.join("layout/blobs/sha256");
    fs::create_dir_all(&into)?;
    fs::hard_link(&packed, into.join(name.trim_start_matches("sha256:")))?;
    let reference = layout(&dir.join("layout"), &diff, (&name, packed_bytes))?;
    fs::remove_file(plain)?;
    Ok(Large { reference, packed, files: FILES, bytes, packed_bytes })
}

fn blob(dir: &Path, digest: &str, bytes: &[u8]) -> io::Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes)
}

/// The documents around one layer, whose blob is there.
fn layout(dir: &Path, diff: &str, (layer, size): (&str, u64)) -> io::Result<String> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [diff] },
    });
    let put = |document: &Value, media: &str| -> io::Result<Value> {
        let bytes = serde_json::to_vec(document)?;
        let name = digest(&bytes);
        blob(dir, &name, &bytes)?;
        Ok(json!({ "mediaType": media, "digest": name, "size": bytes.len() }))
    };
    let config = put(&config, "application/vnd.oci.image.config.v1+json")?;
    let media = "application/vnd.oci.image.manifest.v1+json";
    let layers = [json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size })];
    let manifest = json!({ "schemaVersion": 2, "mediaType": media, "config": config, "layers": layers });
    let index = json!({ "schemaVersion": 2, "manifests": [put(&manifest, media)?] });
    fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
    Ok(format!("oci:{}", dir.display()))
}

/// Text that packs about as well as programs do: words of a small vocabulary, the same every time.
struct Words(u64);

impl Words {
    fn text(&mut self, bytes: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes + 16);
        while text.len() < bytes {
            // A linear congruential generator; constants of Knuth's MMIX.
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = (self.0 >> 33) % 50_000;
            text.extend_from_slice(format!("{:x} ", word * 7919).as_bytes());
        }
        text.truncate(bytes);
        text
    }
}
