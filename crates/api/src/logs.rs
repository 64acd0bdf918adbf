//! Output of a container: read page by page from the worker that keeps it, whatever server that
//! is connected to, so that a slow reader holds nothing but its own page.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::StatusCode;
use tokio::sync::watch;
use volley_control::Control;
use volley_control::ledger::{Answer, ContainerRecord, Query};
use volley_model::{ContainerId, ContainerState, EventNumber, WorkerId};
use volley_wire::convert;
use volley_wire::proto;

use crate::auth::{Auth, Caller, KNOWN_FOR};
use crate::patience::Follower;
use crate::peers::Peers;
use crate::problem::Problem;
use crate::streams::PageError;

/// One page of one stream in bytes.
const PAGE_BYTES: u32 = 64 << 10;
/// A worker waits this long for more output before it answers with none; then it is asked whether the reader's token
/// still counts.
const PAGE_WAIT_MS: u32 = KNOWN_FOR.as_millis() as u32;
/// Whoever follows waits this long for a worker that changes its server.
const MOVE_WAIT: Duration = Duration::from_secs(10);

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Both,
    Stdout,
    Stderr,
}

/// A reader of one container's output.
pub(crate) struct Reader {
    control: Arc<Control>,
    peers: Arc<Peers>,
    /// Who reads.
    caller: (Arc<Auth>, Caller),
    container: ContainerId,
    which: Which,
    /// Goes on until the container has finished.
    follow: Option<Follower>,
    grew: watch::Receiver<EventNumber>,
    /// Worker, attempt, and the places in its two streams.
    at: Option<(WorkerId, u32, u64, u64)>,
    /// Its attempt had ended before the last page was read.
    end_known: bool,
    over: bool,
}

impl From<PageError> for Problem {
    fn from(error: PageError) -> Self {
        let status = match error {
            PageError::Impossible(_) => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error.to_string())
    }
}

impl Reader {
    pub(crate) fn new(
        control: Arc<Control>,
        peers: Arc<Peers>,
        caller: (Arc<Auth>, Caller),
        container: ContainerId,
        which: Which,
        follow: Option<Follower>,
    ) -> Self {
        let grew = control.events_grew();
        Self { control, peers, caller, container, which, follow, grew, at: None, end_known: false, over: false }
    }

    /// All that is kept, or with `follow` all that comes until the container has finished. What fails before the
    /// first byte is a problem; what fails later ends the body early.
    pub(crate) async fn body(mut self) -> Result<Body, Problem> {
        let first = self.next().await?;
        let Some(first) = first else { return Ok(Body::empty()) };
        let rest = stream::unfold((self, Some(first)), |(mut reader, first)| async move {
            if let Some(first) = first {
                return Some((Ok(first), (reader, None)));
            }
            match reader.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), (reader, None))),
                Ok(None) => None,
                Err(problem) => {
                    reader.over = true;
                    Some((Err(std::io::Error::other(problem.detail().to_owned())), (reader, None)))
                }
            }
        });
        Ok(Body::from_stream(rest))
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        while !self.over {
            self.still_heard().await?;
            let Some((worker, attempt, stdout_from, stderr_from)) = self.place().await? else { return Ok(None) };
            let request = proto::LogRequest {
                request: 0,
                container: Some(convert::container_to(self.container)),
                attempt,
                stdout_from,
                stderr_from,
                bytes_max: PAGE_BYTES,
                wait_ms: if self.follow.is_some() { PAGE_WAIT_MS } else { 0 },
                worker: String::new(),
            };
            let patience = if self.follow.is_some() { MOVE_WAIT } else { Duration::ZERO };
            // What happens from here on is a reason to look again.
            self.grew.mark_unchanged();
            let chunk = self.peers.page(&self.caller.1, &worker, &request, patience).await?;
            self.at = Some((worker, attempt, chunk.stdout_next, chunk.stderr_next));
            let empty = chunk.stdout.is_empty() && chunk.stderr.is_empty();
            if empty && self.follow.is_none() {
                self.over = true;
            } else if empty && chunk.ended {
                self.attempt_ended(attempt).await?;
            }
            let mut bytes = if self.which == Which::Stderr { Vec::new() } else { chunk.stdout };
            if self.which != Which::Stdout {
                bytes.extend(chunk.stderr);
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes.into()));
            }
        }
        Ok(None)
    }

    async fn record(&self) -> Result<ContainerRecord, Problem> {
        match self.control.read(Query::Container(self.container, None)).await? {
            Answer::Container(Some(record)) => Ok(*record),
            _ => Err(Problem::not_found(format!("container {}", self.container))),
        }
    }

    /// Where to read on; waits for the first attempt when following; `None` when there never was one.
    async fn place(&mut self) -> Result<Option<(WorkerId, u32, u64, u64)>, Problem> {
        loop {
            if let Some(at) = &self.at {
                return Ok(Some(at.clone()));
            }
            self.grew.mark_unchanged();
            let record = self.record().await?;
            if let (Some(worker), Some(attempt)) = (record.worker, record.attempt) {
                self.at = Some((worker, attempt.number, 0, 0));
            } else if record.state == ContainerState::Finished || self.follow.is_none() {
                return Ok(None);
            } else {
                self.changed().await?;
                self.still_heard().await?;
            }
        }
    }

    /// A token may be revoked while its holder follows.
    async fn still_heard(&self) -> Result<(), Problem> {
        let (auth, caller) = &self.caller;
        let ended = || Problem::new(StatusCode::UNAUTHORIZED, "the token of this reader has ended");
        if auth.still_counts(caller).await { Ok(()) } else { Err(ended()) }
    }

    /// The attempt does not run, and there is no more of its output for now: goes on with the next attempt if there is
    /// one. "Does not run" may also be "has not begun yet", so what was read before the end was known is read again.
    async fn attempt_ended(&mut self, ended: u32) -> Result<(), Problem> {
        let record = self.record().await?;
        let next = record.attempt.filter(|attempt| attempt.number > ended);
        match (record.state, record.worker, next) {
            (ContainerState::Finished, ..) | (_, Some(_), Some(_)) if !self.end_known => self.end_known = true,
            (_, Some(worker), Some(next)) => {
                self.at = Some((worker, next.number, 0, 0));
                self.end_known = false;
            }
            (ContainerState::Finished, ..) => self.over = true,
            _ => self.changed().await?,
        }
        Ok(())
    }

    /// Something happened, or it is time to ask about the token again.
    async fn changed(&mut self) -> Result<(), Problem> {
        let gone = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server ends");
        tokio::time::timeout(KNOWN_FOR, self.grew.changed()).await.unwrap_or(Ok(())).map_err(gone)
    }
}
