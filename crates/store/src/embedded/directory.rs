//! The data directory: made when missing, checked to be writable, and held by one process
//! with a lock file. Knows nothing of what is kept in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::OpenError;

/// The lock file's name; it holds the pid of the process that has the directory open.
const LOCK_FILE: &str = "volley.lock";
/// The database's name.
const DATABASE_FILE: &str = "volley.db";
/// More of a lock file is not read: a pid has at most 20 digits.
const LOCK_FILE_BYTES_MAX: u64 = 32;

/// A data directory, ours until dropped.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    /// The lock lives as long as this stays open; the system ends it when the process dies.
    _lock: File,
}

impl DataDirectory {
    /// Makes, checks and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let dir = path.to_owned();
        if let Err(source) = fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
            return Err(match source.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => OpenError::NotADirectory { dir },
                _ => OpenError::NotWritable { dir, source },
            });
        }
        let not_writable = |source| OpenError::NotWritable { dir: dir.clone(), source };
        let file = dir.join(LOCK_FILE);
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file);
        let mut lock = lock.map_err(not_writable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::InUse { dir, pid: read_pid(&mut lock) }),
            Err(errno) => return Err(not_writable(errno.into())),
        }
        write_pid(&mut lock).map_err(not_writable)?;
        Ok(Self { path: dir, _lock: lock })
    }

    /// Where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FILE)
    }

    /// As it was named.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn read_pid(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.take(LOCK_FILE_BYTES_MAX).read_to_string(&mut text);
    let pid = text.trim();
    if read.is_ok() && !pid.is_empty() { pid.to_owned() } else { "unknown".to_owned() }
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}
