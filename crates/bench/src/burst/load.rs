//! The load: sends submissions over gRPC and watches one stream for the ends. Measures as a
//! client sees it; knows nothing of what the figures become.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use volley_model::{ContainerId, GroupId};
use volley_wire::proto;
use volley_wire::proto::volley_client::VolleyClient;
use volley_wire::proto::{ContainerEvents, SubmitRequest, WatchEventsRequest};

use super::clock::{Instant, calendar_ms};
use super::{BurstError, Rate, scene};
use crate::Submit;

/// Without any end for so long, what is left is lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// With a rate, what is due is sent this often.
const TICK: Duration = Duration::from_millis(10);
/// The largest reply.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// Connections that single requests come over, as from several clients.
const CONNECTIONS: usize = 4;

/// A group that was submitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    /// The same by the calendar.
    pub(crate) at_ms: f64,
    pub(crate) count: u32,
}

/// What the client saw of one repetition.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) groups: HashMap<GroupId, Sent>,
    pub(crate) ends: Vec<(ContainerId, Instant)>,
    pub(crate) sent: u64,
    /// The first that ended otherwise than well, if any did.
    pub(crate) bad: Option<(ContainerId, String)>,
}

/// A connected client.
pub(crate) struct Load {
    clients: Vec<VolleyClient<Channel>>,
    ends: Streaming<ContainerEvents>,
    /// The last event that was seen.
    last: u64,
}

fn refused(status: tonic::Status) -> BurstError {
    BurstError::Server(status.message().to_owned())
}

impl Load {
    /// As many connections to each server as to any other.
    pub(crate) async fn connect(urls: &[String]) -> Result<Self, BurstError> {
        let unreachable = |error: tonic::transport::Error| BurstError::Server(error.to_string());
        let mut clients = Vec::new();
        for url in urls.iter().cycle().take(CONNECTIONS.next_multiple_of(urls.len().max(1))) {
            let endpoint = Endpoint::from_shared(url.clone()).map_err(unreachable)?.tcp_nodelay(true);
            let channel = endpoint.connect().await.map_err(unreachable)?;
            clients.push(VolleyClient::new(channel).max_decoding_message_size(REPLY_BYTES_MAX));
        }
        let ends = clients[0].watch_events(WatchEventsRequest::default()).await.map_err(refused)?.into_inner();
        Ok(Self { clients, ends, last: 0 })
    }

    pub(crate) fn last_event(&self) -> u64 {
        self.last
    }

    /// Sends all at once and waits for all ends.
    pub(crate) async fn burst(&mut self, parts: Vec<(SubmitRequest, u32)>) -> Result<Seen, BurstError> {
        let mut seen = Seen { sent: parts.iter().map(|(_, count)| u64::from(*count)).sum(), ..Seen::default() };
        let mut submits = Submits::default();
        for (number, (request, count)) in parts.into_iter().enumerate() {
            submits.send(self.clients[number % self.clients.len()].clone(), request, count);
        }
        self.until_ended(&mut seen, &mut submits).await?;
        Ok(seen)
    }

    /// Sends, and waits until all is acknowledged.
    pub(super) async fn submit(&mut self, requests: Vec<SubmitRequest>) -> Result<(), BurstError> {
        for (number, request) in requests.into_iter().enumerate() {
            let at = number % self.clients.len();
            self.clients[at].submit(request).await.map_err(refused)?;
        }
        Ok(())
    }

