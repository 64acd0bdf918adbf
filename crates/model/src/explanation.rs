//! The words for what would have to change for a waiting container to start now, and for when
//! it is expected to. What is true of a fleet is the engine's to find.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Bytes, Capacity, CpuMilli, GpuKinds, GpuMilli, Millis, PoolName, PoolSelector, Shape, Timestamp, WorkerId,
};

/// More workers than this are found by halving, which need not find the fewest.
pub const MORE_WORKERS_EXACT: u32 = 32;

/// A change under which a waiting container would start now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A cordoned worker takes work again.
    Uncordon {
        /// Which.
        worker: WorkerId,
    },
    /// One label is not asked for.
    WithoutLabel {
        /// Its key.
        key: String,
    },
    /// Another pool is required than the one that is.
    OtherPool {
        /// Which.
        pool: PoolName,
    },
    /// Another kind of GPU is asked for.
    OtherGpuKind {
        /// Which.
        kind: String,
    },
    /// Less CPU, less memory, or less of both is asked for.
    LessResources {
        /// By how much CPU; may be nothing.
        cpu_less: CpuMilli,
        /// To what CPU.
        cpu: CpuMilli,
        /// By how much memory; may be nothing.
        memory_less: Bytes,
        /// To what memory.
        memory: Bytes,
    },
    /// Fewer GPU devices are asked for.
    FewerGpus {
        /// How many instead.
        count: u16,
    },
    /// A smaller part of a GPU device is asked for.
    SmallerGpuPart {
        /// How much instead.
        milli: GpuMilli,
    },
    /// There are more workers of a pool.
    MoreWorkers {
        /// Which pool.
        pool: PoolName,
        /// How many more: room for what is in front, too. Up to [`MORE_WORKERS_EXACT`] the fewest; above it so many are
        /// enough, and in some packings fewer are, too.
        count: u32,
        /// What each offers.
        capacity: Capacity,
        /// The labels of each.
        labels: BTreeMap<String, String>,
    },
}

impl Change {
    /// How dear a change is, to put the cheapest first: what an owner of the fleet does in a moment, then what a spec can do
    /// without, then smaller requests by how much smaller (in thousandths), then machines by their number.
    #[must_use]
    pub fn cost(&self, shape: &Shape) -> u64 {
        let per_mille = |less: u64, of: u64| (u128::from(less) * 1000 / u128::from(of.max(1))) as u64;
        match self {
            Change::Uncordon { .. } => 10,
            Change::WithoutLabel { .. } => 20,
            Change::OtherPool { .. } => 30,
            Change::OtherGpuKind { .. } => 40,
            Change::LessResources { cpu_less, memory_less, .. } => {
                let resources = &shape.resources;
                50 + per_mille(cpu_less.0, resources.cpu.0) + per_mille(memory_less.0, resources.memory.0)
            }
            Change::FewerGpus { count } => {
                let of = shape.resources.gpu.as_ref().map_or(0, |gpu| gpu.count);
                50 + per_mille(u64::from(of.saturating_sub(*count)), u64::from(of))
            }
            Change::SmallerGpuPart { milli } => {
                let of = shape.resources.gpu.as_ref().map_or(GpuMilli(0), |gpu| gpu.milli);
                50 + per_mille(of.saturating_sub(*milli).0, of.0)
            }
            Change::MoreWorkers { count, .. } => u64::from(*count) * 3_000,
        }
    }

