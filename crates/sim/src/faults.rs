//! How often what goes wrong, at present.

use std::sync::{Arc, Mutex, PoisonError};

/// Chances in a thousand, and spans in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) latency_millis_max: u64,
    pub(crate) late_millis_max: u64,
    pub(crate) never_arrives: u64,
    pub(crate) arrives_late: u64,
    pub(crate) answer_lost: u64,
    pub(crate) doubled: u64,
    pub(crate) refused: u64,
    pub(crate) store_dies: u64,
    pub(crate) hint_lost: u64,
    pub(crate) hint_doubled: u64,
    /// Of a message between worker and server: the connection breaks there.
    pub(crate) cut: u64,
    /// Of a message: nothing gets through for a while, and then the connection breaks.
    pub(crate) stall: u64,
}

impl Rates {
    /// Nothing goes wrong; everything still takes a moment.
    pub(crate) const CALM: Self = Self {
        latency_millis_max: 3,
        late_millis_max: 0,
        never_arrives: 0,
        arrives_late: 0,
        answer_lost: 0,
        doubled: 0,
        refused: 0,
        store_dies: 0,
        hint_lost: 0,
        hint_doubled: 0,
        cut: 0,
        stall: 0,
    };
}

/// The present rates; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Faults(Arc<Mutex<Rates>>);

impl Faults {
    pub(crate) fn new(rates: Rates) -> Self {
        Self(Arc::new(Mutex::new(rates)))
    }

    pub(crate) fn rates(&self) -> Rates {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, rates: Rates) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rates;
    }
}
