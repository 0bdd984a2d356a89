//! The derived files of a segment: written together, and trusted only together.
//!
//! Kafka's index files have no checksums, so a manifest beside them has, and says how much of the segment they cover:
//!
//! ```text
//!  0 version i16 = 1       2 crc u32 (CRC-32C of all that follows)
//!  6 covered_bytes i64    14 next_offset i64      22 first_timestamp i64    30 largest_timestamp i64
//! 38 offset_of_largest i64
//! 46 .index bytes i32     50 its crc u32
//! 54 .timeindex bytes i32 58 its crc u32
//! 62 .txnindex bytes i32  66 its crc u32
//! ```
//! I11: a file that is missing, short, old or damaged does not fit its manifest; the segment is then read again.

use std::io;
use std::path::Path;

use bytes::{Buf, BufMut};

use super::error::LogError;
use super::index::{OffsetIndex, TimeIndex};
use super::leftovers::Listing;
use super::names::{self, FileKind};
use super::producer_state::ProducerState;
use super::segment::{Segment, SegmentIndex, TimeRange};
use super::{aborted, snapshot};
use crate::env::{Env, OpenMode};
use crate::types::{Offset, Timestamp};

const VERSION: i16 = 1;
const CRC_POSITION: usize = 2;
const BODY_POSITION: usize = CRC_POSITION + 4;
const MANIFEST_BYTES: usize = 70;
/// The index files, in the order of the manifest.
const INDEXES: [FileKind; 3] = [FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex];
/// No index of a segment below 2 GiB is larger.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// Everything derived from a segment and what came before it, as bytes.
pub(super) struct Checkpoint {
    base_offset: Offset,
    next_offset: Offset,
    manifest: Vec<u8>,
    indexes: [Vec<u8>; 3],
    snapshot: Vec<u8>,
}

/// Which index files belong to a segment: the length and the checksum of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([(u32, u32); 3]);

impl Fingerprint {
    fn of(indexes: &[Vec<u8>; 3]) -> Self {
        let of = |bytes: &Vec<u8>| (length(bytes), crc32c::crc32c(bytes));
        Self([of(&indexes[0]), of(&indexes[1]), of(&indexes[2])])
    }

    /// Whether any transaction was aborted in the segment.
    pub(super) fn has_aborted(&self) -> bool {
        self.0[2].0 > 0
    }

    /// Whether the index files have these lengths. What stands in them is checked when it is read.
    pub(super) fn fits(&self, listing: &Listing, base_offset: Offset) -> bool {
        INDEXES.into_iter().zip(self.0).all(|(kind, (length, _))| {
            listing.length_bytes(kind, base_offset) == Some(u64::from(length))
        })
    }

