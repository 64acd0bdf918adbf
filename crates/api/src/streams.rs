//! The workers' streams that this server holds: what control hands over becomes messages, and
//! a page of output asked for finds its answer. Never blocks: a stream that cannot take a
//! message is closed, and its worker attaches anew.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use volley_control::ledger::{Delivery as Posted, Order, Taken};
use volley_control::{AnsweredReport, Delivery};
use volley_model::{ContainerId, Nonce, SpecHash, WorkerId};
use volley_wire::convert;
use volley_wire::proto::{self, to_worker};

/// Messages that wait for a stream's worker; one more closes the stream.
const MESSAGES_MAX: usize = 1_000;
/// Specs that both ends of a stream remember.
const SPECS_MAX: usize = 1_000;
/// Specs of one message in bytes, unless a single one is larger: far below what a worker takes.
const SPEC_BYTES_MAX: usize = 1 << 20;
/// Pages of output that are asked for at a time, per worker.
const PAGES_MAX: usize = 256;
/// A page of output is waited for this long beyond what was asked for.
const PAGE_WAIT: Duration = Duration::from_secs(10);

/// A call is answered within this, the longest wait for output of a program included.
const CALL_WAIT: Duration = Duration::from_secs(45);

type Sender = mpsc::Sender<Result<proto::ToWorker, Status>>;
/// What a stream's worker is to be sent; ends when the stream does.
pub type Receiver = mpsc::Receiver<Result<proto::ToWorker, Status>>;

#[derive(Debug)]
struct Held {
    sender: Sender,
    /// What the stream has carried.
    specs: HashSet<SpecHash>,
    pages: BTreeMap<u64, oneshot::Sender<proto::LogChunk>>,
    calls: BTreeMap<u64, oneshot::Sender<proto::CallReply>>,
}

/// All of them. Implements [`Delivery`].
#[derive(Debug, Default)]
pub struct WorkerStreams {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: BTreeMap<(WorkerId, Nonce), Held>,
    pages: u64,
}

/// Why there is no page of output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    #[error("worker '{0}', which keeps the output, is not connected; try again when it is")]
    NotConnected(WorkerId),
    #[error("worker '{0}' does not answer; try again")]
    NoAnswer(WorkerId),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Impossible(String),
}

impl WorkerStreams {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a stream that begins with its welcome.
    pub(crate) fn open(&self, worker: &WorkerId, stream: Nonce, welcome: proto::Welcome) -> Receiver {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        let held = Held { sender, specs: HashSet::new(), pages: BTreeMap::new(), calls: BTreeMap::new() };
        let mut inner = self.lock();
        inner.held.insert((worker.clone(), stream), held);
        inner.send(worker, stream, to_worker::Message::Welcome(welcome));
        receiver
    }

    /// The worker closed it.
    pub(crate) fn closed(&self, worker: &WorkerId, stream: Nonce) {
        self.lock().held.remove(&(worker.clone(), stream));
    }

    /// Closes all: the server ends.
    pub fn close_all(&self) {
        self.lock().held.clear();
    }

    /// A heartbeat came; whether it renews the lease is the store's to say.
    pub(crate) fn heard(&self, worker: &WorkerId, stream: Nonce, number: u64) {
        let ack = proto::HeartbeatAck { number, renewed: false };
        self.lock().send(worker, stream, to_worker::Message::Heartbeat(ack));
    }

    /// A page of output came.
    pub(crate) fn on_page(&self, worker: &WorkerId, stream: Nonce, chunk: proto::LogChunk) {
        let mut inner = self.lock();
        let held = inner.held.get_mut(&(worker.clone(), stream));
        if let Some(asked) = held.and_then(|held| held.pages.remove(&chunk.request)) {
            // Whoever asked may have gone.
            let _ = asked.send(chunk);
        }
    }

