//! A worker as the fleet sees it: identity, what is static, and its status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Capacity, PoolName, WorkerId};

/// A worker's state by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum WorkerStatus {
    Provisioning,
    Ready,
    Cordoned,
    Draining,
    Lost,
    Gone,
}

/// What a worker says of itself when it registers. All of it is static: a change bumps its revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its name.
    pub id: WorkerId,
    /// The pool it belongs to.
    pub pool: PoolName,
    /// Labels that specs can require. `arch`, `os`, `runtime` are set by the agent.
    pub labels: BTreeMap<String, String>,
    /// What it offers.
    pub capacity: Capacity,
    /// Limits it could not set up, said plainly (for example "memory limits: no cgroup write access").
    pub notes: Vec<String>,
}
