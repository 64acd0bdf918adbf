//! The event record: by pages, or as a stream that goes on. A tenant is shown its own.

use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Json, Response, Sse, sse};
use futures_util::stream;
use http::HeaderMap;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use volley_control::Detail;
use volley_control::ledger::{Answer, Event, EventPage, Query};
use volley_model::EventNumber;

use super::parameters::Parameters;
use super::{Shared, unexpected};
use crate::auth::{Caller, KNOWN_FOR};
use crate::bodies;
use crate::patience::Follower;
use crate::problem::{Problem, ProblemBody};

/// Events of a stream that are read at a time: what a client that takes none makes the server hold.
const FOLLOWED_MAX: u32 = 256;
/// Longest wait of a read of events.
const WAIT_MAX: Duration = Duration::from_secs(60);

async fn page(shared: &Shared, caller: &Caller, after: EventNumber, max: u32) -> Result<EventPage, Problem> {
    match shared.control.read(Query::Events { after, max, scope: caller.scope() }).await? {
        // After a failover that lost writes the numbers begin again before what was seen.
        Answer::Events(page) => Ok(EventPage { seen: page.seen.min(page.last), ..page }),
        _ => Err(unexpected()),
    }
}

/// Events after a number: a page as JSON, or a stream (SSE) for who accepts text/event-stream.
#[utoipa::path(get, path = "/v1/events",
    params(("after" = Option<u64>, Query, description = "The last number that was seen; 0 for all that are kept."),
        ("max" = Option<u32>, Query, description = "At most this many, up to 1,000."),
        ("wait" = Option<bool>, Query, description = "Wait for the first event, at most a minute."),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `after`, from a stream that broke.")),
    responses((status = 200, description = "A page, or a stream of single events; the stream also has `detail`s, without a \
        number: how far the start of a container is, in words.", body = bodies::Events),
        (status = 400, description = "A parameter is wrong.", body = ProblemBody)))]
pub(super) async fn events(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = parameters.known(&["after", "max", "wait"])?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let after = parameters.text("after")?.or(last).unwrap_or("0").parse();
    let mut after = EventNumber(after.map_err(|_| Problem::parameter("after", "give an event's number"))?);
    let accepts = headers.get("accept").and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/event-stream") {
        let follower = shared.patience.follower()?;
        return Ok(stream_events(shared, caller, after, follower).into_response());
    }
    let (wait, max) = (parameters.flag("wait")?, parameters.max()?);
    let mut grew = shared.control.events_grew();
    let until = Instant::now() + WAIT_MAX;
    let found = loop {
        let found = page(&shared, &caller, after, max).await?;
        if !found.events.is_empty() || !wait {
            break found;
        }
        let past = after < found.seen;
        after = found.seen;
        // Ended by time as well as by events: the client asks again. What was passed over was another's.
        if !past && !grows(&mut grew, until).await {
            break found;
        }
    };
    let events = found.events.iter().map(bodies::Event::from).collect();
    let body = bodies::Events { events, oldest: found.oldest.0, last: found.last.0, next: found.seen.0 };
    Ok(Json(body).into_response())
}

/// Whether there is something new before the time is over.
async fn grows(grew: &mut watch::Receiver<EventNumber>, until: Instant) -> bool {
    matches!(tokio::time::timeout_at(until, grew.changed()).await, Ok(Ok(())))
}

struct Following {
    shared: Shared,
    caller: Caller,
    grew: watch::Receiver<EventNumber>,
    after: EventNumber,
    waiting: std::vec::IntoIter<Event>,
    _follower: Follower,
    details: broadcast::Receiver<Detail>,
}

/// What a stream carries.
enum Told {
    Event(Box<Event>),
    /// Of this moment only: it has no number and is not kept.
    Detail(Detail),
}

impl Following {
    /// The next event; `None` when the server ends or the caller's token does.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(event) = self.waiting.next() {
                return Some(Told::Event(Box::new(event)));
            }
            if !self.shared.auth.still_counts(&self.caller).await {
                return None;
            }
            let found = page(&self.shared, &self.caller, self.after, FOLLOWED_MAX).await.ok()?;
            if found.events.is_empty() && found.seen == self.after {
                // A quiet stream looks now and then whether its token still counts.
                tokio::select! {
                    changed = tokio::time::timeout(KNOWN_FOR, self.grew.changed()) => {
                        changed.unwrap_or(Ok(())).ok()?;
                    }
                    // A reader that is too slow has missed some, which matters nothing.
                    Ok(detail) = self.details.recv() => if self.is_shown(&detail).await {
                        return Some(Told::Detail(detail));
                    }
                }
            }
            self.after = found.seen;
            self.waiting = found.events.into_iter();
        }
    }
}

impl Following {
    /// Whether the caller may see the container.
    async fn is_shown(&self, detail: &Detail) -> bool {
        let query = Query::Container(detail.container, self.caller.scope());
        matches!(self.shared.control.read(query).await, Ok(Answer::Container(Some(_))))
    }
}

/// All events after a number, for ever; resumable by `Last-Event-ID`.
fn stream_events(shared: Shared, caller: Caller, after: EventNumber, follower: Follower) -> impl IntoResponse {
    let grew = shared.control.events_grew();
    let details = shared.control.details().news();
    let waiting = Vec::new().into_iter();
    let following = Following { shared, caller, grew, after, waiting, _follower: follower, details };
    let events = stream::unfold(following, |mut following| async move {
        let sent = match following.next().await? {
            Told::Event(event) => {
                let text = serde_json::to_string(&bodies::Event::from(&*event)).ok()?;
                sse::Event::default().id(event.number.to_string()).data(text)
            }
            Told::Detail(Detail { container, attempt, worker, words }) => {
                let detail = serde_json::json!({
                    "container": container.to_string(), "attempt": attempt.number,
                    "worker": worker.as_str(), "words": words,
                });
                sse::Event::default().event("detail").data(detail.to_string())
            }
        };
        Some((Ok::<_, std::convert::Infallible>(sent), following))
    });
    Sse::new(events).keep_alive(sse::KeepAlive::default())
}
