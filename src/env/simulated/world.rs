//! The state that all parts of one simulated world share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::clock::SimulatedClock;
use super::fault::{Call, Fault, FaultEffect};
use super::image::PAGE_BYTES;
use super::random::{SimulatedRandom, mix};
use super::recording::Recording;
use super::storage::{ByteChange, Change, Inode, Storage};
use crate::env::Access;
use crate::types::Timestamp;

/// One simulated machine.
pub(super) struct World {
    pub(super) seed: u64,
    /// Which time of being switched on this is; `None` if the machine does not tell.
    pub(super) boot: Option<u64>,
    pub(super) has_threads: bool,
    pub(super) clock: Arc<SimulatedClock>,
    pub(super) random: Arc<SimulatedRandom>,
    pub(super) state: Mutex<State>,
}

impl World {
    /// A machine with `storage` in it.
    pub(super) fn new(
        seed: u64,
        boot: Option<u64>,
        has_threads: bool,
        storage: Storage,
        wall: Timestamp,
    ) -> Arc<Self> {
        Arc::new(Self {
            seed,
            boot,
            has_threads,
            clock: Arc::new(SimulatedClock::new(wall)),
            random: Arc::new(SimulatedRandom::new(mix(seed))),
            state: Mutex::new(State::new(seed, storage)),
        })
    }

    /// Does one call: counts it, lets faults strike, and hands the rest to `body`.
    pub(super) fn call<T>(
        &self,
        call: Call,
        path: &Path,
        body: impl FnOnce(&mut State, Verdict) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        let verdict = state.begin(call, path, &self.clock)?;
        body(&mut state, verdict)
    }

    pub(super) fn power_off(&self) {
        self.state.lock().is_off = true;
        self.clock.power_off();
    }
}

/// Verdict of faults on a call.
pub(super) struct Verdict {
    /// The call fails with this, after what it did to the disk.
    pub(super) error: Option<io::Error>,
    /// At most so many bytes are read or written.
    pub(super) bytes_max: usize,
}

impl Verdict {
    /// The error, for calls that do nothing when they fail.
    pub(super) fn check(self) -> io::Result<()> {
        self.error.map_or(Ok(()), Err)
    }
}

/// State under the lock.
pub(super) struct State {
    pub(super) storage: Storage,
    pub(super) is_off: bool,
    pub(super) power_off_at: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) faults_struck: u64,
    pub(super) capacity_pages: u64,
    pub(super) open_files_count: u64,
    pub(super) open_files_max: u64,
    pub(super) locks: BTreeSet<PathBuf>,
    /// Of what is not the process's alone.
    pub(super) access: BTreeMap<PathBuf, Access>,
    /// When files were last changed, where that is not just now.
    pub(super) modified: BTreeMap<PathBuf, Timestamp>,
    pub(super) calls: [u64; Call::ALL.len()],
    pub(super) trace_hash: u64,
    pub(super) recording: Option<Recording>,
    seed: u64,
}

impl State {
    pub(super) fn new(seed: u64, storage: Storage) -> Self {
        Self {
            storage,
            is_off: false,
            power_off_at: u64::MAX,
            faults: Vec::new(),
            faults_struck: 0,
            capacity_pages: u64::MAX,
            open_files_count: 0,
            open_files_max: u64::MAX,
            locks: BTreeSet::new(),
            access: BTreeMap::new(),
            modified: BTreeMap::new(),
            calls: [0; Call::ALL.len()],
            trace_hash: 0,
            recording: None,
            seed,
        }
    }

    pub(super) fn calls_count(&self) -> u64 {
        self.calls.iter().sum()
    }

