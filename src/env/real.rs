//! The world as it is: Linux files, clocks and threads.

#![allow(clippy::disallowed_methods, reason = "this file is the door")]

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{
    Access, Clock, Dir, DirEntry, File, FileIdentity, FileStatus, Files, Instant, JoinHandle, Lock,
    LockError, OpenMode, Random, Spawn,
};
use crate::types::Timestamp;

/// A random number that Linux draws each time it starts.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Files of the operating system.
pub(super) struct RealFiles;

impl Files for RealFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let access = match mode {
            OpenMode::Read => OFlags::RDONLY,
            OpenMode::Write => OFlags::RDWR,
            OpenMode::OpenOrCreate => OFlags::RDWR | OFlags::CREATE,
            OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        let descriptor = open_no_follow(path, access)?;
        Ok(Box::new(RealFile {
            file: descriptor.into(),
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) => Ok(()),
            // What is there must be a real directory, not a link to somewhere else.
            Err(Errno::EXIST) => open_no_follow(path, OFlags::RDONLY | OFlags::DIRECTORY).map(drop),
            Err(e) => Err(e.into()),
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let is_dir = metadata.is_dir();
            entries.push(DirEntry {
                name,
                is_dir,
                length_bytes: if is_dir { 0 } else { metadata.len() },
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>> {
        let descriptor = open_no_follow(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Box::new(RealDir { descriptor }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match rustix::fs::lstat(path) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn access(&self, path: &Path) -> io::Result<Access> {
        let found = rustix::fs::lstat(path)?;
        Ok(Access {
            owner: found.st_uid,
            is_ours: found.st_uid == rustix::process::geteuid().as_raw(),
            mode: found.st_mode & 0o7777,
        })
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        Ok(status_of(&rustix::fs::lstat(path)?))
    }

    /// The boot, and the directory by its number, which a copy does not share.
    fn cache_life(&self, path: &Path) -> io::Result<Option<String>> {
        let found = rustix::fs::lstat(path)?;
        let boot = std::fs::read_to_string(BOOT_ID).ok();
        let boot = boot.as_deref().map(str::trim).filter(|it| is_boot_id(it));
        Ok(boot.map(|boot| format!("{boot} {}:{}", found.st_dev, found.st_ino)))
    }

    fn modified(&self, path: &Path) -> io::Result<Timestamp> {
        let modified = std::fs::metadata(path)?.modified()?;
        let since_1970 = modified.duration_since(std::time::UNIX_EPOCH);
        let millis = since_1970.map_or(0, |since| since.as_millis());
        Ok(Timestamp(i64::try_from(millis).unwrap_or(i64::MAX)))
    }

    fn open_files_max(&self) -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        let file = self.open(path, OpenMode::OpenOrCreate)?;
        let owner = || -> io::Result<String> {
            let mut buffer = [0; 20];
            let count = file.read_full_at(&mut buffer, 0)?;
            let text = String::from_utf8_lossy(&buffer[..count]).trim().to_owned();
            Ok(if text.is_empty() {
                "unknown".to_owned()
            } else {
                text
            })
        };
        let descriptor = open_no_follow(path, OFlags::RDWR)?;
        let canonical = path.canonicalize()?;
        let mut looks = 0;
        loop {
            match rustix::fs::flock(&descriptor, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {}
                Err(e) => return Err(LockError::Io(e.into())),
            }
            let owner = owner()?;
            let is_ours = owner == std::process::id().to_string();
            // A child that this process is just starting has a copy of what was let go, until it runs its program.
            if !is_ours || LOCKED_HERE.lock().contains(&canonical) || looks == LOOKS_AT_OWN_LOCK {
                return Err(LockError::Held { owner });
            }
            looks += 1;
            std::thread::sleep(LOOK_AGAIN);
        }
        // `flock` belongs to the open file: two opens in one process exclude each other already, but a
        // bind mount or a hard link would not; the path is remembered as well.
        if !LOCKED_HERE.lock().insert(canonical.clone()) {
            return Err(LockError::Held {
                owner: std::process::id().to_string(),
            });
        }
        let lock = RealLock {
            path: canonical,
            descriptor,
        };
        file.set_length(0)?;
        file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)?;
        Ok(Box::new(lock))
    }
}

/// Number of looks at a lock that this process holds and does not know of, and the time between.
const LOOKS_AT_OWN_LOCK: u32 = 100;
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The lock files that this process holds.
static LOCKED_HERE: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

struct RealLock {
    path: PathBuf,
    descriptor: std::os::fd::OwnedFd,
}

impl Lock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Not left to the close: a child that is about to be started shares the open file until its `exec`, and would
        // keep the lock. What fails here is done by that close.
        let _ = rustix::fs::flock(&self.descriptor, FlockOperation::Unlock);
        LOCKED_HERE.lock().remove(&self.path);
    }
}

fn open_no_follow(path: &Path, access: OFlags) -> io::Result<std::os::fd::OwnedFd> {
    let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry(|| rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)).map_err(|e| {
        match Errno::from_io_error(&e) {
            Some(Errno::LOOP) => io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} is a symbolic link, which is not followed: use the real path",
                    path.display()
                ),
            ),
            _ => e,
        }
    })
}

