//! A connection whose other end is given only so much time: to say what it speaks, and to take
//! what it asked for. Knows nothing of what is said.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A connection has said what it speaks within this.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// Bytes by which HTTP/2 is known from HTTP/1; from here on, hyper has limits of its own for the head of a request.
const FIRST_BYTES: usize = 24;
/// A client that takes nothing of its answer for so long is cut off.
pub(crate) const TAKE_WAIT: Duration = Duration::from_secs(60);

/// A connection with limits.
pub(crate) struct PatientIo<T> {
    inner: T,
    peer: Option<SocketAddr>,
    /// Bytes until it is known what is spoken; then the sleep is of no use and gone.
    first: Option<(usize, Pin<Box<Sleep>>)>,
    /// Runs while a write waits for the other end.
    taking: Option<Pin<Box<Sleep>>>,
}

impl<T> PatientIo<T> {
    pub(crate) fn new(inner: T, peer: Option<SocketAddr>) -> Self {
        let first = (FIRST_BYTES, Box::pin(tokio::time::sleep(FIRST_WAIT)));
        Self { inner, peer, first: Some(first), taking: None }
    }

    fn cut_off(&self, reason: &'static str, after: Duration) -> io::Error {
        tracing::info!(peer = ?self.peer, reason, seconds = after.as_secs(), "a connection is cut off");
        io::Error::new(io::ErrorKind::TimedOut, reason)
    }

    /// Minds the time of something that waits for the other end to take it.
    fn taken<R>(&mut self, polled: Poll<io::Result<R>>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.taking = None;
            return polled;
        }
        let until = Instant::now() + TAKE_WAIT;
        let sleep = self.taking.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(self.cut_off("it takes nothing of its answer", TAKE_WAIT)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for PatientIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let Some((missing, sleep)) = &mut self.first else { return polled };
        if polled.is_pending() {
            ready!(sleep.as_mut().poll(cx));
            return Poll::Ready(Err(self.cut_off("it asks nothing", FIRST_WAIT)));
        }
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            self.first = None;
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PatientIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.taken(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        // Between two writes that wait there may be flushes that have nothing to do: they are no progress.
        if polled.is_ready() { polled } else { self.taken(polled, cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.taken(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    fn pair() -> (PatientIo<DuplexStream>, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64);
        (PatientIo::new(ours, None), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_say_what_it_speaks_is_cut_off() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"PRI * HTTP").await.unwrap();
        let mut read = Vec::new();
        let error = ours.read_to_end(&mut read).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::TimedOut, "it asks nothing"));
        assert_eq!(read, b"PRI * HTTP");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_said_it_may_be_silent() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"GET /v1/events HTTP/1.1\r\n").await.unwrap();
        let mut read = [0; 25];
        ours.read_exact(&mut read).await.unwrap();
        let more = tokio::time::timeout(FIRST_WAIT * 10, ours.read_u8()).await;
        assert!(more.is_err(), "{more:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_off_and_who_takes_a_little_is_not() {
        let (mut ours, mut theirs) = pair();
        let slow = async {
            for _ in 0..4 {
                tokio::time::sleep(TAKE_WAIT * 2 / 3).await;
                theirs.read_exact(&mut [0; 64]).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let begin = Instant::now();
        let error = tokio::select! {
            wrote = ours.write_all(&[7; 1024]) => wrote.unwrap_err(),
            () = slow => unreachable!("it never ends"),
        };
        assert_eq!(error.to_string(), "it takes nothing of its answer");
        assert!(begin.elapsed() > TAKE_WAIT * 3, "{:?}", begin.elapsed());
    }
}
