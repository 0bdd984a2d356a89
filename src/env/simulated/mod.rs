//! A world that repeats from its seed, with storage that fails on demand.
//!
//! The disk keeps, for every file and directory, what is durable apart from what was only written
//! (see `storage.rs`), so that [`SimulatedWorld::after_power_loss`] can leave any state that a
//! power loss can leave ([`PowerLoss`]). [`SimulatedWorld::inject`] makes calls fail; damage is
//! done by [`SimulatedWorld::flip_bit`] and its neighbours. A recorded run ([`Recording`]) can lose
//! power at every change without being run again.
//!
//! Time stands still until somebody sleeps or [`SimulatedWorld::advance`] is called. A world made
//! by [`SimulatedWorld::new`] has no threads and repeats exactly: same seed, same calls, same
//! [`SimulatedWorld::trace_hash`]. Symbolic links are not simulated.
//!
//! Reading order: `storage.rs`, `power_loss.rs`, `fault.rs`, `files.rs`, `recording.rs`, `contents.rs`.

mod clock;
mod contents;
mod fault;
mod files;
mod image;
mod power_loss;
mod random;
mod recording;
mod spawn;
mod storage;
#[cfg(test)]
mod tests;
mod world;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use contents::DiskContents;
pub use fault::{Call, Fault, FaultEffect};
pub use power_loss::{CACHE_PAGE_BYTES, DataLoss, NameLoss, PowerLoss, SECTOR_BYTES};
pub use recording::{Recording, Replay};

use super::{Clock, Env, Spawn};
use storage::{ByteChange, Change, Storage};
use world::World;

/// One simulated machine. Clones are the same machine.
#[derive(Clone)]
pub struct SimulatedWorld {
    world: Arc<World>,
}

