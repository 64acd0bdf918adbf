//! A pool: workers of one kind and the rules for choosing among them.

use serde::{Deserialize, Serialize};

use crate::PoolName;

/// How workers of a pool are chosen among those that fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The fullest that fits, so that idle workers drain and leave.
    #[default]
    Pack,
    /// The emptiest that fits.
    Spread,
}

/// A pool's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Higher is tried first.
    #[serde(default)]
    pub priority: i16,
    /// Pack or spread.
    #[serde(default)]
    pub strategy: Strategy,
    /// Whether work without GPUs may run on this pool's GPU workers.
    #[serde(default)]
    pub cpu_on_gpu: bool,
}

impl Pool {
    /// A pool that nobody configured: what workers that name an unknown pool get.
    #[must_use]
    pub fn with_defaults(name: PoolName) -> Self {
        Self { name, priority: 0, strategy: Strategy::default(), cpu_on_gpu: false }
    }
}
