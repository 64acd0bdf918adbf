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

/// Kinds of the GPU devices that the driver shows, in order of device number; empty when there is none.
#[must_use]
pub fn detect_gpus() -> Vec<String> {
    let Ok(devices) = fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let read = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("information")).ok();
    // By minor number, as the driver counts them.
    let mut found: Vec<(u32, String)> =
        devices.flatten().filter_map(read).filter_map(|information| gpu(&information)).collect();
    found.sort();
    found.into_iter().map(|(_, kind)| kind).collect()
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// A device's number and kind, as in `A100` of `NVIDIA A100-SXM4-80GB`.
fn gpu(information: &str) -> Option<(u32, String)> {
    let field = |name: &str| {
        let line = information.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
        Some(line.trim().to_owned())
    };
    let model = field("Model")?;
    let words = model.split([' ', '-']).filter(|word| !matches!(*word, "NVIDIA" | "Tesla" | "GeForce" | "Quadro"));
    let kind: String = words.take(1).collect();
    let kind: String = kind.chars().filter(char::is_ascii_alphanumeric).collect();
    let number = field("Device Minor")?.parse().ok()?;
    (!kind.is_empty()).then_some((number, kind))
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
    fn kinds_of_gpus_are_short() {
        for (model, kind) in [("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA H100 80GB HBM3", "H100"), ("Tesla T4", "T4")]
        {
            let information = format!("Model: \t\t {model}\nIRQ:   \t\t 11\nDevice Minor: \t 3\n");
            assert_eq!(gpu(&information), Some((3, kind.to_owned())), "{model}");
        }
        assert_eq!(gpu("Model: x"), None);
    }

    #[test]
    fn there_is_something_to_offer() {
        let (cpu, memory) = detect();
        assert!(cpu.0 > 0 && memory.0 > 1 << 20, "{cpu} {memory}");
    }
}
