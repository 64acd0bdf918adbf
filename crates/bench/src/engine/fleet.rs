//! The fleets and shapes that are measured: made from a seed, the same on every run and
//! machine. Knows nothing of plans.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_model::{
    Bytes, Capacity, CpuMilli, Epoch, GPU_WHOLE, GpuKinds, GpuMilli, GpuRequest, Nonce, Pool, PoolName, Revision,
    Shape, ShapeHash, Spec, Strategy, TenantName, Worker, WorkerId, WorkerStatus, WorkerView,
};

const ZONES: u64 = 3;

/// A fast, poor source of numbers (Knuth's multiplier): the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn pool_name(name: &str) -> PoolName {
    PoolName::new(name).expect("a name of letters and digits")
}

/// CPU workers, and workers with large and with small GPUs.
pub(super) fn pools(strategy: Strategy) -> Vec<Pool> {
    let named = |name: &&str| Pool { strategy, ..Pool::with_defaults(pool_name(name)) };
    ["cpu", "a10g", "h100"].iter().map(named).collect()
}

/// On average half full, each differently: in CPU, memory, slots and devices.
pub(super) fn workers(count: usize, seed: u64) -> Vec<WorkerView> {
    let mut numbers = Numbers(seed);
    let worker = |number: usize| {
        let (pool, kind, devices) = match number % 10 {
            8 => ("a10g", "A10G", 4),
            9 => ("h100", "H100", 8),
            _ => ("cpu", "", 0),
        };
        let capacity = Capacity {
            cpu: CpuMilli(64_000),
            memory: Bytes(256 << 30),
            slots: 250,
            gpus: vec![kind.to_owned(); devices],
        };
        let mut free = capacity.all_free();
        free.cpu = CpuMilli(numbers.below(65) * 1000);
        free.memory = Bytes(numbers.below(257) << 30);
        free.slots = numbers.below(251) as u32;
        for device in &mut free.gpus {
            *device = GpuMilli(numbers.below(2) * GPU_WHOLE.0);
        }
        let worker = Worker {
            id: WorkerId::new(&format!("worker-{number}")).expect("a name of letters and digits"),
            pool: pool_name(pool),
            labels: BTreeMap::from([("zone".to_owned(), zone(numbers.below(ZONES)))]),
            capacity,
            notes: Vec::new(),
        };
        WorkerView {
            worker: Arc::new(worker),
            epoch: Epoch { number: 1, nonce: Nonce(number as u64) },
            revision: Revision(1),
            status: WorkerStatus::Ready,
            free,
            affinities: Arc::default(),
            hold: None,
        }
    };
    (0..count).map(worker).collect()
}

fn zone(number: u64) -> String {
    format!("zone-{number}")
}

/// Distinct shapes: one in eight asks for GPUs (whole ones by preference, a part, or any), one in five for a zone.
pub(super) fn shapes(count: usize) -> Vec<(ShapeHash, Arc<Shape>)> {
    let shape = |number: usize| {
        let mut spec = Spec::of_command("true", &[]);
        spec.resources.cpu = CpuMilli(100 + 37 * (number as u64 % 101));
        spec.resources.memory = Bytes((64 << 20) + (((number as u64 * 53) % 4093) << 20) + number as u64);
        if number % 8 == 7 {
            spec.resources.gpu = Some(gpus(number / 8 % 3));
        }
        if number % 5 == 4 {
            spec.require_labels.insert("zone".to_owned(), zone(number as u64 % ZONES));
        }
        let shape = Arc::new(Shape::of(&TenantName::default(), &spec));
        (shape.hash(), shape)
    };
    (0..count).map(shape).collect()
}

fn gpus(variety: usize) -> GpuRequest {
    let ordered = |kinds: &[&str]| GpuKinds::Ordered(kinds.iter().map(|kind| (*kind).to_owned()).collect());
    match variety {
        0 => GpuRequest { kinds: ordered(&["H200", "H100"]), count: 1, milli: GPU_WHOLE },
        1 => GpuRequest { kinds: ordered(&["A10G", "H100"]), count: 1, milli: GpuMilli(500) },
        _ => GpuRequest { kinds: GpuKinds::Any, count: 1, milli: GPU_WHOLE },
    }
}
