//! How a client reaches a server: address, token, and whom it trusts. Used by the HTTP client
//! and by whoever speaks gRPC, so that both connect alike.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Where a server answers, what to show it, and whom to trust.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ServerAccess {
    /// As in `http://127.0.0.1:7171` or `https://volley.example`: servers of one cell, any of which will do. At least
    /// one.
    pub servers: Vec<String>,
    /// A token's secret.
    pub token: Option<String>,
    /// Certificates (PEM) of who may have signed the server's; those of the system when `None`.
    pub ca: Option<PathBuf>,
    /// A certificate and its key (PEM), for a server that asks its clients for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why no connection can be made.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file with certificates or a key.
    #[error("{what} in {file} cannot be used: {problem}")]
    File {
        /// What it was to hold.
        what: &'static str,
        /// Which.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// They do not go together.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// Nobody to trust.
    #[error("this machine has no certificates of authorities; name the server's with --ca")]
    NobodyTrusted,
}

impl ServerAccess {
    /// A server that asks for no token; or several, divided by commas.
    #[must_use]
    pub fn open(servers: &str) -> Self {
        let servers = servers.split(',').map(|server| server.trim().trim_end_matches('/').to_owned()).collect();
        Self { servers, ..Self::default() }
    }

    /// For messages: all of them.
    #[must_use]
    pub fn server(&self) -> String {
        self.servers.join(",")
    }

    /// The value of the header `authorization` (and of the gRPC metadata of that name).
    #[must_use]
    pub fn authorization(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {token}"))
    }

    /// Connects to `http://` and `https://` addresses.
    ///
    /// # Errors
    /// When a file cannot be read or nobody is trusted.
    pub fn connector(&self) -> Result<HttpsConnector<HttpConnector>, AccessError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        // Requests are small and wanted at once.
        http.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new().with_tls_config(self.tls()?);
        Ok(builder.https_or_http().enable_all_versions().wrap_connector(http))
    }

    fn tls(&self) -> Result<ClientConfig, AccessError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(self.roots()?);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((certificate, key)) => {
                Ok(builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?)
            }
        }
    }

    fn roots(&self) -> Result<RootCertStore, AccessError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(file) => {
                for certificate in certificates(file)? {
                    roots.add(certificate)?;
                }
            }
            None if self.servers.iter().any(|server| server.starts_with("https://")) => {
                // One that cannot be read takes nothing from the others.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(AccessError::NobodyTrusted);
                }
            }
            None => {}
        }
        Ok(roots)
    }
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let wrong = |problem: String| AccessError::File { what: "certificates", file: file.to_owned(), problem };
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| wrong(error.to_string()))?;
    if read.is_empty() { Err(wrong("it holds none".to_owned())) } else { Ok(read) }
}

/// The private key of a PEM file.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, AccessError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| AccessError::File {
        what: "the private key",
        file: file.to_owned(),
        problem: error.to_string(),
    })
}

/// Never shows the secret.
impl fmt::Debug for ServerAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_some() { "a token" } else { "no token" };
        write!(f, "{} with {token}", self.server())
    }
}
