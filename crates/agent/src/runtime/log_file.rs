//! A captured stream of a container on disk, bounded: pieces that are named by the place of
//! their first byte, of which the oldest goes when there are more than two. Knows nothing of
//! processes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::Output;

/// A stream being written.
#[derive(Debug)]
pub(crate) struct LogFile {
    dir: PathBuf,
    name: &'static str,
    file: Option<File>,
    /// Places of the first byte of the piece before and of this one.
    before: Option<u64>,
    start: u64,
    /// Of this piece.
    written: u64,
    /// Of each piece at most.
    piece: u64,
}

fn piece(dir: &Path, name: &str, start: u64) -> PathBuf {
    dir.join(format!("{name}.{start}"))
}

impl LogFile {
    /// Keeps at least half and at most all of `limit` bytes. Its files are made when there is something to keep.
    pub(crate) fn new(dir: &Path, name: &'static str, limit: u64) -> Self {
        Self { dir: dir.to_owned(), name, file: None, before: None, start: 0, written: 0, piece: limit / 2 }
    }

    /// As [`LogFile::new`], after what is there already.
    pub(crate) fn open(dir: &Path, name: &'static str, limit: u64) -> io::Result<Self> {
        let mut log = Self::new(dir, name, limit);
        let starts = starts(dir, name)?;
        if let Some((start, before)) = starts.split_last() {
            let file = File::options().append(true).open(piece(dir, name, *start))?;
            (log.start, log.written, log.before) = (*start, file.metadata()?.len(), before.last().copied());
            log.file = Some(file);
        }
        Ok(log)
    }

    /// Appends; what is over the limit pushes out the oldest.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.piece == 0 {
            return Ok(());
        }
        while !bytes.is_empty() {
            if self.written >= self.piece {
                self.turn()?;
            }
            let room = usize::try_from(self.piece - self.written).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(File::create(piece(&self.dir, self.name, self.start))?),
            };
            file.write_all(now)?;
            self.written += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Begins the next piece; the one before the last goes.
    fn turn(&mut self) -> io::Result<()> {
        if let Some(before) = self.before.replace(self.start) {
            fs::remove_file(piece(&self.dir, self.name, before))?;
        }
        (self.file, self.start, self.written) = (None, self.start + self.written, 0);
        Ok(())
    }
}

/// Bytes of a stream from a place on, at most `max`; what went is skipped. Empty when it printed nothing.
pub(crate) fn read(dir: &Path, name: &str, from: u64, max: usize) -> io::Result<Output> {
    let mut output = Output { bytes: Vec::new(), next: from };
    for start in starts(dir, name)? {
        let mut file = match File::open(piece(dir, name, start)) {
            Ok(file) => file,
            // It went while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let end = start + file.metadata()?.len();
        if end <= output.next || output.bytes.len() >= max {
            continue;
        }
        output.next = output.next.max(start);
        file.seek(SeekFrom::Start(output.next - start))?;
        let read = file.take((max - output.bytes.len()) as u64).read_to_end(&mut output.bytes)?;
        output.next += read as u64;
    }
    Ok(output)
}

/// Where the pieces begin, in order.
fn starts(dir: &Path, name: &str) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut starts = Vec::new();
    for entry in entries {
        let entry = entry?.file_name();
        let start: Option<u64> =
            entry.to_str().and_then(|entry| entry.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
        starts.extend(start);
    }
    starts.sort_unstable();
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(dir: &Path) -> (String, u64) {
        let output = read(dir, "stdout", 0, usize::MAX).unwrap();
        (String::from_utf8(output.bytes).unwrap(), output.next)
    }

    #[test]
    fn the_newest_bytes_are_kept_within_the_limit_and_places_count_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::new(dir.path(), "stdout", 20);
        log.append(b"0123456789abcde").unwrap();
        assert_eq!(all(dir.path()), ("0123456789abcde".to_owned(), 15));
        log.append(b"fghijKLMNOPQ").unwrap();
        assert_eq!(all(dir.path()), ("abcdefghijKLMNOPQ".to_owned(), 27));
        let part = |from, max| read(dir.path(), "stdout", from, max).unwrap();
        assert_eq!(part(3, 4), Output { bytes: b"abcd".to_vec(), next: 14 });
        assert_eq!(part(18, 4), Output { bytes: b"ijKL".to_vec(), next: 22 });
        assert_eq!(part(27, 4), Output { bytes: Vec::new(), next: 27 });
    }

    #[test]
    fn who_opens_it_again_goes_on_at_its_end_whatever_was_written() {
        for before in 0..40 {
            let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let mut whole = LogFile::new(dirs[0].path(), "stdout", 20);
            let mut parted = LogFile::open(dirs[1].path(), "stdout", 20).unwrap();
            let text: Vec<u8> = (0..60).map(|number| b'0' + number).collect();
            whole.append(&text[..before]).unwrap();
            parted.append(&text[..before]).unwrap();
            drop(parted);
            let mut parted = LogFile::open(dirs[1].path(), "stdout", 20).unwrap();
            for rest in [&text[before..before + 7], &text[before + 7..]] {
                whole.append(rest).unwrap();
                parted.append(rest).unwrap();
                assert_eq!(all(dirs[0].path()), all(dirs[1].path()), "{before} bytes before");
            }
        }
    }

    #[test]
    fn nothing_printed_or_nothing_kept_is_nothing_to_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(&dir.path().join("not-there")), (String::new(), 0));
        LogFile::new(dir.path(), "stdout", 0).append(b"x").unwrap();
        assert_eq!(all(dir.path()), (String::new(), 0));
    }
}
