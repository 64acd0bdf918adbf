//! TLS of the port: certificate and key from files, loaded again when they change, and a
//! listener whose handshakes do not wait for one another. Knows nothing of what is asked.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use volley_wire::access::{AccessError, certificates, private_key};

use crate::connections::set_up;

/// A handshake takes at most this.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// Handshakes at a time; more connections wait in the system's queue.
const HANDSHAKES_MAX: usize = 256;
/// Connections that are ready and not taken yet.
const READY_MAX: usize = 64;
/// The files are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Wait after the system refused a connection (too many open files).
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// Where certificate and key are (PEM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, then those up to but without its authority's.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Certificates of who signs the clients'; with it every client must show one.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    fn load(&self) -> Result<Arc<ServerConfig>, AccessError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let verifier = verifier.map_err(|error| AccessError::File {
                    what: "certificates of clients' authorities",
                    file: file.clone(),
                    problem: error.to_string(),
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(certificates(&self.certificate)?, private_key(&self.key)?)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// What is in the files; equal contents need no loading.
    fn contents(&self) -> Vec<Option<Vec<u8>>> {
        let files = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        files.into_iter().flatten().map(|file| fs::read(file).ok()).collect()
    }
}

/// Certificate and key that are in use, and the task that looks after their files.
#[derive(Debug)]
pub(crate) struct Tls {
    config: watch::Receiver<Arc<ServerConfig>>,
    looking: JoinHandle<()>,
}

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, AccessError> {
        let seen = files.contents();
        let (sender, config) = watch::channel(files.load()?);
        Ok(Self { config, looking: tokio::spawn(look(files, seen, sender)) })
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// Loads the files again when they have changed. A pair that does not fit (one of the two is still the old one) is
/// looked at again; meanwhile the last good one is used.
async fn look(files: TlsFiles, mut seen: Vec<Option<Vec<u8>>>, config: watch::Sender<Arc<ServerConfig>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let contents = files.contents();
        if contents == seen {
            continue;
        }
        seen = contents;
        match files.load() {
            Ok(loaded) => {
                tracing::info!(certificate = %files.certificate.display(), "the certificate was loaded again");
                config.send_replace(loaded);
            }
            Err(error) => tracing::warn!(%error, "the changed certificate is not used; the one before is"),
        }
    }
}

/// Accepts connections and shakes hands with all of them at once.
pub(crate) struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl TlsListener {
    pub(crate) fn new(listener: TcpListener, tls: Tls) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        Ok(Self { ready, address, accepting: tokio::spawn(accept_all(listener, tls, sender)) })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept_all(listener: TcpListener, tls: Tls, ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (connection, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "no connection");
                tokio::time::sleep(ACCEPT_WAIT).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.config.borrow()));
        let ready = ready.clone();
        tokio::spawn(async move {
            let _permit = permit;
            set_up(&connection);
            match tokio::time::timeout(HANDSHAKE_WAIT, acceptor.accept(connection)).await {
                // The server may have ended meanwhile.
                Ok(Ok(stream)) => drop(ready.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no handshake"),
                Err(_) => tracing::debug!(%peer, "the handshake took too long"),
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // Whoever accepts has ended, and this listener with it.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}
