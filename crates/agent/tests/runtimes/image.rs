//! Images built by the tests: OCI layouts with layers of their own making, from the machine's
//! static busybox.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// Where layouts that tests share are kept, from run to run.
pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Builds a layer's archive.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Paths are written as they are: hostile ones, too.
    pub fn add(mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.add(EntryType::Regular, path, "", 0o755, content)
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path, target, 0o777, b"")
    }

    pub fn folder(self, path: &str) -> Self {
        self.add(EntryType::Directory, path, "", 0o755, b"")
    }

    /// Attributes of what comes next.
    pub fn attributes(mut self, pairs: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(pairs.iter().copied()).unwrap();
        self
    }

    /// A header of a kind that claims so many bytes and has few.
    pub fn claim(mut self, kind: EntryType, bytes: u64) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path("name").unwrap();
        header.set_size(bytes);
        header.set_cksum();
        self.0.append(&header, &b"few"[..]).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// How a layer is kept.
#[derive(Clone, Copy)]
pub enum Pack {
    Plain,
    Gzip,
    Zstd,
}

impl Pack {
    pub fn pack(self, layer: &[u8]) -> Vec<u8> {
        match self {
            Pack::Plain => layer.to_vec(),
            Pack::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(layer).unwrap();
                encoder.finish().unwrap()
            }
            Pack::Zstd => zstd::encode_all(layer, 1).unwrap(),
        }
    }
}

/// An image in parts: what a registry or a layout keeps of it.
pub struct Image {
    /// By digest.
    pub blobs: Vec<(String, Vec<u8>)>,
    pub manifest: Vec<u8>,
}

pub fn config() -> Value {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    json!({ "architecture": architecture, "os": "linux", "config": {} })
}

impl Image {
    pub fn new(mut config: Value, layers: &[(Vec<u8>, Pack)]) -> Self {
        let mut blobs = Vec::new();
        let mut described = Vec::new();
        for (layer, pack) in layers {
            let packed = pack.pack(layer);
            let digest = digest(&packed);
            let media = "application/vnd.oci.image.layer.v1.tar";
            described.push(json!({ "mediaType": media, "digest": digest, "size": packed.len() }));
            blobs.push((digest, packed));
        }
        let diffs: Vec<String> = layers.iter().map(|(layer, _)| digest(layer)).collect();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diffs });
        let config = serde_json::to_vec(&config).unwrap();
        let media = "application/vnd.oci.image.config.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": media, "digest": digest(&config), "size": config.len() },
            "layers": described,
        });
        blobs.push((digest(&config), config));
        Self { blobs, manifest: serde_json::to_vec(&manifest).unwrap() }
    }

    /// Writes it as an OCI layout; gives the reference to it.
    pub fn layout(&self, dir: &Path) -> String {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let manifest = (digest(&self.manifest), self.manifest.clone());
        for (digest, bytes) in self.blobs.iter().chain([&manifest]) {
            fs::write(blobs.join(&digest["sha256:".len()..]), bytes).unwrap();
        }
        let media = "application/vnd.oci.image.manifest.v1+json";
        let entry = json!({ "mediaType": media, "digest": manifest.0, "size": manifest.1.len() });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        format!("oci:{}", dir.display())
    }
}

/// The layer that all containers of tests have.
pub fn busybox_layer() -> Vec<u8> {
    let program = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok());
    let program = program.expect("busybox-static is installed");
    let mut layer = Layer::new();
    for folder in ["bin", "etc", "dev", "proc", "sys", "tmp", "root"] {
        layer = layer.folder(folder);
    }
    layer = layer.file("bin/busybox", &program);
    for applet in [
        "cat", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "kill", "ls", "mkdir", "mknod",
        "mount", "nproc", "ps", "rm", "setsid", "sh", "sleep", "stat", "test", "touch", "tr", "true", "umount",
        "unshare", "yes",
    ] {
        layer = layer.link(&format!("bin/{applet}"), "busybox");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\n";
    let plain = |layer: Layer, path, content| layer.add(EntryType::Regular, path, "", 0o644, content);
    plain(plain(layer, "etc/passwd", passwd.as_bytes()), "etc/group", b"users:x:100:\naudio:x:29:ann\n").bytes()
}

/// A reference to an image with busybox in it.
pub fn busybox() -> String {
    static MADE: OnceLock<String> = OnceLock::new();
    let make = || {
        let dir = fixtures().join("busybox-image");
        // Made aside and moved: another test process may make it at the same time.
        let new = fixtures().join(format!("busybox-image.{}", std::process::id()));
        let mut config = config();
        config["config"] = json!({ "Env": ["FROM_IMAGE=yes"], "Cmd": ["echo", "from the image"] });
        Image::new(config, &[(busybox_layer(), Pack::Gzip)]).layout(&new);
        if fs::rename(&new, &dir).is_err() {
            fs::remove_dir_all(&new).unwrap();
        }
        format!("oci:{}", dir.display())
    };
    MADE.get_or_init(make).clone()
}
