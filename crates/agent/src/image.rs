//! Images: where they come from, and the store of their unpacked layers on a worker's disk.
//! Knows nothing of containers, runtimes or servers.

mod archive;
mod config;
mod headers;
mod progress;
mod registry;
mod source;
mod space;
mod store;
mod unpack;

use std::io;

pub use config::ImageConfig;
pub use registry::RegistryOptions;
pub use store::{ImageHold, ImageOptions, Images};

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a reference to an image.
    #[error("'{reference}' is not an image ({problem}); write one as in docker.io/library/busybox:1.36 or oci:/path")]
    Reference {
        /// What was given.
        reference: String,
        /// What is wrong.
        problem: String,
    },
    /// The registry or archive does not have it.
    #[error("there is no image {0}; look for a mistake in its name or tag")]
    NotFound(String),
    /// It is not here, and must not be fetched.
    #[error(
        "image {0} is not on this worker, and its spec says never to pull it; say if_not_present, or require a worker that has it"
    )]
    NotHere(String),
    /// The registry does not give it to us.
    #[error(
        "the registry does not give image {0} to this worker; log in (docker login), or name a file with --registry-auth"
    )]
    NotAllowed(String),
    /// It is for other machines.
    #[error("image {reference} is for {has}, this worker is {need}; build it for {need}")]
    Architecture {
        /// Which.
        reference: String,
        /// What it is for.
        has: String,
        /// What this machine is.
        need: String,
    },
    /// It does not fit.
    #[error("no space for image {reference}: {problem}")]
    NoSpace {
        /// Which.
        reference: String,
        /// What is full.
        problem: String,
    },
    /// Its content is not what its digest says, or no layer.
    #[error("image {reference} is broken: {problem}")]
    Broken {
        /// Which.
        reference: String,
        /// What is wrong.
        problem: String,
    },
    /// The registry cannot be reached, or stopped answering.
    #[error("image {reference} could not be pulled: {problem}")]
    Unreachable {
        /// Which.
        reference: String,
        /// What went wrong.
        problem: String,
    },
    /// This machine failed.
    #[error("image {reference} could not be kept in {dir}: {source}")]
    Disk {
        /// Which.
        reference: String,
        /// Where.
        dir: String,
        /// Why.
        source: io::Error,
    },
}

/// What can go wrong with one layer, before it is known whose it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// The archive is not what it should be.
    #[error("{0}")]
    Broken(String),
    /// More than is allowed.
    #[error("it needs more than --image-disk allows beside the images in use")]
    TooLarge,
    /// This machine failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ImageError {
    /// What became of a pull, as metrics name it.
    pub(crate) fn result(&self) -> &'static str {
        match self {
            Self::NotFound(_) | Self::NotHere(_) => "not_found",
            Self::NotAllowed(_) => "denied",
            Self::Broken { .. } => "broken",
            Self::NoSpace { .. } => "no_space",
            Self::Unreachable { .. } => "unreachable",
            Self::Reference { .. } | Self::Architecture { .. } | Self::Disk { .. } => "failed",
        }
    }

    pub(crate) fn disk(reference: &str, dir: &std::path::Path, source: io::Error) -> Self {
        let reference = reference.to_owned();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::NoSpace { reference, problem: format!("the disk of {} is full", dir.display()) };
        }
        Self::Disk { reference, dir: dir.display().to_string(), source }
    }

    pub(crate) fn layer(reference: &str, dir: &std::path::Path, error: LayerError) -> Self {
        let name = reference.to_owned();
        match error {
            LayerError::Broken(problem) => Self::Broken { reference: name, problem },
            error @ LayerError::TooLarge => Self::NoSpace { reference: name, problem: error.to_string() },
            LayerError::Io(error) => Self::disk(reference, dir, error),
        }
    }
}
