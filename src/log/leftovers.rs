//! Leftovers of an interrupted write, deletion or compaction in a partition's directory, and how they are finished.

use std::path::Path;

use hashbrown::HashMap;

use super::derived;
use super::error::LogError;
use super::names::{self, FileKind, Name};
use super::scan::{ScanRange, scan};
use crate::env::{Dir, Env, OpenMode};
use crate::types::Offset;

/// The files of a directory that are in use, by ascending offset.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Base offsets of segments.
    pub(super) segments: Vec<Offset>,
    /// Offsets of producer snapshots.
    pub(super) snapshots: Vec<Offset>,
    /// Base offsets of finished compactions that are not in place yet.
    swaps: Vec<Offset>,
    /// Names to be removed.
    leftovers: Vec<String>,
    /// Base offsets of derived files.
    derived: Vec<(FileKind, Offset)>,
    /// Bytes of files in use.
    lengths: HashMap<(FileKind, Offset), u64>,
}

impl Listing {
    /// Reads a directory and changes nothing. Unknown names are told and left alone (F20).
    pub(super) fn read(env: &Env, dir: &Path) -> Result<Self, LogError> {
        let entries = env
            .files
            .read_dir(dir)
            .map_err(LogError::io("list directory", dir))?;
        let mut listing = Self::default();
        for entry in entries {
            let name = match entry.is_dir {
                true => Name::Foreign,
                false => names::parse(&entry.name),
            };
            if let Name::Live(kind, offset) = name {
                listing.lengths.insert((kind, offset), entry.length_bytes);
            }
            match name {
                Name::Live(FileKind::Log, offset) => listing.segments.push(offset),
                Name::Live(FileKind::Snapshot, offset) => listing.snapshots.push(offset),
                Name::Live(kind, offset) => listing.derived.push((kind, offset)),
                Name::Swap(offset) => listing.swaps.push(offset),
                Name::Leftover => listing.leftovers.push(entry.name),
                Name::Partition => {}
                Name::Foreign => {
                    crate::env::warn!(dir = %dir.display(), name = entry.name, "not a file of the log: left alone");
                }
            }
        }
        listing.segments.sort_unstable();
        listing.snapshots.sort_unstable();
        Ok(listing)
    }

    /// Returns the length that a file in use had in the listing; `None` if it was not there.
    pub(super) fn length_bytes(&self, kind: FileKind, offset: Offset) -> Option<u64> {
        self.lengths.get(&(kind, offset)).copied()
    }
}

/// Removes leftovers, finishes compactions, and lists what is then there.
pub(super) fn finish(env: &Env, dir: &Path) -> Result<Listing, LogError> {
    let listing = Listing::read(env, dir)?;
    for name in &listing.leftovers {
        derived::remove_file(env, &dir.join(name))?;
    }
    for &base_offset in &listing.swaps {
        finish_swap(env, dir, base_offset, &listing.segments)?;
    }
    let listing = match listing.swaps.is_empty() {
        true => listing,
        false => Listing::read(env, dir)?,
    };
    for &(kind, offset) in &listing.derived {
        if listing.segments.binary_search(&offset).is_err() {
            derived::remove_file(env, &names::path(dir, kind, offset))?;
        }
    }
    Ok(listing)
}

/// Puts a compacted segment in the place of those that it covers.
fn finish_swap(
    env: &Env,
    dir: &Path,
    base_offset: Offset,
    segments: &[Offset],
) -> Result<(), LogError> {
    let swap = names::swap_path(dir, base_offset);
    let file = env
        .files
        .open(&swap, OpenMode::Read)
        .map_err(LogError::io("open segment", &swap))?;
    let length_bytes = file
        .length_bytes()
        .map_err(LogError::io("read the size of", &swap))?;
    let range = ScanRange {
        position: 0,
        end_position: length_bytes,
        expected: base_offset,
        gaps_below: Offset(i64::MAX),
        leader_epoch_max: i32::MAX,
    };
    let mut end = base_offset;
    let damage = scan(&*file, &swap, range, &mut |header, _, _| {
        end = header.next_offset();
        Ok(())
    })?;
    if let Some(damage) = damage {
        // It was synced before it got its name, so this is no torn write.
        return Err(LogError::corrupt(&swap, damage.position, damage.why));
    }
    let covered = segments
        .iter()
        .copied()
        .filter(|&offset| offset > base_offset && offset < end);
    let opened = env
        .files
        .open_dir(dir)
        .map_err(LogError::io("open directory", dir))?;
    put_in_place(env, (dir, &*opened), base_offset, covered)
}

/// The last steps of a compaction, from the moment when the `.swap` name is durable.
///
/// The names of the segments that it covers are gone for good before it takes the place of the first (C9): else a
/// power loss could bring one of them back behind it.
pub(super) fn put_in_place(
    env: &Env,
    (dir, opened): (&Path, &dyn Dir),
    base_offset: Offset,
    covered: impl Iterator<Item = Offset>,
) -> Result<(), LogError> {
    derived::remove(env, dir, base_offset)?;
    for offset in covered {
        derived::remove(env, dir, offset)?;
        derived::remove_file(env, &names::path(dir, FileKind::Log, offset))?;
    }
    let sync_dir = || opened.sync().map_err(LogError::io("sync directory", dir));
    sync_dir()?;
    let swap = names::swap_path(dir, base_offset);
    let path = names::path(dir, FileKind::Log, base_offset);
    env.files
        .rename(&swap, &path)
        .map_err(LogError::io("rename", &swap))?;
    sync_dir()
}
