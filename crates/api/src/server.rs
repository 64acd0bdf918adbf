//! The listener. Loopback only: everybody who can connect may do everything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use volley_control::Control;

use crate::WorkerStreams;

/// The settings of a server's port.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
}

/// Why it does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Others could reach it.
    #[error("{0} is not a loopback address; there are no tokens yet, so anybody could run commands: use 127.0.0.1")]
    NotLoopback(SocketAddr),
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
}

impl Server {
    /// Binds the port.
    pub async fn bind(options: &ApiOptions) -> Result<Self, BindError> {
        let address = options.listen;
        if !address.ip().is_loopback() {
            return Err(BindError::NotLoopback(address));
        }
        let listener = TcpListener::bind(address).await.map_err(|source| BindError::Bind { address, source })?;
        Ok(Self { listener })
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
        let routes = crate::routes::routes(control, Arc::clone(&streams));
        let listener = self.listener.tap_io(|connection| {
            // Answers are small and wanted at once; without it they wait for the other end's acknowledgement.
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
        });
        let shutdown = async move {
            shutdown.await;
            streams.close_all();
        };
        axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
    }
}
