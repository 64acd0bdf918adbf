//! The connections of the port: how many there are, and how much each may hold and how long it
//! may take. Knows nothing of routes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::patient_io::PatientIo;

/// Connections at a time; more wait in the system's queue. Ten thousand workers and as many clients fit in.
const CONNECTIONS_MAX: usize = 32_768;
/// Of the files that the system lets this process open, so many in a hundred are for connections; the rest is for the
/// store and for what containers need where they run in this process.
const CONNECTIONS_PERCENT: u64 = 75;
/// The head of a request (HTTP/1) is there within this; an idle connection is closed after it.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// What a connection (HTTP/1), or a stream of one (HTTP/2), holds of what is read or to be sent, in bytes.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// What the system holds of a connection that the other end has no room for, in bytes.
const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// Head of a request (HTTP/2) in bytes.
const HEAD_BYTES_MAX: u32 = 16 << 10;
/// Requests at a time of one connection (HTTP/2).
const STREAMS_MAX: u32 = 200;
/// A silent connection (HTTP/2) is asked whether it lives after this, and closed when it does not answer within it.
const ALIVE_WAIT: Duration = Duration::from_secs(20);

/// Raises this process' limit of open files to what the system allows it: the usual 1,024 are a thousand clients. For a
/// process that starts no containers, for they would inherit it.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// Sets up a connection that was accepted.
pub(crate) fn set_up(connection: &TcpStream) {
    // Answers are small and wanted at once; without it they wait for the other end's acknowledgement. And without the
    // other, the system takes megabytes for a client that takes nothing.
    let set = connection.set_nodelay(true);
    if let Err(error) = set.and_then(|()| SockRef::from(connection).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)) {
        tracing::debug!(%error, "a connection is not set up");
    }
}

/// Connections that there may be.
fn connections_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let share = (files / 100).saturating_mul(CONNECTIONS_PERCENT).max(files.min(16));
    usize::try_from(share).unwrap_or(usize::MAX).min(CONNECTIONS_MAX)
}

fn protocols() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).max_buf_size(BUFFER_BYTES_MAX);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(ALIVE_WAIT).keep_alive_timeout(ALIVE_WAIT);
    http2.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEAD_BYTES_MAX).max_send_buf_size(BUFFER_BYTES_MAX);
    builder
}

/// Answers until `shutdown` ends, then lets what is under way end.
pub(crate) async fn serve<L>(
    mut listener: L,
    routes: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()>
where
    L: Listener<Addr = SocketAddr>,
{
    let (builder, graceful) = (Arc::new(protocols()), GracefulShutdown::new());
    let places = Arc::new(Semaphore::new(connections_max()));
    tokio::pin!(shutdown);
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let ((connection, peer), place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept => accepted,
        };
        let io = TokioIo::new(PatientIo::new(connection, Some(peer)));
        let service = TowerToHyperService::new(routes.clone());
        let (builder, watcher) = (Arc::clone(&builder), graceful.watcher());
        tokio::spawn(async move {
            let served = watcher.watch(builder.serve_connection(io, service).into_owned()).await;
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "a connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}
