//! `sync_file_range(2)`: asks the kernel to begin writing, without waiting.
#![allow(
    unsafe_code,
    reason = "the one system call that we need and that no safe crate offers; this file holds all unsafe code of the project"
)]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Begins writing `[position, position + length_bytes)` to the disk. It is advice: a file system that
/// does not take it, or a range that does not fit, changes nothing, and [`super::File::sync_data`]
/// alone makes bytes durable.
pub(super) fn start(file: &File, position: u64, length_bytes: u64) {
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
