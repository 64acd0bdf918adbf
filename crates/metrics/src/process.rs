//! Memory and processor time of this process, as Linux counts them.

use crate::instruments::{Count, Value};
use crate::table::Table;

/// Bytes of a page and ticks of a second are fixed on the platforms this runs on.
const PAGE_BYTES: f64 = 4096.0;
/// `USER_HZ`, which Linux promises to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// This process.
#[derive(Debug, Clone)]
pub(crate) struct ProcessMetrics {
    resident: Value,
    processor: Value,
    scrapes: Count,
}

impl ProcessMetrics {
    pub(crate) fn register(table: &mut Table) -> Self {
        let build = table.values("build_info", "", [("version", "of volley")], "Always 1; the label says what runs.");
        build.set_all([([env!("CARGO_PKG_VERSION")], 1.0)]);
        Self {
            resident: table.value("process_resident", "bytes", "Memory of this process that is in RAM."),
            processor: table.value("process_cpu", "seconds", "Processor time that this process used so far."),
            scrapes: table.count("scrapes", "How often these metrics were read."),
        }
    }

    pub(crate) fn refresh(&self) {
        self.scrapes.add_one();
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        if let Some(pages) = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()) {
            self.resident.set(pages * PAGE_BYTES);
        }
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name in parentheses may hold spaces; what follows it does not.
        let after = stat.rsplit(')').next().unwrap_or_default();
        let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        self.processor.set(ticks / TICKS_PER_SECOND);
    }
}
