//! Faults to order: which call fails, when, how, and for how long.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

/// A call on files, as faults and counters name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Call {
    /// `Files::open`, whatever the mode, and `Files::open_dir`.
    Open,
    /// `Files::create_dir`.
    CreateDir,
    /// `Files::read_dir`.
    ReadDir,
    /// `Files::rename`.
    Rename,
    /// `Files::remove_file`.
    RemoveFile,
    /// `Files::remove_dir`.
    RemoveDir,
    /// `Dir::sync`, and so `Files::sync_dir`.
    SyncDir,
    /// `Files::exists`.
    Exists,
    /// `Files::lock`.
    Lock,
    /// `File::read_at`.
    Read,
    /// `File::write_at`.
    Write,
    /// `File::length_bytes`.
    Length,
    /// `File::set_length`.
    SetLength,
    /// `File::sync_data`.
    SyncData,
}

impl Call {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Open,
        Self::CreateDir,
        Self::ReadDir,
        Self::Rename,
        Self::RemoveFile,
        Self::RemoveDir,
        Self::SyncDir,
        Self::Exists,
        Self::Lock,
        Self::Read,
        Self::Write,
        Self::Length,
        Self::SetLength,
        Self::SyncData,
    ];

    /// Those that change the disk.
    pub const CHANGING: [Self; 9] = [
        Self::Open,
        Self::CreateDir,
        Self::Rename,
        Self::RemoveFile,
        Self::RemoveDir,
        Self::SyncDir,
        Self::Write,
        Self::SetLength,
        Self::SyncData,
    ];
}

/// Effect of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultEffect {
    /// `EIO`. A write may have written a prefix. A sync loses what was pending for good, though it
    /// stays readable and the next sync succeeds: what Linux does (F11).
    InputOutput,
    /// `ENOSPC`. A write may have written a prefix.
    StorageFull,
    /// `EXDEV`, of a rename.
    CrossesDevices,
    /// `EMFILE`.
    TooManyFiles,
    /// `EINTR`, which the file retries by itself: the caller sees nothing (F15).
    Interrupted,
    /// A read or write does at most so many bytes; 0 means one (F15).
    Short(usize),
    /// The call takes so long on the virtual clock, then succeeds (F16).
    Stall(Duration),
}

impl FaultEffect {
    /// The error that the caller sees, if the call fails.
    pub(super) fn error(self) -> Option<io::Error> {
        let errno = match self {
            Self::InputOutput => Errno::IO,
            Self::StorageFull => Errno::NOSPC,
            Self::CrossesDevices => Errno::XDEV,
            Self::TooManyFiles => Errno::MFILE,
            Self::Interrupted | Self::Short(_) | Self::Stall(_) => return None,
        };
        Some(errno.into())
    }
}

/// An order for [`super::SimulatedWorld::inject`]: at first, the next call of any kind fails once.
#[derive(Debug, Clone)]
pub struct Fault {
    effect: FaultEffect,
    calls: Vec<Call>,
    path_part: Option<String>,
    skip: u64,
    times: u64,
}

impl Fault {
    /// The next call, once.
    #[must_use]
    pub fn new(effect: FaultEffect) -> Self {
        Self {
            effect,
            calls: Call::ALL.to_vec(),
            path_part: None,
            skip: 0,
            times: 1,
        }
    }

    /// Only these calls.
    #[must_use]
    pub fn on(mut self, calls: &[Call]) -> Self {
        self.calls = calls.to_vec();
        self
    }

    /// Only calls on paths that contain `part`.
    #[must_use]
    pub fn in_path(mut self, part: &str) -> Self {
        self.path_part = Some(part.to_owned());
        self
    }

    /// Lets `count` matching calls pass first.
    #[must_use]
    pub fn after(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Not once but for ever.
    #[must_use]
    pub fn for_ever(mut self) -> Self {
        self.times = u64::MAX;
        self
    }

    /// Whether the fault strikes this call; counts it.
    pub(super) fn strike(&mut self, call: Call, path: &Path) -> Option<FaultEffect> {
        let is_match = self.times > 0
            && self.calls.contains(&call)
            && self
                .path_part
                .as_ref()
                .is_none_or(|part| path.to_string_lossy().contains(part.as_str()));
        if !is_match {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times -= 1;
        Some(self.effect)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.times == 0
    }
}
