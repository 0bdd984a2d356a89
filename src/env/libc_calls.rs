//! Calls beyond the safe crates: `sync_file_range(2)` and `mallopt(3)`.
#![allow(
    unsafe_code,
    reason = "system and library calls that no safe crate offers; this file holds all unsafe code of the project"
)]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Begins writing `[position, position + length_bytes)` to the disk. It is advice: a file system that
/// does not take it, or a range that does not fit, changes nothing, and [`super::File::sync_data`]
/// alone makes bytes durable.
pub(super) fn start_writing(file: &File, position: u64, length_bytes: u64) {
    let (Ok(position), Ok(length)) = (i64::try_from(position), i64::try_from(length_bytes)) else {
        return;
    };
    // SAFETY: the call takes no pointers, so it cannot touch our memory; the descriptor is open for
    // as long as `file` is borrowed. Its result is ignored, because no promise rests on it.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            position,
            length,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

/// Has glibc's `malloc` give back every free page, and says whether there was one. It takes about a millisecond for
/// each 10 MiB in use, and locks each arena meanwhile.
#[cfg(target_env = "gnu")]
pub(super) fn trim_malloc() -> bool {
    // SAFETY: the call takes a number and no pointers; glibc takes its own locks and touches free memory only.
    unsafe { libc::malloc_trim(0) == 1 }
}

/// Sets a parameter of glibc's `malloc`, which is then no longer adjusted by itself.
#[cfg(target_env = "gnu")]
pub(super) fn set_malloc_parameter(parameter: MallocParameter, bytes: i32) {
    let number = match parameter {
        MallocParameter::MmapThreshold => libc::M_MMAP_THRESHOLD,
        MallocParameter::TrimThreshold => libc::M_TRIM_THRESHOLD,
    };
    // SAFETY: the call takes two numbers and no pointers; glibc takes its own locks, and knows both parameters.
    // Its result is ignored: a value that it refuses changes nothing.
    unsafe {
        libc::mallopt(number, bytes);
    }
}

/// A parameter of glibc's `malloc`.
#[cfg(target_env = "gnu")]
#[derive(Debug, Clone, Copy)]
pub(super) enum MallocParameter {
    /// An allocation of so many bytes is its own mapping, which goes back to the system when it is freed.
    MmapThreshold,
    /// Free bytes at the end of an arena that go back to the system.
    TrimThreshold,
}
