//! Why a shape waits, for each pool and class of workers, with counts: for people. Decides nothing.

use std::collections::BTreeMap;
use std::fmt;

use volley_model::{Bytes, Capacity, CpuMilli, Infeasible, PoolName, Shape, WorkerStatus, WorkerView, feasible};

use crate::FleetView;

/// How the alike workers of a pool stand to a shape. A worker that lacks two things counts in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassOutlook {
    /// Their pool.
    pub pool: PoolName,
    /// What each offers in all.
    pub capacity: Capacity,
    /// How many, of whatever status.
    pub workers: u32,
    /// Why none of them could ever serve it; then nothing else is counted.
    pub never: Option<Infeasible>,
    /// It fits there now.
    pub fit: u32,
    /// It would fit, and room is held there for others.
    pub held: u32,
    /// Too little CPU is free: how many, and the least and most that is missing.
    pub cpu: Option<(u32, CpuMilli, CpuMilli)>,
    /// The same of memory.
    pub memory: Option<(u32, Bytes, Bytes)>,
    /// The GPUs asked for are not free.
    pub gpu: u32,
    /// No slot is free.
    pub slots: u32,
    /// Not ready, by status.
    pub unavailable: BTreeMap<WorkerStatus, u32>,
}

/// How all workers stand to a shape, by pool and class.
#[must_use]
pub fn explain(view: &FleetView, shape: &Shape) -> Vec<ClassOutlook> {
    let index = view.index();
    let mut classes: BTreeMap<usize, ClassOutlook> = BTreeMap::new();
    for entry in index.workers() {
        let outlook = classes.entry(entry.class).or_insert_with(|| {
            let pool = &index.pools[entry.pool].pool;
            let verdict = pool.admits(shape).and_then(|()| feasible(shape, &entry.view.worker, pool.cpu_on_gpu));
            ClassOutlook::new(&entry.view, verdict.err())
        });
        outlook.workers += 1;
        if outlook.never.is_none() {
            outlook.add(&entry.view, shape);
        }
    }
    let mut outlooks: Vec<ClassOutlook> = classes.into_values().collect();
    // Their numbers depend on history, which must not show.
    outlooks.sort_by(|a, b| {
        let key = |outlook: &ClassOutlook| {
            let Capacity { cpu, memory, slots, gpus } = outlook.capacity.clone();
            (outlook.pool.clone(), cpu, memory, slots, gpus, outlook.never.clone(), outlook.workers)
        };
        key(a).cmp(&key(b))
    });
    outlooks
}

impl ClassOutlook {
    fn new(sample: &WorkerView, never: Option<Infeasible>) -> Self {
        Self {
            pool: sample.worker.pool.clone(),
            capacity: sample.worker.capacity.clone(),
            workers: 0,
            never,
            fit: 0,
            held: 0,
            cpu: None,
            memory: None,
            gpu: 0,
            slots: 0,
            unavailable: BTreeMap::new(),
        }
    }

    fn add(&mut self, view: &WorkerView, shape: &Shape) {
        if view.status != WorkerStatus::Ready {
            *self.unavailable.entry(view.status).or_default() += 1;
            return;
        }
        let misfit = view.free.misfit(&shape.resources);
        let gpus = shape.resources.gpu.as_ref();
        let gpu_short = gpus.is_some_and(|gpu| view.worker.capacity.choose_gpus(&view.free, gpu).is_none());
        if misfit.cpu_short.0 > 0 {
            self.cpu = Some(spread(self.cpu, misfit.cpu_short));
        }
        if misfit.memory_short.0 > 0 {
            self.memory = Some(spread(self.memory, misfit.memory_short));
        }
        self.gpu += u32::from(gpu_short);
        self.slots += u32::from(misfit.slots_short);
        if misfit.is_none() && !gpu_short {
            match view.hold {
                Some(_) => self.held += 1,
                None => self.fit += 1,
            }
        }
    }
}

fn spread<T: Ord + Copy>(before: Option<(u32, T, T)>, short: T) -> (u32, T, T) {
    match before {
        None => (1, short, short),
        Some((count, least, most)) => (count + 1, least.min(short), most.max(short)),
    }
}

impl fmt::Display for ClassOutlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.workers == 1 { "" } else { "s" };
        write!(f, "{} worker{plural}: ", self.workers)?;
        if let Some(never) = &self.never {
            return write!(f, "can never serve it ({never})");
        }
        let mut parts = Vec::new();
        if self.fit > 0 {
            parts.push(format!("{} with room", self.fit));
        }
        if let Some((count, _, most)) = self.cpu {
            parts.push(format!("{count} too little CPU by at most {most}"));
        }
        if let Some((count, _, most)) = self.memory {
            parts.push(format!("{count} too little memory by at most {}", most.rounded()));
        }
        let counted =
            [(self.gpu, "without free GPUs"), (self.slots, "without free slots"), (self.held, "held for others")];
        parts.extend(counted.iter().filter(|(count, _)| *count > 0).map(|(count, words)| format!("{count} {words}")));
        parts.extend(self.unavailable.iter().map(|(status, count)| format!("{count} {status}")));
        f.write_str(&parts.join(", "))
    }
}
