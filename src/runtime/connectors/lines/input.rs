//! `InputFile`: a file of lines that only grows, and how it is noticed that it did not.

use std::io;
use std::path::{Path, PathBuf};

use super::fingerprint::Fingerprint;
use crate::env::{Env, File, FileIdentity, FileStatus, OpenMode};

/// Bytes before a position that tell whether the file is still the one that was read: those of a file that was
/// emptied and written again are others.
pub(super) const TAIL_BYTES: usize = 16 * 1024;
/// Bytes read at once where a whole file is looked at.
const CHUNK_BYTES: usize = 256 * 1024;

/// An open file of lines.
pub(super) struct InputFile {
    env: Env,
    /// The path under which the file was given; a rotated one has another name by now.
    path: PathBuf,
    file: Box<dyn File>,
    pub(super) identity: FileIdentity,
}

/// A file at the position where reading is to go on, and what is before that.
pub(super) struct Opened {
    pub(super) input: InputFile,
    pub(super) tail: Vec<u8>,
    pub(super) prefix_crc: u32,
}

/// Where the path of a followed file leads by now.
pub(super) enum Followed {
    /// To the file that is open, or to none for the moment.
    Same,
    /// To another one.
    Other,
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The advice about an input that is not the one that was read.
const WHAT_TO_DO: &str = "put back what was read, or give the source another name (`named`) to read the file from its start, on top of the state that there is";

impl InputFile {
    /// Opens the file at its start.
    pub(super) fn open(env: &Env, path: &Path) -> io::Result<Self> {
        Self::open_as(env, path, path)
    }

    fn open_as(env: &Env, path: &Path, found: &Path) -> io::Result<Self> {
        let file = env.files.open(found, OpenMode::Read)?;
        let identity = file.status()?.identity;
        Ok(Self {
            env: env.clone(),
            path: path.to_owned(),
            file,
            identity,
        })
    }

    /// Opens the file behind `position`, where everything before it is what was read.
    pub(super) fn resume(
        env: &Env,
        path: &Path,
        position: u64,
        known: Option<&Fingerprint>,
        is_rotating: bool,
    ) -> io::Result<Opened> {
        let opened = Self::open(env, path);
        let Some(known) = known else {
            // The position of a release that kept no more.
            return opened?.check(position, None);
        };
        match opened {
            Ok(input) if input.identity == known.identity || !is_rotating => {
                input.check(position, Some(known))
            }
            Err(e) if !is_rotating || e.kind() != io::ErrorKind::NotFound => Err(e),
            other => {
                if let Some(rotated) = Self::find(env, path, known.identity)? {
                    return rotated.check(position, Some(known));
                }
                let checked = other.and_then(|input| input.check(position, Some(known)));
                checked.map_err(|e| refused(format!(
                    "it was rotated, and the file that was read to byte {position} is not in its directory any more (moved away, removed or compressed): {e}"
                )))
            }
        }
    }

    /// The file that was read, by whatever name in the same directory. The number of its file system may be another one
    /// since the machine was started again; its bytes are looked at anyway.
    fn find(env: &Env, path: &Path, identity: FileIdentity) -> io::Result<Option<Self>> {
        for (sibling, status) in siblings(env, path)? {
            if status.identity.inode == identity.inode {
                return Self::open_as(env, path, &sibling).map(Some);
            }
        }
        Ok(None)
    }

    /// Looks whether the bytes before `position` are those that were read.
    fn check(self, position: u64, known: Option<&Fingerprint>) -> io::Result<Opened> {
        let length_bytes = self.file.length_bytes()?;
        let seen_bytes = known.map_or(position, |known| known.seen_bytes);
        if length_bytes < position.max(seen_bytes) {
            return Err(was_cut(length_bytes, position.max(seen_bytes)));
        }
        let tail_bytes = usize::try_from(position).map_or(TAIL_BYTES, |at| at.min(TAIL_BYTES));
        let mut tail = vec![0; tail_bytes];
        self.file
            .read_exact_at(&mut tail, position - tail_bytes as u64)?;
        let prefix_crc = match known {
            Some(known) if crc32c::crc32c(&tail) != known.tail_crc => {
                return Err(was_replaced(position));
            }
            Some(known) if self.identity == known.identity => known.prefix_crc,
            Some(known) => self.check_whole(position, known)?,
            None => self.prefix_crc(position)?,
        };
        Ok(Opened {
            input: self,
            tail,
            prefix_crc,
        })
    }

    /// Another file, or the same on a file system that got another number: it may go on only if it begins with all that was read.
    fn check_whole(&self, position: u64, known: &Fingerprint) -> io::Result<u32> {
        let prefix_crc = self.prefix_crc(position)?;
        if prefix_crc != known.prefix_crc {
            return Err(was_replaced(position));
        }
        crate::env::warn!(
            path = %self.path.display(),
            "it is another file than the one that was read before (moved or restored, or the machine was started again), and \
             begins with the same {position} bytes: goes on behind them"
        );
        Ok(prefix_crc)
    }

