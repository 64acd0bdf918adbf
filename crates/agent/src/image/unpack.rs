//! One layer's archive into one folder, in the form that overlayfs wants. Whatever the archive
//! says, nothing outside of the folder is touched: every path is resolved by the kernel beneath
//! it, and what would leave it is refused. Digests are counted on the way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

use super::LayerError;
use super::headers::BoundedHeaders;

/// Most files of a layer: far above any real one.
const ENTRIES_MAX: u64 = 4_000_000;
/// Read at a time.
const READ_BYTES: usize = 256 << 10;
/// Room is asked for in pieces of this size.
const ROOM_BYTES: u64 = 1 << 20;
/// Files take whole blocks.
const BLOCK_BYTES: u64 = 4096;
/// Marks what a layer removes from those below it.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an archive was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// On the disk, about.
    pub(super) bytes: u64,
    /// Of the bytes as they were read.
    pub(super) blob_digest: String,
    /// Of the archive inside.
    pub(super) digest: String,
}

/// `sha256:` and the digest in hexadecimal.
pub(super) fn named(hasher: Sha256) -> String {
    use std::fmt::Write as _;
    hasher.finalize().iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

/// Counts the digest of what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// What comes after the last entry counts, too.
    fn finish(mut self) -> io::Result<(R, String)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.inner, named(self.hasher)))
    }
}

enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    Zstd(Box<zstd::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    /// By the first bytes: what a manifest says about it is not always so.
    fn of(mut reader: R) -> io::Result<Self> {
        let start = reader.fill_buf()?;
        if start.starts_with(&[0x1f, 0x8b]) {
            return Ok(Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(reader))));
        }
        if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Ok(Self::Zstd(Box::new(zstd::Decoder::with_buffer(reader)?)));
        }
        Ok(Self::Plain(reader))
    }

    fn into_inner(self) -> R {
        match self {
            Self::Plain(reader) => reader,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Asked for room on the disk, in bytes, before it is taken.
pub(super) type Room<'a> = &'a mut dyn FnMut(u64) -> bool;

/// Unpacks a layer into an empty folder, as far as there is room.
pub(super) fn unpack(blob: impl Read, into: &Path, room: Room<'_>) -> Result<Unpacked, LayerError> {
    let blob = BufReader::with_capacity(READ_BYTES, Hashing::new(blob));
    let mut archive = Archive::new(BoundedHeaders::new(Hashing::new(Decoder::of(blob)?)));
    let root = openat(CWD, into, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)?;
    let buffer = vec![0; READ_BYTES];
    let mut layer = Layer { root, parent: None, times: Vec::new(), bytes: 0, allowed: 0, room, buffer };
    let mut entries = 0;
    for entry in archive.entries().map_err(archive_error)? {
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(broken(format!("a layer has more than {ENTRIES_MAX} files")));
        }
        layer.entry(entry.map_err(archive_error)?)?;
    }
    layer.finish()?;
    let bytes = layer.bytes;
    let (decoder, digest) = archive.into_inner().into_inner().finish().map_err(archive_error)?;
    let (_, blob_digest) = decoder.into_inner().into_inner().finish()?;
    Ok(Unpacked { bytes, blob_digest, digest })
}

fn broken(problem: String) -> LayerError {
    LayerError::Broken(problem)
}

/// What cannot be read is a broken archive; only the disk's own words are the machine's.
fn archive_error(error: io::Error) -> LayerError {
    match error.raw_os_error() {
        Some(_) => LayerError::Io(error),
        None => broken(format!("a layer cannot be read: {error}")),
    }
}

struct Layer<'a> {
    root: OwnedFd,
    /// The last folder that something was put in: the next entry is mostly its neighbour.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Of folders, set when nothing is put in them any more.
    times: Vec<(Vec<u8>, Timestamps)>,
    bytes: u64,
    /// Of them there is room for so many.
    allowed: u64,
    room: Room<'a>,
    buffer: Vec<u8>,
}

/// The parts of a path, without those that mean nothing.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, LayerError> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err(broken(format!("a layer has a path with '..': {}", String::from_utf8_lossy(path))));
    }
    Ok(parts)
}

fn is_device(kind: EntryType) -> bool {
    kind.is_character_special() || kind.is_block_special()
}

