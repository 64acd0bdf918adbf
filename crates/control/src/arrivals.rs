//! What became ready since the last turn, and when a batch of it closes. Knows nothing of the
//! store or of what is done with the batch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Counts what becomes ready and wakes the turn.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    came: Notify,
    waiting: AtomicU64,
}

/// When a batch closes: whichever comes first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closing {
    /// So long after its first container.
    pub(crate) window: Duration,
    /// When nothing came for so long.
    pub(crate) pause: Duration,
    /// At so many containers.
    pub(crate) max_size: u32,
}

impl Arrivals {
    /// So many became ready; 0 when there is something to look at again.
    pub(crate) fn add(&self, containers: u32) {
        self.waiting.fetch_add(u64::from(containers), Ordering::Relaxed);
        self.came.notify_one();
    }

    /// Waits for the first, and then until the batch closes; when the first came. A lost count costs a pause, never
    /// work.
    pub(crate) async fn batch(&self, closing: Closing) -> Instant {
        self.came.notified().await;
        let first = Instant::now();
        let window = tokio::time::sleep(closing.window);
        tokio::pin!(window);
        while !closing.window.is_zero() && self.waiting.load(Ordering::Relaxed) < u64::from(closing.max_size) {
            tokio::select! {
                biased;
                () = self.came.notified() => {}
                () = &mut window => break,
                () = tokio::time::sleep(closing.pause) => break,
            }
        }
        self.waiting.store(0, Ordering::Relaxed);
        first
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const CLOSING: Closing =
        Closing { window: Duration::from_millis(50), pause: Duration::from_millis(5), max_size: 100 };

    /// Virtual milliseconds until the batch closes; `arrivals` are (milliseconds after the one before, containers).
    async fn closes_after(closing: Closing, arrivals: &[(u64, u32)]) -> u128 {
        let (started, waiting) = (Instant::now(), Arc::new(Arrivals::default()));
        let arrivals = arrivals.to_vec();
        let source = Arc::clone(&waiting);
        let coming = tokio::spawn(async move {
            for (wait, containers) in arrivals {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                source.add(containers);
            }
        });
        waiting.batch(closing).await;
        let closed = started.elapsed().as_millis();
        coming.abort();
        closed
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_closes_at_its_size_its_window_or_a_pause() {
        assert_eq!(closes_after(CLOSING, &[(0, 1)]).await, 5, "a lone container waits for a pause only");
        assert_eq!(closes_after(CLOSING, &[(0, 100)]).await, 0, "a full batch waits for nothing");
        assert_eq!(closes_after(CLOSING, &[(0, 60), (3, 39), (3, 1), (3, 1)]).await, 6, "at its size");
        assert_eq!(closes_after(CLOSING, &[(4, 1); 40]).await, 54, "50 ms after its first");
        let none = Closing { window: Duration::ZERO, pause: Duration::ZERO, ..CLOSING };
        assert_eq!(closes_after(none, &[(7, 1), (1, 1)]).await, 7, "whatever is there");
    }
}
