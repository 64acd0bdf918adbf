//! What a worker and its keepers use, by what the kernel tells of their processes.

use std::fs;

use crate::burst::processes::cpu_ms;

/// Memory of a process: its part of what is shared, and what is its own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    pub(super) proportional: u64,
    pub(super) private: u64,
}

/// Of one process; nothing when it is gone.
pub(super) fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    Memory { proportional: kib("Pss") << 10, private: (kib("Private_Clean") + kib("Private_Dirty")) << 10 }
}

/// The children of a process: a worker's are its keepers.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let is_child = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name, in brackets, may hold anything; the parent is the second field after it.
        let of: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(pid)
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(is_child).collect()
}

/// Processor time of a process and its children together.
pub(super) fn cpu_with_children_ms(parent: u32) -> f64 {
    children(parent).into_iter().chain([parent]).map(cpu_ms).sum()
}