    fn prefix_crc(&self, position: u64) -> io::Result<u32> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let (mut at, mut crc) = (0, 0);
        while at < position {
            let wanted = usize::try_from(position - at).map_or(CHUNK_BYTES, |n| n.min(CHUNK_BYTES));
            self.file.read_exact_at(&mut buffer[..wanted], at)?;
            crc = crc32c::crc32c_append(crc, &buffer[..wanted]);
            at += wanted as u64;
        }
        Ok(crc)
    }

    /// Reads at `position`, and looks *then* whether what is before it is still `tail`: a file that was emptied before the
    /// read, and has grown beyond the position since, would give lines that nobody wrote.
    pub(super) fn read(&self, buffer: &mut [u8], position: u64, tail: &[u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, position)?;
        let tail = &tail[tail.len().saturating_sub(TAIL_BYTES)..];
        let mut found = [0; TAIL_BYTES];
        let found = &mut found[..tail.len()];
        let start = position - tail.len() as u64;
        if self.file.read_full_at(found, start)? < tail.len() {
            return Err(was_cut(self.file.length_bytes()?, position));
        }
        if *found != *tail {
            return Err(was_replaced(position));
        }
        Ok(count)
    }

    /// Whether the path still leads to this file.
    pub(super) fn followed(&self) -> io::Result<Followed> {
        match self.env.files.status(&self.path) {
            Ok(status) if status.identity != self.identity => Ok(Followed::Other),
            Ok(_) => Ok(Followed::Same),
            // Between the renaming of the old file and the creation of the new one.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Followed::Same),
            Err(e) => Err(e),
        }
    }

    /// The file that was begun after this one, once it was rotated too or somebody writes to it: by then nobody writes to
    /// this one any more.
    pub(super) fn successor(&self) -> io::Result<Option<Self>> {
        let next = self.next_path()?;
        let input = Self::open_as(&self.env, &self.path, &next)?;
        // It may have been rotated away between the two looks; the next look finds it by its new name.
        let is_other = input.identity != self.identity;
        let is_begun = next != self.path || input.file.length_bytes()? > 0;
        Ok((is_other && is_begun).then_some(input))
    }

    /// Rotated files, which have a number or a date behind their name, were written in the order of their last changes;
    /// the one without comes last.
    fn next_path(&self) -> io::Result<PathBuf> {
        let own = self.file.status()?.modified_ns;
        let mut between = Vec::new();
        for (path, status) in siblings(&self.env, &self.path)? {
            let is_later = status.identity != self.identity && status.modified_ns >= own;
            match rotated_name(&self.path, &path) {
                Some(Rotated::Plain) if is_later => between.push((status.modified_ns, path)),
                // One as old as this file is this file, compressed.
                Some(Rotated::Compressed) if is_later && status.modified_ns > own => {
                    return Err(refused(format!(
                        "{} was compressed before it was read: unpack it beside it, and let rotation compress later (`delaycompress`)",
                        path.display()
                    )));
                }
                _ => {}
            }
        }
        between.sort();
        let next = between.into_iter().next();
        Ok(next.map_or_else(|| self.path.clone(), |(_, path)| path))
    }
}

/// The files in the directory of `path`, itself among them.
fn siblings(env: &Env, path: &Path) -> io::Result<Vec<(PathBuf, FileStatus)>> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut found = Vec::new();
    for entry in env.files.read_dir(directory)? {
        if entry.is_dir {
            continue;
        }
        let path = directory.join(&entry.name);
        match env.files.status(&path) {
            Ok(status) => found.push((path, status)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// A file that was at the path once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotated {
    Plain,
    Compressed,
}

/// Whether a name is that of `path` with a number or a date behind it, as `logrotate` gives them.
fn rotated_name(path: &Path, rotated: &Path) -> Option<Rotated> {
    let name = path.file_name()?.to_str()?;
    let behind = rotated.file_name()?.to_str()?.strip_prefix(name)?;
    let compressed = [".gz", ".zst", ".xz", ".bz2", ".lz4"];
    let unpacked = compressed.iter().find_map(|end| behind.strip_suffix(end));
    let behind = unpacked.unwrap_or(behind);
    let is_part = |c: char| c.is_ascii_digit() || ".-_:T".contains(c);
    let is_rotated = behind.contains(|c: char| c.is_ascii_digit()) && behind.chars().all(is_part);
    is_rotated.then_some(match unpacked {
        Some(_) => Rotated::Compressed,
        None => Rotated::Plain,
    })
}

fn was_cut(length_bytes: u64, seen_bytes: u64) -> io::Error {
    refused(format!(
        "it has {length_bytes} bytes, but {seen_bytes} were read before: it was cut or replaced; {WHAT_TO_DO}"
    ))
}

fn was_replaced(position: u64) -> io::Error {
    refused(format!(
        "the bytes before byte {position}, to which it was read, are not those that were read: it was replaced, emptied and written again, or changed in place; {WHAT_TO_DO}"
    ))
}
