//! What bursts onto what, in numbers: the specs of a burst, how they are parted into
//! submissions, and what a simulated worker offers. Pure.

use volley_model::{Bytes, Capacity, CpuMilli, Spec};
use volley_wire::convert;
use volley_wire::proto::{self, SubmitRequest};

use crate::Submit;

/// A burst of at most so many containers is one group, shapes taking turns; a larger one is a group for each shape.
pub(super) const ONE_GROUP_MAX: usize = 1_000;
/// Most slots of a simulated worker when nobody says how many: what `volley worker` offers.
const SLOTS_MAX: u32 = 256;
/// Fewest: so that shapes can be packed.
const SLOTS_MIN: u32 = 2;

/// Of the smallest shape; each next one asks for a little more.
const CPU: u64 = 100;
const MEMORY: u64 = 64 << 20;
const MEMORY_STEP: u64 = 1 << 20;

fn spec(shape: usize) -> proto::Spec {
    let mut spec = Spec::of_command("true", &[]);
    spec.resources.cpu = CpuMilli(CPU + shape as u64);
    spec.resources.memory = Bytes(MEMORY + shape as u64 * MEMORY_STEP);
    convert::spec_to(&spec)
}

/// Room for so many containers of the largest shape.
pub(super) fn capacity(slots: u32, shapes: usize) -> Capacity {
    let (slots, shape) = (u64::from(slots), shapes.saturating_sub(1) as u64);
    Capacity {
        cpu: CpuMilli((CPU + shape) * slots),
        memory: Bytes((MEMORY + shape * MEMORY_STEP) * slots),
        slots: slots as u32,
        gpus: Vec::new(),
    }
}

/// Slots with which the burst just fits, so that it needs all of the workers; never more than a worker usually has.
pub(super) fn slots(containers: usize, workers: usize) -> u32 {
    let share = containers.div_ceil(workers.max(1));
    u32::try_from(share).unwrap_or(SLOTS_MAX).clamp(SLOTS_MIN, SLOTS_MAX)
}

/// A burst as requests, with the count of containers of each.
pub(super) fn submissions(containers: usize, shapes: usize, submit: Submit) -> Vec<(SubmitRequest, u32)> {
    let of = |specs: Vec<proto::Spec>, count: Option<u64>| SubmitRequest { specs, count, ..SubmitRequest::default() };
    match submit {
        _ if containers == 0 => Vec::new(),
        Submit::Single => (0..containers).map(|number| (of(vec![spec(number % shapes)], None), 1)).collect(),
        Submit::Batch if containers <= ONE_GROUP_MAX => {
            vec![(of((0..containers).map(|number| spec(number % shapes)).collect(), None), containers as u32)]
        }
        Submit::Batch => {
            let part = |shape: usize| containers / shapes + usize::from(shape < containers % shapes);
            let parts = (0..shapes).map(|shape| (shape, part(shape))).filter(|(_, part)| *part > 0);
            parts.map(|(shape, part)| (of(vec![spec(shape)], Some(part as u64)), part as u32)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_submit_brings_all_containers() {
        for (containers, shapes) in [(0, 1), (1, 1), (100, 16), (1_000, 7), (1_001, 7), (100_000, 16), (1_005, 2_000)] {
            for submit in [Submit::Batch, Submit::Single] {
                let parts = submissions(containers, shapes, submit);
                let told: u32 = parts.iter().map(|(_, count)| count).sum();
                let asked: u64 = parts.iter().map(|(r, _)| r.count.unwrap_or(r.specs.len() as u64)).sum();
                assert_eq!(
                    (told as usize, asked as usize),
                    (containers, containers),
                    "{containers} {shapes} {submit:?}"
                );
            }
        }
    }

    #[test]
    fn workers_hold_the_burst_but_not_much_more() {
        assert_eq!([slots(1, 64), slots(100, 64), slots(1_000, 64), slots(100_000, 64)], [2, 2, 16, 256]);
        let spec = convert::spec_from("spec", spec(15)).unwrap();
        let capacity = capacity(2, 16);
        assert_eq!((capacity.cpu.0, capacity.memory.0), (2 * spec.resources.cpu.0, 2 * spec.resources.memory.0));
    }
}
