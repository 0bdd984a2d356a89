//! The tail of a log, written once more after a failed write or sync (F11).
//!
//! Such a failure leaves pages in the cache that count as clean and differ from what the disk has: the next sync succeeds and
//! writes nothing, and a later power loss takes back what was acknowledged meanwhile. Whoever writes the same bytes again
//! makes the pages dirty again, so that the sync that follows means what it says. The same goes for names: a segment that is
//! renamed and gets its name back is entered in its directory once more. The name in between is that of a compacted
//! segment, which every opening puts in its place: a death between the two takes nothing.

use std::path::Path;

use super::error::LogError;
use super::names;
use crate::env::{Env, File};
use crate::types::Offset;

/// Bytes held in memory at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// Writes the bytes from `position` to `end` in place, as they are read, and syncs them. It needs no space.
pub(super) fn bytes(
    file: &dyn File,
    path: &Path,
    (mut position, end): (u64, u64),
) -> Result<(), LogError> {
    let mut piece = Vec::new();
    while position < end {
        let length_bytes = (end - position).min(PIECE_BYTES);
        piece.resize(usize::try_from(length_bytes).unwrap_or(0), 0);
        let read = file
            .read_full_at(&mut piece, position)
            .map_err(LogError::io("read", path))?;
        if read < piece.len() {
            return Err(LogError::corrupt(
                path,
                position,
                "the file became shorter while it was read",
            ));
        }
        file.write_all_at(&piece, position)
            .map_err(LogError::io("write again", path))?;
        position += length_bytes;
    }
    file.sync_data().map_err(LogError::io("sync", path))
}

/// Enters the name of a segment, whose bytes are synced, in its directory once more. The caller syncs the directory.
pub(super) fn name(env: &Env, dir: &Path, base_offset: Offset) -> Result<(), LogError> {
    let path = names::path(dir, names::FileKind::Log, base_offset);
    let swap = names::swap_path(dir, base_offset);
    let rename = |from: &Path, to: &Path| {
        env.files
            .rename(from, to)
            .map_err(LogError::io("rename", from))
    };
    rename(&path, &swap)?;
    rename(&swap, &path)
}
