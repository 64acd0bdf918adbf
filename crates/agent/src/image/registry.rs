//! Pulls from registries: manifests, configurations and layers, with credentials, mirrors, and
//! downloads that go on where they broke off. What comes is held against its digest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use base64::Engine as _;
use futures_util::StreamExt as _;
use oci_client::Reference;
use oci_client::client::{BlobResponse, Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::archive::{DOCUMENT_BYTES_MAX, digest_of, hex};
use super::progress::Progress;
use super::source::{Blob, Found};
use super::{ImageError, config, unpack};

/// A registry that says nothing for so long is not waited for.
const READ_WAIT: Duration = Duration::from_secs(30);
/// Connecting takes at most this.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// A download that broke off is taken up again so often.
const TRIES: u32 = 4;
/// Wait before the second try; doubles with each.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// How registries are spoken to.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// A docker config.json with credentials; `None`: where docker keeps it, if it is there.
    pub auth_file: Option<PathBuf>,
    /// Registries (as `host:port`) that are asked by plain HTTP. Loopback always is.
    pub plain_http: Vec<String>,
    /// Asked before a registry: `(registry, mirror)`.
    pub mirrors: Vec<(String, String)>,
}

pub(super) struct Registry {
    options: RegistryOptions,
}

#[derive(Debug, Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
}

#[derive(Deserialize)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
}

impl std::fmt::Debug for AuthEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthEntry(redacted)")
    }
}

/// A pull from one place.
pub(super) struct Pull {
    client: Client,
    at: Reference,
    auth: RegistryAuth,
}

impl Registry {
    pub(super) fn new(options: RegistryOptions) -> Self {
        static PROVIDER: Once = Once::new();
        // Another part of the process may have chosen one already.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        Self { options }
    }

    /// The places to ask, in order.
    fn places(&self, reference: &Reference) -> Vec<Reference> {
        let registry = reference.registry();
        let mirrors = self.options.mirrors.iter().filter(|(of, _)| of == registry);
        let mirrored = mirrors.map(|(_, mirror)| {
            let mut at = reference.clone();
            at.set_mirror_registry(mirror.clone());
            at
        });
        mirrored.chain([reference.clone()]).collect()
    }

    fn client(&self, at: &Reference) -> Client {
        let registry = at.resolve_registry();
        let plain = is_loopback(registry) || self.options.plain_http.iter().any(|host| host == registry);
        Client::new(ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            read_timeout: Some(READ_WAIT),
            connect_timeout: Some(CONNECT_WAIT),
            user_agent: concat!("volley/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        })
    }

    fn auth(&self, registry: &str) -> Result<RegistryAuth, String> {
        let path = match &self.options.auth_file {
            Some(path) => path.clone(),
            None => {
                let docker = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
                let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
                match docker.or_else(home).map(|dir| dir.join("config.json")).filter(|path| path.is_file()) {
                    Some(path) => path,
                    None => return Ok(RegistryAuth::Anonymous),
                }
            }
        };
        let problem =
            |error: &dyn std::fmt::Display| format!("the credentials in {} cannot be read: {error}", path.display());
        let bytes = std::fs::read(&path).map_err(|error| problem(&error))?;
        let file: AuthFile = serde_json::from_slice(&bytes).map_err(|error| problem(&error))?;
        let names = [registry.to_owned(), format!("https://{registry}"), format!("http://{registry}")];
        let hub = (registry == "index.docker.io").then(|| "https://index.docker.io/v1/".to_owned());
        let entry = names.iter().chain(&hub).find_map(|name| file.auths.get(name));
        let Some(entry) = entry else { return Ok(RegistryAuth::Anonymous) };
        if let Some(token) = &entry.registrytoken {
            return Ok(RegistryAuth::Bearer(token.clone()));
        }
        if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
            return Ok(RegistryAuth::Basic(user.clone(), password.clone()));
        }
        let Some(auth) = &entry.auth else { return Ok(RegistryAuth::Anonymous) };
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok();
        let pair = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.as_deref().and_then(|pair| pair.split_once(':'));
        let (user, password) =
            pair.ok_or_else(|| problem(&format!("the entry of {registry} is no base64 of user:password")))?;
        Ok(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()))
    }

