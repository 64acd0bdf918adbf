//! Numbers to search by: what is free of a worker as one fixed-size value, and how full it is
//! as one number. They only decide which worker to look at; what fits and what is taken is
//! `model::capacity`'s alone.

use volley_model::{Bytes, Capacity, CpuMilli, Free, GPU_DEVICES_MAX, GPU_WHOLE, Resources};

/// What is free of a worker, or the most that is free in a block of workers, or what a shape needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) cpu: CpuMilli,
    pub(crate) memory: Bytes,
    pub(crate) slots: u32,
    /// Wholly free devices of the kind that has most of them.
    pub(crate) gpu_whole: u16,
    /// The free part of the emptiest device.
    pub(crate) gpu_part: u16,
}

impl Room {
    /// What is free, given the kind of each device as a small number.
    pub(crate) fn of(free: &Free, device_kinds: &[u16]) -> Self {
        let (gpu_whole, gpu_part) = gpu_room(free, device_kinds);
        Self { cpu: free.cpu, memory: free.memory, slots: free.slots, gpu_whole, gpu_part }
    }

    /// What a container of these resources needs. A worker that does not cover it cannot take it; one that does
    /// can, if all its devices are of one kind and that is the right one.
    pub(crate) fn needed(resources: &Resources) -> Self {
        let (gpu_whole, gpu_part) = match &resources.gpu {
            None => (0, 0),
            Some(gpu) if gpu.milli == GPU_WHOLE => (gpu.count, 0),
            Some(gpu) => (0, small(gpu.milli.0)),
        };
        Self { cpu: resources.cpu, memory: resources.memory, slots: 1, gpu_whole, gpu_part }
    }

    pub(crate) fn covers(&self, need: &Self) -> bool {
        self.cpu >= need.cpu
            && self.memory >= need.memory
            && self.slots >= need.slots
            && self.gpu_whole >= need.gpu_whole
            && self.gpu_part >= need.gpu_part
    }

    /// The most of both, in each dimension.
    pub(crate) fn join(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.slots = self.slots.max(other.slots);
        self.gpu_whole = self.gpu_whole.max(other.gpu_whole);
        self.gpu_part = self.gpu_part.max(other.gpu_part);
    }
}

fn small(milli: u64) -> u16 {
    u16::try_from(milli).unwrap_or(u16::MAX)
}

fn gpu_room(free: &Free, device_kinds: &[u16]) -> (u16, u16) {
    if device_kinds.is_empty() {
        return (0, 0);
    }
    let mut whole = [0_u16; GPU_DEVICES_MAX];
    let mut part = 0;
    for (milli, kind) in free.gpus.iter().zip(device_kinds) {
        part = part.max(small(milli.0));
        if *milli == GPU_WHOLE
            && let Some(count) = whole.get_mut(*kind as usize)
        {
            *count += 1;
        }
    }
    (whole.into_iter().max().unwrap_or(0), part)
}

/// All of it free.
pub(crate) const EMPTY: u32 = 1 << 24;
/// By how much a share may be rounded, between workers of different size.
const ROUNDING: u32 = 8;

/// Turns amounts into shares of a capacity, rounded down, without dividing.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    whole: u64,
    shift: u32,
    factor: u64,
}

impl Share {
    fn of(whole: u64) -> Self {
        let shift = (64 - whole.leading_zeros()).saturating_sub(32);
        let scaled = whole >> shift;
        Self { whole, shift, factor: (u64::from(EMPTY) << 32).checked_div(scaled).unwrap_or(0) }
    }

    fn take(&self, amount: u64) -> u32 {
        if amount >= self.whole {
            return EMPTY;
        }
        (((amount >> self.shift) * self.factor) >> 32) as u32
    }
}

/// How full a worker is: the share that is free of its scarcest resource, [`EMPTY`] when idle. A worker that is
/// out of anything is full.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scale {
    cpu: Share,
    memory: Share,
    slots: Share,
    gpu: Share,
}

impl Scale {
    pub(crate) fn of(capacity: &Capacity) -> Self {
        Self {
            cpu: Share::of(capacity.cpu.0),
            memory: Share::of(capacity.memory.0),
            slots: Share::of(u64::from(capacity.slots)),
            gpu: Share::of(capacity.gpus.len() as u64 * GPU_WHOLE.0),
        }
    }

    /// The share that is free.
    pub(crate) fn free_share(&self, free: &Free) -> u32 {
        let scarcest = self.cpu.take(free.cpu.0).min(self.memory.take(free.memory.0));
        let scarcest = scarcest.min(self.slots.take(u64::from(free.slots)));
        if free.gpus.is_empty() {
            return scarcest;
        }
        scarcest.min(self.gpu.take(free.gpus.iter().map(|g| g.0).sum()))
    }

    /// The largest of both, in each resource.
    pub(crate) fn join(&mut self, other: &Self) {
        let larger = |a: Share, b: Share| if b.whole > a.whole { b } else { a };
        self.cpu = larger(self.cpu, other.cpu);
        self.memory = larger(self.memory, other.memory);
        self.slots = larger(self.slots, other.slots);
        self.gpu = larger(self.gpu, other.gpu);
    }

    /// A share below which no worker up to this size can have room for `resources`.
    pub(crate) fn least_share(&self, resources: &Resources) -> u32 {
        let gpu = resources.gpu.as_ref().map_or(0, |g| u64::from(g.count) * g.milli.0);
        let least = self.cpu.take(resources.cpu.0).min(self.memory.take(resources.memory.0));
        let least = least.min(self.slots.take(1));
        let least = if self.gpu.whole == 0 { least } else { least.min(self.gpu.take(gpu)) };
        least.saturating_sub(ROUNDING)
    }
}

#[cfg(test)]
mod tests {
    use volley_model::GpuMilli;

    use super::*;

    fn capacity(cpu: u64, memory: u64, slots: u32, gpus: usize) -> Capacity {
        Capacity { cpu: CpuMilli(cpu), memory: Bytes(memory), slots, gpus: vec!["a".to_owned(); gpus] }
    }

    #[test]
    fn idle_is_empty_and_the_scarcest_counts() {
        let capacity = capacity(4000, 3 << 33, 7, 2);
        let scale = Scale::of(&capacity);
        let mut free = capacity.all_free();
        assert_eq!(scale.free_share(&free), EMPTY);
        free.cpu = CpuMilli(1000);
        assert!(scale.free_share(&free).abs_diff(EMPTY / 4) < 3);
        free.gpus[0] = GpuMilli(0);
        free.gpus[1] = GpuMilli(200);
        assert!(scale.free_share(&free).abs_diff(EMPTY / 10) < 3);
        free.slots = 0;
        assert_eq!(scale.free_share(&free), 0);
    }

    #[test]
    fn what_fits_is_never_below_the_least_share() {
        for cpu in [1, 3, 999, 4000, 7_777_777] {
            for memory in [1, 5 << 20, (3 << 33) + 12_345, u64::MAX / 3] {
                let capacity = capacity(cpu, memory, 3, 0);
                let mut largest = Scale::of(&capacity);
                largest.join(&Scale::of(&self::capacity(cpu * 3, memory / 2 + 7, 50, 0)));
                for part in 1..=7 {
                    let resources =
                        Resources { cpu: CpuMilli(cpu / 7 * part), memory: Bytes(memory / 7 * part), gpu: None };
                    let free = Free { cpu: resources.cpu, memory: resources.memory, ..capacity.all_free() };
                    let share = Scale::of(&capacity).free_share(&free);
                    assert!(largest.least_share(&resources) <= share, "{resources:?} of {capacity:?}");
                }
            }
        }
    }
}
