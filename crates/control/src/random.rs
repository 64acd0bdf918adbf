//! Where a server's random numbers come from: ids, nonces, sessions. The system's, unless a
//! simulation gives its own, so that a seed replays a whole run.

use std::fmt;
use std::sync::Arc;

/// A source of random numbers.
#[derive(Clone)]
pub struct Random(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Random {
    /// Takes them from `next`.
    pub fn of(next: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(next))
    }

    /// The next one.
    #[must_use]
    pub fn number(&self) -> u64 {
        (self.0)()
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::of(rand::random)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}
