//! The other servers of the cell: what is asked of a worker whose stream one of them holds goes
//! there, with the caller's own token, which is judged there again. Knows nothing of routes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use volley_control::Control;
use volley_model::WorkerId;
use volley_wire::access::ServerAccess;
use volley_wire::proto::servers_client::ServersClient;
use volley_wire::proto::{self, call_reply};

use crate::WorkerStreams;
use crate::auth::Caller;
use crate::streams::PageError;

/// Connecting to another server takes at most this.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// Another server answers within this: longer than any worker is waited for there.
const ANSWER_WAIT: Duration = Duration::from_secs(50);
/// Connections to other servers that are kept: as many as a cell has servers, and some that have gone.
const CHANNELS_MAX: usize = 64;
/// A worker that changes its server is looked for again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Asks workers, wherever their streams are.
pub(crate) struct Peers {
    control: Arc<Control>,
    streams: Arc<WorkerStreams>,
    access: ServerAccess,
    /// This server speaks TLS: a caller's token goes nowhere without it.
    tls: bool,
    channels: Mutex<HashMap<String, Channel>>,
}

impl Peers {
    pub(crate) fn new(control: Arc<Control>, streams: Arc<WorkerStreams>, access: ServerAccess, tls: bool) -> Self {
        Self { control, streams, access, tls, channels: Mutex::default() }
    }

    /// Asks something of a container at a worker; `request` fills in all but its number and the worker.
    pub(crate) async fn call(
        &self,
        caller: &Caller,
        worker: &WorkerId,
        mut request: proto::CallRequest,
    ) -> Result<call_reply::Reply, PageError> {
        match self.streams.call(worker, request.clone()).await {
            Err(PageError::NotConnected(_)) => {}
            answered => return answered,
        }
        let mut client = self.holder_of(worker).await?;
        request.worker = worker.to_string();
        let reply = client.call(with_authority(caller, request)).await.map_err(|status| refused(worker, &status))?;
        reply.into_inner().reply.ok_or_else(|| PageError::NoAnswer(worker.clone()))
    }

    /// Asks a worker for a page of output; `request` fills in all but its number and the worker. One that is between
    /// two servers is waited for with `patience`.
    pub(crate) async fn page(
        &self,
        caller: &Caller,
        worker: &WorkerId,
        request: &proto::LogRequest,
        patience: Duration,
    ) -> Result<proto::LogChunk, PageError> {
        let until = Instant::now() + patience;
        loop {
            match self.page_once(caller, worker, request.clone()).await {
                Err(PageError::NotConnected(_)) if Instant::now() < until => tokio::time::sleep(LOOK_AGAIN).await,
                answered => return answered,
            }
        }
    }

    async fn page_once(
        &self,
        caller: &Caller,
        worker: &WorkerId,
        mut request: proto::LogRequest,
    ) -> Result<proto::LogChunk, PageError> {
        match self.streams.page(worker, request.clone()).await {
            Err(PageError::NotConnected(_)) => {}
            answered => return answered,
        }
        let mut client = self.holder_of(worker).await?;
        request.worker = worker.to_string();
        let chunk = client.page(with_authority(caller, request)).await.map_err(|status| refused(worker, &status))?;
        Ok(chunk.into_inner())
    }

    /// The server that holds a worker's stream, if it is another one.
    async fn holder_of(&self, worker: &WorkerId) -> Result<ServersClient<Channel>, PageError> {
        let servers = self.control.servers(Some(worker)).await;
        let servers = servers.map_err(|error| PageError::Refused(error.to_string()))?;
        let Some((session, _)) = servers.holder.filter(|(session, _)| !self.control.is_session(*session)) else {
            return Err(PageError::NotConnected(worker.clone()));
        };
        if !servers.live.iter().any(|(live, _)| *live == session) {
            // That server is gone; the worker will come to another.
            return Err(PageError::NotConnected(worker.clone()));
        }
        let Some(address) = servers.address(session) else {
            return Err(PageError::Refused(format!(
                "worker '{worker}' is connected to a server that says no address; start it with --advertise"
            )));
        };
        if self.tls && !address.starts_with("https://") {
            return Err(PageError::Refused(format!(
                "worker '{worker}' is connected to {address}, which has no TLS; nothing is passed on there"
            )));
        }
        let channel = self.channel(address).map_err(|problem| PageError::Refused(format!("{address}: {problem}")))?;
        Ok(ServersClient::new(channel))
    }

    /// A connection, made when it is first used.
    fn channel(&self, address: &str) -> Result<Channel, String> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let access = ServerAccess { servers: vec![address.to_owned()], ..self.access.clone() };
        let connector = access.connector().map_err(|error| error.to_string())?;
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| error.to_string())?;
        let endpoint = endpoint.connect_timeout(CONNECT_WAIT).timeout(ANSWER_WAIT);
        let channel = endpoint.connect_with_connector_lazy(connector);
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// A request with the token of whoever asked here.
fn with_authority<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let authorization = caller.authorization.as_ref().and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(mut authorization) = authorization {
        tonic::metadata::MetadataValue::<tonic::metadata::Ascii>::set_sensitive(&mut authorization, true);
        request.metadata_mut().insert("authorization", authorization);
    }
    request
}

/// What another server's refusal means here.
fn refused(worker: &WorkerId, status: &Status) -> PageError {
    match status.code() {
        Code::NotFound | Code::Unavailable => PageError::NotConnected(worker.clone()),
        Code::DeadlineExceeded | Code::Cancelled => PageError::NoAnswer(worker.clone()),
        Code::FailedPrecondition => PageError::Impossible(status.message().to_owned()),
        _ => {
            PageError::Refused(format!("the server that worker '{worker}' is connected to says: {}", status.message()))
        }
    }
}

/// What another server is told.
pub(crate) fn status_of(error: &PageError) -> Status {
    let words = error.to_string();
    match error {
        PageError::NotConnected(_) => Status::not_found(words),
        PageError::NoAnswer(_) => Status::deadline_exceeded(words),
        PageError::Refused(_) => Status::resource_exhausted(words),
        PageError::Impossible(_) => Status::failed_precondition(words),
    }
}