impl Layer<'_> {
    fn take(&mut self, bytes: u64) -> Result<(), LayerError> {
        while bytes > self.allowed {
            if !(self.room)(ROOM_BYTES) {
                return Err(LayerError::TooLarge);
            }
            self.allowed += ROOM_BYTES;
        }
        self.bytes = bytes;
        Ok(())
    }

    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), LayerError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = entry.path_bytes().into_owned();
        let parts = parts(&path)?;
        let Some((name, above)) = parts.split_last() else {
            return self.root_folder(&entry);
        };
        if is_device(kind) {
            // Containers get their own /dev; a device anywhere else is nothing that an image needs.
            return match above.first() {
                Some(first) if *first == b"dev" => Ok(()),
                _ => Err(broken(format!("a layer has a device node: {}", String::from_utf8_lossy(&path)))),
            };
        }
        let parent = self.folder(above)?;
        let placed = self.place(&mut entry, &path, &parts, name, &parent);
        self.parent = Some((above.join(&b'/'), parent));
        placed
    }

    fn root_folder<R: Read>(&self, entry: &Entry<'_, R>) -> Result<(), LayerError> {
        let header = entry.header();
        if header.entry_type().is_dir() {
            fchown(&self.root, Some(uid(header)?), Some(gid(header)?)).map_err(io::Error::from)?;
            fchmod(&self.root, mode(header)?).map_err(io::Error::from)?;
        }
        Ok(())
    }

    fn place<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &[u8],
        parts: &[&[u8]],
        name: &[u8],
        parent: &OwnedFd,
    ) -> Result<(), LayerError> {
        if name == OPAQUE {
            return Ok(fsetxattr(parent, "trusted.overlay.opaque", b"y", XattrFlags::empty()).map_err(io::Error::from)?);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return whiteout(parent, hidden);
        }
        let attributes = extended(entry)?;
        let header = entry.header().clone();
        match header.entry_type() {
            EntryType::Directory => self.directory(&header, parts, name, parent, &attributes),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &header, name, parent, &attributes)
            }
            EntryType::Symlink => {
                let target =
                    entry.link_name_bytes().ok_or_else(|| broken("a symbolic link goes nowhere".to_owned()))?;
                again(parent, name, || symlinkat(target.as_ref(), parent, name))?;
                own(&header, name, parent, false)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| broken("a hard link goes nowhere".to_owned()))?;
                self.hard_link(&target, name, parent)
            }
            EntryType::Fifo => {
                again(parent, name, || mknodat(parent, name, FileType::Fifo, Mode::RUSR, 0))?;
                own(&header, name, parent, true)
            }
            other => Err(broken(format!("a layer has an entry of kind {other:?}: {}", String::from_utf8_lossy(path)))),
        }
    }

    fn directory(
        &mut self,
        header: &tar::Header,
        parts: &[&[u8]],
        name: &[u8],
        parent: &OwnedFd,
        attributes: &[(String, Vec<u8>)],
    ) -> Result<(), LayerError> {
        match mkdirat(parent, name, Mode::RWXU) {
            Err(Errno::EXIST) if is_folder(parent, name) => {}
            Err(Errno::EXIST) => again(parent, name, || mkdirat(parent, name, Mode::RWXU))?,
            made => made.map_err(io::Error::from)?,
        }
        own(header, name, parent, true)?;
        if !attributes.is_empty() {
            let folder = openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
            set(&folder.map_err(io::Error::from)?, attributes)?;
        }
        self.times.push((parts.join(&b'/'), times(header)?));
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        header: &tar::Header,
        name: &[u8],
        parent: &OwnedFd,
        attributes: &[(String, Vec<u8>)],
    ) -> Result<(), LayerError> {
        let mut made = None;
        again(parent, name, || {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            made = Some(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
            Ok(())
        })?;
        let mut file = File::from(made.expect("it was opened"));
        loop {
            let read = entry.read(&mut self.buffer).map_err(archive_error)?;
            if read == 0 {
                break;
            }
            self.take(self.bytes + read as u64)?;
            file.write_all(&self.buffer[..read])?;
        }
        self.take(self.bytes.next_multiple_of(BLOCK_BYTES))?;
        fchown(&file, Some(uid(header)?), Some(gid(header)?)).map_err(io::Error::from)?;
        fchmod(&file, mode(header)?).map_err(io::Error::from)?;
        set(&file, attributes)?;
        futimens(&file, &times(header)?).map_err(io::Error::from)?;
        Ok(())
    }

    fn hard_link(&mut self, target: &[u8], name: &[u8], parent: &OwnedFd) -> Result<(), LayerError> {
        let parts = parts(target)?;
        let Some((target_name, above)) = parts.split_last() else {
            return Err(broken("a hard link goes to the root folder".to_owned()));
        };
        let folder = self.folder(above)?;
        let (folder, target_name) = (&folder, *target_name);
        match again(parent, name, || linkat(folder, target_name, parent, name, AtFlags::empty())) {
            Err(LayerError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                let target = String::from_utf8_lossy(target).into_owned();
                Err(broken(format!("a hard link goes to what is not there: {target}")))
            }
            linked => linked,
        }
    }

    /// A folder of the layer, made when it is not there. Links in its path may lead to other places of the layer, never
    /// out of it.
    fn folder(&mut self, parts: &[&[u8]]) -> Result<OwnedFd, LayerError> {
        let path = parts.join(&b'/');
        if let Some((last, folder)) = self.parent.take()
            && last == path
        {
            return Ok(folder);
        }
        match self.open(&path) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(|error| leaves(&path, error)),
        }
        for end in 1..=parts.len() {
            let path = parts[..end].join(&b'/');
            match self.open(&path) {
                Err(Errno::NOENT) => {}
                opened => {
                    opened.map_err(|error| leaves(&path, error))?;
                    continue;
                }
            }
            let above = self.open(&parts[..end - 1].join(&b'/')).map_err(|error| leaves(&path, error))?;
            mkdirat(&above, parts[end - 1], Mode::from_raw_mode(0o755)).map_err(|error| leaves(&path, error))?;
        }
        self.open(&path).map_err(|error| leaves(&path, error))
    }

    fn open(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
    }

    fn finish(&mut self) -> Result<(), LayerError> {
        for (path, times) in self.times.iter().rev() {
            // One that a later entry replaced has no times to be set.
            if let Ok(folder) = self.open(path) {
                futimens(&folder, times).map_err(io::Error::from)?;
            }
        }
        Ok(())
    }
}

