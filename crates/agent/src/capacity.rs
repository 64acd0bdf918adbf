//! What this machine offers. Knows nothing of what runs on it.

use volley_model::{Bytes, CpuMilli};

/// CPU and memory that this process may use.
#[must_use]
pub fn detect() -> (CpuMilli, Bytes) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (CpuMilli(cores * 1000), Bytes(memory_total(&text).unwrap_or(1 << 30)))
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Kinds of the GPU devices that the driver shows.
#[must_use]
pub fn detect_gpus() -> Vec<String> {
    Vec::new()
}

/// What cannot be enforced on this machine, in words.
#[must_use]
pub fn limits_notes() -> Vec<String> {
    vec!["limits of CPU and memory are counted, not enforced".to_owned()]
}
