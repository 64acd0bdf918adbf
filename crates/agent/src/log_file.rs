//! One captured stream of a container on disk, bounded: two files, of which the older is
//! dropped when the newer is full. Knows nothing of processes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A stream being written.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    written: u64,
    /// Of each of the two files.
    half: u64,
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("old")
}

impl LogFile {
    /// Keeps at least half and at most all of `limit` bytes. Made at the first byte.
    pub(crate) fn new(path: PathBuf, limit: u64) -> Self {
        Self { path, file: None, written: 0, half: limit / 2 }
    }

    /// Appends; what is over the limit pushes out the oldest.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.half == 0 {
            return Ok(());
        }
        while !bytes.is_empty() {
            if self.written == self.half {
                fs::rename(&self.path, older(&self.path))?;
                (self.file, self.written) = (None, 0);
            }
            let room = usize::try_from(self.half - self.written).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(File::create(&self.path)?),
            };
            file.write_all(now)?;
            self.written += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }
}

/// What is kept of a stream; empty when it printed nothing.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    for path in [older(path), path.to_owned()] {
        match File::open(path) {
            Ok(mut file) => drop(file.read_to_end(&mut kept)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_are_kept_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout.log");
        let mut log = LogFile::new(path.clone(), 20);
        log.append(b"0123456789abcde").unwrap();
        assert_eq!(read(&path).unwrap(), b"0123456789abcde");
        log.append(b"fghijKLMNOPQ").unwrap();
        assert_eq!(read(&path).unwrap(), b"abcdefghijKLMNOPQ");
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout.log");
        LogFile::new(path.clone(), 0).append(b"x").unwrap();
        assert_eq!(read(&path).unwrap(), b"");
    }
}
