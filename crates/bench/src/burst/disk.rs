//! How long the disk takes to keep a small write: the floor under every acknowledgement.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use super::clock::Percentiles;

/// Writes that are timed.
const WRITES: usize = 101;
/// Two pages, as a small transaction writes.
const WRITE_BYTES: usize = 8192;

/// The median time of `fdatasync` after a small append, in milliseconds.
pub(super) fn fdatasync_ms_p50(dir: &Path) -> io::Result<f64> {
    let path = dir.join("fdatasync");
    let mut file = File::create(&path)?;
    let mut spans = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        file.write_all(&[0x55; WRITE_BYTES])?;
        let begin = Instant::now();
        file.sync_data()?;
        spans.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(path)?;
    Ok(Percentiles::of(spans).map(|spans| spans.p50).unwrap_or_default())
}
