//! A worker's epoch, kept over its lives, so that it may come back within its lease.

use std::io;
use std::path::PathBuf;

use volley_model::Epoch;

#[derive(Debug)]
pub(crate) struct EpochFile {
    path: Option<PathBuf>,
    epoch: Option<Epoch>,
}

fn named(path: &std::path::Path, what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} cannot be {what}: {error}", path.display()))
}

impl EpochFile {
    /// Reads it; what is not there or not an epoch is none: the worker is then new to its server.
    pub(crate) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let epoch = match path.as_ref().map(std::fs::read) {
            Some(Ok(bytes)) => serde_json::from_slice(&bytes).ok(),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(named(path.as_ref().expect("it was read"), "read", &error));
            }
            _ => None,
        };
        Ok(Self { path, epoch })
    }

    pub(crate) fn get(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Keeps it: a new file takes the place of the old one.
    pub(crate) fn set(&mut self, epoch: Epoch) -> io::Result<()> {
        if self.epoch == Some(epoch) {
            return Ok(());
        }
        self.epoch = Some(epoch);
        let Some(path) = &self.path else { return Ok(()) };
        let new = path.with_extension("new");
        let written = std::fs::write(&new, serde_json::to_vec(&epoch)?).and_then(|()| std::fs::rename(&new, path));
        written.map_err(|error| named(path, "written", &error))
    }
}

#[cfg(test)]
mod tests {
    use volley_model::Nonce;

    use super::*;

    #[test]
    fn the_next_life_reads_what_this_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("epoch.json");
        let mut file = EpochFile::open(Some(path.clone())).unwrap();
        assert_eq!(file.get(), None);
        let epoch = Epoch { number: 3, nonce: Nonce(u64::MAX) };
        file.set(epoch).unwrap();
        assert_eq!(EpochFile::open(Some(path.clone())).unwrap().get(), Some(epoch));
        std::fs::write(&path, b"{half").unwrap();
        assert_eq!(EpochFile::open(Some(path)).unwrap().get(), None);
    }
}