    /// Reads the indexes of the segment at `base_offset`; `None` if the files are not these.
    pub(super) fn read(&self, env: &Env, dir: &Path, base_offset: Offset) -> Option<SegmentIndex> {
        let read = |index: usize| {
            let path = names::path(dir, INDEXES[index], base_offset);
            let bytes = env.files.read(&path, INDEX_BYTES_MAX).ok()?;
            ((length(&bytes), crc32c::crc32c(&bytes)) == self.0[index]).then_some(bytes)
        };
        Some(SegmentIndex {
            offsets: OffsetIndex::decode(base_offset, &read(0)?)?,
            times: TimeIndex::decode(base_offset, &read(1)?)?,
            aborted: aborted::decode(&read(2)?)?,
        })
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

impl Checkpoint {
    /// Makes the checkpoint at the end of `segment`, the last one, with all producers.
    pub(super) fn of(segment: &Segment, producers: &ProducerState) -> Self {
        let indexes = encode_indexes(segment.index_in_memory());
        Self {
            base_offset: segment.base_offset,
            next_offset: segment.next_offset,
            manifest: encode_manifest(segment, &indexes),
            indexes,
            snapshot: snapshot::encode(producers),
        }
    }

    /// Writes the files. They are not synced: what is lost is rebuilt.
    pub(super) fn write(&self, env: &Env, dir: &Path) -> Result<Fingerprint, LogError> {
        write_indexes(env, dir, self.base_offset, &self.indexes, &self.manifest)?;
        let path = names::path(dir, FileKind::Snapshot, self.next_offset);
        write_file(env, &path, &self.snapshot)?;
        Ok(Fingerprint::of(&self.indexes))
    }
}

/// Writes a producer snapshot alone.
pub(super) fn write_snapshot(
    env: &Env,
    dir: &Path,
    offset: Offset,
    producers: &ProducerState,
) -> Result<(), LogError> {
    let path = names::path(dir, FileKind::Snapshot, offset);
    write_file(env, &path, &snapshot::encode(producers))
}

/// Writes the indexes of a segment alone, after they were rebuilt.
pub(super) fn write_segment(
    env: &Env,
    dir: &Path,
    segment: &Segment,
    index: &SegmentIndex,
) -> Result<Fingerprint, LogError> {
    let indexes = encode_indexes(index);
    let manifest = encode_manifest(segment, &indexes);
    write_indexes(env, dir, segment.base_offset, &indexes, &manifest)?;
    Ok(Fingerprint::of(&indexes))
}

/// Removes the derived files of the segment that began at `base_offset`, the manifest first.
pub(super) fn remove(env: &Env, dir: &Path, base_offset: Offset) -> Result<(), LogError> {
    for kind in [FileKind::Manifest].into_iter().chain(INDEXES) {
        remove_file(env, &names::path(dir, kind, base_offset))?;
    }
    Ok(())
}

/// Removes a file that may be gone already.
pub(super) fn remove_file(env: &Env, path: &Path) -> Result<(), LogError> {
    match env.files.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LogError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn encode_indexes(index: &SegmentIndex) -> [Vec<u8>; 3] {
    [
        index.offsets.encode(),
        index.times.encode(),
        aborted::encode(&index.aborted),
    ]
}

fn encode_manifest(segment: &Segment, indexes: &[Vec<u8>; 3]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MANIFEST_BYTES);
    bytes.put_i16(VERSION);
    bytes.put_u32(0);
    bytes.put_u64(segment.size_bytes);
    bytes.put_i64(segment.next_offset.0);
    bytes.put_i64(segment.range.first.0);
    bytes.put_i64(segment.range.largest.0);
    bytes.put_i64(segment.range.offset_of_largest.0);
    for (length, crc) in Fingerprint::of(indexes).0 {
        bytes.put_u32(length);
        bytes.put_u32(crc);
    }
    let crc = crc32c::crc32c(&bytes[BODY_POSITION..]);
    bytes[CRC_POSITION..BODY_POSITION].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn write_indexes(
    env: &Env,
    dir: &Path,
    base_offset: Offset,
    indexes: &[Vec<u8>; 3],
    manifest: &[u8],
) -> Result<(), LogError> {
    for (kind, bytes) in INDEXES.into_iter().zip(indexes) {
        write_file(env, &names::path(dir, kind, base_offset), bytes)?;
    }
    write_file(
        env,
        &names::path(dir, FileKind::Manifest, base_offset),
        manifest,
    )
}

pub(super) fn write_file(env: &Env, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    let write = || -> io::Result<()> {
        let file = env.files.open(path, OpenMode::OpenOrCreate)?;
        file.write_all_at(bytes, 0)?;
        file.set_length(bytes.len() as u64)
    };
    write().map_err(LogError::io("write", path))
}

/// Words of a manifest, checked against its own checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The bytes of the segment that are covered.
    pub(super) covered_bytes: u64,
    /// One past the last offset covered.
    pub(super) next_offset: Offset,
    pub(super) range: TimeRange,
    /// The index files that belong to it.
    pub(super) indexes: Fingerprint,
}

impl Manifest {
    /// Reads the manifest of the segment at `base_offset`; `None` if there is none that can be trusted.
    pub(super) fn read(env: &Env, dir: &Path, base_offset: Offset) -> Option<Self> {
        let path = names::path(dir, FileKind::Manifest, base_offset);
        let bytes = env.files.read(&path, MANIFEST_BYTES as u64).ok()?;
        Self::decode(&bytes)
    }

    /// Notes in `segment` what the manifest says of its batches.
    pub(super) fn vouch_for(&self, segment: &mut Segment) {
        segment.size_bytes = self.covered_bytes;
        segment.next_offset = self.next_offset;
        segment.set_range(self.range);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        if rest.len() != MANIFEST_BYTES || rest.get_i16() != VERSION {
            return None;
        }
        if rest.get_u32() != crc32c::crc32c(&bytes[BODY_POSITION..]) {
            return None;
        }
        Some(Self {
            covered_bytes: rest.get_u64(),
            next_offset: Offset(rest.get_i64()),
            range: TimeRange {
                first: Timestamp(rest.get_i64()),
                largest: Timestamp(rest.get_i64()),
                offset_of_largest: Offset(rest.get_i64()),
            },
            indexes: Fingerprint(std::array::from_fn(|_| (rest.get_u32(), rest.get_u32()))),
        })
    }
}

/// The newest snapshot that can be trusted among `offsets` (ascending) at or below `limit`, with its offset.
pub(super) fn newest_snapshot(
    env: &Env,
    dir: &Path,
    offsets: &[Offset],
    limit: Offset,
) -> Option<(Offset, ProducerState)> {
    let candidates = offsets.iter().rev().filter(|&&offset| offset <= limit);
    for &offset in candidates {
        let path = names::path(dir, FileKind::Snapshot, offset);
        let bytes = env.files.read(&path, snapshot::SNAPSHOT_BYTES_MAX);
        let why = match bytes.map(|bytes| snapshot::decode(&bytes)) {
            Ok(Ok(state)) => return Some((offset, state)),
            Ok(Err(why)) => why.to_owned(),
            Err(error) => error.to_string(),
        };
        crate::env::warn!(path = %path.display(), why, "a producer snapshot is not used: an older one or the log itself is");
    }
    None
}
