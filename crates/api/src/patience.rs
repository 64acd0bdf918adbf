//! How long a request's body may take and how much of all bodies is held at a time, and how many
//! clients follow something. Knows nothing of what they ask.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use volley_wire::proto::workers_server;

use crate::problem::Problem;

/// The body of a request is there within this.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// Bodies that are being read and answered hold at most so many bytes in all: sixteen of the largest.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// Clients that follow events, groups or output at a time. Each holds a page and what its connection has not taken.
const FOLLOWERS_MAX: usize = 4_096;
/// Told to who is one too many.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// What is held for clients now.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    bodies: Arc<AtomicUsize>,
    followers: Arc<Semaphore>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { bodies: Arc::default(), followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)) }
    }
}

/// The right to follow something, until dropped.
pub(crate) type Follower = OwnedSemaphorePermit;

impl Patience {
    /// A client wants to follow something.
    pub(crate) fn follower(&self) -> Result<Follower, Problem> {
        let busy = |_| {
            let words = format!("{FOLLOWERS_MAX} clients follow events or output, which is the limit; try again later");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, words).retry_after(BUSY_WAIT)
        };
        Arc::clone(&self.followers).try_acquire_owned().map_err(busy)
    }

    /// The same body, read with patience that ends; what it holds is given back with the first of the two.
    fn held(&self, body: Body) -> (Arc<Held>, Body) {
        let all = Arc::clone(&self.bodies);
        let held = Arc::new(Held { all, bytes: AtomicUsize::new(0), failure: AtomicU8::new(0) });
        let until = Instant::now() + BODY_WAIT;
        let pieces = Pieces { body: body.into_data_stream(), held: Arc::clone(&held), until };
        (held, Body::from_stream(stream::unfold(Some(pieces), Pieces::next)))
    }
}

const TOO_SLOW: u8 = 1;
const TOO_MUCH: u8 = 2;

/// What one body holds, until its request is answered.
struct Held {
    all: Arc<AtomicUsize>,
    bytes: AtomicUsize,
    failure: AtomicU8,
}

impl Held {
    /// One more piece of it.
    fn add(&self, piece: Bytes) -> io::Result<Bytes> {
        let before = self.all.fetch_add(piece.len(), Ordering::Relaxed);
        self.bytes.fetch_add(piece.len(), Ordering::Relaxed);
        if before + piece.len() > BODIES_BYTES_MAX {
            return Err(self.fail(TOO_MUCH, "too many bodies at a time"));
        }
        Ok(piece)
    }

    fn fail(&self, failure: u8, words: &'static str) -> io::Error {
        self.failure.store(failure, Ordering::Relaxed);
        io::Error::other(words)
    }

    fn problem(&self) -> Option<Problem> {
        match self.failure.load(Ordering::Relaxed) {
            TOO_SLOW => {
                let words = format!("the body was not there within {} s", BODY_WAIT.as_secs());
                Some(Problem::new(StatusCode::REQUEST_TIMEOUT, words))
            }
            TOO_MUCH => {
                let words =
                    format!("requests under way hold {} MiB, which is the limit; try again", BODIES_BYTES_MAX >> 20);
                Some(Problem::new(StatusCode::SERVICE_UNAVAILABLE, words).retry_after(BUSY_WAIT))
            }
            _ => None,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// Reads bodies with patience that ends. A worker's stream is a body without an end, and is not touched.
pub(crate) async fn bodies(State(patience): State<Patience>, request: Request, next: Next) -> Response {
    let of_worker =
        request.uri().path().strip_prefix('/').is_some_and(|path| path.starts_with(workers_server::SERVICE_NAME));
    if of_worker || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let (held, body) = patience.held(body);
    let response = next.run(Request::from_parts(parts, body)).await;
    held.problem().map_or(response, IntoResponse::into_response)
}

struct Pieces {
    body: BodyDataStream,
    held: Arc<Held>,
    until: Instant,
}

impl Pieces {
    async fn next(this: Option<Self>) -> Option<(io::Result<Bytes>, Option<Self>)> {
        let mut this = this?;
        match tokio::time::timeout_at(this.until, this.body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => match this.held.add(piece) {
                Ok(piece) => Some((Ok(piece), Some(this))),
                Err(error) => Some((Err(error), None)),
            },
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => Some((Err(this.held.fail(TOO_SLOW, "the body is too slow")), None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// Reads a body to its end: its length, or why not.
    async fn read(patience: &Patience, body: Body) -> Result<usize, String> {
        let (held, body) = patience.held(body);
        let read = body.collect().await;
        match held.problem() {
            Some(problem) => Err(problem.detail().to_owned()),
            None => Ok(read.expect("nothing else fails").to_bytes().len()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_not_waited_for() {
        let patience = Patience::default();
        let dribble = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, io::Error>(Bytes::from_static(b"x")), ()))
        });
        let told = read(&patience, Body::from_stream(dribble)).await;
        assert_eq!(told, Err("the body was not there within 30 s".to_owned()));
        assert_eq!(read(&patience, Body::from("four")).await, Ok(4));
        assert_eq!(patience.bodies.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn all_bodies_together_have_a_limit() {
        let patience = Patience::default();
        patience.bodies.store(BODIES_BYTES_MAX - 3, Ordering::Relaxed);
        let told = read(&patience, Body::from("four")).await;
        assert!(told.as_ref().is_err_and(|told| told.contains("256 MiB, which is the limit")), "{told:?}");
        assert_eq!(read(&patience, Body::from("two")).await, Ok(3));
        assert_eq!(patience.bodies.load(Ordering::Relaxed), BODIES_BYTES_MAX - 3);
    }

    #[test]
    fn followers_have_a_limit() {
        let patience = Patience::default();
        let all: Vec<_> = (0..FOLLOWERS_MAX).map(|_| patience.follower().unwrap()).collect();
        assert!(patience.follower().unwrap_err().detail().contains("which is the limit"));
        drop(all);
        assert!(patience.follower().is_ok());
    }
}
