//! The flags of `volley run` for containers that are made from images.

use clap::{Args, ValueEnum};
use volley_model::{Mount, Network, PullPolicy, Sandbox, Spec};

/// When a worker asks the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Pull {
    /// When it has no image of this name.
    #[default]
    IfNotPresent,
    /// For each container: a tag may have moved.
    Always,
    /// Never: the image must be there.
    Never,
}

impl From<Pull> for PullPolicy {
    fn from(pull: Pull) -> Self {
        match pull {
            Pull::IfNotPresent => PullPolicy::IfNotPresent,
            Pull::Always => PullPolicy::Always,
            Pull::Never => PullPolicy::Never,
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Image")]
pub(super) struct SandboxFlags {
    /// Made from this image, as in busybox:1.36, registry.example.com/app@sha256:..., or oci:/path; else a process.
    #[arg(long, value_name = "IMAGE", conflicts_with = "file")]
    image: Option<String>,
    /// When its worker asks the registry what the image is.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", requires = "image")]
    pull: Pull,
    /// User in the image, as in name, name:group, 1000:1000 (default: the image's).
    #[arg(long, requires = "image")]
    user: Option<String>,
    /// Its root file system cannot be written.
    #[arg(long, requires = "image")]
    read_only: bool,
    /// Uses the worker's network; only on workers that allow it.
    #[arg(long, requires = "image")]
    host_network: bool,
    /// Mounted into it: tmpfs:/path[:SIZE], or /host/path:/path[:ro] below a folder that its worker allows.
    #[arg(long = "mount", value_name = "MOUNT", requires = "image")]
    mounts: Vec<Mount>,
}

impl SandboxFlags {
    pub(super) fn apply(&self, spec: &mut Spec) {
        spec.image.clone_from(&self.image);
        spec.sandbox = Sandbox {
            user: self.user.clone(),
            read_only: self.read_only,
            network: if self.host_network { Network::Host } else { Network::Loopback },
            mounts: self.mounts.clone(),
            pull: self.pull.into(),
        };
    }
}
