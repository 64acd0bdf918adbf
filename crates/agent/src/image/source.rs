//! What a reference names: a registry's image, a layout in a folder, or an archive of `docker
//! save`; and the part that all sources have in common, the image found.

use std::path::{Path, PathBuf};

use oci_client::Reference;

use super::{ImageConfig, ImageError};

/// Where an image comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Registry(Box<Reference>),
    /// An OCI layout in a folder, and which tag.
    Layout(PathBuf, Option<String>),
    /// A file as `docker save` or an OCI layout in a tar, and which tag.
    Archive(PathBuf, Option<String>),
}

/// One layer, compressed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    /// `sha256:...` of the bytes as they are kept; `None` when only the digest of what is inside is known.
    pub(super) digest: Option<String>,
    pub(super) size: u64,
    /// Where it lies, unless it is still to be fetched.
    pub(super) file: Option<PathBuf>,
}

/// An image that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) digest: String,
    pub(super) config: ImageConfig,
    /// Digests of the unpacked layers, lowest first.
    pub(super) layers: Vec<String>,
    pub(super) blobs: Vec<Blob>,
}

impl Source {
    /// Reads a reference. Paths of this machine must lie below one of `roots`.
    pub(super) fn parse(reference: &str, roots: &[PathBuf]) -> Result<Self, ImageError> {
        for (prefix, make) in [
            ("oci:", Source::Layout as fn(PathBuf, Option<String>) -> Source),
            ("docker-archive:", Source::Archive),
            ("oci-archive:", Source::Archive),
        ] {
            if let Some(rest) = reference.strip_prefix(prefix) {
                let (path, tag) = match rest.rsplit_once(':') {
                    Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
                    _ => (rest, None),
                };
                return Ok(make(below(reference, path, roots)?, tag));
            }
        }
        let parsed = reference.parse::<Reference>().map_err(|error| wrong(reference, error.to_string()))?;
        Ok(Source::Registry(Box::new(parsed)))
    }
}

fn wrong(reference: &str, problem: String) -> ImageError {
    ImageError::Reference { reference: reference.to_owned(), problem }
}

/// The real path, if it may be read.
fn below(reference: &str, path: &str, roots: &[PathBuf]) -> Result<PathBuf, ImageError> {
    let not_allowed =
        || wrong(reference, "it is not below a folder that this worker takes images from, see --image-root".to_owned());
    // What lies elsewhere is not even told to be there or not.
    let real = Path::new(path).canonicalize().map_err(|_| {
        match roots.iter().any(|root| Path::new(path).starts_with(root)) {
            true => ImageError::NotFound(reference.to_owned()),
            false => not_allowed(),
        }
    })?;
    if roots.iter().any(|root| real.starts_with(root)) { Ok(real) } else { Err(not_allowed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_their_source() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("layout")).unwrap();
        let layout = root.join("layout");
        let roots = [root.clone()];
        let parse = |text: &str| Source::parse(text, &roots);
        match parse(&format!("oci:{}:v1", layout.display())).unwrap() {
            Source::Layout(path, tag) => assert_eq!((path, tag.as_deref()), (layout, Some("v1"))),
            other => panic!("{other:?}"),
        }
        match parse("busybox").unwrap() {
            Source::Registry(reference) => assert_eq!(reference.whole(), "docker.io/library/busybox:latest"),
            other => panic!("{other:?}"),
        }
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        for text in ["oci:/etc", "oci:/no/such/folder", &format!("oci:{}/out", root.display()), "BIG/Letters:x:y"] {
            assert!(matches!(parse(text), Err(ImageError::Reference { .. })), "{text}");
        }
        let missing = parse(&format!("docker-archive:{}/missing.tar", root.display()));
        assert!(matches!(missing, Err(ImageError::NotFound(_))), "{missing:?}");
    }
}
