//! The gRPC side of workers: a stream opens with a hello, is attached, and carries messages
//! both ways until one end closes it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use volley_control::ledger::{AttachRefusal, InventoryItem, WorkerMessage};
use volley_control::{Control, ControlError, Detail};
use volley_model::{Epoch, IMAGES_TOLD_MAX, Nonce, ValidationError, WorkerId, image_affinity};
use volley_wire::proto::{self, from_worker, workers_server};
use volley_wire::{convert, protocol};

use crate::WorkerStreams;
use crate::auth::{Auth, Caller, KNOWN_FOR, caller_of};
use crate::streams::Receiver;

/// A stream's first message comes within this, or the stream ends.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// Metadata of a refusal that may be none later: how long to wait in milliseconds.
const RETRY_AFTER_MS: &str = "retry-after-ms";

pub(crate) struct WorkersService {
    pub(crate) control: Arc<Control>,
    pub(crate) streams: Arc<WorkerStreams>,
    pub(crate) auth: Arc<Auth>,
}

/// A worker whose stream is open.
struct Attached {
    control: Arc<Control>,
    streams: Arc<WorkerStreams>,
    worker: WorkerId,
    stream: Nonce,
    epoch: Epoch,
}

fn invalid(error: &ValidationError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(crate) fn status(error: &ControlError) -> Status {
    let words = error.to_string();
    match error {
        ControlError::Invalid(_) => Status::invalid_argument(words),
        ControlError::Attach(AttachRefusal::NameInUse { .. }) => Status::already_exists(words),
        ControlError::Attach(AttachRefusal::TooManyWorkers { .. }) => Status::resource_exhausted(words),
        ControlError::Submit(_) => Status::already_exists(words),
        ControlError::Busy { retry_after, .. } => {
            let mut status = Status::resource_exhausted(words);
            status.metadata_mut().insert(RETRY_AFTER_MS, (retry_after.as_millis() as u64).into());
            status
        }
        ControlError::Token(_) | ControlError::Tenant(_) => Status::failed_precondition(words),
        ControlError::NotFound(_) => Status::not_found(words),
        ControlError::ApplyPool(_) | ControlError::RemovePool(_) => Status::failed_precondition(words),
        ControlError::Attach(AttachRefusal::SessionEnded | AttachRefusal::Superseded { .. })
        | ControlError::Store(_) => Status::unavailable(words),
    }
}

#[tonic::async_trait]
impl workers_server::Workers for WorkersService {
    type AttachStream = ReceiverStream<Result<proto::ToWorker, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<proto::FromWorker>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let caller = caller_of(&request)?;
        let inbound = Box::pin(while_it_counts(Arc::clone(&self.auth), caller, request.into_inner()));
        let receiver = serve_worker(&self.control, &self.streams, inbound).await?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// What a worker sends, for as long as its token counts.
fn while_it_counts(
    auth: Arc<Auth>,
    caller: Caller,
    inbound: Streaming<proto::FromWorker>,
) -> impl Stream<Item = Result<proto::FromWorker, Status>> + Send {
    let looks = tokio::time::interval(KNOWN_FOR);
    stream::unfold((auth, caller, inbound, looks), |(auth, caller, mut inbound, mut looks)| async move {
        loop {
            tokio::select! {
                next = inbound.next() => return Some((next?, (auth, caller, inbound, looks))),
                _ = looks.tick() => {
                    if !auth.still_counts(&caller).await {
                        let ended = Err(Status::unauthenticated("the token has ended"));
                        return Some((ended, (auth, caller, inbound, looks)));
                    }
                }
            }
        }
    })
}

/// Serves one stream of a worker, whatever carries it: attaches the worker and gives what is to be sent to it; what
/// comes is read on by a task until the stream ends.
///
/// # Errors
/// When the first message is no hello that can be taken; with the reason for the worker.
pub async fn serve_worker(
    control: &Arc<Control>,
    streams: &Arc<WorkerStreams>,
    mut inbound: impl Stream<Item = Result<proto::FromWorker, Status>> + Send + Unpin + 'static,
) -> Result<Receiver, Status> {
    let first = tokio::time::timeout(HELLO_WAIT, inbound.next()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))?.transpose()?;
    let Some(from_worker::Message::Hello(hello)) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message of a stream is the hello"));
    };
    let protocol = protocol::chosen(&hello).map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
    let worker = convert::worker_from(&hello).map_err(|error| invalid(&error))?;
    let mut inventory = Vec::with_capacity(hello.inventory.len());
    for (index, report) in hello.inventory.into_iter().enumerate() {
        let item = convert::report_from(&format!("inventory[{index}]"), report);
        let (container, attempt, progress) = item.map_err(|error| invalid(&error))?;
        inventory.push(InventoryItem { container, attempt, progress });
    }
    let images = hello.images.iter().rev().take(IMAGES_TOLD_MAX).rev();
    let affinities = images.filter_map(|image| image_affinity(image)).collect();
    let (id, stream) = (worker.id.clone(), control.nonce());
    let epoch = hello.epoch.map(convert::epoch_from);
    let attached = control.attach(worker, stream, epoch, (inventory, affinities)).await;
    let attached = attached.map_err(|error| status(&error))?;
    let welcome = proto::Welcome {
        epoch: Some(convert::epoch_to(attached.epoch)),
        lease_ms: attached.lease.0,
        keep: attached.keep,
        protocol,
        servers: attached.servers,
    };
    let receiver = streams.open(&id, stream, welcome);
    control.stream_ready(&id, stream);
    tracing::info!(worker = %id, epoch = attached.epoch.number, "attached");
    let (control, streams, epoch) = (Arc::clone(control), Arc::clone(streams), attached.epoch);
    tokio::spawn(Attached { control, streams, worker: id, stream, epoch }.read(inbound));
    Ok(receiver)
}

