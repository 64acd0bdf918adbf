//! The listener, and the rule who may reach it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use volley_control::Control;
use volley_wire::access::{AccessError, ServerAccess};

use crate::connections;
use crate::peers::Peers;
use crate::tls::{Tls, TlsListener};
use crate::{TlsFiles, Tokens, WorkerStreams};

/// The settings of a server's port.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Every call needs a token.
    pub tokens: bool,
    /// TLS instead of plain connections.
    pub tls: Option<TlsFiles>,
    /// Listen where others can reach it although there are no tokens or no TLS.
    pub insecure: bool,
    /// How the other servers of the cell are reached: whom to trust, and what certificate to show.
    pub peers: ServerAccess,
}

/// Why it does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Others could reach it.
    #[error(
        "{address} is not a loopback address, and {lack}: use 127.0.0.1, or give --tokens with --tls-cert and --tls-key, \
         or take the risk with --insecure"
    )]
    NotLoopback {
        /// Where.
        address: SocketAddr,
        /// What would make it safe.
        lack: &'static str,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] AccessError),
    /// The system refused.
    #[error("cannot listen on {address}: {source}; stop what uses the port, or choose another with --listen")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// A bound port that does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    tls: Option<Tls>,
    tokens: Tokens,
    peers: ServerAccess,
}

impl Server {
    /// Binds the port.
    pub async fn bind(options: &ApiOptions) -> Result<Self, BindError> {
        let address = options.listen;
        let loopback = address.ip().is_loopback();
        if let (false, Some(lack)) = (loopback, lack(options)) {
            if !options.insecure {
                return Err(BindError::NotLoopback { address, lack });
            }
            tracing::warn!(%address, "--insecure: {lack}");
        }
        let tls = options.tls.clone().map(Tls::load).transpose()?;
        let tokens = if options.tokens { Tokens::On } else { Tokens::Off { loopback } };
        let listener = TcpListener::bind(address).await.map_err(|source| BindError::Bind { address, source })?;
        Ok(Self { listener, tls, tokens, peers: options.peers.clone() })
    }

    /// The address it got.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `shutdown` ends; then closes the workers' streams and lets short requests end.
    pub async fn serve(
        self,
        control: Arc<Control>,
        streams: Arc<WorkerStreams>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let peers = Peers::new(Arc::clone(&control), Arc::clone(&streams), self.peers, self.tls.is_some());
        let routes = crate::routes::routes(control, Arc::clone(&streams), self.tokens, peers);
        let shutdown = async move {
            shutdown.await;
            streams.close_all();
        };
        if let Some(tls) = self.tls {
            let listener = TlsListener::new(self.listener, tls)?;
            return connections::serve(listener, routes, shutdown).await;
        }
        let listener = self.listener.tap_io(|connection| connections::set_up(connection));
        connections::serve(listener, routes, shutdown).await
    }
}

/// What an address that others can reach lacks.
fn lack(options: &ApiOptions) -> Option<&'static str> {
    match (options.tokens, &options.tls) {
        (false, _) => Some("without tokens anybody who can connect may run commands on the workers"),
        (true, None) => Some("without TLS whoever is in between can read the tokens"),
        (true, Some(_)) => None,
    }
}