    /// Sends at a rate, however the server keeps up, and waits for all ends. `progress` is told of the seconds.
    pub(super) async fn sustain(
        &mut self,
        rate: Rate,
        (shapes, submit): (usize, Submit),
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Seen, BurstError> {
        let (mut seen, mut submits) = (Seen::default(), Submits::default());
        let total = rate.per_second * rate.seconds;
        let begin = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = 0;
        while seen.sent < total {
            tokio::select! {
                _ = ticks.tick() => {
                    let due = (Instant::now().since_ms(begin) * rate.per_second as f64 / 1e3) as u64;
                    let due = due.min(total).saturating_sub(seen.sent) as usize;
                    for (request, count) in scene::submissions(due.min(scene::ONE_GROUP_MAX), shapes, submit) {
                        let client = &self.clients[submits.sent % self.clients.len()];
                        submits.send(client.clone(), request, count);
                        seen.sent += u64::from(count);
                    }
                    let now = Instant::now().since_ms(begin) as u64 / 1_000;
                    if now > second {
                        second = now;
                        progress(seen.sent, seen.ends.len() as u64);
                    }
                }
                events = self.ends.message() => self.on_events(events, &mut seen)?,
                Some(sent) = submits.tasks.join_next(), if !submits.tasks.is_empty() => submitted(sent, &mut seen)?,
            }
        }
        self.until_ended(&mut seen, &mut submits).await?;
        Ok(seen)
    }

    async fn until_ended(&mut self, seen: &mut Seen, submits: &mut Submits) -> Result<(), BurstError> {
        while (seen.ends.len() as u64) < seen.sent || !submits.tasks.is_empty() {
            tokio::select! {
                events = self.ends.message() => self.on_events(events, seen)?,
                Some(sent) = submits.tasks.join_next(), if !submits.tasks.is_empty() => submitted(sent, seen)?,
                () = tokio::time::sleep(PATIENCE) => return Ok(()),
            }
        }
        Ok(())
    }

    fn on_events(
        &mut self,
        events: Result<Option<ContainerEvents>, tonic::Status>,
        seen: &mut Seen,
    ) -> Result<(), BurstError> {
        let now = Instant::now();
        let Some(events) = events.map_err(refused)? else {
            return Err(BurstError::Server("it closed the stream of events".to_owned()));
        };
        for event in events.events {
            self.last = event.number;
            let container = ContainerId { group: GroupId(event.group), index: event.index };
            if !event.outcome.as_ref().is_some_and(ended_well) && seen.bad.is_none() {
                seen.bad = Some((container, format!("{:?}", event.outcome)));
            }
            seen.ends.push((container, now));
        }
        Ok(())
    }

    /// When each container was first assigned and first ran, by the server's calendar, from its record after an event.
    pub(crate) async fn record(&mut self, after: u64, containers: usize) -> Result<Recorded, BurstError> {
        let request = WatchEventsRequest { after: Some(after), all_states: true };
        let mut record = self.clients[0].watch_events(request).await.map_err(refused)?.into_inner();
        let (mut recorded, mut finished) = (Recorded::default(), 0);
        while finished < containers {
            let page = tokio::time::timeout(PATIENCE, record.message()).await;
            let page = page.map_err(|_| BurstError::Server("its record of events is not complete".to_owned()))?;
            for event in page.map_err(refused)?.unwrap_or_default().events {
                let container = ContainerId { group: GroupId(event.group), index: event.index };
                let times = match event.state.as_str() {
                    "assigned" => &mut recorded.assigned,
                    "running" => &mut recorded.started,
                    "finished" => {
                        finished += 1;
                        continue;
                    }
                    _ => continue,
                };
                times.entry(container).or_insert(event.at_ms);
            }
        }
        Ok(recorded)
    }
}

fn ended_well(outcome: &proto::Outcome) -> bool {
    matches!(&outcome.kind, Some(proto::outcome::Kind::Exited(exited)) if exited.code == 0)
}

/// Milliseconds of the calendar.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) assigned: HashMap<ContainerId, u64>,
    pub(crate) started: HashMap<ContainerId, u64>,
}

type Submitted = Result<(GroupId, Sent), BurstError>;

/// Requests under way.
#[derive(Default)]
struct Submits {
    tasks: JoinSet<Submitted>,
    sent: usize,
}

impl Submits {
    fn send(&mut self, mut client: VolleyClient<Channel>, request: SubmitRequest, count: u32) {
        self.sent += 1;
        let (at, at_ms) = (Instant::now(), calendar_ms());
        self.tasks.spawn(async move {
            let reply = client.submit(request).await.map_err(refused)?.into_inner();
            Ok((GroupId(reply.group), Sent { at, at_ms, count }))
        });
    }
}

fn submitted(joined: Result<Submitted, tokio::task::JoinError>, seen: &mut Seen) -> Result<(), BurstError> {
    let (group, sent) = joined.map_err(|error| BurstError::Server(error.to_string()))??;
    seen.groups.insert(group, sent);
    Ok(())
}