    /// The shape with the change made; `None` for a change of the fleet.
    #[must_use]
    pub fn changed(&self, shape: &Shape) -> Option<Shape> {
        let mut changed = shape.clone();
        match self {
            Change::Uncordon { .. } | Change::MoreWorkers { .. } => return None,
            Change::WithoutLabel { key } => drop(changed.require_labels.remove(key)),
            Change::OtherPool { pool } => changed.pool = PoolSelector::Required(pool.clone()),
            Change::OtherGpuKind { kind } => {
                changed.resources.gpu.as_mut()?.kinds = GpuKinds::Ordered(vec![kind.clone()]);
            }
            Change::LessResources { cpu, memory, .. } => {
                (changed.resources.cpu, changed.resources.memory) = (*cpu, *memory);
            }
            Change::FewerGpus { count } => changed.resources.gpu.as_mut()?.count = *count,
            Change::SmallerGpuPart { milli } => changed.resources.gpu.as_mut()?.milli = *milli,
        }
        Some(changed)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Uncordon { worker } => write!(f, "if worker {worker} were uncordoned"),
            Change::WithoutLabel { key } => write!(f, "if it did not ask for the label '{key}'"),
            Change::OtherPool { pool } => write!(f, "if it asked for pool {pool}"),
            Change::OtherGpuKind { kind } => write!(f, "if it asked for GPUs of kind {kind}"),
            Change::LessResources { cpu_less, cpu, memory_less, memory } => {
                f.write_str("if it asked for ")?;
                if cpu_less.0 > 0 {
                    write!(f, "{cpu_less} less CPU ({cpu})")?;
                }
                if cpu_less.0 > 0 && memory_less.0 > 0 {
                    f.write_str(" and ")?;
                }
                if memory_less.0 > 0 {
                    // Rounded down: what is written here fits when it is asked for.
                    write!(f, "{} less memory ({})", memory_less.rounded(), memory.rounded())?;
                }
                Ok(())
            }
            Change::FewerGpus { count: 1 } => f.write_str("if it asked for 1 GPU"),
            Change::FewerGpus { count } => write!(f, "if it asked for {count} GPUs"),
            Change::SmallerGpuPart { milli } => write!(f, "if it asked for 0.{:03} of a GPU", milli.0),
            Change::MoreWorkers { pool, count, capacity, .. } => {
                let workers = if *count == 1 { "worker" } else { "workers" };
                let (cpu, memory) = (capacity.cpu, capacity.memory.rounded());
                let most = if *count > MORE_WORKERS_EXACT { "at most " } else { "" };
                write!(f, "with {most}{count} more {workers} in pool {pool} ({cpu} CPU, {memory} memory")?;
                if !capacity.gpus.is_empty() {
                    write!(f, ", {} GPUs", capacity.gpus.len())?;
                }
                write!(f, " each)")
            }
        }
    }
}

/// When a waiting container is expected to start, and on what basis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "basis", rename_all = "snake_case")]
pub enum Expected {
    /// Something has room for it: in the next turn.
    NextTurn {
        /// Which worker, as things are.
        worker: WorkerId,
    },
    /// Its retry is not due before then.
    NotBefore {
        /// The store's time.
        at: Timestamp,
    },
    /// A machine on its way has room for it and for what is in front of it.
    Boot {
        /// From now; 0 when it takes longer than usual.
        after: Millis,
        /// The worker that it will be.
        worker: WorkerId,
        /// On its way since then.
        since: Timestamp,
        /// How long it usually takes, as learnt of its pool.
        boot_time: Millis,
    },
    /// What is in front, by how long the like of it took lately and how much of the workers it takes.
    Work {
        /// From now.
        after: Millis,
        /// Containers in front of it that wait for the same room.
        ahead: u64,
        /// How long one of its shape (or, where none ended lately, of any) held its room.
        usual: Millis,
    },
    /// What is in front, at the rate at which the like of it started lately.
    Rate {
        /// From now.
        after: Millis,
        /// Containers in front of it that wait for the same room.
        ahead: u64,
        /// So many of these and of its own shape were placed...
        placed: u64,
        /// ...in this time.
        over: Millis,
    },
    /// Nobody can tell.
    Unknown {
        /// Why.
        because: String,
    },
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::NextTurn { worker } => write!(f, "in the next turn: worker {worker} has room for it"),
            Expected::NotBefore { at } => write!(f, "not before {at}, when its retry is due"),
            Expected::Boot { after, worker, boot_time, .. } => {
                let usual = boot_time.0.div_ceil(1000);
                match after.0.div_ceil(1000) {
                    0 => write!(f, "worker {worker} boots, usually {usual} s: it takes longer than that"),
                    left => write!(f, "in about {left} s: worker {worker} boots, usually {usual} s"),
                }
            }
            Expected::Work { after, ahead, usual } => {
                let (seconds, usual) = (after.0.div_ceil(1000), usual.0.div_ceil(1000));
                write!(f, "in about {seconds} s: {ahead} containers ahead, and one like it usually takes {usual} s")
            }
            Expected::Rate { after, ahead, placed, over } => {
                let seconds = after.0.div_ceil(1000);
                let per_minute = placed.saturating_mul(60_000) / over.0.max(1);
                write!(f, "in about {seconds} s: {ahead} containers ahead at the present rate of {per_minute} a minute")
            }
            Expected::Unknown { because } => write!(f, "unknown: {because}"),
        }
    }
}
