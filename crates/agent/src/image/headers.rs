//! A tar stream on its way, with a bound on what its extended headers may claim: a reader of tar
//! takes them into memory whole. Changes nothing of what passes.

use std::io::{self, Read};

/// Longest extended header (a long name, attributes of one file) in bytes: far above what images have.
const EXTENDED_BYTES_MAX: u64 = 1 << 20;
const BLOCK: usize = 512;

/// Where the stream is.
enum At {
    /// In a header, of which so many bytes have passed.
    Header(usize),
    /// In another block of a sparse file's map.
    SparseMap(usize),
    /// In the content of a header of attributes, which may say the next entry's size.
    Attributes { left: u64, text: Vec<u8>, padding: u64 },
    /// In what an entry holds.
    Content(u64),
    /// After what is no header: the reader of tar says so.
    Unknown,
}

/// Passes a tar stream on until a header claims too much.
pub(super) struct BoundedHeaders<R> {
    inner: R,
    at: At,
    block: [u8; BLOCK],
    /// Of the next entry, as its attributes say.
    size: Option<u64>,
    /// Of the present entry, while its sparse map passes.
    content: u64,
}

impl<R> BoundedHeaders<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, at: At::Header(0), block: [0; BLOCK], size: None, content: 0 }
    }

    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    fn pass(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let used = match &mut self.at {
                At::Header(filled) | At::SparseMap(filled) => {
                    let used = bytes.len().min(BLOCK - *filled);
                    self.block[*filled..*filled + used].copy_from_slice(&bytes[..used]);
                    *filled += used;
                    if *filled == BLOCK {
                        self.at = match self.at {
                            At::Header(_) => self.on_header()?,
                            _ => self.on_sparse_map(504),
                        };
                    }
                    used
                }
                At::Attributes { left, text, padding } => {
                    let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    text.extend_from_slice(&bytes[..used]);
                    *left -= used as u64;
                    if *left == 0 {
                        self.size = size_of(text).or(self.size);
                        self.at = content(*padding);
                    }
                    used
                }
                At::Content(left) => {
                    let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= used as u64;
                    if *left == 0 {
                        self.at = At::Header(0);
                    }
                    used
                }
                At::Unknown => bytes.len(),
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    fn on_header(&mut self) -> io::Result<At> {
        let header = tar::Header::from_byte_slice(&self.block);
        if self.block.iter().all(|byte| *byte == 0) {
            return Ok(At::Header(0));
        }
        let Ok(size) = header.entry_size() else { return Ok(At::Unknown) };
        let kind = header.entry_type();
        let extended = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if extended {
            if size > EXTENDED_BYTES_MAX {
                let words = format!("a header of {size} bytes; at most {EXTENDED_BYTES_MAX} are allowed");
                return Err(io::Error::new(io::ErrorKind::InvalidData, words));
            }
            let padded = size.next_multiple_of(BLOCK as u64);
            return Ok(match kind.is_pax_local_extensions() && size > 0 {
                true => At::Attributes { left: size, text: Vec::new(), padding: padded - size },
                false => content(padded),
            });
        }
        let size = self.size.take().unwrap_or(size);
        self.content = size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX);
        Ok(match kind.is_gnu_sparse() {
            true => self.on_sparse_map(482),
            false => content(self.content),
        })
    }

    /// A sparse file's map goes on when the byte at this place says so.
    fn on_sparse_map(&self, more_at: usize) -> At {
        if self.block[more_at] == 1 { At::SparseMap(0) } else { content(self.content) }
    }
}

fn content(bytes: u64) -> At {
    if bytes == 0 { At::Header(0) } else { At::Content(bytes) }
}

/// The size that a header of attributes gives the next entry, if it does.
fn size_of(text: &[u8]) -> Option<u64> {
    let extensions = tar::PaxExtensions::new(text).flatten();
    let mut sizes =
        extensions.filter(|one| one.key_bytes() == b"size").filter_map(|one| one.value().ok()?.parse().ok());
    sizes.next()
}

impl<R: Read> Read for BoundedHeaders<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.pass(&buffer[..read])?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().expect("memory takes all")
    }

    fn append(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, claims: u64, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path("name").expect("a short name");
        header.set_size(claims);
        header.set_cksum();
        builder.append(&header, content).expect("memory takes all");
    }

    fn passes(archive: &[u8], at_a_time: usize) -> io::Result<Vec<u8>> {
        let mut bounded = BoundedHeaders::new(archive);
        let (mut passed, mut buffer) = (Vec::new(), vec![0; at_a_time]);
        loop {
            match bounded.read(&mut buffer)? {
                0 => return Ok(passed),
                read => passed.extend_from_slice(&buffer[..read]),
            }
        }
    }

    #[test]
    fn headers_that_claim_too_much_are_refused_before_they_are_read() {
        for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
            let hostile = archive(|builder| {
                append(builder, tar::EntryType::Regular, 700, &[7; 700]);
                append(builder, kind, EXTENDED_BYTES_MAX + 1, b"short");
            });
            let error = passes(&hostile, 100).expect_err("it claims too much");
            assert!(error.to_string().contains("at most 1048576"), "{error}");
        }
    }

    #[test]
    fn what_is_well_passes_unchanged_and_is_followed() {
        let long = "d/".repeat(200) + "name";
        let good = archive(|builder| {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            builder.append_data(&mut header, &long, &b"abc"[..]).expect("memory takes all");
            builder.append_pax_extensions([("size", &b"600"[..]), ("SCHILY.xattr.user.a", b"b")]).expect("memory");
            append(builder, tar::EntryType::Regular, 600, &[0x31; 600]);
            append(builder, tar::EntryType::Directory, 0, b"");
        });
        for at_a_time in [1, 511, 512, 513, 1 << 16] {
            assert_eq!(passes(&good, at_a_time).expect("it is well"), good);
        }
    }
}
