//! What can go wrong with a data directory, in words for the person who must mend it, and
//! what can go wrong with one database call. Knows nothing of operations.

use std::io;
use std::path::PathBuf;

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file stands where the directory should be.
    #[error("data directory {dir}: it is not a directory; name another one, or move the file away")]
    NotADirectory {
        /// As given.
        dir: PathBuf,
    },
    /// It cannot be made or written.
    #[error("data directory {dir}: it cannot be written ({source}); change its owner or permissions, or name another")]
    NotWritable {
        /// As given.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("data directory {dir}: process {pid} uses it; stop that process, or name another directory")]
    InUse {
        /// As given.
        dir: PathBuf,
        /// As the lock file says; `unknown` when it says nothing.
        pid: String,
    },
    /// A newer version wrote it.
    #[error(
        "database {file}: its layout is version {found} and this volley knows up to {known}; \
         use the volley that wrote it, or a newer one"
    )]
    Newer {
        /// Which.
        file: PathBuf,
        /// Version of the layout found.
        found: u32,
        /// Newest version known here.
        known: u32,
    },
    /// It is not ours, or it is broken.
    #[error("database {file}: {problem}; restore a copy made by 'volley backup', or move the file away to start empty")]
    Corrupt {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The system refused a call.
    #[error("database {file}: {problem}; check the disk and its free space, then start again")]
    Failed {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Why a database call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DbError {
    /// SQLite says so.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row does not hold what it should.
    #[error("a record of table '{table}' cannot be read ({problem})")]
    Record { table: &'static str, problem: String },
    /// The layout is newer than this program.
    #[error("its layout is version {found}, known is up to {known}")]
    Newer { found: u32, known: u32 },
    /// Another program's database.
    #[error("it is not a database of volley")]
    Foreign,
    /// The file system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl DbError {
    /// A row of `table` does not hold what it should.
    pub(super) fn record(table: &'static str, problem: impl ToString) -> Self {
        Self::Record { table, problem: problem.to_string() }
    }

    /// As the answer of opening `file`.
    pub(super) fn into_open(self, file: PathBuf) -> OpenError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let corrupt = match &self {
            DbError::Newer { found, known } => return OpenError::Newer { file, found: *found, known: *known },
            DbError::Sqlite(error) => matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)),
            DbError::Record { .. } | DbError::Foreign => true,
            DbError::Io(_) => false,
        };
        let problem = self.to_string();
        if corrupt { OpenError::Corrupt { file, problem } } else { OpenError::Failed { file, problem } }
    }
}