impl Attached {
    async fn read(self, mut inbound: impl Stream<Item = Result<proto::FromWorker, Status>> + Send + Unpin) {
        loop {
            match inbound.next().await {
                Some(Ok(proto::FromWorker { message: Some(message) })) => self.on_message(message).await,
                // From a newer worker.
                Some(Ok(_)) => {}
                None => break,
                Some(Err(status)) => {
                    tracing::info!(worker = %self.worker, reason = status.message(), "its stream broke");
                    break;
                }
            }
        }
        self.control.detach(&self.worker, self.stream);
        self.streams.closed(&self.worker, self.stream);
    }

    async fn on_message(&self, message: from_worker::Message) {
        match message {
            from_worker::Message::Hello(_) => {
                tracing::warn!(worker = %self.worker, "says hello twice on one stream: not heard");
            }
            from_worker::Message::Reports(reports) => {
                for (index, report) in reports.reports.into_iter().enumerate() {
                    match convert::report_from(&format!("reports[{index}]"), report) {
                        Ok((container, attempt, progress)) => {
                            let (worker, epoch) = (self.worker.clone(), self.epoch);
                            let message = WorkerMessage { worker, epoch, container, attempt, progress };
                            self.control.report(self.stream, message).await;
                        }
                        // The others of the message are good.
                        Err(error) => tracing::warn!(worker = %self.worker, %error, "a bad report is not heard"),
                    }
                }
            }
            from_worker::Message::Heartbeat(heartbeat) => {
                // At once, so that the worker knows a server that waits for the store from one that is gone.
                self.streams.heard(&self.worker, self.stream, heartbeat.number);
                self.control.heartbeat(&self.worker, self.stream, heartbeat.number);
            }
            from_worker::Message::Reply(reply) => self.streams.on_reply(&self.worker, self.stream, reply),
            from_worker::Message::Log(chunk) => self.streams.on_page(&self.worker, self.stream, chunk),
            from_worker::Message::Details(details) => {
                details.details.into_iter().for_each(|detail| self.on_detail(detail))
            }
            from_worker::Message::Leave(leave) => self.on_leave(leave.gone).await,
        }
    }

    fn on_detail(&self, detail: proto::Detail) {
        let container = convert::container_from("detail.container", detail.container);
        let attempt = convert::attempt_from("detail.attempt", detail.attempt);
        if let (Ok(container), Ok(attempt)) = (container, attempt) {
            let worker = self.worker.clone();
            self.control.details().on_detail(Detail { container, attempt, worker, words: detail.words });
        }
    }

    async fn on_leave(&self, gone: bool) {
        let left = match gone {
            false => self.control.leaving(&self.worker).await,
            true => self.control.leave(&self.worker, self.stream).await,
        };
        if let Err(error) = left {
            tracing::warn!(worker = %self.worker, %error, "its leaving is not noted; its lease will end");
        }
        if gone {
            self.streams.closed(&self.worker, self.stream);
        }
    }
}
