//! Files and directories.
//!
//! The contract of durability, which the simulated files enforce to the letter:
//! - bytes written are durable only after [`File::sync_data`] returned `Ok`;
//! - a created, renamed or removed name is durable only after [`Files::sync_dir`] of its directory;
//! - after a failed sync nothing is known of what it covered: callers stop and reopen (F11).

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::types::Timestamp;

/// Treatment of an absent or present file by [`Files::open`]. No mode follows a symbolic link
/// in the last component (F19: `O_NOFOLLOW`), and all set `O_CLOEXEC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; must exist.
    Read,
    /// For reading and writing; must exist.
    Write,
    /// For reading and writing; created with mode 0600 if absent.
    OpenOrCreate,
    /// For reading and writing; must be absent.
    CreateNew,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without its directory. Names that are not UTF-8 are skipped by `read_dir`.
    pub name: String,
    /// Whether it is a directory (a symbolic link is not).
    pub is_dir: bool,
    /// The file's size in bytes; 0 for directories.
    pub length_bytes: u64,
}

/// Which file it is, whatever its name: the name may be given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileIdentity {
    /// The number of the file system; it may be another one after the machine was started again.
    pub device: u64,
    /// The number of the file in it; it may be used again once the file is gone.
    pub inode: u64,
}

/// A file as the operating system knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileStatus {
    /// Which file it is.
    pub identity: FileIdentity,
    /// When it was written last, in nanoseconds since 1970; 0 where that is not known.
    pub modified_ns: i128,
}

/// Whose a file or directory is, and who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The owner's user id.
    pub owner: u32,
    /// Whether that is the user as whom this process runs.
    pub is_ours: bool,
    /// The permission bits, e.g. `0o700`.
    pub mode: u32,
}

impl Access {
    /// Access to what a process makes itself.
    pub const OURS_ALONE: Self = Self {
        owner: 0,
        is_ours: true,
        mode: 0o700,
    };

    /// Whether anybody at all may write.
    #[must_use]
    pub fn is_writable_by_all(self) -> bool {
        self.mode & 0o002 != 0
    }

    /// Whether anybody but the owner may read or write.
    #[must_use]
    pub fn is_open_to_others(self) -> bool {
        self.mode & 0o077 != 0
    }
}

/// A tree of files. Paths are used as given.
pub trait Files: Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// As the operating system says; a symbolic link is refused.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>>;

    /// Creates a directory with mode 0700; `Ok` if it is there already as a real directory.
    ///
    /// # Errors
    /// As the operating system says; `NotFound` without a parent; a symbolic link is refused.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Lists a directory, sorted by name.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Renames a file or directory, replacing a file at `to`. Durable after `sync_dir` of both parents.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens a directory whose entries are to be made durable later.
    ///
    /// # Errors
    /// As the operating system says; a symbolic link is refused.
    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>>;

    /// Makes a directory's entries durable. It takes a file handle: where there may be none to spare, call
    /// [`Files::open_dir`] before the entries are changed (F14).
    ///
    /// # Errors
    /// As the operating system says; see the module's contract. If [`is_out_of_files`], no sync was tried.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.open_dir(path)?.sync()
    }

    /// Whether something, of whatever kind, is at `path`.
    ///
    /// # Errors
    /// As the operating system says, other than "not found".
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Whose the file or directory at `path` is; a symbolic link is not followed.
    ///
    /// # Errors
    /// As the operating system says.
    fn access(&self, path: &Path) -> io::Result<Access>;

    /// Which file is at `path`; a symbolic link is not followed.
    ///
    /// # Errors
    /// As the operating system says; `NotFound` if there is none.
    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        self.open(path, OpenMode::Read)?.status()
    }

    /// A name for the life of the page cache behind the directory at `path`. Whoever finds the name that was noted before
    /// finds everything that was written below the directory since: processes may have ended in between, but not the
    /// machine. It says nothing of a file system that failed or was taken away by force. `None` if nobody can tell.
    ///
    /// # Errors
    /// As the operating system says of `path`.
    fn cache_life(&self, path: &Path) -> io::Result<Option<String>> {
        let _ = path;
        Ok(None)
    }

    /// When the file's bytes were last changed, by the wall clock.
    ///
    /// # Errors
    /// As the operating system says.
    fn modified(&self, path: &Path) -> io::Result<Timestamp>;

    /// Returns the most files that this process may open at once, if bounded.
    fn open_files_max(&self) -> Option<u64> {
        None
    }

    /// Takes the advisory lock of the file at `path` (created if absent) for this process and writes the
    /// process id into it. Held until the value is dropped; the death of the process frees it.
    ///
    /// # Errors
    /// [`LockError::Held`] with the owner's process id, if another process *or another place in this one* has it.
    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError>;

    /// Reads a whole file of at most `max_bytes`.
    ///
    /// # Errors
    /// As the operating system says; `InvalidData` if it is larger than `max_bytes`.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let length = file.length_bytes()?;
        if length > max_bytes {
            let message = format!(
                "{} has {length} bytes; at most {max_bytes} were expected",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        let read = file.read_full_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Replaces the file at `path` by one that holds `bytes`, durably and at once: written to `<path>.tmp`,
    /// synced, renamed over `path`, and the directory synced (F10).
    ///
    /// # Errors
    /// As the operating system says; then the old file, if there was one, stands. If [`is_out_of_files`], it stands for sure.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = Path::new(&temporary);
        // F14: whatever takes a file handle comes before the first change that a missing one could leave half done.
        let parent = path.parent().map(|parent| self.open_dir(parent));
        let parent = parent.transpose()?;
        if self.exists(temporary)? {
            self.remove_file(temporary)?;
        }
        let file = self.open(temporary, OpenMode::CreateNew)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.rename(temporary, path)?;
        parent.map_or(Ok(()), |parent| parent.sync())
    }
}