fn leaves(path: &[u8], error: Errno) -> LayerError {
    let path = String::from_utf8_lossy(path);
    match error {
        Errno::XDEV => broken(format!("a layer puts something outside of itself, through a link at {path}")),
        Errno::NOTDIR | Errno::LOOP | Errno::EXIST => broken(format!("a layer puts something below {path}, no folder")),
        error => LayerError::Io(error.into()),
    }
}

/// What is there already goes: an archive may name a path twice, and the last one counts.
fn again(parent: &OwnedFd, name: &[u8], mut make: impl FnMut() -> rustix::io::Result<()>) -> Result<(), LayerError> {
    let made = match make() {
        Err(Errno::EXIST) => {
            let flags = if is_folder(parent, name) { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match unlinkat(parent, name, flags) {
                Err(Errno::NOTEMPTY) => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(broken(format!("a layer puts something in the place of a folder: {name}")));
                }
                removed => removed.and_then(|()| make()),
            }
        }
        made => made,
    };
    Ok(made.map_err(io::Error::from)?)
}

fn is_folder(parent: &OwnedFd, name: &[u8]) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

/// Hides what layers below have under this name.
fn whiteout(parent: &OwnedFd, hidden: &[u8]) -> Result<(), LayerError> {
    // Marks of other storage drivers have no meaning here.
    if hidden.is_empty() || hidden.starts_with(WHITEOUT) || matches!(hidden, b"." | b"..") {
        return Ok(());
    }
    match mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
        // This layer has one of its own.
        Err(Errno::EXIST) => Ok(()),
        made => Ok(made.map_err(io::Error::from)?),
    }
}

/// Owner, mode and time of what is no regular file. Links have no mode.
fn own(header: &tar::Header, name: &[u8], parent: &OwnedFd, has_mode: bool) -> Result<(), LayerError> {
    let (uid, gid) = (uid(header)?, gid(header)?);
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
    if has_mode {
        chmodat(parent, name, mode(header)?, AtFlags::empty()).map_err(io::Error::from)?;
    }
    utimensat(parent, name, &times(header)?, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
    Ok(())
}

/// Extended attributes that images may set. What steers overlayfs is ours alone.
fn extended<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<(String, Vec<u8>)>, LayerError> {
    let mut found = Vec::new();
    let Some(records) = entry.pax_extensions().map_err(archive_error)? else { return Ok(found) };
    for record in records {
        let record = record.map_err(archive_error)?;
        let name = record.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr."));
        if let Some(name) = name.filter(|name| *name == "security.capability" || name.starts_with("user.")) {
            found.push((name.to_owned(), record.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

fn set(file: &impl AsFd, attributes: &[(String, Vec<u8>)]) -> Result<(), LayerError> {
    for (name, value) in attributes {
        match fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            // Not every file system has attributes for users; capabilities are lost, never gained.
            Err(Errno::OPNOTSUPP) => {}
            done => done.map_err(io::Error::from)?,
        }
    }
    Ok(())
}

fn uid(header: &tar::Header) -> Result<Uid, LayerError> {
    let id = header.uid().map_err(archive_error)?;
    let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    Ok(Uid::from_raw(id.ok_or_else(|| broken("a layer has an owner beyond all numbers".to_owned()))?))
}

fn gid(header: &tar::Header) -> Result<Gid, LayerError> {
    let id = header.gid().map_err(archive_error)?;
    let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    Ok(Gid::from_raw(id.ok_or_else(|| broken("a layer has a group beyond all numbers".to_owned()))?))
}

fn mode(header: &tar::Header) -> Result<Mode, LayerError> {
    Ok(Mode::from_raw_mode(header.mode().map_err(archive_error)? & 0o7777))
}

fn times(header: &tar::Header) -> Result<Timestamps, LayerError> {
    let seconds = header.mtime().map_err(archive_error)?;
    let at = Timespec { tv_sec: i64::try_from(seconds).unwrap_or_default(), tv_nsec: 0 };
    Ok(Timestamps { last_access: at, last_modification: at })
}
