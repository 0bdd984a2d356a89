//! `Packed`: compressed files of lines, told by what they begin with. A position in one is a number of unpacked bytes, so a job that goes
//! on unpacks what it read before once more, and looks whether it is the same.

use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::env::{Env, File, OpenMode};

/// Compressed bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// The forms of compressed files: gzip (RFC 1952) and Zstandard (RFC 8878), with any number of members or frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    Gzip,
    Zstd,
}

impl Packed {
    /// The form that the name of a file promises.
    fn promised(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "gz" | "gzip" => Some(Self::Gzip),
            "zst" | "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "Zstandard",
        }
    }

    fn begins(self) -> &'static [u8] {
        match self {
            Self::Gzip => &[0x1f, 0x8b],
            Self::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
        }
    }

    /// Opens a file whose name says that it is compressed; `None` if it says no such thing.
    pub(super) fn open(env: &Env, path: &Path) -> io::Result<Option<Box<dyn Read + Send>>> {
        let Some(packed) = Self::promised(path) else {
            return Ok(None);
        };
        let file = env.files.open(path, OpenMode::Read)?;
        let mut begin = vec![0; packed.begins().len()];
        let found = file.read_full_at(&mut begin, 0)?;
        if begin[..found] != packed.begins()[..found] {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "its name says that it is {}, and its first bytes do not: give it the name of what it is",
                    packed.name()
                ),
            ));
        }
        let bytes = BufReader::with_capacity(CHUNK_BYTES, Bytes { file, at: 0 });
        let unpacked: Box<dyn Read + Send> = match packed {
            // An empty file has no lines, whatever it is called.
            _ if found == 0 => Box::new(io::empty()),
            Self::Gzip => Box::new(MultiGzDecoder::new(bytes)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(bytes)?),
        };
        Ok(Some(Box::new(Unpacking { packed, unpacked })))
    }
}

/// The bytes of a file, one after the other.
struct Bytes {
    file: Box<dyn File>,
    at: u64,
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Unpacked bytes, with errors that say what to do.
struct Unpacking {
    packed: Packed,
    unpacked: Box<dyn Read + Send>,
}

impl Read for Unpacking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.unpacked.read(buffer).map_err(|e| {
            let why = match e.kind() {
                io::ErrorKind::Interrupted => return e,
                io::ErrorKind::UnexpectedEof => {
                    "it ends in the middle of its compressed bytes: give the whole file, under the same name, and start the job again"
                        .to_owned()
                }
                _ => format!(
                    "its compressed bytes are damaged ({e}): put a whole copy in its place, and start the job again"
                ),
            };
            io::Error::new(e.kind(), format!("{}: {why}", self.packed.name()))
        })
    }
}