    /// A call was answered.
    pub(crate) fn on_reply(&self, worker: &WorkerId, stream: Nonce, reply: proto::CallReply) {
        let mut inner = self.lock();
        let held = inner.held.get_mut(&(worker.clone(), stream));
        if let Some(asked) = held.and_then(|held| held.calls.remove(&reply.request)) {
            // Whoever asked may have gone.
            let _ = asked.send(reply);
        }
    }

    /// Asks something of a container at a worker; `request` fills in all but its number.
    pub(crate) async fn call(
        &self,
        worker: &WorkerId,
        mut request: proto::CallRequest,
    ) -> Result<proto::call_reply::Reply, PageError> {
        let (asked, answer) = oneshot::channel();
        {
            let mut inner = self.lock();
            inner.pages += 1;
            request.request = inner.pages;
            let found = inner.held.range_mut((worker.clone(), Nonce(0))..=(worker.clone(), Nonce(u64::MAX))).last();
            let Some(((_, stream), held)) = found else { return Err(PageError::NotConnected(worker.clone())) };
            held.calls.retain(|_, waiting| !waiting.is_closed());
            if held.calls.len() >= PAGES_MAX {
                return Err(PageError::Refused(format!("{PAGES_MAX} calls to '{worker}' at a time are the limit")));
            }
            held.calls.insert(request.request, asked);
            let stream = *stream;
            inner.send(worker, stream, to_worker::Message::Call(request));
        }
        match tokio::time::timeout(CALL_WAIT, answer).await {
            Ok(Ok(proto::CallReply { reply: Some(reply), .. })) => Ok(reply),
            Ok(Ok(reply)) => Err(PageError::Impossible(reply.error)),
            Ok(Err(_)) => Err(PageError::NotConnected(worker.clone())),
            Err(_) => Err(PageError::NoAnswer(worker.clone())),
        }
    }

    /// Asks a worker for a page of output; `request` fills in all but its number.
    pub(crate) async fn page(
        &self,
        worker: &WorkerId,
        mut request: proto::LogRequest,
    ) -> Result<proto::LogChunk, PageError> {
        let wait = Duration::from_millis(u64::from(request.wait_ms)) + PAGE_WAIT;
        let (asked, answer) = oneshot::channel();
        {
            let mut inner = self.lock();
            inner.pages += 1;
            request.request = inner.pages;
            // Of several streams the one not yet found dead is the one that answers: ask the last that opened.
            let found = inner.held.range_mut((worker.clone(), Nonce(0))..=(worker.clone(), Nonce(u64::MAX))).last();
            let Some(((_, stream), held)) = found else { return Err(PageError::NotConnected(worker.clone())) };
            held.pages.retain(|_, waiting| !waiting.is_closed());
            if held.pages.len() >= PAGES_MAX {
                return Err(PageError::Refused(format!("{PAGES_MAX} readers of output of '{worker}' are the limit")));
            }
            held.pages.insert(request.request, asked);
            let stream = *stream;
            inner.send(worker, stream, to_worker::Message::Logs(request));
        }
        match tokio::time::timeout(wait, answer).await {
            Ok(Ok(chunk)) if chunk.error.is_empty() => Ok(chunk),
            Ok(Ok(chunk)) => Err(PageError::Refused(chunk.error)),
            Ok(Err(_)) => Err(PageError::NotConnected(worker.clone())),
            Err(_) => Err(PageError::NoAnswer(worker.clone())),
        }
    }
}

impl Inner {
    fn send(&mut self, worker: &WorkerId, stream: Nonce, message: to_worker::Message) {
        let key = (worker.clone(), stream);
        let Some(held) = self.held.get(&key) else { return };
        if held.sender.try_send(Ok(proto::ToWorker { message: Some(message) })).is_err() {
            tracing::warn!(%worker, "its stream does not take what it is sent and is closed");
            self.held.remove(&key);
        }
    }

