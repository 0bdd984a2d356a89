//! Files and directories of a simulated world.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::fault::Call;
use super::storage::{ByteChange, Change, Inode, Node};
use super::world::{State, World};
use crate::env::{
    Access, Clock, Dir, DirEntry, File, FileIdentity, FileStatus, Files, Lock, LockError, OpenMode,
};
use crate::types::Timestamp;

/// The disk of one world.
pub(super) struct SimulatedFiles {
    pub(super) world: Arc<World>,
}

impl Files for SimulatedFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let inode = self.world.call(Call::Open, path, |state, verdict| {
            verdict.check()?;
            state.take_file_handle()?;
            let opened = open(state, path, mode);
            if opened.is_err() {
                state.open_files_count -= 1;
            }
            opened
        })?;
        Ok(Box::new(SimulatedFile {
            world: self.world.clone(),
            path: path.to_owned(),
            inode,
            is_writable: mode != OpenMode::Read,
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.world.call(Call::CreateDir, path, |state, verdict| {
            verdict.check()?;
            if let Some(inode) = state.storage.find(path)? {
                return state.storage.dir(inode).map(drop);
            }
            state.check_free()?;
            let (parent, name) = state.storage.resolve_parent(path)?;
            let inode = state.storage.next_inode();
            state.change(Change::CreateDir {
                parent,
                name,
                inode,
            });
            Ok(())
        })
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.world.call(Call::ReadDir, path, |state, verdict| {
            verdict.check()?;
            let dir = state.storage.dir(state.storage.resolve(path)?)?;
            let entry = |(name, inode): (&Arc<str>, &Inode)| DirEntry {
                name: name.to_string(),
                is_dir: state.storage.dir(*inode).is_ok(),
                length_bytes: state
                    .storage
                    .file(*inode)
                    .map_or(0, |file| file.volatile.length_bytes()),
            };
            Ok(dir.volatile.iter().map(entry).collect())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.world.call(Call::Rename, from, |state, verdict| {
            verdict.check()?;
            rename(state, from, to)
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.world.call(Call::RemoveFile, path, |state, verdict| {
            verdict.check()?;
            state.storage.file(state.storage.resolve(path)?)?;
            remove(state, path)
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.world.call(Call::RemoveDir, path, |state, verdict| {
            verdict.check()?;
            check_empty(state, state.storage.resolve(path)?)?;
            remove(state, path)
        })
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>> {
        let inode = self.world.call(Call::Open, path, |state, verdict| {
            verdict.check()?;
            let inode = state.storage.resolve(path)?;
            state.storage.dir(inode)?;
            state.take_file_handle()?;
            Ok(inode)
        })?;
        Ok(Box::new(SimulatedDir {
            world: self.world.clone(),
            path: path.to_owned(),
            inode,
        }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.world.call(Call::Exists, path, |state, verdict| {
            verdict.check()?;
            Ok(state.storage.find(path)?.is_some())
        })
    }

    fn access(&self, path: &Path) -> io::Result<Access> {
        self.world.call(Call::Exists, path, |state, verdict| {
            verdict.check()?;
            state.storage.resolve(path)?;
            let set = state.access.get(path).copied();
            Ok(set.unwrap_or(Access::OURS_ALONE))
        })
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        self.world.call(Call::Exists, path, |state, verdict| {
            verdict.check()?;
            Ok(status_of(state.storage.resolve(path)?))
        })
    }

    fn cache_life(&self, _path: &Path) -> io::Result<Option<String>> {
        Ok(self.world.boot.map(|boot| format!("{boot:016x}")))
    }

    fn modified(&self, path: &Path) -> io::Result<Timestamp> {
        let now = self.world.clock.wall();
        self.world.call(Call::Exists, path, |state, verdict| {
            verdict.check()?;
            state.storage.resolve(path)?;
            Ok(state.modified.get(path).copied().unwrap_or(now))
        })
    }

    fn open_files_max(&self) -> Option<u64> {
        let max = self.world.state.lock().open_files_max;
        (max < u64::MAX).then_some(max)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        let is_held = self.world.call(Call::Lock, path, |state, verdict| {
            verdict.check()?;
            Ok(!state.locks.insert(path.to_owned()))
        })?;
        if is_held {
            return Err(LockError::Held {
                owner: SIMULATED_PROCESS.trim().to_owned(),
            });
        }
        // Made before the file is written, so that a failure frees the lock.
        let lock = SimulatedLock {
            world: self.world.clone(),
            path: path.to_owned(),
        };
        let file = self.open(path, OpenMode::OpenOrCreate)?;
        file.set_length(0)?;
        file.write_all_at(SIMULATED_PROCESS.as_bytes(), 0)?;
        Ok(Box::new(lock))
    }
}

/// The process id that a simulated lock file shows.
const SIMULATED_PROCESS: &str = "1\n";

struct SimulatedLock {
    world: Arc<World>,
    path: PathBuf,
}

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.world.state.lock().locks.remove(&self.path);
    }
}

/// Simulated files have no time of change.
fn status_of(inode: Inode) -> FileStatus {
    let identity = FileIdentity { device: 0, inode };
    FileStatus {
        identity,
        modified_ns: 0,
    }
}

fn open(state: &mut State, path: &Path, mode: OpenMode) -> io::Result<Inode> {
    if let Some(inode) = state.storage.find(path)? {
        if mode == OpenMode::CreateNew {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.storage.file(inode)?;
        return Ok(inode);
    }
    if matches!(mode, OpenMode::Read | OpenMode::Write) {
        return state.storage.resolve(path);
    }
    state.check_free()?;
    let (parent, name) = state.storage.resolve_parent(path)?;
    let inode = state.storage.next_inode();
    state.change(Change::CreateFile {
        parent,
        name,
        inode,
    });
    Ok(inode)
}

fn rename(state: &mut State, from: &Path, to: &Path) -> io::Result<()> {
    let source = state.storage.resolve(from)?;
    if to != from && to.starts_with(from) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    match state.storage.find(to)? {
        Some(target) if target == source => return Ok(()),
        Some(target) => check_replaceable(state, source, target)?,
        None => {}
    }
    let from = state.storage.resolve_parent(from)?;
    let to = state.storage.resolve_parent(to)?;
    state.change(Change::Rename { from, to });
    Ok(())
}

fn check_replaceable(state: &State, source: Inode, target: Inode) -> io::Result<()> {
    match state.storage.node(source) {
        Some(Node::Dir(_)) => check_empty(state, target),
        _ => state.storage.file(target).map(drop),
    }
}

fn check_empty(state: &State, dir: Inode) -> io::Result<()> {
    match state.storage.dir(dir)?.volatile.is_empty() {
        true => Ok(()),
        false => Err(io::ErrorKind::DirectoryNotEmpty.into()),
    }
}

fn remove(state: &mut State, path: &Path) -> io::Result<()> {
    let (parent, name) = state.storage.resolve_parent(path)?;
    state.change(Change::Remove { parent, name });
    Ok(())
}

struct SimulatedDir {
    world: Arc<World>,
    path: PathBuf,
    inode: Inode,
}

impl Drop for SimulatedDir {
    fn drop(&mut self) {
        self.world.state.lock().open_files_count -= 1;
    }
}

impl Dir for SimulatedDir {
    fn sync(&self) -> io::Result<()> {
        self.world
            .call(Call::SyncDir, &self.path, |state, verdict| {
                state.sync(self.inode, verdict)
            })
    }
}

struct SimulatedFile {
    world: Arc<World>,
    path: PathBuf,
    inode: Inode,
    is_writable: bool,
}

impl SimulatedFile {
    fn check_writable(&self) -> io::Result<()> {
        match self.is_writable {
            true => Ok(()),
            false => Err(Errno::BADF.into()),
        }
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.world.state.lock().open_files_count -= 1;
    }
}

impl File for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.world.call(Call::Read, &self.path, |state, verdict| {
            let count = buffer.len().min(verdict.bytes_max);
            verdict.check()?;
            let image = &state.storage.file(self.inode)?.volatile;
            let count = image.read_at(&mut buffer[..count], position);
            state.trace(&[position, count as u64]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        self.check_writable()?;
        self.world.call(Call::Write, &self.path, |state, verdict| {
            state.write(self.inode, bytes, position, verdict)
        })
    }

    fn length_bytes(&self) -> io::Result<u64> {
        self.world.call(Call::Length, &self.path, |state, verdict| {
            verdict.check()?;
            Ok(state.storage.file(self.inode)?.volatile.length_bytes())
        })
    }

    fn status(&self) -> io::Result<FileStatus> {
        Ok(status_of(self.inode))
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        self.world
            .call(Call::SetLength, &self.path, |state, verdict| {
                verdict.check()?;
                state.trace(&[length_bytes]);
                state.change(Change::Bytes {
                    inode: self.inode,
                    change: ByteChange::SetLength(length_bytes),
                });
                Ok(())
            })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.world
            .call(Call::SyncData, &self.path, |state, verdict| {
                state.sync(self.inode, verdict)
            })
    }

    fn start_writeback(&self, _position: u64, _length_bytes: u64) {
        // A power loss may keep any unsynced block as it is.
    }
}