    /// Finds an image; the first place that has it counts.
    pub(super) async fn find(&self, name: &str, reference: &Reference) -> Result<(Found, Arc<Pull>), ImageError> {
        let mut last = None;
        for at in self.places(reference) {
            let auth = self.auth(at.resolve_registry());
            let auth = auth.map_err(|problem| ImageError::Unreachable { reference: name.to_owned(), problem })?;
            let pull = Pull { client: self.client(&at), at, auth };
            match pull.find(name).await {
                Ok(found) => return Ok((found, Arc::new(pull))),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ImageError::NotFound(name.to_owned())))
    }
}

fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Pull {
    async fn find(&self, name: &str) -> Result<Found, ImageError> {
        let pulled = self.client.pull_image_manifest(&self.at, &self.auth).await;
        let (manifest, digest) = pulled.map_err(|error| pull_error(name, error))?;
        let broken = |problem: String| ImageError::Broken { reference: name.to_owned(), problem };
        if manifest.config.size > DOCUMENT_BYTES_MAX as i64 {
            return Err(broken(format!("its configuration is larger than {} MiB", DOCUMENT_BYTES_MAX >> 20)));
        }
        let mut bytes = Vec::new();
        let config = self.client.pull_blob(&self.at, &manifest.config, &mut bytes).await;
        config.map_err(|error| pull_error(name, error))?;
        if digest_of(&bytes) != manifest.config.digest {
            return Err(broken("its configuration is not what its digest says".to_owned()));
        }
        let (config, layers) = config::parse(name, &bytes)?;
        let blob = |layer: &oci_client::manifest::OciDescriptor| Blob {
            digest: Some(layer.digest.clone()),
            size: u64::try_from(layer.size).unwrap_or_default(),
            file: None,
        };
        Ok(Found { digest, config, layers, blobs: manifest.layers.iter().map(blob).collect() })
    }

    /// Downloads a layer into a folder; goes on with what an earlier try left there. Gives the file.
    pub(super) async fn fetch(
        &self,
        name: &str,
        blob: &Blob,
        dir: &Path,
        progress: &Progress,
    ) -> Result<PathBuf, ImageError> {
        let broken = |problem: String| ImageError::Broken { reference: name.to_owned(), problem };
        let digest = blob.digest.as_deref().unwrap_or_default();
        let hex = hex(digest).ok_or_else(|| broken(format!("'{digest}' is no SHA-256 digest")))?;
        let path = dir.join(format!("{hex}.part"));
        let mut wait = RETRY_WAIT;
        for left in (0..TRIES).rev() {
            match self.go_on(name, blob, (digest, &path), progress).await {
                Ok(()) => return Ok(path),
                Err(error @ ImageError::Unreachable { .. }) if left > 0 => {
                    tracing::debug!(%error, digest, "a download is taken up again");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(error) => {
                    if matches!(error, ImageError::Broken { .. } | ImageError::NoSpace { .. }) {
                        drop(tokio::fs::remove_file(&path).await);
                    }
                    return Err(error);
                }
            }
        }
        unreachable!("the last try returns")
    }

    async fn go_on(
        &self,
        name: &str,
        blob: &Blob,
        (digest, path): (&str, &Path),
        progress: &Progress,
    ) -> Result<(), ImageError> {
        let disk = |error| ImageError::disk(name, path.parent().unwrap_or(path), error);
        let broken = |problem: String| ImageError::Broken { reference: name.to_owned(), problem };
        let mut options = tokio::fs::OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(path).await.map_err(disk)?;
        let mut hasher = Sha256::new();
        let mut at = hash_file(&mut file, &mut hasher).await.map_err(disk)?;
        let mut fetching = progress.fetching();
        fetching.add(at);
        if at < blob.size || blob.size == 0 {
            let response = self.client.pull_blob_stream_partial(&self.at, digest, at, None).await;
            let mut stream = match response.map_err(|error| pull_error(name, error))? {
                BlobResponse::Partial(stream) => stream.stream,
                BlobResponse::Full(stream) => {
                    file.set_len(0).await.map_err(disk)?;
                    file = options.open(path).await.map_err(disk)?;
                    (at, hasher) = (0, Sha256::new());
                    fetching = progress.fetching();
                    stream.stream
                }
            };
            while let Some(bytes) = stream.next().await {
                let bytes = bytes.map_err(|error| ImageError::Unreachable {
                    reference: name.to_owned(),
                    problem: format!("the registry broke off: {}", innermost(&error)),
                })?;
                at += bytes.len() as u64;
                fetching.add(bytes.len() as u64);
                if at > blob.size {
                    return Err(broken(format!("layer {digest} is larger than its manifest says")));
                }
                hasher.update(&bytes);
                file.write_all(&bytes).await.map_err(disk)?;
            }
            file.flush().await.map_err(disk)?;
        }
        if at < blob.size {
            let problem = format!("the registry broke off after {at} of {} bytes of {digest}", blob.size);
            return Err(ImageError::Unreachable { reference: name.to_owned(), problem });
        }
        let found = unpack::named(hasher);
        if found != digest {
            return Err(broken(format!("layer {digest} has the digest {found}")));
        }
        fetching.done();
        Ok(())
    }
}

/// Reads a file to its end.
async fn hash_file(file: &mut tokio::fs::File, hasher: &mut Sha256) -> std::io::Result<u64> {
    let (mut buffer, mut at) = (vec![0; 256 << 10], 0);
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return Ok(at);
        }
        hasher.update(&buffer[..read]);
        at += read as u64;
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

fn pull_error(name: &str, error: OciDistributionError) -> ImageError {
    let reference = name.to_owned();
    let machine = || format!("{}/{}", oci_spec::image::Os::default(), oci_spec::image::Arch::default());
    match error {
        OciDistributionError::ImageManifestNotFoundError(problem)
            if problem.contains("platform") || problem.contains("index") =>
        {
            ImageError::Architecture { reference, has: "other machines".to_owned(), need: machine() }
        }
        OciDistributionError::ImageManifestNotFoundError(_) => ImageError::NotFound(reference),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            ImageError::NotAllowed(reference)
        }
        OciDistributionError::ServerError { code: 401 | 403, .. } => ImageError::NotAllowed(reference),
        OciDistributionError::ServerError { code: 404, .. } => ImageError::NotFound(reference),
        OciDistributionError::RegistryError { envelope, url } => {
            let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
            if has(&[
                OciErrorCode::ManifestUnknown,
                OciErrorCode::NameUnknown,
                OciErrorCode::NotFound,
                OciErrorCode::BlobUnknown,
            ]) {
                ImageError::NotFound(reference)
            } else if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                ImageError::NotAllowed(reference)
            } else {
                ImageError::Unreachable { reference, problem: format!("{url}: {envelope}") }
            }
        }
        OciDistributionError::DigestError(error) => ImageError::Broken { reference, problem: error.to_string() },
        error @ (OciDistributionError::ManifestParsingError(_)
        | OciDistributionError::VersionedParsingError(_)
        | OciDistributionError::JsonError(_)
        | OciDistributionError::UnsupportedMediaTypeError(_)
        | OciDistributionError::UnsupportedSchemaVersionError(_)) => {
            ImageError::Broken { reference, problem: error.to_string() }
        }
        error => ImageError::Unreachable { reference, problem: innermost(&error) },
    }
}
