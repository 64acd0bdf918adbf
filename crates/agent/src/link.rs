//! The seam between a worker and its servers: something that opens streams. Of several servers
//! it takes another one each time. Knows nothing of what streams carry.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Request, Status};
use volley_wire::access::ServerAccess;
use volley_wire::proto;
use volley_wire::proto::workers_client::WorkersClient;

use crate::WorkerError;

/// Largest message of a server.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Connecting takes at most this.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// A connection that is silent for so long is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a server sends.
pub type Inbound = Pin<Box<dyn Stream<Item = Result<proto::ToWorker, Status>> + Send>>;
/// A stream that is being opened.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<Inbound, OpenError>> + Send + 'a>>;

/// Why no stream was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No server heard anything.
    #[error("{0}")]
    NotConnected(String),
    /// A server answered so, or the connection broke meanwhile.
    #[error("{}", .0.message())]
    Answered(Status),
}

/// Opens streams to a server.
pub trait Link: Send + Sync + 'static {
    /// A new stream that carries `out`; where there are several servers, to another one than the last.
    fn open(&self, out: mpsc::Receiver<proto::FromWorker>) -> Opening<'_>;

    /// How many servers it knows.
    fn servers(&self) -> usize {
        1
    }

    /// A server said where the servers of its cell answer.
    fn on_servers(&self, addresses: &[String]) {
        let _ = addresses;
    }

    /// A wait before the next try: spread by chance, so that workers that lost one server do not all come at once.
    fn spread(&self, wait: Duration) -> Duration {
        wait
    }
}

/// gRPC to the servers of some addresses, given or learned.
#[derive(Debug)]
pub struct GrpcLink {
    given: Vec<String>,
    /// The one tried next is in front.
    servers: Mutex<VecDeque<String>>,
    connector: HttpsConnector<HttpConnector>,
    authorization: Option<MetadataValue<Ascii>>,
}

/// Most servers that are remembered.
const SERVERS_MAX: usize = 64;

impl GrpcLink {
    /// Checks the address; connects later.
    ///
    /// # Errors
    /// When it is no `http://` or `https://` address with a host, or TLS cannot be set up.
    pub fn new(access: &ServerAccess) -> Result<Self, WorkerError> {
        for server in &access.servers {
            endpoint(server).map_err(|problem| WorkerError::Address { server: server.clone(), problem })?;
        }
        let address = |problem: String| WorkerError::Address { server: access.server(), problem };
        let authorization = access.authorization().map(|bearer| bearer.parse()).transpose();
        let authorization = authorization.map_err(|_| address("the token is no ASCII text".to_owned()))?;
        let connector = access.connector().map_err(|error| address(error.to_string()))?;
        let given = access.servers.clone();
        let servers = Mutex::new(shuffled(given.clone()).into());
        Ok(Self { given, servers, connector, authorization })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server whose turn it is; it is the last again.
    fn next(&self) -> String {
        let mut servers = self.lock();
        servers.rotate_left(1);
        servers.back().expect("at least one was given").clone()
    }
}

/// An address with how it is connected to.
fn endpoint(server: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(server.to_owned()).map_err(|error| error.to_string())?;
    if !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) || endpoint.uri().host().is_none() {
        return Err("no http:// or https:// and host".to_owned());
    }
    let endpoint = endpoint.connect_timeout(CONNECT_WAIT).http2_keep_alive_interval(KEEP_ALIVE);
    Ok(endpoint.keep_alive_while_idle(true))
}

/// In an order of chance: workers that lose a server spread over the others.
fn shuffled(mut servers: Vec<String>) -> Vec<String> {
    let chance = RandomState::new();
    servers.sort_by_cached_key(|server| chance.hash_one(server));
    servers
}

