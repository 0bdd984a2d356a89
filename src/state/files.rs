//! Where RocksDB keeps its files: on the disk, or in memory, where a simulated machine has no disk that RocksDB could write to.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rocksdb::{DB, Options};

use super::error::StateError;
use super::rocks;
use crate::env::Env;

/// The path of a database in memory. The directory of this name on the disk is there, and nothing is written to it.
const IN_MEMORY: &str = "/tmp";

/// Where RocksDB keeps its files.
#[derive(Debug, Clone, Default)]
pub enum RocksFiles {
    /// Where the database's path says.
    #[default]
    Disk,
    /// In the memory of this process, one database.
    Memory(MemoryFiles),
}

/// RocksDB's files in memory. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct MemoryFiles {
    env: Arc<Mutex<rocksdb::Env>>,
}

impl MemoryFiles {
    /// No files yet.
    ///
    /// # Errors
    /// If RocksDB has no memory for them.
    pub fn new() -> Result<Self, StateError> {
        Ok(Self {
            env: Arc::new(Mutex::new(empty()?)),
        })
    }

    /// Loses all of them.
    ///
    /// # Errors
    /// As [`MemoryFiles::new`].
    pub fn clear(&self) -> Result<(), StateError> {
        *self.env.lock() = empty()?;
        Ok(())
    }
}

fn empty() -> Result<rocksdb::Env, StateError> {
    rocksdb::Env::mem_env().map_err(|e| StateError::Database {
        operation: "keep its files in memory",
        path: Path::new(IN_MEMORY).to_owned(),
        why: e.to_string(),
    })
}

impl std::fmt::Debug for MemoryFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryFiles")
    }
}

impl RocksFiles {
    /// The path by which RocksDB knows the database at `path`.
    pub(super) fn path<'a>(&self, path: &'a Path) -> &'a Path {
        match self {
            Self::Disk => path,
            Self::Memory(_) => Path::new(IN_MEMORY),
        }
    }

    /// Has a database of these options keep its files here.
    pub(super) fn set(&self, options: &mut Options) {
        if let Self::Memory(files) = self {
            options.set_env(&files.env.lock());
        }
    }

    /// Whether there is a database at `path`.
    pub(super) fn have_database(&self, env: &Env, path: &Path) -> std::io::Result<bool> {
        match self {
            Self::Disk => env.files.exists(&path.join("CURRENT")),
            Self::Memory(_) => Ok(self.is_in_memory()),
        }
    }

    /// Whether there is anything at `path`.
    pub(super) fn have_any(&self, env: &Env, path: &Path) -> std::io::Result<bool> {
        match self {
            Self::Disk => env.files.exists(path),
            Self::Memory(_) => Ok(self.is_in_memory()),
        }
    }

    fn is_in_memory(&self) -> bool {
        let mut options = Options::default();
        self.set(&mut options);
        DB::list_cf(&options, IN_MEMORY).is_ok()
    }

    /// Removes the database at `path`.
    pub(super) fn remove(&self, env: &Env, path: &Path) -> Result<(), StateError> {
        match self {
            Self::Disk => rocks::remove_tree(env, path),
            Self::Memory(files) => files.clear(),
        }
    }
}
