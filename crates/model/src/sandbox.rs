//! What a container made from an image is given beside its limits: user, network, mounts; and
//! when its image is pulled. All is closed by default.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Bytes;
use crate::submission::LABEL_VALUE_BYTES_MAX;

/// Which network a container sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Its own, with a loopback device and nothing else.
    #[default]
    Loopback,
    /// The machine's; only on workers that allow it.
    Host,
}

/// When a worker asks where an image comes from what its reference means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// When it has no image of this reference.
    #[default]
    IfNotPresent,
    /// For each container: a tag may have moved. What is there already is not fetched again.
    Always,
    /// Never: the image must be there.
    Never,
}

impl PullPolicy {
    /// The default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Something mounted into a container. Written `tmpfs:/scratch`, `tmpfs:/scratch:64Mi`, `/data/set:/mnt` or
/// `/data/set:/mnt:ro`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// Memory that ends with the container.
    Tmpfs {
        /// Where.
        target: String,
        /// How much at most; without it what the container's memory allows.
        size: Option<Bytes>,
    },
    /// A path of the worker, below a root that its owner allowed.
    Host {
        /// What.
        source: String,
        /// Where.
        target: String,
        /// It cannot be written.
        read_only: bool,
    },
}

/// How a container made from an image is held, and its image had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// `name`, `name:group` or numbers; the image's when absent.
    pub user: Option<String>,
    /// Its root file system cannot be written.
    pub read_only: bool,
    /// Which network.
    pub network: Network,
    /// What is mounted beside the image.
    pub mounts: Vec<Mount>,
    /// When its image is pulled.
    #[serde(skip_serializing_if = "PullPolicy::is_default")]
    pub pull: PullPolicy,
}

impl Sandbox {
    /// Nothing was asked for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The label by which a worker says what runs its containers: `process` or `oci`.
pub const RUNTIME_LABEL: &str = "runtime";
/// Its value on workers that run commands of their machine.
pub const RUNTIME_PROCESS: &str = "process";
/// Its value on workers that run images.
pub const RUNTIME_OCI: &str = "oci";
/// The label of workers that let containers use the machine's network.
pub const HOST_NETWORK_LABEL: &str = "host-network";
/// Its value.
pub const HOST_NETWORK_ALLOWED: &str = "allowed";

/// A worker tells so many of its images, those used last.
pub const IMAGES_TOLD_MAX: usize = 16;

/// The affinity key of an image: workers that hold it are preferred. `None` for a name that is too long for a key.
#[must_use]
pub fn image_affinity(image: &str) -> Option<String> {
    Some(format!("image:{image}")).filter(|key| key.len() <= LABEL_VALUE_BYTES_MAX)
}

/// Why a text is no mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not a mount ({problem}); write /host/path:/path, /host/path:/path:ro, tmpfs:/path or tmpfs:/path:64Mi"
)]
pub struct MountError {
    text: String,
    problem: &'static str,
}

impl FromStr for Mount {
    type Err = MountError;

    fn from_str(text: &str) -> Result<Self, MountError> {
        let error = |problem| MountError { text: text.chars().take(128).collect(), problem };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, option) = match parts[..] {
            [source, target] => (source, target, None),
            [source, target, option] => (source, target, Some(option)),
            _ => return Err(error("two or three parts are needed")),
        };
        let plain = |path: &str| {
            path.starts_with('/') && path.len() > 1 && !path.split('/').any(|part| part == "..") && !path.contains('\0')
        };
        if !plain(target) {
            return Err(error("where it goes must be an absolute path without '..', and not /"));
        }
        let target = target.to_owned();
        match (source, option) {
            ("tmpfs", None) => Ok(Mount::Tmpfs { target, size: None }),
            ("tmpfs", Some(size)) => match size.parse() {
                Ok(Bytes(size)) if size > 0 => Ok(Mount::Tmpfs { target, size: Some(Bytes(size)) }),
                _ => Err(error("its size is not an amount of bytes")),
            },
            (source, option) if plain(source) && matches!(option, None | Some("ro" | "rw")) => {
                Ok(Mount::Host { source: source.to_owned(), target, read_only: option == Some("ro") })
            }
            (source, _) if plain(source) => Err(error("the third part of a host path is 'ro' or 'rw'")),
            _ => Err(error("what is mounted must be 'tmpfs' or an absolute path without '..'")),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mount::Tmpfs { target, size: None } => write!(f, "tmpfs:{target}"),
            Mount::Tmpfs { target, size: Some(size) } => write!(f, "tmpfs:{target}:{size}"),
            Mount::Host { source, target, read_only: false } => write!(f, "{source}:{target}"),
            Mount::Host { source, target, read_only: true } => write!(f, "{source}:{target}:ro"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_they_are_written() {
        for text in ["tmpfs:/scratch", "tmpfs:/scratch:64Mi", "/data/set:/mnt", "/data/set:/mnt:ro"] {
            assert_eq!(text.parse::<Mount>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_mount_is_refused() {
        for text in [
            "",
            "/data",
            "data:/mnt",
            "/data:mnt",
            "/data:/",
            "/data/../etc:/mnt",
            "/data:/a/../b",
            "/a:/b:rx",
            "a:b:c:d",
            "tmpfs:/x:many",
            "tmpfs:/x:0",
        ] {
            assert!(text.parse::<Mount>().is_err(), "{text}");
        }
    }
}