/// Whether a worker that reaches one address should believe in another that it was told: never from TLS to none, where
/// its token could be read, and not to this machine, when the one it reaches is another's.
fn believes(reached: &str, told: &str) -> bool {
    let scheme = |server: &str| server.split_once("://").map(|(scheme, _)| scheme.to_owned());
    let here = |server: &str| {
        let host = endpoint(server).ok().and_then(|endpoint| endpoint.uri().host().map(str::to_owned));
        let host = host.unwrap_or_default();
        host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    };
    endpoint(told).is_ok() && scheme(reached) == scheme(told) && (here(reached) || !here(told))
}

impl Link for GrpcLink {
    fn open(&self, out: mpsc::Receiver<proto::FromWorker>) -> Opening<'_> {
        Box::pin(async move {
            let server = self.next();
            let endpoint = endpoint(&server).map_err(OpenError::NotConnected)?;
            let channel = endpoint.connect_with_connector(self.connector.clone()).await;
            let channel =
                channel.map_err(|error| OpenError::NotConnected(format!("{server}: {}", innermost(&error))))?;
            let mut client = WorkersClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let mut request = Request::new(ReceiverStream::new(out));
            if let Some(authorization) = &self.authorization {
                request.metadata_mut().insert("authorization", authorization.clone());
            }
            let opened = client.attach(request).await.map_err(OpenError::Answered)?;
            Ok(Box::pin(opened.into_inner()) as Inbound)
        })
    }

    fn servers(&self) -> usize {
        self.lock().len()
    }

    fn on_servers(&self, addresses: &[String]) {
        let mut servers = self.lock();
        let reached = servers.back().expect("at least one was given").clone();
        let told = addresses.iter().filter(|told| believes(&reached, told)).map(|told| told.trim_end_matches('/'));
        let mut all = self.given.clone();
        all.extend(told.map(str::to_owned));
        all.retain(|server| *server != reached);
        all.sort_unstable();
        all.dedup();
        all.truncate(SERVERS_MAX);
        // The one that is connected comes last.
        *servers = shuffled(all).into_iter().chain([reached]).collect();
    }

    fn spread(&self, wait: Duration) -> Duration {
        let part = RandomState::new().hash_one(wait) % 1_000;
        wait / 2 + (wait / 2).mul_f64(part as f64 / 1_000.0)
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(servers: &str) -> GrpcLink {
        GrpcLink::new(&ServerAccess::open(servers)).expect("addresses")
    }

    #[test]
    fn each_try_is_at_another_server_until_all_had_their_turn() {
        let link = link("http://a:1,http://b:1,http://c:1");
        let mut round: Vec<String> = (0..3).map(|_| link.next()).collect();
        assert_eq!(round, (0..3).map(|_| link.next()).collect::<Vec<_>>());
        round.sort_unstable();
        assert_eq!(round, ["http://a:1", "http://b:1", "http://c:1"]);
    }

    #[test]
    fn a_server_that_was_told_is_tried_after_the_others_and_the_present_one_is_last() {
        let link = link("http://a:1");
        let reached = link.next();
        link.on_servers(&["http://b:1".to_owned(), "http://a:1/".to_owned(), "nonsense".to_owned()]);
        assert_eq!((link.next().as_str(), link.next()), ("http://b:1", reached));
        link.on_servers(&[]);
        assert_eq!(link.servers(), 1, "one that is gone is forgotten");
    }

    #[test]
    fn what_a_server_tells_leads_neither_out_of_tls_nor_to_oneself() {
        assert!(believes("https://a:1", "https://b:1"));
        assert!(!believes("https://a:1", "http://b:1"));
        assert!(!believes("http://a:1", "http://127.0.0.1:1"));
        assert!(!believes("http://a:1", "http://[::1]:1"));
        assert!(believes("http://127.0.0.1:1", "http://127.0.0.1:2"));
        assert!(!believes("http://a:1", "b:1"));
    }

    #[test]
    fn a_wait_is_spread_over_its_second_half() {
        let link = link("http://a:1");
        let wait = Duration::from_secs(2);
        assert!((0..100).map(|_| link.spread(wait)).all(|spread| (wait / 2..=wait).contains(&spread)));
    }
}
