//! Whether the file system has room. Asked before each operation that adds: the question
//! costs a microsecond, and within a second a burst can fill what was free at its start.

use std::path::PathBuf;

use rustix::fs::statvfs;
use volley_model::Bytes;

/// Watches the file system of a directory.
pub(super) struct DiskWatch {
    directory: PathBuf,
    free_min: Bytes,
}

impl DiskWatch {
    pub(super) fn new(directory: PathBuf, free_min: Bytes) -> Self {
        Self { directory, free_min }
    }

    /// What to tell a client when there is too little; `None` when there is enough.
    pub(super) fn shortage(&self) -> Option<String> {
        let free = self.free()?;
        (free < self.free_min).then(|| {
            let dir = self.directory.display();
            let (free, wanted) = (free.0 >> 20, self.free_min.0 >> 20);
            format!("the disk of {dir} has {free} MiB free, {wanted} MiB are kept in reserve; free some space")
        })
    }

    /// `None` when the system does not say: then writes will tell.
    fn free(&self) -> Option<Bytes> {
        let stat = statvfs(&self.directory).ok()?;
        Some(Bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
}
