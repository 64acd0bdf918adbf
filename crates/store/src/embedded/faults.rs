//! Where a write can fail, and a layer that makes it fail there, for tests: what SQLite says
//! when the disk, the system or the power lets it down is answered as such a failure is.

use std::fmt;
use std::io;
use std::sync::Arc;

/// A place in the life of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nothing is written yet.
    Begin,
    /// The rows are in the transaction.
    Written,
    /// The transaction is on disk, and its success does not reach us (a failed sync that took effect after all).
    Committed,
    /// The file is about to be opened and loaded again.
    Reopen,
}

/// Asked at each place, in order; what it returns is what the disk said.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<AskFault>>);

type AskFault = dyn Fn(Place) -> Option<io::Error> + Send + Sync;

impl Faults {
    /// Fails where `ask` says so.
    #[must_use]
    pub fn new(ask: impl Fn(Place) -> Option<io::Error> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(ask)))
    }

    pub(super) fn at(&self, place: Place) -> io::Result<()> {
        match self.0.as_ref().and_then(|ask| ask(place)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(asked)" } else { "Faults(none)" })
    }
}
