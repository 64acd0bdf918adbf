//! A consistent copy of the database in one new file, while it is written to. Knows nothing
//! of what it holds.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::error::DbError;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackupError {
    #[error("the file exists; name one that does not")]
    Exists,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Db(#[from] DbError),
    #[error("the database stayed busy; try again")]
    Busy,
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Db(error.into())
    }
}

/// Copies into a file beside `file`, syncs it, and gives it its name only when it is whole.
pub(super) fn write(source: &Connection, file: &Path) -> Result<(), BackupError> {
    if file.try_exists()? {
        return Err(BackupError::Exists);
    }
    let partial = Partial::create(file)?;
    copy(source, &partial.path)?;
    File::open(&partial.path)?.sync_all()?;
    // A link, unlike a rename, never replaces a file that came in the meantime.
    match fs::hard_link(&partial.path, file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(BackupError::Exists),
        linked => linked?,
    }
    drop(partial);
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(directory)?.sync_all()?)
}

fn copy(source: &Connection, partial: &Path) -> Result<(), BackupError> {
    let mut target = Connection::open(partial)?;
    let step = Backup::new(source, &mut target)?.step(ALL_PAGES)?;
    if step != StepResult::Done {
        return Err(BackupError::Busy);
    }
    // One file, without a log beside it.
    target.pragma_update(None, "journal_mode", "DELETE")?;
    target.close().map_err(|(_, error)| error.into())
}

/// In one step, in one read transaction: in several, every write in between would start the copy over.
const ALL_PAGES: i32 = -1;

/// The unfinished copy; removed in any case.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn create(file: &Path) -> io::Result<Self> {
        let name = file.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
        let mut partial = OsString::from(".");
        partial.push(name);
        partial.push(format!(".partial-{}", std::process::id()));
        let path = file.with_file_name(partial);
        // Left behind by a process that died and had our pid.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What cannot be removed is only litter.
        let _ = fs::remove_file(&self.path);
    }
}
