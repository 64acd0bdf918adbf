//! The life of one bought machine, what is known of a pool's luck with its provisioner, and the demand that nothing
//! ready serves: the vocabulary between a ledger and a scale plan.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Capacity, Cost, FleetVersion, Machine, Millis, PoolName, PoolVersion, Score, SessionId, Shape, ShapeHash,
    Timestamp, WorkerId, WorkerStatus,
};

/// A bought machine's record. It is written before the provisioner is called and goes when the machine is destroyed;
/// its id is the name of the worker that the machine will register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioning {
    /// Its id: the worker it becomes.
    pub worker: WorkerId,
    /// Of this pool.
    pub pool: PoolName,
    /// The pool's record that it was bought under.
    pub pool_version: PoolVersion,
    /// What was promised.
    pub machine: Arc<Machine>,
    /// What it costs.
    pub cost_per_hour: Cost,
    /// When it was bought.
    pub requested_at: Timestamp,
    /// It is destroyed when it has not registered by then.
    pub boot_until: Timestamp,
    /// The provisioner's own name for it, once known.
    pub handle: Option<String>,
    /// How far it is.
    pub stage: Stage,
}

/// How far a bought machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// Its provisioner was or will be called; whether it was is found out by asking with the record's id.
    Requested,
    /// Its provisioner made it; its worker has not registered.
    Booting,
    /// Its worker registered.
    Registered {
        /// When first.
        at: Timestamp,
    },
    /// Its worker takes nothing new; it is destroyed when empty.
    Draining {
        /// Since then.
        since: Timestamp,
        /// Why.
        why: RetireCause,
    },
    /// It runs nothing and is to be destroyed, as often as it takes.
    Destroying {
        /// Since then.
        since: Timestamp,
        /// Why.
        why: RetireCause,
    },
}

impl Stage {
    /// Bought and not registered.
    #[must_use]
    pub fn is_in_flight(self) -> bool {
        matches!(self, Stage::Requested | Stage::Booting)
    }

    /// In one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Requested => "requested",
            Stage::Booting => "booting",
            Stage::Registered { .. } => "registered",
            Stage::Draining { .. } => "draining",
            Stage::Destroying { .. } => "destroying",
        }
    }
}

/// Why a machine is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetireCause {
    /// It ran nothing for its pool's idle timeout.
    Idle,
    /// It did not register in time.
    BootLimit,
    /// Its worker was lost, or is not known any more.
    Lost,
    /// Its owner drained it and it is empty.
    Drained,
    /// It failed containers of several specs in a row.
    Quarantined,
}

impl fmt::Display for RetireCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RetireCause::Idle => "idle longer than the pool's idle timeout",
            RetireCause::BootLimit => "not registered within the pool's boot limit",
            RetireCause::Lost => "its worker was lost",
            RetireCause::Drained => "drained by its owner",
            RetireCause::Quarantined => "quarantined: it failed containers of several specs in a row",
        })
    }
}

/// What is known of a pool's luck with its provisioner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStanding {
    /// Which pool.
    pub pool: PoolName,
    /// Purchases that failed since the last that succeeded.
    pub failures: u32,
    /// When the last failure was counted.
    pub failed_at: Timestamp,
    /// The last failure in words.
    pub last_failure: Option<String>,
    /// Nothing is bought before then.
    pub retry_at: Timestamp,
    /// It failed too often in a row: at `retry_at` one machine is tried; when that registers all is well again.
    pub quarantined: bool,
    /// From purchase to registration: a moving average.
    pub boot_time: Option<Millis>,
    /// What the last machine offered when it registered, if that was less than the pool's definition says.
    pub offered: Option<Capacity>,
    /// Start of the minute in which purchases are counted.
    pub minute: Timestamp,
    /// Purchases in that minute.
    pub bought: u32,
}

impl PoolStanding {
    /// Of a pool that has bought nothing.
    #[must_use]
    pub fn fresh(pool: PoolName) -> Self {
        Self {
            pool,
            failures: 0,
            failed_at: Timestamp(0),
            last_failure: None,
            retry_at: Timestamp(0),
            quarantined: false,
            boot_time: None,
            offered: None,
            minute: Timestamp(0),
            bought: 0,
        }
    }

    /// How many purchases the limit per minute still allows.
    #[must_use]
    pub fn left_in_minute(&self, per_minute_max: u32, now: Timestamp) -> u32 {
        if now.since(self.minute) >= MINUTE { per_minute_max } else { per_minute_max.saturating_sub(self.bought) }
    }
}

/// The window of a pool's limit on purchases.
pub const MINUTE: Millis = Millis::from_secs(60);

/// Containers of one shape that nothing ready serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Their shape's address.
    pub hash: ShapeHash,
    /// What it is.
    pub shape: Arc<Shape>,
    /// When the best of them joined the queue.
    pub since: Timestamp,
    /// Score and count, best first, counted exactly; the last entry stands for all the rest when there are many.
    pub runs: Vec<(Score, u64)>,
}

impl Demand {
    /// How many wait.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|(_, count)| count).sum()
    }
}

/// A machine's record with what is known of its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisionedMachine {
    /// Its record.
    pub record: Arc<Provisioning>,
    /// Its worker, once it registered and while it is known.
    pub worker: Option<MachineWorker>,
}

/// What is known of a machine's worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineWorker {
    /// Its status.
    pub status: WorkerStatus,
    /// Live attempts on it.
    pub containers: u32,
    /// Since when it runs nothing, or is lost.
    pub idle_since: Timestamp,
    /// It failed containers of several specs in a row and was cordoned for it.
    pub quarantined: bool,
}

/// The right to buy and give up machines: one session's, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleLead {
    /// Whose.
    pub session: SessionId,
    /// Grows with every new holder; an older term's purchases are refused.
    pub term: u64,
    /// Ends then unless renewed.
    pub until: Timestamp,
}

/// All that a scale plan needs to know beside the fleet view, at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScaleState {
    /// The store's time.
    pub now: Timestamp,
    /// The fleet's version at that instant.
    pub at: FleetVersion,
    /// Who may buy.
    pub lead: Option<ScaleLead>,
    /// Blocked shapes with waiting containers.
    pub demand: Vec<Demand>,
    /// Every bought machine that is not destroyed.
    pub machines: Vec<ProvisionedMachine>,
    /// Of pools that ever bought something.
    pub standings: Vec<PoolStanding>,
}
