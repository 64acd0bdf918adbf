//! The embedded store: the ledger in memory, SQLite on disk, one thread that owns both.

mod backup;
mod batch;
mod directory;
mod disk;
mod error;
mod event_codec;
mod load;
mod readers;
mod rows;
mod schema;

pub use error::OpenError;