/// Whether an error says that this process, or the machine, has no file handle to spare (F14): a condition that passes.
#[must_use]
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// An open directory.
pub trait Dir: Send + Sync {
    /// Makes the directory's entries durable.
    ///
    /// # Errors
    /// As the operating system says; see the module's contract.
    fn sync(&self) -> io::Result<()>;
}

/// An open file. Positions are bytes from its start; there is no cursor. All methods may be called from several threads.
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `position`; 0 at the end. May be short; retries `EINTR` itself (F15).
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes up to `bytes.len()` bytes at `position`, extending the file. May be short; retries `EINTR` itself.
    ///
    /// # Errors
    /// As the operating system says.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize>;

    /// The file's size in bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn length_bytes(&self) -> io::Result<u64>;

    /// Which file it is; all zeros where files are not told apart.
    ///
    /// # Errors
    /// As the operating system says.
    fn status(&self) -> io::Result<FileStatus> {
        Ok(FileStatus::default())
    }

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn set_length(&self, length_bytes: u64) -> io::Result<()>;

    /// Makes the file's bytes and size durable.
    ///
    /// # Errors
    /// As the operating system says; then never call it again on this file (F11).
    fn sync_data(&self) -> io::Result<()>;

    /// Asks the operating system to begin writing `[position, position + length_bytes)` to the disk, without waiting
    /// and without any promise. It makes the next [`File::sync_data`] shorter.
    fn start_writeback(&self, position: u64, length_bytes: u64);

    /// Reads until `buffer` is full or the file ends; returns the bytes read.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_full_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], position + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    /// Reads exactly `buffer.len()` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before; else as the operating system says.
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        match self.read_full_at(buffer, position)? {
            count if count == buffer.len() => Ok(()),
            count => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "the file ends {count} bytes after position {position}; {} were expected",
                    buffer.len()
                ),
            )),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As the operating system says; then an unknown prefix was written.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(&bytes[done..], position + done as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => done += count,
            }
        }
        Ok(())
    }
}

/// A held directory lock; dropping it frees it.
pub trait Lock: Send + Sync {}

/// Failure to take a lock.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody holds it.
    #[error("in use by process {owner}")]
    Held {
        /// The owner's process id as it wrote it; "unknown" if it had no time to.
        owner: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}
