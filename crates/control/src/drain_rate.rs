//! How fast the backlog drains: containers placed in each of the last seconds, for the wait
//! that is told to a client whose submission does not fit. Knows nothing of what is placed.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Seconds that are remembered: long enough to smooth bursts, short enough to notice a fleet that grew.
const SECONDS: u64 = 30;
/// A wait that is told is between these.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Told while nothing drains: then nobody knows.
const WAIT_UNKNOWN: Duration = Duration::from_secs(30);

/// Counts what leaves the backlog by this server's turns.
#[derive(Debug)]
pub(crate) struct DrainRate {
    begin: Instant,
    /// Second since the begin, and how many.
    seconds: Mutex<VecDeque<(u64, u64)>>,
}

impl Default for DrainRate {
    fn default() -> Self {
        Self { begin: Instant::now(), seconds: Mutex::default() }
    }
}

impl DrainRate {
    /// So many were placed now.
    pub(crate) fn placed(&self, count: u64) {
        if count == 0 {
            return;
        }
        let now = self.begin.elapsed().as_secs();
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        match seconds.back_mut().filter(|(second, _)| *second == now) {
            Some((_, placed)) => *placed += count,
            None => seconds.push_back((now, count)),
        }
        while seconds.front().is_some_and(|(second, _)| second + SECONDS <= now) {
            seconds.pop_front();
        }
    }

    /// How long until so many have left, as things go.
    pub(crate) fn wait_for(&self, count: u64) -> Duration {
        let now = self.begin.elapsed();
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = seconds.iter().filter(|(second, _)| second + SECONDS > now.as_secs());
        let placed: u64 = recent.map(|(_, placed)| placed).sum();
        if placed == 0 {
            return WAIT_UNKNOWN;
        }
        let span = now.as_millis().clamp(1, u128::from(SECONDS) * 1000) as u64;
        let wait = Duration::from_millis(count.saturating_mul(span) / placed);
        wait.clamp(WAIT.0, WAIT.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_what_the_last_seconds_say() {
        let rate = DrainRate::default();
        assert_eq!(rate.wait_for(100), WAIT_UNKNOWN, "nothing has drained yet");
        for _ in 0..60 {
            rate.placed(50);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let wait = rate.wait_for(500);
        assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&wait), "50 a second: {wait:?}");
        assert_eq!(rate.wait_for(1), WAIT.0);
        assert_eq!(rate.wait_for(u64::MAX), WAIT.1);
        tokio::time::advance(Duration::from_secs(SECONDS + 1)).await;
        assert_eq!(rate.wait_for(500), WAIT_UNKNOWN, "what was long ago says nothing");
    }
}
