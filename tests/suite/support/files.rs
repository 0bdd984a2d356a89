//! [`Watched`]: real files, each call of which a test may let fail, or hold up, by what it does and where.

use std::io;
use std::path::Path;
use std::sync::Arc;

use onceflow::internals::env::{
    Access, Dir, DirEntry, Env, File, FileStatus, Files, Lock, LockError, OpenMode,
};
use onceflow::types::Timestamp;

/// The kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Create,
    CreateDir,
    Rename,
    Read,
    Write,
    Sync,
}

/// Is asked before each such call, with the path that it is about.
pub(crate) type Gate = Arc<dyn Fn(Doing, &Path) -> io::Result<()> + Send + Sync>;

/// Real files behind a gate.
pub(crate) struct Watched {
    real: Arc<dyn Files>,
    gate: Gate,
}

impl Watched {
    /// The real world, with files behind `gate`.
    pub(crate) fn env(gate: Gate) -> Env {
        let real = Env::real();
        Env {
            files: Arc::new(Self {
                real: Arc::clone(&real.files),
                gate,
            }),
            ..real
        }
    }
}

impl Files for Watched {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        if mode == OpenMode::CreateNew {
            (self.gate)(Doing::Create, path)?;
        }
        Ok(Box::new(WatchedFile {
            file: self.real.open(path, mode)?,
            path: path.into(),
            gate: Arc::clone(&self.gate),
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        (self.gate)(Doing::CreateDir, path)?;
        self.real.create_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.real.read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.gate)(Doing::Rename, to)?;
        self.real.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.real.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.real.remove_dir(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>> {
        self.real.open_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.real.exists(path)
    }

    fn access(&self, path: &Path) -> io::Result<Access> {
        self.real.access(path)
    }

    fn cache_life(&self, path: &Path) -> io::Result<Option<String>> {
        self.real.cache_life(path)
    }

    fn modified(&self, path: &Path) -> io::Result<Timestamp> {
        self.real.modified(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        self.real.lock(path)
    }
}

struct WatchedFile {
    file: Box<dyn File>,
    path: Box<Path>,
    gate: Gate,
}

impl File for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        (self.gate)(Doing::Read, &self.path)?;
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        (self.gate)(Doing::Write, &self.path)?;
        self.file.write_at(bytes, position)
    }

    fn length_bytes(&self) -> io::Result<u64> {
        self.file.length_bytes()
    }

    fn status(&self) -> io::Result<FileStatus> {
        self.file.status()
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.file.set_length(length_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.gate)(Doing::Sync, &self.path)?;
        self.file.sync_data()
    }

    fn start_writeback(&self, position: u64, length_bytes: u64) {
        self.file.start_writeback(position, length_bytes);
    }
}
