//! The published case in numbers: which workers there are and what bursts onto them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_model::{
    Bytes, Capacity, CpuMilli, GpuKinds, GpuMilli, GpuRequest, PoolName, Run, Spec, Submission, TenantName, Worker,
    WorkerId,
};

/// Of the burst.
pub(super) const CONTAINERS: usize = 100;
/// In all.
pub(super) const WORKERS: usize = 10;
/// Of each worker.
const CONTAINERS_PER_WORKER: usize = 10;
/// Of the workers: with GPUs; so many containers in ten ask for them.
const GPU_WORKERS: usize = 4;
/// Each container takes half a device.
const GPU_DEVICES: usize = CONTAINERS_PER_WORKER / 2;
const GPU_KIND: &str = "A10G";
const MEMORY_PER_CONTAINER: u64 = 1 << 30;

/// Full before the burst.
pub(super) fn workers_taken(taken: super::Taken) -> usize {
    match taken {
        super::Taken::None => 0,
        super::Taken::Half => WORKERS / 2,
    }
}

/// What fills half of each kind of worker: nothing more, since work is packed.
pub(super) fn fillers(taken: super::Taken) -> Option<Submission> {
    let part = |workers: usize| workers / 2 * CONTAINERS_PER_WORKER;
    match taken {
        super::Taken::None => None,
        super::Taken::Half => {
            let cpu = Run { spec: spec(false, 0), count: part(WORKERS - GPU_WORKERS) as u32 };
            let gpu = Run { spec: spec(true, 0), count: part(GPU_WORKERS) as u32 };
            Some(submission(vec![cpu, gpu]))
        }
    }
}

/// The burst: of ten containers four ask for GPUs; eight shapes in all.
pub(super) fn burst() -> Vec<Arc<Spec>> {
    (0..CONTAINERS).map(|number| spec(asks_for_gpu(number), number % 4)).collect()
}

fn asks_for_gpu(number: usize) -> bool {
    number % WORKERS < GPU_WORKERS
}

/// One container each.
pub(super) fn submission_of(specs: &[Arc<Spec>]) -> Submission {
    submission(specs.iter().map(|spec| Run { spec: Arc::clone(spec), count: 1 }).collect())
}

fn submission(runs: Vec<Run>) -> Submission {
    Submission { tenant: TenantName::default(), client_key: None, name: None, labels: BTreeMap::new(), runs }
}

/// A core, and half a device; a little less memory for each variety, so that each has a shape of its own.
fn spec(gpu: bool, variety: usize) -> Arc<Spec> {
    let mut spec = Spec::of_command("true", &[]);
    spec.resources.cpu = CpuMilli(1000);
    spec.resources.memory = Bytes(MEMORY_PER_CONTAINER - variety as u64 * (64 << 20));
    if gpu {
        let kinds = GpuKinds::Ordered(vec![GPU_KIND.to_owned()]);
        spec.resources.gpu = Some(GpuRequest { kinds, count: 1, milli: GpuMilli(500) });
    }
    Arc::new(spec)
}

/// Each holds ten containers of its kind.
pub(super) fn workers() -> Vec<Worker> {
    let worker = |number: usize| {
        let with_gpus = number < GPU_WORKERS;
        let name = format!("{}-{number}", if with_gpus { "gpu" } else { "cpu" });
        Worker {
            id: WorkerId::new(&name).expect("a name of letters and digits"),
            pool: PoolName::new(if with_gpus { "gpu" } else { "cpu" }).expect("a name of letters"),
            labels: BTreeMap::new(),
            capacity: Capacity {
                cpu: CpuMilli(1000 * CONTAINERS_PER_WORKER as u64),
                memory: Bytes(MEMORY_PER_CONTAINER * CONTAINERS_PER_WORKER as u64),
                slots: CONTAINERS_PER_WORKER as u32,
                gpus: vec![GPU_KIND.to_owned(); if with_gpus { GPU_DEVICES } else { 0 }],
            },
            notes: vec!["simulated".to_owned()],
        }
    };
    (0..WORKERS).map(worker).collect()
}

/// Workers that so many waiting containers of each kind need.
pub(super) fn workers_needed(waiting: &[Arc<Spec>]) -> usize {
    let gpu = waiting.iter().filter(|spec| spec.resources.gpu.is_some()).count();
    gpu.div_ceil(CONTAINERS_PER_WORKER) + (waiting.len() - gpu).div_ceil(CONTAINERS_PER_WORKER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Taken;

    #[test]
    fn the_burst_is_what_the_workers_hold_and_the_fillers_are_half_of_them() {
        let gpu = burst().iter().filter(|spec| spec.resources.gpu.is_some()).count();
        assert_eq!((gpu, burst().len()), (GPU_WORKERS * CONTAINERS_PER_WORKER, WORKERS * CONTAINERS_PER_WORKER));
        let fillers = fillers(Taken::Half).unwrap();
        let counts: Vec<u32> = fillers.runs.iter().map(|run| run.count).collect();
        assert_eq!(counts, [30, 20]);
        assert_eq!(workers_taken(Taken::Half), 5);
    }

    #[test]
    fn a_worker_is_bought_for_each_ten_of_a_kind() {
        let of = |cpu: usize, gpu: usize| {
            let specs: Vec<_> = (0..cpu + gpu).map(|number| spec(number < gpu, 0)).collect();
            workers_needed(&specs)
        };
        assert_eq!([of(0, 0), of(10, 0), of(11, 0), of(9, 9), of(30, 20)], [0, 1, 2, 2, 5]);
    }
}