    fn begin(&mut self, call: Call, path: &Path, clock: &SimulatedClock) -> io::Result<Verdict> {
        if self.is_off || self.calls_count() >= self.power_off_at {
            self.is_off = true;
            clock.power_off();
            return Err(io::Error::other("the simulated machine is off"));
        }
        self.calls[call as usize] += 1;
        self.trace(&[call as u64]);
        self.trace_bytes(path.as_os_str().as_encoded_bytes());
        let mut verdict = Verdict {
            error: None,
            bytes_max: usize::MAX,
        };
        for index in 0..self.faults.len() {
            if let Some(effect) = self.faults[index].strike(call, path) {
                self.faults_struck += 1;
                self.weaken(&mut verdict, effect, clock);
            }
        }
        self.faults.retain(|fault| !fault.is_spent());
        Ok(verdict)
    }

    fn weaken(&self, verdict: &mut Verdict, effect: FaultEffect, clock: &SimulatedClock) {
        verdict.error = effect.error().or(verdict.error.take());
        match effect {
            FaultEffect::Short(bytes_max) => verdict.bytes_max = bytes_max.max(1),
            FaultEffect::Stall(duration) => clock.advance(duration),
            _ => {}
        }
    }

    /// Counts one more open file, or refuses it (F14).
    pub(super) fn take_file_handle(&mut self) -> io::Result<()> {
        if self.open_files_count >= self.open_files_max {
            return Err(Errno::MFILE.into());
        }
        self.open_files_count += 1;
        Ok(())
    }

    /// Makes one change, and records it.
    pub(super) fn change(&mut self, change: Change) {
        self.storage.apply(&change);
        if let Some(recording) = &mut self.recording {
            recording.push(change);
        }
    }

    /// Writes what `verdict` and the free space allow.
    pub(super) fn write(
        &mut self,
        inode: Inode,
        bytes: &[u8],
        position: u64,
        verdict: Verdict,
    ) -> io::Result<usize> {
        self.trace(&[position, bytes.len() as u64]);
        self.trace_bytes(bytes);
        let count = match &verdict.error {
            // A failed write may have got somewhere.
            Some(_) => self.prefix_of(bytes.len()),
            None => bytes.len().min(verdict.bytes_max),
        };
        let count = self.bytes_that_fit(inode, position, count)?;
        if count > 0 {
            let change = ByteChange::Write {
                position,
                bytes: bytes[..count].into(),
            };
            self.change(Change::Bytes { inode, change });
        }
        match verdict.error {
            Some(error) => Err(error),
            None if count == 0 && !bytes.is_empty() => Err(Errno::NOSPC.into()),
            None => Ok(count),
        }
    }

    fn prefix_of(&self, count: usize) -> usize {
        let random = mix(self.seed ^ self.calls_count());
        let wide = u128::from(random) * (count as u128 + 1);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// The longest prefix of a write that the disk has room for.
    fn bytes_that_fit(&self, inode: Inode, position: u64, count: usize) -> io::Result<usize> {
        let image = &self.storage.file(inode)?.volatile;
        let free = self.free_pages();
        let mut fitting = count;
        while image.new_pages_count(position, fitting) > free {
            // Drop the last page that the write meets.
            let last_page = (position + fitting as u64 - 1) / PAGE_BYTES * PAGE_BYTES;
            fitting = super::image::usize_of(last_page.saturating_sub(position));
        }
        Ok(fitting)
    }

    fn free_pages(&self) -> u64 {
        self.capacity_pages
            .saturating_sub(self.storage.used_pages())
    }

    /// Refuses a new name on a full disk.
    pub(super) fn check_free(&self) -> io::Result<()> {
        match self.free_pages() {
            0 => Err(Errno::NOSPC.into()),
            _ => Ok(()),
        }
    }

    /// Syncs an inode, or loses for good what it should have synced.
    pub(super) fn sync(&mut self, inode: Inode, verdict: Verdict) -> io::Result<()> {
        match verdict.error {
            None => {
                self.change(Change::Sync { inode });
                Ok(())
            }
            Some(error) => {
                self.change(Change::LosePending { inode });
                Err(error)
            }
        }
    }

    pub(super) fn trace(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.trace_hash = mix(self.trace_hash ^ mix(*number));
        }
    }

    fn trace_bytes(&mut self, bytes: &[u8]) {
        self.trace(&[u64::from(crc32c::crc32c(bytes))]);
    }
}
