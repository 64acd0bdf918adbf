//! A worker's lease, as its keepers see it: a worker that is gone, or frozen, renews nothing, and
//! what may run no longer is ended by its keeper. Knows nothing of servers.
//!
//! The file holds the end of the lease in nanoseconds of the kernel's monotonic clock, which all
//! processes of the machine share. It is written in place: a full disk has room for that.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use volley_model::OnDisconnect;

use super::attempt_dir::{AttemptDir, LaunchRecord};

/// In the worker's folder, beside those of its attempts.
const NAME: &str = "lease";

/// Since the machine started.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Where the worker writes.
#[derive(Debug)]
pub(super) struct LeaseFile(File);

impl LeaseFile {
    /// Makes it where it is missing. What is in it stays: keepers of an earlier life go by it until the next renewal.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(state_dir.join(NAME))?;
        Ok(Self(file))
    }

    /// The lease ends after this, unless it is renewed.
    pub(super) fn renew(&self, left: Duration) -> io::Result<()> {
        let until = u64::try_from(now().saturating_add(left).as_nanos()).unwrap_or(u64::MAX);
        self.0.write_all_at(&until.to_le_bytes(), 0)
    }
}

/// Where a keeper looks. It reads when the end that it knows has come, and not before.
#[derive(Debug)]
pub(super) struct LeaseWatch {
    path: PathBuf,
    until: Option<Duration>,
}

impl LeaseWatch {
    /// `None` for what goes on without its worker.
    pub(super) fn of(dir: &AttemptDir, launch: &LaunchRecord) -> Option<Self> {
        if launch.spec.on_disconnect == OnDisconnect::Keep {
            return None;
        }
        Some(Self { path: dir.0.parent()?.join(NAME), until: None })
    }

    /// How long until it ends as far as is known; zero when it has. `None` where nobody ever wrote one.
    pub(super) fn left(&mut self) -> Option<Duration> {
        let now = now();
        if self.until.is_none_or(|until| until <= now) {
            self.until = fs::read(&self.path)
                .ok()
                .and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)))
                .map(Duration::from_nanos);
        }
        self.until.map(|until| until.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_it_is_not_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = LeaseWatch { path: dir.path().join(NAME), until: None };
        assert_eq!(watch.left(), None, "nobody wrote one");
        let file = LeaseFile::open(dir.path()).unwrap();
        assert_eq!(watch.left(), None, "it is empty");
        file.renew(Duration::ZERO).unwrap();
        assert_eq!(watch.left(), Some(Duration::ZERO));
        file.renew(Duration::from_secs(1000)).unwrap();
        assert!(watch.left().unwrap() > Duration::from_secs(900), "renewed");
        // The next life of the worker does not end what the last one left.
        LeaseFile::open(dir.path()).unwrap();
        let mut other = LeaseWatch { until: None, ..watch };
        assert!(other.left().unwrap() > Duration::from_secs(900));
    }
}
