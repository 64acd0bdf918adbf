//! The gRPC side of clients that submit at high rates: the same submissions as over HTTP, and
//! a stream of what becomes of a group.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use volley_control::Control;
use volley_control::ledger::{Answer, Event, EventKind, Query};
use volley_model::{ContainerState, EventNumber, GroupId, TenantName};
use volley_wire::convert;
use volley_wire::proto::{self, volley_server};

use crate::workers_service::status;

/// Most events of one read.
const EVENTS_MAX: u32 = 10_000;
/// Messages that wait for a slow client; the next waits in the store's record.
const MESSAGES_MAX: usize = 4;

pub(crate) struct VolleyService {
    pub(crate) control: Arc<Control>,
}

type Sender = mpsc::Sender<Result<proto::ContainerEvents, Status>>;

#[tonic::async_trait]
impl volley_server::Volley for VolleyService {
    type WatchGroupStream = ReceiverStream<Result<proto::ContainerEvents, Status>>;

    async fn submit(&self, request: Request<proto::SubmitRequest>) -> Result<Response<proto::SubmitResponse>, Status> {
        let mut request = request.into_inner();
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let (key, name) = (text(std::mem::take(&mut request.client_key)), text(std::mem::take(&mut request.name)));
        let labels = std::mem::take(&mut request.labels).into_iter().collect();
        let submission =
            convert::body_from(request).and_then(|body| body.check(TenantName::default(), key, name, labels));
        let submission = submission.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let digest = submission.digest();
        let reply = self.control.submit(submission, digest).await.map_err(|error| status(&error))?;
        let (group, count, repeated) = (reply.group.0, reply.count, reply.repeated);
        Ok(Response::new(proto::SubmitResponse { group, count, repeated }))
    }

    async fn watch_group(
        &self,
        request: Request<proto::WatchGroupRequest>,
    ) -> Result<Response<Self::WatchGroupStream>, Status> {
        let request = request.into_inner();
        let group = GroupId(request.group);
        if finished(&self.control, group).await?.is_none() {
            return Err(Status::not_found(format!("there is no group {group}")));
        }
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        let control = Arc::clone(&self.control);
        tokio::spawn(async move {
            if let Err(status) = watch(&control, &request, &sender).await {
                // The client may have gone.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Whether all of a group have finished; `None` when there is no such group.
async fn finished(control: &Control, group: GroupId) -> Result<Option<bool>, Status> {
    match control.read(Query::Group(group, None)).await.map_err(|error| status(&error))? {
        Answer::Group(record) => Ok(record.map(|record| record.finished == record.count)),
        _ => Err(Status::internal("the store answered another question")),
    }
}

/// Passes on a group's events until all of its containers have finished or the client goes.
async fn watch(control: &Control, request: &proto::WatchGroupRequest, sender: &Sender) -> Result<(), Status> {
    let group = GroupId(request.group);
    let mut grew = control.events_grew();
    let mut after = EventNumber(request.after);
    // Asked before the events are read: what had finished by then is among them.
    let mut done = finished(control, group).await?;
    loop {
        let page = match control
            .read(Query::Events { after, max: EVENTS_MAX, scope: None })
            .await
            .map_err(|error| status(&error))?
        {
            Answer::Events(page) => page,
            _ => return Err(Status::internal("the store answered another question")),
        };
        let events: Vec<_> =
            page.events.iter().filter_map(|event| event_to(event, group, request.all_states)).collect();
        if !events.is_empty() && sender.send(Ok(proto::ContainerEvents { events })).await.is_err() {
            return Ok(());
        }
        match page.events.last() {
            Some(last) => after = last.number,
            None if done != Some(false) => return Ok(()),
            None => tokio::select! {
                changed = grew.changed() => changed.map_err(|_| Status::unavailable("the server ends"))?,
                () = sender.closed() => return Ok(()),
            },
        }
        if done == Some(false) && page.events.iter().any(|event| is_end(event, group)) {
            done = finished(control, group).await?;
        }
    }
}

fn is_end(event: &Event, group: GroupId) -> bool {
    matches!(&event.kind, EventKind::Container { container, state: ContainerState::Finished, .. } if container.group == group)
}

fn event_to(event: &Event, group: GroupId, all_states: bool) -> Option<proto::ContainerEvent> {
    let EventKind::Container { container, state, attempt, worker, outcome } = &event.kind else { return None };
    if container.group != group || !(all_states || *state == ContainerState::Finished) {
        return None;
    }
    Some(proto::ContainerEvent {
        number: event.number.0,
        at_ms: event.at.0,
        index: container.index,
        state: state.to_string(),
        attempt: *attempt,
        worker: worker.as_ref().map(ToString::to_string).unwrap_or_default(),
        outcome: outcome.as_ref().map(convert::outcome_to),
    })
}
