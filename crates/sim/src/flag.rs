//! A flag to wait for. Not tokio's `watch`: that wakes those who wait in an order of its own
//! chance, and a seed would not replay.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Flag {
    up: AtomicBool,
    changed: Notify,
}

impl Flag {
    pub(crate) fn set(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits until it is (or is not) up.
    pub(crate) async fn is(&self, up: bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.up.load(Ordering::SeqCst) == up {
                return;
            }
            changed.await;
        }
    }
}