impl SimulatedWorld {
    /// A machine with an empty disk and without threads: [`Spawn::spawn`] is refused.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_storage(seed, Some(seed), false, Storage::new(), clock::WALL_START)
    }

    /// A machine with an empty disk and real threads, whose interleaving does not repeat.
    #[must_use]
    pub fn with_threads(seed: u64) -> Self {
        Self::with_storage(seed, Some(seed), true, Storage::new(), clock::WALL_START)
    }

    fn with_storage(
        seed: u64,
        boot: Option<u64>,
        has_threads: bool,
        storage: Storage,
        wall: crate::types::Timestamp,
    ) -> Self {
        Self {
            world: World::new(seed, boot, has_threads, storage, wall),
        }
    }

    /// The door through which code under test sees this machine.
    #[must_use]
    pub fn env(&self) -> Env {
        let spawn: Arc<dyn Spawn> = match self.world.has_threads {
            true => Arc::new(spawn::SimulatedSpawn),
            false => Arc::new(spawn::NoThreads),
        };
        Env {
            files: Arc::new(files::SimulatedFiles {
                world: self.world.clone(),
            }),
            clock: self.world.clock.clone(),
            random: self.world.random.clone(),
            spawn,
        }
    }

    /// The seed that made it.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.world.seed
    }

    /// Moves both clocks forward.
    pub fn advance(&self, duration: Duration) {
        self.world.clock.advance(duration);
    }

    /// Moves the wall clock alone, forward or back (C24).
    pub fn jump_wall(&self, millis: i64) {
        self.world.clock.jump_wall(millis);
    }

    /// From now on every call fails, for every holder of this world's [`Env`].
    pub fn power_off(&self) {
        self.world.power_off();
    }

    /// Lets `calls_count` calls more succeed, then powers off.
    pub fn power_off_after(&self, calls_count: u64) {
        let mut state = self.world.state.lock();
        state.power_off_at = state.calls_count().saturating_add(calls_count);
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.world.state.lock().is_off
    }

    /// Cuts the power and gives the machine after it came back. Its monotonic clock begins anew.
    #[must_use]
    pub fn after_power_loss(&self, loss: PowerLoss) -> Self {
        self.power_off();
        let storage = loss.apply(&self.world.state.lock().storage);
        let seed = self.restarted_seed(loss.seed);
        self.restarted(storage, seed, Some(seed))
    }

    /// Kills the process and gives the machine as it lives on: nothing written is lost, nothing more is durable.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        self.power_off();
        let storage = self.world.state.lock().storage.clone();
        self.restarted(storage, self.restarted_seed(0), self.world.boot)
    }

    /// As [`SimulatedWorld::after_kill`], on a machine that does not tell since when it has been running.
    #[must_use]
    pub fn after_kill_untold(&self) -> Self {
        self.power_off();
        let storage = self.world.state.lock().storage.clone();
        self.restarted(storage, self.restarted_seed(0), None)
    }

    fn restarted_seed(&self, seed: u64) -> u64 {
        random::mix(self.world.seed ^ random::mix(seed))
    }

    fn restarted(&self, storage: Storage, seed: u64, boot: Option<u64>) -> Self {
        let wall = self.world.clock.wall();
        Self::with_storage(seed, boot, self.world.has_threads, storage, wall)
    }

    /// Orders a fault. Several may be open at once; each counts for itself.
    pub fn inject(&self, fault: Fault) {
        self.world.state.lock().faults.push(fault);
    }

    /// Withdraws all faults.
    pub fn clear_faults(&self) {
        self.world.state.lock().faults.clear();
    }

    /// Counts the strikes of faults.
    #[must_use]
    pub fn faults_struck(&self) -> u64 {
        self.world.state.lock().faults_struck
    }

    /// Gives the disk room for `capacity_bytes` in all, counted in pages of 4 KiB; `None` is without bound (F13).
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        let pages = capacity_bytes.map_or(u64::MAX, |bytes| bytes / image::PAGE_BYTES);
        self.world.state.lock().capacity_pages = pages;
    }

    /// Lets at most `files_max` files be open at once; `None` is without bound (F14).
    pub fn set_open_files_max(&self, files_max: Option<u64>) {
        self.world.state.lock().open_files_max = files_max.unwrap_or(u64::MAX);
    }

    /// Counts the open files.
    #[must_use]
    pub fn open_files_count(&self) -> u64 {
        self.world.state.lock().open_files_count
    }

    /// The space in use, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.world.state.lock().storage.used_pages() * image::PAGE_BYTES
    }

    /// Lets a file look as if it was last changed then.
    pub fn set_modified(&self, path: &Path, at: crate::types::Timestamp) {
        let mut state = self.world.state.lock();
        state.modified.insert(path.to_owned(), at);
    }

    /// Gives the file or directory at `path` another owner or mode (F18); until then all is the process's alone.
    pub fn set_access(&self, path: &Path, access: super::Access) {
        let mut state = self.world.state.lock();
        state.access.insert(path.to_owned(), access);
    }

    /// Flips bit `bit` (0 to 7) of the byte at `position`, in the cache and on the disk.
    ///
    /// # Errors
    /// `NotFound` without such a file; `UnexpectedEof` behind its end.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        let mut byte = [0];
        self.env()
            .files
            .open(path, super::OpenMode::Read)?
            .read_exact_at(&mut byte, position)?;
        self.overwrite(path, position, &[byte[0] ^ (1 << (bit & 7))])
    }

    /// Puts `bytes` at `position`, in the cache and on the disk: stale and misdirected blocks.
    ///
    /// # Errors
    /// `NotFound` without such a file.
    pub fn overwrite(&self, path: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
        let bytes = bytes.into();
        self.damage(path, ByteChange::Write { position, bytes })
    }

    /// Cuts the file, or extends it with zeros, in the cache and on the disk.
    ///
    /// # Errors
    /// `NotFound` without such a file.
    pub fn truncate(&self, path: &Path, length_bytes: u64) -> io::Result<()> {
        self.damage(path, ByteChange::SetLength(length_bytes))
    }

    fn damage(&self, path: &Path, change: ByteChange) -> io::Result<()> {
        let mut state = self.world.state.lock();
        let inode = state.storage.resolve(path)?;
        state.storage.file(inode)?;
        state.change(Change::Damage { inode, change });
        Ok(())
    }

    /// Counts the calls, failed ones included.
    #[must_use]
    pub fn calls_count(&self) -> u64 {
        self.world.state.lock().calls_count()
    }

    /// Counts the calls of one kind.
    #[must_use]
    pub fn calls_count_of(&self, call: Call) -> u64 {
        self.world.state.lock().calls[call as usize]
    }

    /// A number over all calls, their order, paths, positions and bytes: equal runs have equal ones.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.world.state.lock().trace_hash
    }

    /// Records changes of the disk from here on.
    pub fn start_recording(&self) {
        let wall = self.world.clock.wall();
        let mut state = self.world.state.lock();
        let (seed, boot) = (self.world.seed, self.world.boot);
        state.recording = Some(Recording::new(state.storage.clone(), seed, boot, wall));
    }

    /// Counts the changes recorded so far; 0 without a recording.
    #[must_use]
    pub fn changes_count(&self) -> usize {
        let state = self.world.state.lock();
        state.recording.as_ref().map_or(0, Recording::changes_count)
    }

    /// Ends the recording and hands it out.
    #[must_use]
    pub fn stop_recording(&self) -> Option<Recording> {
        self.world.state.lock().recording.take()
    }
}

impl std::fmt::Debug for SimulatedWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedWorld")
            .field("seed", &self.world.seed)
            .finish_non_exhaustive()
    }
}
