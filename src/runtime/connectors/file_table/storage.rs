//! Where files are kept: a directory here, an object store in `objects.rs`.

use std::io;
use std::path::PathBuf;

use crate::env::{Env, OpenMode};
use crate::runtime::JobError;

/// The largest entry of a manifest that is read, in bytes: a hundred thousand files of one commit.
pub(super) const ENTRY_BYTES_MAX: u64 = 32 << 20;

/// The reason why a file was not written or read.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) why: String,
    /// Whether it may be otherwise a moment later.
    pub(super) is_passing: bool,
}

impl Problem {
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_passing: false,
        }
    }

    #[cfg(feature = "object-store")]
    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_passing: true,
        }
    }

    pub(super) fn into_error(self, sink: &str) -> JobError {
        let (sink, why) = (sink.to_owned(), self.why);
        match self.is_passing {
            true => JobError::SinkUnavailable { sink, why },
            false => JobError::Sink { sink, why },
        }
    }
}

/// The outcome of creating a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Done,
    /// One of that name is there.
    Exists,
}

/// A place for files. Paths are relative, with `/` between folders.
pub(super) trait Storage: Send + Sync {
    /// Creates a folder in which there are files soon, and those that it is in.
    fn create(&self, folders: &[&str]) -> Result<(), Problem>;
    /// Looks whether [`put_entry`](Self::put_entry) creates, and never replaces. A file called `probe` may be left for it.
    fn check(&self, _probe: &str) -> Result<(), Problem> {
        Ok(())
    }
    /// Creates a data file, durably. It is whole only if this says so.
    fn put_file(&self, path: &str, bytes: Vec<u8>) -> Result<(), Problem>;
    /// Creates an entry, durably, at once or not at all. If it fails with a passing problem, nobody knows which.
    fn put_entry(&self, path: &str, bytes: &[u8]) -> Result<Put, Problem>;
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Problem>;
    /// The names of the files in a folder, but for those that are before `from`.
    fn list(&self, folder: &str, from: &str) -> Result<Vec<String>, Problem>;
    /// The names of the folders in a folder.
    fn folders(&self, folder: &str) -> Result<Vec<String>, Problem>;
    fn remove(&self, path: &str) -> Result<(), Problem>;
}

/// A directory.
pub(super) struct Directory {
    env: Env,
    path: PathBuf,
}

impl Directory {
    pub(super) fn new(env: Env, path: PathBuf) -> Self {
        Self { env, path }
    }

    fn failed<'p>(&self, path: &'p str) -> impl Fn(io::Error) -> Problem + use<'p> {
        let whole = self.path.join(path);
        move |e| Problem::refused(format!("{}: {e}", whole.display()))
    }

    /// Names in a folder; none if it is not there.
    fn names(&self, folder: &str, is_directory: bool) -> Result<Vec<String>, Problem> {
        match self.env.files.read_dir(&self.path.join(folder)) {
            Ok(entries) => {
                let wanted = entries
                    .into_iter()
                    .filter(|entry| entry.is_dir == is_directory);
                Ok(wanted.map(|entry| entry.name).collect())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(self.failed(folder)(e)),
        }
    }
}

impl Storage for Directory {
    fn create(&self, folders: &[&str]) -> Result<(), Problem> {
        let mut path = std::path::absolute(&self.path).map_err(self.failed(""))?;
        let mut rest = folders.iter();
        loop {
            self.env.files.create_dir(&path).map_err(self.failed(""))?;
            // F10: always, because a kill may have come between the two.
            if let Some(parent) = path.parent() {
                self.env.files.sync_dir(parent).map_err(self.failed(""))?;
            }
            match rest.next() {
                Some(folder) => path.push(folder),
                None => return Ok(()),
            }
        }
    }

    fn put_file(&self, path: &str, bytes: Vec<u8>) -> Result<(), Problem> {
        let whole = self.path.join(path);
        let file = self.env.files.open(&whole, OpenMode::CreateNew);
        let file = file.map_err(self.failed(path))?;
        file.write_all_at(&bytes, 0).map_err(self.failed(path))?;
        file.sync_data().map_err(self.failed(path))?;
        if let Some(folder) = whole.parent() {
            self.env.files.sync_dir(folder).map_err(self.failed(path))?;
        }
        Ok(())
    }

    fn put_entry(&self, path: &str, bytes: &[u8]) -> Result<Put, Problem> {
        let whole = self.path.join(path);
        // One process writes a directory, and its attempts come one after the other, so nothing comes between the two.
        if self.env.files.exists(&whole).map_err(self.failed(path))? {
            return Ok(Put::Exists);
        }
        let replaced = self.env.files.replace(&whole, bytes);
        replaced.map_err(self.failed(path))?;
        Ok(Put::Done)
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Problem> {
        match self.env.files.read(&self.path.join(path), ENTRY_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed(path)(e)),
        }
    }

    fn list(&self, folder: &str, from: &str) -> Result<Vec<String>, Problem> {
        let mut names = self.names(folder, false)?;
        names.retain(|name| &**name >= from);
        Ok(names)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>, Problem> {
        let mut names = self.names(folder, true)?;
        names.sort_unstable();
        Ok(names)
    }

    fn remove(&self, path: &str) -> Result<(), Problem> {
        let removed = self.env.files.remove_file(&self.path.join(path));
        removed.map_err(self.failed(path))
    }
}
