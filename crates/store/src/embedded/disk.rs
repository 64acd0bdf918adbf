//! Whether the file system has room. Asked at most every second: the answer is a bound kept
//! well before the end, not a promise.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use volley_model::Bytes;

/// An answer is used for this long.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Asks for free bytes; replaced by tests.
pub(super) type FreeBytes = Arc<dyn Fn() -> Bytes + Send + Sync>;

/// Watches the file system of a directory.
pub(super) struct DiskWatch {
    directory: PathBuf,
    free_min: Bytes,
    replaced: Option<FreeBytes>,
    last: Option<(Instant, Bytes)>,
}

impl DiskWatch {
    pub(super) fn new(directory: PathBuf, free_min: Bytes, replaced: Option<FreeBytes>) -> Self {
        Self { directory, free_min, replaced, last: None }
    }

    /// What to tell a client when there is too little; `None` when there is enough.
    pub(super) fn shortage(&mut self) -> Option<String> {
        let free = self.free()?;
        (free < self.free_min).then(|| {
            let dir = self.directory.display();
            let (free, wanted) = (free.0 >> 20, self.free_min.0 >> 20);
            format!("the disk of {dir} has {free} MiB free, {wanted} MiB are kept in reserve; free some space")
        })
    }

    /// `None` when the system does not say: then writes will tell.
    fn free(&mut self) -> Option<Bytes> {
        if let Some(replaced) = &self.replaced {
            return Some(replaced());
        }
        if let Some((asked, free)) = self.last
            && asked.elapsed() < FRESH_FOR
        {
            return Some(free);
        }
        let stat = statvfs(&self.directory).ok()?;
        let free = Bytes(stat.f_bavail.saturating_mul(stat.f_frsize));
        self.last = Some((Instant::now(), free));
        Some(free)
    }
}
