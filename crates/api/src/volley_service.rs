//! The gRPC side of clients that submit at high rates: the same submissions as over HTTP, and
//! a stream of what becomes of a group.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use volley_control::Control;
use volley_control::ledger::{Answer, Event, EventKind, EventPage, Query, Scope};
use volley_model::{ContainerState, EventNumber, GroupId};
use volley_wire::convert;
use volley_wire::proto::{self, volley_server};

use crate::auth::{Auth, Caller, KNOWN_FOR, caller_of};
use crate::patience::Patience;
use crate::patient_io::TAKE_WAIT;
use crate::trace_context;
use crate::workers_service::status;

/// Most events of one message: with the one that waits, what a client that takes none makes the server hold.
const EVENTS_MAX: u32 = 1_000;
/// After all events.
const NO_EVENT: EventNumber = EventNumber(i64::MAX as u64);
/// Messages that wait for a slow client; the next waits in the store's record.
const MESSAGES_MAX: usize = 1;

#[derive(Clone)]
pub(crate) struct VolleyService {
    pub(crate) control: Arc<Control>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) patience: Patience,
}

type Sender = mpsc::Sender<proto::ContainerEvents>;
/// What a client is told, in the end perhaps why there is no more.
type Watched = Pin<Box<dyn Stream<Item = Result<proto::ContainerEvents, Status>> + Send>>;

#[tonic::async_trait]
impl volley_server::Volley for VolleyService {
    type WatchGroupStream = Watched;
    type WatchEventsStream = Watched;

    async fn submit(&self, request: Request<proto::SubmitRequest>) -> Result<Response<proto::SubmitResponse>, Status> {
        let tenant = caller_of(&request)?.tenant;
        let parent = request.metadata().get(trace_context::TRACEPARENT).and_then(|parent| parent.to_str().ok());
        let parent = parent.map(str::to_owned);
        let mut request = request.into_inner();
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let (key, name) = (text(std::mem::take(&mut request.client_key)), text(std::mem::take(&mut request.name)));
        let labels = std::mem::take(&mut request.labels).into_iter().collect();
        let submission = convert::body_from(request).and_then(|body| body.check(tenant, key, name, labels));
        let mut submission = submission.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let digest = submission.digest();
        trace_context::carry(&mut submission, parent.as_deref());
        let reply = self.control.submit(submission, digest).await.map_err(|error| status(&error))?;
        let (group, count, repeated) = (reply.group.0, reply.count, reply.repeated);
        Ok(Response::new(proto::SubmitResponse { group, count, repeated }))
    }

    async fn watch_group(
        &self,
        request: Request<proto::WatchGroupRequest>,
    ) -> Result<Response<Self::WatchGroupStream>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let group = GroupId(request.group);
        if finished(&self.control, group, caller.scope()).await?.is_none() {
            return Err(Status::not_found(format!("there is no group {group}")));
        }
        let after = EventNumber(request.after);
        self.follow(caller, Watch { group: Some(group), after, all_states: request.all_states })
    }

    async fn watch_events(
        &self,
        request: Request<proto::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let after = match request.after {
            Some(after) => EventNumber(after),
            None => read_events(&self.control, NO_EVENT, caller.scope()).await?.last,
        };
        self.follow(caller, Watch { group: None, after, all_states: request.all_states })
    }
}

impl VolleyService {
    fn follow(&self, caller: Caller, watch: Watch) -> Result<Response<Watched>, Status> {
        let follower = self.patience.follower().map_err(|busy| Status::unavailable(busy.detail()))?;
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        let (end, ended) = oneshot::channel();
        let service = self.clone();
        tokio::spawn(async move {
            let _follower = follower;
            if let Err(status) = watch.run(&service, &caller, &sender).await {
                // The client may have gone.
                let _ = end.send(status);
            }
        });
        // How it ended comes after all that waits, and needs no room among it.
        let end = stream::once(ended).filter_map(async |ended| ended.ok().map(Err));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver).map(Ok).chain(end))))
    }
}

