//! What this machine offers: what this process may really use of it. Knows nothing of what
//! runs here.

use std::fs;

use volley_model::{Bytes, CpuMilli};

use crate::runtime::cgroup;

/// CPU and memory that this process may use: by its affinity, by the control groups above it, by the machine.
#[must_use]
pub fn detect() -> (CpuMilli, Bytes) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let total = memory_total(&fs::read_to_string("/proc/meminfo").unwrap_or_default()).unwrap_or(1 << 30);
    let (memory, cpu) = cgroup::own_limits();
    (CpuMilli(cpu.unwrap_or(u64::MAX).min(cores * 1000)), Bytes(memory.unwrap_or(u64::MAX).min(total)))
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        assert_eq!(memory_total("MemTotal:       24685284 kB\nMemFree: 1 kB\n"), Some(24_685_284 * 1024));
        assert_eq!(memory_total("nothing"), None);
    }

    #[test]
    fn there_is_something_to_offer() {
        let (cpu, memory) = detect();
        assert!(cpu.0 > 0 && memory.0 > 1 << 20, "{cpu} {memory}");
    }
}
