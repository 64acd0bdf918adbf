//! The states and ends of a container, and the words for why it waits.

use serde::{Deserialize, Serialize};

use crate::{Bytes, CpuMilli, PoolName, WorkerId};

/// The name of a container's state; the data of each state is the ledger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ContainerState {
    Queued,
    Claimed,
    Assigned,
    Starting,
    Running,
    Stopping,
    Finished,
}

/// Who asked for a stop.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// A client's request.
    Client,
    /// The worker is draining past its deadline.
    Drain,
}

/// How a container ended. One each, for good.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The process ended by itself: its exit code, or the signal that ended it.
    Exited {
        /// Exit code, 128 + signal when a signal ended it.
        code: i32,
        /// The signal, when one ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
    /// It was stopped on request.
    Stopped {
        /// Who asked.
        by: StopCause,
    },
    /// It waited longer than its `max_wait`.
    Expired,
    /// No pool could ever serve it, and its spec said to fail.
    Unplaceable {
        /// In words.
        reason: String,
    },
    /// Its worker was lost and no retry was due.
    Lost,
    /// It could not be run: command not found, no permission, out of memory and so on.
    Failed {
        /// In words.
        reason: String,
    },
}

impl Outcome {
    /// Whether the container did what was asked: exit code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Outcome::Exited { code: 0, .. })
    }
}

/// How far an attempt is, as its worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The worker took it and is about to start it.
    Accepted,
    /// Its process runs.
    Running,
    /// It ended.
    Ended(Outcome),
}

/// Why workers of a pool cannot take a shape at present, with counts; printed by `ps` and `explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum WaitReason {
    /// There is no worker at all.
    NoWorkers,
    /// Waiting for its first turn, or for a retry to be due.
    NotLookedAt,
    /// Workers that lack something at present; the smallest lack of all of them.
    Busy {
        /// Pool of these workers.
        pool: PoolName,
        /// How many.
        workers: u32,
        /// Least missing CPU of those that lack CPU.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu_short: Option<CpuMilli>,
        /// Least missing memory of those that lack memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory_short: Option<Bytes>,
        /// How many lack free GPUs.
        gpu_short: u32,
        /// How many lack free slots.
        slots_short: u32,
    },
    /// Workers that can never serve it, with the rule that says so.
    Infeasible {
        /// Pool of these workers.
        pool: PoolName,
        /// How many.
        workers: u32,
        /// In words: what is missing.
        because: String,
    },
    /// Workers that are cordoned, draining, lost or still being provisioned.
    Unavailable {
        /// How many.
        workers: u32,
    },
    /// Room is held for a container with a better score.
    Held {
        /// On which worker.
        worker: WorkerId,
    },
}
