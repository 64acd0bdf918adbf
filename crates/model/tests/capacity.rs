//! The one rule for capacity, over random reservations and releases: never above the capacity, never below nothing,
//! and what is released is what was reserved.

use proptest::prelude::*;
use volley_model::{Bytes, Capacity, CpuMilli, Free, GPU_WHOLE, GpuGrant, GpuMilli, Resources};

fn capacity() -> Capacity {
    let gpus = ["H100", "H100", "A10G"].map(str::to_owned).to_vec();
    Capacity { cpu: CpuMilli(4_000), memory: Bytes(1 << 20), slots: 6, gpus }
}

fn request() -> impl Strategy<Value = Resources> {
    let gpus = ["none", "H100", "H100:2", "A10G|H100:0.5", "any:0.25", "T4", "H100:3"];
    (0u64..2_000, 0u64..400_000, prop::sample::select(gpus.to_vec())).prop_map(|(cpu, memory, gpu)| Resources {
        cpu: CpuMilli(cpu),
        memory: Bytes(memory),
        gpu: gpu.parse().ok().filter(|_| gpu != "none"),
    })
}

/// What is left when these are taken one by one; `None` when they exceed the capacity.
fn left(capacity: &Capacity, taken: &[(Resources, Vec<GpuGrant>)]) -> Option<(u64, u64, u32, Vec<u64>)> {
    let cpu = capacity.cpu.0.checked_sub(taken.iter().map(|(r, _)| r.cpu.0).sum())?;
    let memory = capacity.memory.0.checked_sub(taken.iter().map(|(r, _)| r.memory.0).sum())?;
    let slots = capacity.slots.checked_sub(taken.len() as u32)?;
    let device = |index: usize| {
        let grants = taken.iter().flat_map(|(_, grants)| grants).filter(|g| usize::from(g.device) == index);
        GPU_WHOLE.0.checked_sub(grants.map(|g| g.milli.0).sum())
    };
    let gpus: Option<Vec<u64>> = (0..capacity.gpus.len()).map(device).collect();
    Some((cpu, memory, slots, gpus?))
}

fn numbers(free: &Free) -> (u64, u64, u32, Vec<u64>) {
    (free.cpu.0, free.memory.0, free.slots, free.gpus.iter().map(|g| g.0).collect())
}

proptest! {
    #[test]
    fn what_is_free_is_the_capacity_less_what_is_taken(
        steps in prop::collection::vec((request(), any::<bool>(), any::<prop::sample::Index>()), 1..60),
    ) {
        let capacity = capacity();
        let mut free = capacity.all_free();
        let mut taken: Vec<(Resources, Vec<GpuGrant>)> = Vec::new();
        for (resources, release, which) in steps {
            if release && !taken.is_empty() {
                let (resources, grants) = taken.remove(which.index(taken.len()));
                prop_assert!(free.release(&capacity, &resources, &grants));
            } else {
                let grants = match &resources.gpu {
                    None => Some(Vec::new()),
                    Some(gpu) => capacity.choose_gpus(&free, gpu),
                };
                let Some(grants) = grants else { continue };
                let before = free.clone();
                let fits = free.fits(&resources, &grants);
                prop_assert_eq!(free.reserve(&resources, &grants), fits);
                if fits { taken.push((resources, grants)) } else { prop_assert_eq!(&free, &before) }
            }
            prop_assert_eq!(Some(numbers(&free)), left(&capacity, &taken));
        }
    }
}

#[test]
fn nothing_is_released_that_was_not_reserved() {
    let capacity = capacity();
    let mut free = capacity.all_free();
    let request = Resources { cpu: CpuMilli(1), ..Resources::default() };
    assert!(!free.release(&capacity, &request, &[]));
    assert_eq!(free, capacity.all_free());
}

#[test]
fn grants_must_be_what_the_request_asks() {
    let capacity = capacity();
    let free = capacity.all_free();
    let request = Resources { gpu: "H100:2".parse().ok(), ..Resources::default() };
    let grant = |device, milli| GpuGrant { device, milli: GpuMilli(milli) };
    assert!(free.fits(&request, &[grant(0, 1000), grant(1, 1000)]));
    for wrong in [
        &[][..],
        &[grant(0, 1000)],
        &[grant(0, 1000), grant(0, 1000)],
        &[grant(1, 1000), grant(0, 1000)],
        &[grant(0, 1000), grant(9, 1000)],
        &[grant(0, 500), grant(1, 500)],
    ] {
        assert!(!free.fits(&request, wrong), "{wrong:?}");
    }
}

#[test]
fn a_part_goes_where_a_part_was_taken() {
    let capacity = capacity();
    let mut free = capacity.all_free();
    let request = Resources { gpu: "H100:0.5".parse().ok(), ..Resources::default() };
    let gpu = request.gpu.clone().unwrap();
    for _ in 0..2 {
        let grants = capacity.choose_gpus(&free, &gpu).unwrap();
        assert_eq!(grants, [GpuGrant { device: 0, milli: GpuMilli(500) }]);
        assert!(free.reserve(&request, &grants));
    }
    assert_eq!(capacity.choose_gpus(&free, &gpu).unwrap()[0].device, 1);
}
