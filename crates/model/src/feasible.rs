//! Whether a worker could ever serve a shape: everything static, nothing of what is free now.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Capacity, GPU_WHOLE, PoolName, PoolSelector, RUNTIME_LABEL, RUNTIME_OCI, Shape, Worker};

/// Why a worker can never serve a shape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Infeasible {
    /// The shape asks for another pool.
    OtherPool,
    /// A required label is missing or differs.
    Label(String),
    /// The worker runs images only, the shape names none.
    ImagesOnly,
    /// Less CPU in all than asked.
    Cpu,
    /// Less memory in all than asked.
    Memory,
    /// It takes no containers.
    Slots,
    /// No GPUs of the kinds asked, or too few.
    Gpu,
    /// It has GPUs, the shape asks for none, and the pool keeps CPU work off them.
    GpuReserved,
    /// The pool is for other tenants.
    Tenant,
    /// The pool is for what other runtimes run.
    Runtime,
    /// The pool keeps containers off its machines' network.
    HostNetwork,
}

impl fmt::Display for Infeasible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Infeasible::OtherPool => f.write_str("another pool is required"),
            Infeasible::Label(key) => write!(f, "label '{key}' is missing or differs"),
            Infeasible::ImagesOnly => f.write_str("runs images only"),
            Infeasible::Cpu => f.write_str("too little CPU in all"),
            Infeasible::Memory => f.write_str("too little memory in all"),
            Infeasible::Slots => f.write_str("takes no containers"),
            Infeasible::Gpu => f.write_str("not the GPUs asked for"),
            Infeasible::GpuReserved => f.write_str("kept for GPU work"),
            Infeasible::Tenant => f.write_str("the pool is for other tenants"),
            Infeasible::Runtime => f.write_str("the pool is for another runtime"),
            Infeasible::HostNetwork => f.write_str("the pool does not allow the machine's network"),
        }
    }
}

/// Whether `worker` could ever serve `shape`, given whether its pool lets CPU work onto GPU workers.
pub fn feasible(shape: &Shape, worker: &Worker, cpu_on_gpu: bool) -> Result<(), Infeasible> {
    offer_serves(shape, &worker.pool, &worker.labels, &worker.capacity, cpu_on_gpu)
}

/// The same for a machine that is not there yet.
pub(crate) fn offer_serves(
    shape: &Shape,
    pool: &PoolName,
    labels: &BTreeMap<String, String>,
    capacity: &Capacity,
    cpu_on_gpu: bool,
) -> Result<(), Infeasible> {
    if let PoolSelector::Required(required) = &shape.pool
        && required != pool
    {
        return Err(Infeasible::OtherPool);
    }
    let differs = |(key, value): &(&String, &String)| labels.get(*key) != Some(value);
    if let Some((key, _)) = shape.require_labels.iter().find(differs) {
        return Err(Infeasible::Label(key.clone()));
    }
    if is_of_images(labels) && !is_of_images(&shape.require_labels) {
        return Err(Infeasible::ImagesOnly);
    }
    capacity_serves(shape, capacity)?;
    if shape.resources.gpu.is_none() && !capacity.gpus.is_empty() && !cpu_on_gpu {
        return Err(Infeasible::GpuReserved);
    }
    Ok(())
}

/// Whether labels say that images are run, and nothing else.
#[must_use]
pub fn is_of_images(labels: &BTreeMap<String, String>) -> bool {
    labels.get(RUNTIME_LABEL).is_some_and(|value| value == RUNTIME_OCI)
}

fn capacity_serves(shape: &Shape, capacity: &Capacity) -> Result<(), Infeasible> {
    let misfit = capacity.all_free().misfit(&shape.resources);
    if misfit.cpu_short.0 > 0 {
        return Err(Infeasible::Cpu);
    }
    if misfit.memory_short.0 > 0 {
        return Err(Infeasible::Memory);
    }
    if misfit.slots_short {
        return Err(Infeasible::Slots);
    }
    let Some(gpu) = &shape.resources.gpu else { return Ok(()) };
    debug_assert!(gpu.milli <= GPU_WHOLE);
    match capacity.choose_gpus(&capacity.all_free(), gpu) {
        Some(_) => Ok(()),
        None => Err(Infeasible::Gpu),
    }
}
