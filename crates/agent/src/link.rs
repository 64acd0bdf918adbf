//! The seam between a worker and its servers: something that opens streams. Knows nothing of
//! what they carry.

use std::pin::Pin;
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
    /// A new stream that carries `out`.
    fn open(&self, out: mpsc::Receiver<proto::FromWorker>) -> Opening<'_>;
}

/// gRPC to the server of an address.
#[derive(Debug, Clone)]
pub struct GrpcLink {
    endpoint: Endpoint,
    connector: HttpsConnector<HttpConnector>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl GrpcLink {
    /// Checks the address; connects later.
    ///
    /// # Errors
    /// When it is no `http://` or `https://` address with a host, or TLS cannot be set up.
    pub fn new(access: &ServerAccess) -> Result<Self, WorkerError> {
        let server = &access.server;
        let address = |problem: String| WorkerError::Address { server: server.clone(), problem };
        let endpoint = Endpoint::from_shared(server.clone()).map_err(|error| address(error.to_string()))?;
        if !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) || endpoint.uri().host().is_none() {
            return Err(address("no http:// or https:// and host".to_owned()));
        }
        let authorization = access.authorization().map(|bearer| bearer.parse()).transpose();
        let authorization = authorization.map_err(|_| address("the token is no ASCII text".to_owned()))?;
        let connector = access.connector().map_err(|error| address(error.to_string()))?;
        let endpoint = endpoint.connect_timeout(CONNECT_WAIT).http2_keep_alive_interval(KEEP_ALIVE);
        Ok(Self { endpoint: endpoint.keep_alive_while_idle(true), connector, authorization })
    }
}

impl Link for GrpcLink {
    fn open(&self, out: mpsc::Receiver<proto::FromWorker>) -> Opening<'_> {
        Box::pin(async move {
            let channel = self.endpoint.connect_with_connector(self.connector.clone()).await;
            let channel = channel.map_err(|error| OpenError::NotConnected(innermost(&error)))?;
            let mut client = WorkersClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let mut request = Request::new(ReceiverStream::new(out));
            if let Some(authorization) = &self.authorization {
                request.metadata_mut().insert("authorization", authorization.clone());
            }
            let opened = client.attach(request).await.map_err(OpenError::Answered)?;
            Ok(Box::pin(opened.into_inner()) as Inbound)
        })
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
