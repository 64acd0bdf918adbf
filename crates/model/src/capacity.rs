//! The one rule for capacity: `fits`, `reserve`, `release`. Serves the ledger (the truth)
//! and the engine (the overlay); neither does sums of its own.

use serde::{Deserialize, Serialize};

use crate::{Bytes, CpuMilli, GPU_WHOLE, GpuKinds, GpuMilli, GpuRequest, Resources};

/// Most GPU devices of one worker: the widest machines sold have 16.
pub const GPU_DEVICES_MAX: usize = 64;

/// What a worker offers in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// CPU.
    pub cpu: CpuMilli,
    /// Memory.
    pub memory: Bytes,
    /// How many containers at most.
    pub slots: u32,
    /// The kind of each GPU device, by device index. At most [`GPU_DEVICES_MAX`].
    pub gpus: Vec<String>,
}

/// What is free of a capacity at present: `gpus[i]` belongs to device `i`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Free {
    /// CPU.
    pub cpu: CpuMilli,
    /// Memory.
    pub memory: Bytes,
    /// Slots.
    pub slots: u32,
    /// Free part of each device.
    pub gpus: Vec<GpuMilli>,
}

/// A part of a device, or all of it, granted to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GpuGrant {
    /// Index into [`Capacity::gpus`].
    pub device: u16,
    /// How much of it.
    pub milli: GpuMilli,
}

/// What is missing when a request does not fit; zero where enough is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misfit {
    /// Missing CPU.
    pub cpu_short: CpuMilli,
    /// Missing memory.
    pub memory_short: Bytes,
    /// No slot is free.
    pub slots_short: bool,
    /// The GPUs asked for are not free, or not there.
    pub gpu_short: bool,
}

impl Misfit {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Capacity {
    /// All of it free.
    #[must_use]
    pub fn all_free(&self) -> Free {
        Free { cpu: self.cpu, memory: self.memory, slots: self.slots, gpus: vec![GPU_WHOLE; self.gpus.len()] }
    }

    /// Chooses devices for a request on this worker: of the first kind in the request's order that has
    /// enough free; whole devices by lowest index, a part on the fullest device that still has room.
    /// `None` when they are not free.
    #[must_use]
    pub fn choose_gpus(&self, free: &Free, request: &GpuRequest) -> Option<Vec<GpuGrant>> {
        match &request.kinds {
            GpuKinds::Any => {
                let mut kinds: Vec<&String> = self.gpus.iter().collect();
                kinds.sort();
                kinds.dedup();
                kinds.into_iter().find_map(|kind| self.choose_of_kind(free, kind, request))
            }
            GpuKinds::Ordered(kinds) => kinds.iter().find_map(|kind| self.choose_of_kind(free, kind, request)),
        }
    }

    /// Takes a request as often as it fits, at most `most` times, and says how often.
    #[must_use]
    pub fn reserve_times(&self, free: &mut Free, request: &Resources, most: u64) -> u64 {
        let Some(gpu) = &request.gpu else {
            let times = |free: u64, need: u64| free.checked_div(need).unwrap_or(u64::MAX);
            let by_memory = times(free.memory.0, request.memory.0);
            let fit = times(free.cpu.0, request.cpu.0).min(by_memory).min(u64::from(free.slots)).min(most);
            free.cpu = CpuMilli(free.cpu.0 - fit * request.cpu.0);
            free.memory = Bytes(free.memory.0 - fit * request.memory.0);
            free.slots -= fit as u32;
            return fit;
        };
        let mut taken = 0;
        while taken < most && free.slots > 0 && request.cpu <= free.cpu && request.memory <= free.memory {
            let Some(devices) = self.choose_gpus(free, gpu) else { break };
            if !free.reserve(request, &devices) {
                break;
            }
            taken += 1;
        }
        taken
    }

    /// [`Capacity::choose_gpus`] for one kind.
    #[must_use]
    pub fn choose_of_kind(&self, free: &Free, kind: &str, request: &GpuRequest) -> Option<Vec<GpuGrant>> {
        let devices = self.gpus.iter().zip(&free.gpus).enumerate().filter(|(_, (k, _))| *k == kind);
        let devices = devices.map(|(i, (_, free))| (i as u16, *free));
        if request.milli < GPU_WHOLE {
            let fullest = devices.filter(|(_, free)| *free >= request.milli).min_by_key(|(i, free)| (*free, *i))?;
            return Some(vec![GpuGrant { device: fullest.0, milli: request.milli }]);
        }
        let whole = devices.filter(|(_, free)| *free == GPU_WHOLE).take(request.count as usize);
        let whole: Vec<_> = whole.map(|(device, _)| GpuGrant { device, milli: GPU_WHOLE }).collect();
        (whole.len() == request.count as usize).then_some(whole)
    }
}

impl Free {
    /// What is missing for a request (GPUs looked at only by [`Capacity::choose_gpus`]).
    #[must_use]
    pub fn misfit(&self, request: &Resources) -> Misfit {
        Misfit {
            cpu_short: request.cpu.saturating_sub(self.cpu),
            memory_short: request.memory.saturating_sub(self.memory),
            slots_short: self.slots == 0,
            gpu_short: false,
        }
    }

    /// Whether a request with exactly these devices fits.
    #[must_use]
    pub fn fits(&self, request: &Resources, grants: &[GpuGrant]) -> bool {
        self.slots > 0
            && request.cpu <= self.cpu
            && request.memory <= self.memory
            && grants_match(request, grants)
            && grants.iter().all(|g| self.gpus.get(g.device as usize).is_some_and(|free| g.milli <= *free))
    }

    /// Takes what was asked. Returns false and changes nothing when it does not fit.
    #[must_use]
    pub fn reserve(&mut self, request: &Resources, grants: &[GpuGrant]) -> bool {
        if !self.fits(request, grants) {
            return false;
        }
        self.cpu = self.cpu.saturating_sub(request.cpu);
        self.memory = self.memory.saturating_sub(request.memory);
        self.slots -= 1;
        for grant in grants {
            let free = &mut self.gpus[grant.device as usize];
            *free = free.saturating_sub(grant.milli);
        }
        true
    }

    /// Gives back what was reserved. Returns false and changes nothing when more would be free than `capacity`.
    #[must_use]
    pub fn release(&mut self, capacity: &Capacity, request: &Resources, grants: &[GpuGrant]) -> bool {
        let cpu = self.cpu.checked_add(request.cpu).filter(|sum| *sum <= capacity.cpu);
        let memory = self.memory.checked_add(request.memory).filter(|sum| *sum <= capacity.memory);
        let gpus_fit = grants.iter().all(|g| {
            let free = self.gpus.get(g.device as usize);
            free.and_then(|free| free.checked_add(g.milli)).is_some_and(|sum| sum <= GPU_WHOLE)
        });
        let (Some(cpu), Some(memory)) = (cpu, memory) else { return false };
        if self.slots >= capacity.slots || !gpus_fit {
            return false;
        }
        self.cpu = cpu;
        self.memory = memory;
        self.slots += 1;
        for grant in grants {
            self.gpus[grant.device as usize].0 += grant.milli.0;
        }
        true
    }
}

/// Whether grants are what the request asks: count, size, distinct devices in rising order.
fn grants_match(request: &Resources, grants: &[GpuGrant]) -> bool {
    let Some(gpu) = &request.gpu else { return grants.is_empty() };
    grants.len() == gpu.count as usize
        && grants.iter().all(|g| g.milli == gpu.milli)
        && grants.windows(2).all(|pair| pair[0].device < pair[1].device)
}