    /// Orders become messages, neighbours of a kind in one.
    fn deliver(&mut self, worker: &WorkerId, stream: Nonce, deliveries: Vec<Posted>) {
        let Some(held) = self.held.get_mut(&(worker.clone(), stream)) else { return };
        let mut messages = Vec::new();
        let (mut starts, mut stops, mut bytes) = (proto::Starts::default(), proto::Stops::default(), 0);
        for delivery in deliveries {
            match delivery.order {
                Order::Start { container, attempt, spec_hash, spec, gpus } => {
                    flush_stops(&mut stops, &mut messages);
                    if !held.specs.contains(&spec_hash) {
                        let spec = convert::spec_to(&spec);
                        bytes += spec.encoded_len();
                        if bytes > SPEC_BYTES_MAX || held.specs.len() >= SPECS_MAX {
                            flush_starts(&mut starts, &mut messages);
                            bytes = 0;
                        }
                        if held.specs.len() >= SPECS_MAX {
                            held.specs.clear();
                            starts.forget_specs = true;
                        }
                        held.specs.insert(spec_hash);
                        let hash = convert::spec_hash_to(spec_hash);
                        starts.specs.push(proto::SpecEntry { hash, spec: Some(spec) });
                    }
                    starts.starts.push(proto::Start {
                        container: Some(convert::container_to(container)),
                        attempt: Some(convert::attempt_to(attempt)),
                        spec: convert::spec_hash_to(spec_hash),
                        gpus: convert::grants_to(&gpus),
                    });
                }
                Order::Stop { container, attempt, grace } => {
                    flush_starts(&mut starts, &mut messages);
                    stops.stops.push(stop_to(container, attempt, grace.0));
                }
            }
        }
        flush_starts(&mut starts, &mut messages);
        flush_stops(&mut stops, &mut messages);
        for message in messages {
            self.send(worker, stream, message);
        }
    }
}

fn stop_to(container: ContainerId, attempt: volley_model::Attempt, grace_ms: u64) -> proto::Stop {
    let (container, attempt) = (convert::container_to(container), convert::attempt_to(attempt));
    proto::Stop { container: Some(container), attempt: Some(attempt), grace_ms }
}

fn flush_starts(starts: &mut proto::Starts, messages: &mut Vec<to_worker::Message>) {
    if !starts.starts.is_empty() {
        messages.push(to_worker::Message::Starts(std::mem::take(starts)));
    }
}

fn flush_stops(stops: &mut proto::Stops, messages: &mut Vec<to_worker::Message>) {
    if !stops.stops.is_empty() {
        messages.push(to_worker::Message::Stops(std::mem::take(stops)));
    }
}

impl Delivery for WorkerStreams {
    fn deliver(&self, taken: Vec<Taken>) {
        let mut inner = self.lock();
        for taken in taken {
            inner.deliver(&taken.worker, taken.stream, taken.deliveries);
        }
    }

    fn answer(&self, worker: &WorkerId, stream: Nonce, verdicts: Vec<AnsweredReport>) {
        let verdict = |answered: AnsweredReport| proto::Verdict {
            container: Some(convert::container_to(answered.container)),
            attempt: Some(convert::attempt_to(answered.attempt)),
            keep: answered.keep,
            progress: answered.progress,
        };
        let verdicts = verdicts.into_iter().map(verdict).collect();
        self.lock().send(worker, stream, to_worker::Message::Verdicts(proto::Verdicts { verdicts }));
    }

    fn heartbeat(&self, worker: &WorkerId, stream: Nonce, number: u64, renewed: bool) {
        let ack = proto::HeartbeatAck { number, renewed };
        self.lock().send(worker, stream, to_worker::Message::Heartbeat(ack));
    }

    fn servers(&self, addresses: &[String]) {
        let mut inner = self.lock();
        let held: Vec<_> = inner.held.keys().cloned().collect();
        for (worker, stream) in held {
            let message = proto::ServerAddresses { addresses: addresses.to_vec() };
            inner.send(&worker, stream, to_worker::Message::Servers(message));
        }
    }

