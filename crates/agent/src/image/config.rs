//! What an image says about how to run it.

use oci_spec::image::{Arch, ImageConfiguration, Os};
use serde::{Deserialize, Serialize};

use super::ImageError;

/// What an image says about how to run it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `KEY=VALUE` each.
    pub env: Vec<String>,
    /// The command's first words.
    pub entrypoint: Vec<String>,
    /// The words after them, unless others are given.
    pub cmd: Vec<String>,
    /// As in `USER`; empty for root.
    pub user: String,
    /// Empty for the root folder.
    pub working_dir: String,
    /// What asks it to end; SIGTERM when absent.
    pub stop_signal: Option<String>,
}

/// A configuration as the registry has it: what to run, and the digests of its layers when they are unpacked.
pub(super) fn parse(reference: &str, bytes: &[u8]) -> Result<(ImageConfig, Vec<String>), ImageError> {
    let broken = |problem: String| ImageError::Broken { reference: reference.to_owned(), problem };
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|error| broken(format!("its configuration cannot be read: {error}")))?;
    let need = (Os::default(), Arch::default());
    if (config.os(), config.architecture()) != (&need.0, &need.1) {
        let has = format!("{}/{}", config.os(), config.architecture());
        let need = format!("{}/{}", need.0, need.1);
        return Err(ImageError::Architecture { reference: reference.to_owned(), has, need });
    }
    let layers = config.rootfs().diff_ids().clone();
    let run = config.config().as_ref();
    let words = |of: fn(&oci_spec::image::Config) -> &Option<Vec<String>>| {
        run.and_then(|config| of(config).clone()).unwrap_or_default()
    };
    let text = |of: fn(&oci_spec::image::Config) -> &Option<String>| run.and_then(|config| of(config).clone());
    let parsed = ImageConfig {
        env: words(oci_spec::image::Config::env),
        entrypoint: words(oci_spec::image::Config::entrypoint),
        cmd: words(oci_spec::image::Config::cmd),
        user: text(oci_spec::image::Config::user).unwrap_or_default(),
        working_dir: text(oci_spec::image::Config::working_dir).unwrap_or_default(),
        stop_signal: text(oci_spec::image::Config::stop_signal),
    };
    Ok((parsed, layers))
}