fn status_of(found: &rustix::fs::Stat) -> FileStatus {
    FileStatus {
        identity: FileIdentity {
            device: found.st_dev,
            inode: found.st_ino,
        },
        modified_ns: i128::from(found.st_mtime) * 1_000_000_000 + i128::from(found.st_mtime_nsec),
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

struct RealDir {
    descriptor: std::os::fd::OwnedFd,
}

impl Dir for RealDir {
    fn sync(&self) -> io::Result<()> {
        // Not retried on any error, as in `RealFile::sync_data` (F11).
        rustix::fs::fsync(&self.descriptor).map_err(io::Error::from)
    }
}

struct RealFile {
    file: std::fs::File,
}

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        retry(|| rustix::io::pread(&self.file, &mut *buffer, position))
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        retry(|| rustix::io::pwrite(&self.file, bytes, position))
    }

    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn status(&self) -> io::Result<FileStatus> {
        Ok(status_of(&rustix::fs::fstat(&self.file)?))
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        retry(|| rustix::fs::ftruncate(&self.file, length_bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not retried on any error, not even EINTR: what a failed sync covered is unknown (F11).
        rustix::fs::fdatasync(&self.file).map_err(io::Error::from)
    }

    fn start_writeback(&self, position: u64, length_bytes: u64) {
        super::libc_calls::start_writing(&self.file, position, length_bytes);
    }
}

/// The clocks of the operating system.
pub(super) struct RealClock {
    start: std::time::Instant,
}

impl RealClock {
    pub(super) fn new() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }
}

impl Clock for RealClock {
    fn now(&self) -> Instant {
        Instant(self.start.elapsed())
    }

    fn wall(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The kernel's random numbers.
pub(super) struct RealRandom;

impl Random for RealRandom {
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        loop {
            match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
                Ok(8) => return u64::from_le_bytes(bytes),
                // Up to 256 bytes come whole once the pool is seeded; before, the call may be interrupted.
                Ok(_) | Err(_) => std::thread::yield_now(),
            }
        }
    }
}

/// Threads of the operating system.
pub(super) struct RealSpawn;

struct RealJoinHandle(std::thread::JoinHandle<()>);

impl JoinHandle for RealJoinHandle {
    fn join(self: Box<Self>) -> Result<(), String> {
        self.0
            .join()
            .map_err(|panic| match panic.downcast::<String>() {
                Ok(message) => *message,
                Err(other) => other
                    .downcast_ref::<&str>()
                    .unwrap_or(&"a panic without a message")
                    .to_string(),
            })
    }
}

impl Spawn for RealSpawn {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn JoinHandle>> {
        let handle = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)?;
        Ok(Box::new(RealJoinHandle(handle)))
    }

    fn parallelism(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// Whether it is a UUID. One of zeros only is somebody's excuse for one.
fn is_boot_id(text: &str) -> bool {
    let is_uuid = text.len() == 36 && text.bytes().all(|it| it == b'-' || it.is_ascii_hexdigit());
    is_uuid && text.bytes().any(|it| it != b'-' && it != b'0')
}