    fn close(&self, worker: &WorkerId, stream: Nonce) {
        self.closed(worker, stream);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use volley_model::{Attempt, DeliveryNumber, GroupId, Millis, Spec};

    use super::*;

    fn worker() -> WorkerId {
        WorkerId::new("w").unwrap()
    }

    fn start(index: u32, command: &str) -> Posted {
        let spec = Arc::new(Spec::of_command(command, &[]));
        let (container, attempt) = (ContainerId { group: GroupId(1), index }, Attempt { number: 1, nonce: Nonce(2) });
        let order = Order::Start { container, attempt, spec_hash: spec.hash(), spec, gpus: Vec::new() };
        Posted { number: DeliveryNumber(u64::from(index)), order }
    }

    fn received(receiver: &mut Receiver) -> Vec<to_worker::Message> {
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|message| message.unwrap().message.unwrap()).collect()
    }

    fn specs_and_starts(messages: &[to_worker::Message]) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for message in messages {
            if let to_worker::Message::Starts(starts) = message {
                let forgets = usize::from(starts.forget_specs);
                counts = (counts.0 + starts.specs.len(), counts.1 + starts.starts.len(), counts.2 + forgets);
            }
        }
        counts
    }

    fn taken(deliveries: Vec<Posted>) -> Vec<Taken> {
        vec![Taken { worker: worker(), stream: Nonce(7), deliveries, more: false }]
    }

    #[test]
    fn a_spec_travels_once_and_the_memory_of_specs_is_bounded() {
        let streams = WorkerStreams::default();
        let mut receiver = streams.open(&worker(), Nonce(7), proto::Welcome::default());
        assert!(matches!(received(&mut receiver)[..], [to_worker::Message::Welcome(_)]));
        streams.deliver(taken((0..100).map(|index| start(index, "same")).collect()));
        streams.deliver(taken(vec![start(100, "same"), start(101, "other")]));
        assert_eq!(specs_and_starts(&received(&mut receiver)), (2, 102, 0));
        streams.deliver(taken((0..2_000).map(|index| start(index, &format!("c{index}"))).collect()));
        assert_eq!(specs_and_starts(&received(&mut receiver)), (2_000, 2_000, 2));
        assert!(streams.lock().held.values().all(|held| held.specs.len() <= SPECS_MAX));
    }

    #[test]
    fn orders_keep_their_order() {
        let streams = WorkerStreams::default();
        let mut receiver = streams.open(&worker(), Nonce(7), proto::Welcome::default());
        let Order::Start { container, attempt, .. } = start(0, "a").order else { unreachable!() };
        let stop = Posted { number: DeliveryNumber(1), order: Order::Stop { container, attempt, grace: Millis(5) } };
        streams.deliver(taken(vec![start(0, "a"), stop, start(2, "a")]));
        let kinds = received(&mut receiver).into_iter().map(|message| match message {
            to_worker::Message::Welcome(_) => "welcome",
            to_worker::Message::Starts(_) => "starts",
            to_worker::Message::Stops(_) => "stops",
            _ => "other",
        });
        assert_eq!(kinds.collect::<Vec<_>>(), ["welcome", "starts", "stops", "starts"]);
    }

    #[test]
    fn a_stream_that_takes_nothing_is_closed_and_another_is_untouched() {
        let streams = WorkerStreams::default();
        let mut stuck = streams.open(&worker(), Nonce(7), proto::Welcome::default());
        let mut fine = streams.open(&worker(), Nonce(8), proto::Welcome::default());
        for number in 0..=MESSAGES_MAX as u64 {
            streams.heartbeat(&worker(), Nonce(7), number, true);
        }
        assert_eq!(received(&mut stuck).len(), MESSAGES_MAX);
        assert!(stuck.is_closed());
        streams.heartbeat(&worker(), Nonce(8), 1, true);
        assert_eq!(received(&mut fine).len(), 2);
    }
}