/// Whether all of a group have finished; `None` when there is no such group.
async fn finished(control: &Control, group: GroupId, scope: Scope) -> Result<Option<bool>, Status> {
    match control.read(Query::Group(group, scope)).await.map_err(|error| status(&error))? {
        Answer::Group(record) => Ok(record.map(|record| record.finished == record.count)),
        _ => Err(Status::internal("the store answered another question")),
    }
}

async fn read_events(control: &Control, after: EventNumber, scope: Scope) -> Result<EventPage, Status> {
    match control.read(Query::Events { after, max: EVENTS_MAX, scope }).await.map_err(|error| status(&error))? {
        // After a failover that lost writes the numbers begin again before what was seen.
        Answer::Events(page) => Ok(EventPage { seen: page.seen.min(page.last), ..page }),
        _ => Err(Status::internal("the store answered another question")),
    }
}

/// What a client wants to be told.
struct Watch {
    /// Of one group, until all of it has finished; else of all, for ever.
    group: Option<GroupId>,
    after: EventNumber,
    all_states: bool,
}

impl Watch {
    /// Passes on events until there can be no more of them, or the client or its token goes.
    async fn run(mut self, service: &VolleyService, caller: &Caller, sender: &Sender) -> Result<(), Status> {
        let control = &*service.control;
        let mut grew = control.events_grew();
        // Asked before the events are read: what had finished by then is among them.
        let mut done = self.done(control).await?;
        loop {
            if !service.auth.still_counts(caller).await {
                return Err(Status::unauthenticated("the token has ended"));
            }
            let page = read_events(control, self.after, caller.scope()).await?;
            let events: Vec<_> = page.events.iter().filter_map(|event| self.event_to(event)).collect();
            if !events.is_empty() {
                match sender.send_timeout(proto::ContainerEvents { events }, TAKE_WAIT).await {
                    Ok(()) => {}
                    Err(SendTimeoutError::Closed(_)) => return Ok(()),
                    Err(SendTimeoutError::Timeout(_)) => {
                        let (seconds, after) = (TAKE_WAIT.as_secs(), self.after);
                        tracing::info!(seconds, "a watch is cut off that takes nothing");
                        let words = format!("nothing was taken for {seconds} s; go on after event {after}");
                        return Err(Status::resource_exhausted(words));
                    }
                }
            }
            let mut more = self.after < page.seen && page.seen < page.last;
            self.after = page.seen;
            if !done && page.events.iter().any(|event| self.is_end(event)) {
                done = self.done(control).await?;
                // What had finished by now may be told by the next ones.
                more |= done;
            }
            match more {
                true => {}
                false if done => return Ok(()),
                false => tokio::select! {
                    changed = grew.changed() => changed.map_err(|_| Status::unavailable("the server ends"))?,
                    () = sender.closed() => return Ok(()),
                    () = tokio::time::sleep(KNOWN_FOR) => {}
                },
            }
        }
    }

    /// Whether there can be no more events than there are now.
    async fn done(&self, control: &Control) -> Result<bool, Status> {
        match self.group {
            Some(group) => Ok(finished(control, group, None).await? != Some(false)),
            None => Ok(false),
        }
    }

    fn is_end(&self, event: &Event) -> bool {
        matches!(&event.kind, EventKind::Container { container, state: ContainerState::Finished, .. }
            if Some(container.group) == self.group)
    }

    fn event_to(&self, event: &Event) -> Option<proto::ContainerEvent> {
        let EventKind::Container { container, state, attempt, worker, outcome } = &event.kind else { return None };
        if self.group.is_some_and(|group| group != container.group)
            || !(self.all_states || *state == ContainerState::Finished)
        {
            return None;
        }
        Some(proto::ContainerEvent {
            number: event.number.0,
            at_ms: event.at.0,
            group: container.group.0,
            index: container.index,
            state: state.to_string(),
            attempt: *attempt,
            worker: worker.as_ref().map(ToString::to_string).unwrap_or_default(),
            outcome: outcome.as_ref().map(convert::outcome_to),
        })
    }
}
