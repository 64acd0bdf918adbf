//! The fleet view: an in-memory picture of workers, pools and blocked shapes, kept fresh by
//! the change feed. A change costs what the changed worker costs, never the fleet.

use volley_model::{FleetChanges, FleetVersion, Placement, Resources, WorkerView};

/// A server's picture of the fleet.
#[derive(Debug, Clone, Default)]
pub struct FleetView {
    version: FleetVersion,
}

impl FleetView {
    /// An empty view at version 0: the first claim loads it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The version up to which it is fresh.
    #[must_use]
    pub fn version(&self) -> FleetVersion {
        self.version
    }

    /// Applies changes from the feed.
    pub fn apply(&mut self, changes: &FleetChanges) {
        let _ = changes;
    }

    /// Sets one worker's fresh numbers, as a refusal brings them.
    pub fn put_worker(&mut self, worker: &WorkerView) {
        let _ = worker;
    }

    /// Books a placement that the commit accepted, until the feed brings the same. Does nothing when it
    /// no longer fits or the epoch differs: the feed is newer.
    pub fn reserve_committed(&mut self, placement: &Placement, resources: &Resources) {
        let _ = (placement, resources);
    }
}
