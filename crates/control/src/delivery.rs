//! What control hands to workers' streams. The streams are `api`'s (or, with everything in one
//! process, the command's).

use volley_ledger::Taken;
use volley_model::{Attempt, ContainerId, Epoch, Millis, Nonce, WorkerId};

/// Hands messages to workers' streams. Implemented by `api`. Must not block: a stream that
/// cannot take a message is closed, and its worker attaches anew.
pub trait Delivery: Send + Sync + 'static {
    /// What a take found for workers whose streams this server holds.
    fn deliver(&self, taken: Vec<Taken>);

    /// Verdicts on reports, once they are durable.
    fn answer(&self, worker: &WorkerId, stream: Nonce, verdicts: Vec<AnsweredReport>);

    /// A heartbeat was (or was not) accepted: number as sent by the worker.
    fn heartbeat(&self, worker: &WorkerId, stream: Nonce, number: u64, renewed: bool);

    /// Where the servers of the cell answer now: all streams are told.
    fn servers(&self, addresses: &[String]) {
        let _ = addresses;
    }

    /// The stream is fenced: close it.
    fn close(&self, worker: &WorkerId, stream: Nonce);
}

/// A report and its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnsweredReport {
    /// Which container.
    pub container: ContainerId,
    /// Which attempt.
    pub attempt: Attempt,
    /// What it reported: 1 accepted, 2 running, 3 ended.
    pub progress: u32,
    /// Keep, or kill and forget.
    pub keep: bool,
}

/// A worker is attached: what its stream needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its lease.
    pub lease: Millis,
    /// Keep or kill, one for each inventory item.
    pub keep: Vec<bool>,
    /// Where the servers of the cell answer, for when this one does not any more.
    pub servers: Vec<String>,
}
