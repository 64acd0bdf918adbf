//! A pool: workers of one kind, the rules for choosing among them, and, when it is elastic, how many there
//! may be, what one costs and how it is made. What becomes of a single machine is `provisioning`'s.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    Bytes, Capacity, Cost, CpuMilli, Free, HOST_NETWORK_LABEL, Infeasible, Millis, PoolName, PoolVersion, RUNTIME_OCI,
    RUNTIME_PROCESS, Shape, TenantName, is_of_images,
};

mod check;
pub use check::*;

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
    /// Whose containers may run here; everybody's when empty.
    #[serde(default)]
    pub tenants: BTreeSet<TenantName>,
    /// Which runtimes' containers may run here, as the label `runtime` names them; all when empty.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub runtimes: BTreeSet<String>,
    /// Whether containers may use the network of its machines, where their workers allow it.
    #[serde(default = "allowed", skip_serializing_if = "is_allowed")]
    pub host_network: bool,
    /// How its workers are made; `None` (`static`): they come by themselves.
    #[serde(default)]
    pub elastic: Option<Elastic>,
    /// Grows with every change; set by the ledger.
    #[serde(default)]
    pub version: PoolVersion,
}

fn allowed() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_allowed(allowed: &bool) -> bool {
    *allowed
}

/// What one worker of an elastic pool offers when it has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// In all.
    pub capacity: Capacity,
    /// Labels that containers can require; also those that its agent sets by itself, if they are to count.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// How a pool's machines are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProvisionerKind {
    /// Processes of this very program on the server's machine.
    Process,
    /// A program of the owner's, once per call.
    Command {
        /// Its path.
        program: String,
        /// Its arguments.
        args: Vec<String>,
        /// It is killed after this.
        timeout: Millis,
    },
}

/// Room that is kept warm: free on ready workers, or on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MinFree {
    #[serde(default)]
    pub cpu: CpuMilli,
    #[serde(default)]
    pub memory: Bytes,
    #[serde(default)]
    pub slots: u64,
    /// Whole devices.
    #[serde(default)]
    pub gpus: u64,
}

/// The part of an elastic pool's record that says how many workers there may be and how they are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elastic {
    /// How a machine is made.
    pub provisioner: ProvisionerKind,
    /// Handed to the provisioner as they are.
    pub options: BTreeMap<String, String>,
    /// What one machine offers.
    pub machine: Machine,
    /// Never fewer than this.
    pub min: u32,
    /// Never more than this, booting and leaving ones included.
    pub max: u32,
    /// Kept warm.
    pub min_free: MinFree,
    /// Of one machine.
    pub cost_per_hour: Cost,
    /// From purchase to registration, until it is learnt.
    pub boot_time: Millis,
    /// A machine that has not registered by then is destroyed.
    pub boot_limit: Millis,
    /// A worker that ran nothing for so long may leave.
    pub idle_timeout: Millis,
    /// A pool of lower priority serves what this one could when it has waited for so long.
    pub fallback_after: Millis,
    /// Most machines bought and not registered.
    pub in_flight_max: u32,
    /// Most purchases in a minute.
    pub per_minute_max: u32,
}

impl Elastic {
    /// The default `boot_time`.
    pub const BOOT_TIME: Millis = Millis::from_secs(60);
    /// The default `boot_limit`: clouds that take longer have failed.
    pub const BOOT_LIMIT: Millis = Millis::from_secs(600);
    /// The default `idle_timeout`.
    pub const IDLE_TIMEOUT: Millis = Millis::from_secs(300);
    /// The default `fallback_after`.
    pub const FALLBACK_AFTER: Millis = Millis::from_secs(30);
    /// The default of both scale-up limits: a burst of a hundred thousand containers, ten to a machine, in ten minutes.
    pub const PURCHASES: u32 = 1_000;
    /// The default `timeout` of a command.
    pub const COMMAND_TIMEOUT: Millis = Millis::from_secs(60);
}

impl Pool {
    /// A pool that nobody configured: what workers that name an unknown pool get.
    #[must_use]
    pub fn with_defaults(name: PoolName) -> Self {
        Self {
            name,
            priority: 0,
            strategy: Strategy::default(),
            cpu_on_gpu: false,
            tenants: BTreeSet::new(),
            runtimes: BTreeSet::new(),
            host_network: true,
            elastic: None,
            version: PoolVersion::default(),
        }
    }

    /// Whether containers of a shape may run here, whatever its workers offer.
    pub fn admits(&self, shape: &Shape) -> Result<(), Infeasible> {
        if !self.tenants.is_empty() && !self.tenants.contains(&shape.tenant) {
            return Err(Infeasible::Tenant);
        }
        let labels = &shape.require_labels;
        let runtime = if is_of_images(labels) { RUNTIME_OCI } else { RUNTIME_PROCESS };
        if !self.runtimes.is_empty() && !self.runtimes.contains(runtime) {
            return Err(Infeasible::Runtime);
        }
        if !self.host_network && labels.contains_key(HOST_NETWORK_LABEL) {
            return Err(Infeasible::HostNetwork);
        }
        Ok(())
    }

    /// Whether a machine of this pool could ever serve a shape. An error for a pool whose workers come by themselves:
    /// nobody can tell what comes.
    pub fn machine_serves(&self, machine: &Machine, shape: &Shape) -> Result<(), Infeasible> {
        self.admits(shape)?;
        crate::feasible::offer_serves(shape, &self.name, &machine.labels, &machine.capacity, self.cpu_on_gpu)
    }
}

impl MinFree {
    /// Adds what is free of a worker.
    pub fn add(&mut self, free: &Free) {
        self.cpu = CpuMilli(self.cpu.0.saturating_add(free.cpu.0));
        self.memory = Bytes(self.memory.0.saturating_add(free.memory.0));
        self.slots = self.slots.saturating_add(u64::from(free.slots));
        self.gpus += free.gpus.iter().filter(|milli| **milli == crate::GPU_WHOLE).count() as u64;
    }

    /// Takes away what [`MinFree::add`] added.
    pub fn remove(&mut self, free: &Free) {
        self.cpu = self.cpu.saturating_sub(free.cpu);
        self.memory = self.memory.saturating_sub(free.memory);
        self.slots = self.slots.saturating_sub(u64::from(free.slots));
        let whole = free.gpus.iter().filter(|milli| **milli == crate::GPU_WHOLE).count() as u64;
        self.gpus = self.gpus.saturating_sub(whole);
    }

    /// Whether this much covers what is asked, in each resource.
    #[must_use]
    pub fn covers(&self, asked: &Self) -> bool {
        self.cpu >= asked.cpu && self.memory >= asked.memory && self.slots >= asked.slots && self.gpus >= asked.gpus
    }
}
