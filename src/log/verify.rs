//! Reads a partition's directory without opening it, for `onceflow log verify` and `onceflow log dump`. Changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::derived::Manifest;
use super::error::LogError;
use super::leftovers::Listing;
use super::metadata;
use super::names::{self, FileKind};
use super::producer_state::ProducerState;
use super::recovery::replay;
use super::scan::{ScanRange, Visit, scan};
use crate::env::progress::Unit;
use crate::env::{Env, File, OpenMode};
use crate::protocol::batch::{Batch, DecompressionLimit};
use crate::types::{Offset, Timestamp, TopicId};

/// The kind of a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum FindingKind {
    /// The bytes are not those that were written. Nothing behind it in the segment was looked at.
    Damage,
    /// A batch is as its producer sent it, and nobody can read its records, or its header says of them what is not so: an
    /// older release took it unseen. What follows it was looked at.
    BadBatch,
}

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Whether the bytes changed, or were wrong when they came.
    pub kind: FindingKind,
    /// The file.
    pub file: PathBuf,
    /// Where it begins, in bytes.
    pub position: u64,
    /// The fault.
    pub why: String,
}

/// Report on one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentReport {
    /// The segment's file.
    pub file: PathBuf,
    /// Its base offset.
    pub base_offset: Offset,
    /// One past the last offset of a valid batch.
    pub next_offset: Offset,
    /// The file's size.
    pub size_bytes: u64,
    /// Valid batches.
    pub batches_count: u64,
    /// Records in them, markers included.
    pub records_count: u64,
    /// Whether the index files are there and say what the batches say. If not, they are rebuilt at the next opening.
    pub has_indexes: bool,
}

/// Report on a partition's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifyReport {
    /// The topic's identity; `None` if it cannot be read.
    pub topic_id: Option<TopicId>,
    /// The segments, by base offset.
    pub segments: Vec<SegmentReport>,
    /// Damage and bad batches, in the order of the log. Damage at the end of the last segment may be a torn write, which
    /// the next opening cuts.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub(crate) fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// One batch as it stands in a segment.
#[derive(Debug, Clone)]
pub(crate) struct DumpedBatch {
    /// The segment's file.
    pub file: Arc<Path>,
    /// Where the batch begins, in bytes.
    pub position: u64,
    /// The batch; its checksum was checked.
    pub batch: Batch,
}

/// Reads every byte of the partition in `dir` and checks checksums, records, places and indexes.
///
/// # Errors
/// [`LogError::Io`] if a file cannot be read. Damage is not an error but a finding.
pub(crate) fn verify(env: &Env, dir: &Path) -> Result<VerifyReport, LogError> {
    let mut report = VerifyReport {
        topic_id: None,
        segments: Vec::new(),
        findings: Vec::new(),
    };
    verify_metadata(env, dir, &mut report);
    let gaps_below = metadata::read_cleaned_end(env, dir).unwrap_or(Offset(i64::MAX));
    let bases = Listing::read(env, dir)?.segments;
    let mut producers = ProducerState::default();
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let mut told = env.progress(format!("verifying {name}"), Unit::Bytes, None);
    for (index, &base_offset) in bases.iter().enumerate() {
        let next_base = bases.get(index + 1).copied();
        let reader = Reader::open(env, dir, base_offset, gaps_below)?;
        verify_segment(env, dir, &reader, next_base, &mut producers, &mut report)?;
        told.add(
            report
                .segments
                .last()
                .map_or(0, |segment| segment.size_bytes),
        );
    }
    Ok(report)
}

fn verify_metadata(env: &Env, dir: &Path, report: &mut VerifyReport) {
    const TEXT_BYTES_MAX: u64 = 4096;
    let path = dir.join(names::METADATA);
    let bytes = env
        .files
        .read(&path, TEXT_BYTES_MAX)
        .map_err(LogError::io("read", &path));
    match bytes.and_then(|bytes| metadata::parse_metadata(&bytes, &path)) {
        Ok(topic_id) => report.topic_id = Some(topic_id),
        Err(error) => report.findings.push(Finding {
            kind: FindingKind::Damage,
            file: path,
            position: 0,
            why: error.to_string(),
        }),
    }
}

fn verify_segment(
    env: &Env,
    dir: &Path,
    reader: &Reader,
    next_base: Option<Offset>,
    producers: &mut ProducerState,
    report: &mut VerifyReport,
) -> Result<(), LogError> {
    let mut counted = (0, 0);
    let mut next_offset = reader.base_offset;
    let mut aborted = Vec::new();
    let mut damage = reader.scan(&mut |header, bytes, position| {
        let batch = Batch::parse(Bytes::copy_from_slice(bytes))?;
        if let Err(why) = check_records(&batch) {
            report.findings.push(Finding {
                kind: FindingKind::BadBatch,
                file: reader.path.to_path_buf(),
                position,
                why: format!(
                    "the batch of offsets {} to {} has its right checksum, but {why}",
                    header.base_offset,
                    header.last_offset()
                ),
            });
        }
        aborted.extend(replay(producers, header, bytes, Timestamp::NONE)?);
        counted = (
            counted.0 + 1,
            counted.1 + u64::from(header.records_count.unsigned_abs()),
        );
        next_offset = header.next_offset();
        Ok(())
    })?;
    if let (None, Some(next_base)) = (&damage, next_base.filter(|&base| base != next_offset)) {
        let why = format!(
            "the segment ends before offset {next_offset}, but the next one begins with {next_base}"
        );
        damage = Some((reader.size_bytes, why));
    }
    if let Some((position, why)) = damage {
        report.findings.push(Finding {
            kind: FindingKind::Damage,
            file: reader.path.to_path_buf(),
            position,
            why,
        });
    }
    report.segments.push(SegmentReport {
        file: reader.path.to_path_buf(),
        base_offset: reader.base_offset,
        next_offset,
        size_bytes: reader.size_bytes,
        batches_count: counted.0,
        records_count: counted.1,
        has_indexes: reader.has_indexes(env, dir, &aborted, next_offset),
    });
    Ok(())
}

/// Checks that the records can be read, and that the header says what they are.
fn check_records(batch: &Batch) -> Result<(), String> {
    let mut records = batch
        .records(&DecompressionLimit::default())
        .map_err(|e| e.to_string())?;
    let mut max_timestamp = None;
    while let Some(record) = records.next() {
        let record = record.map_err(|e| e.to_string())?;
        max_timestamp = max_timestamp.max(Some(record.timestamp));
    }
    let told = batch.header().max_timestamp;
    match max_timestamp {
        Some(found) if found.max(Timestamp::NONE) != told.max(Timestamp::NONE) => Err(format!(
            "its header says that the largest timestamp is {}, and it is {}",
            told.0, found.0
        )),
        _ => Ok(()),
    }
}

/// Calls `visit` with every valid batch of the partition in `dir`, in order, until it returns `false`. Returns the
/// damage at which a segment could not be read on; the next segment was.
///
/// # Errors
/// [`LogError::Io`] if a file cannot be read.
pub(crate) fn dump(
    env: &Env,
    dir: &Path,
    visit: &mut dyn FnMut(DumpedBatch) -> bool,
) -> Result<Vec<Finding>, LogError> {
    let gaps_below = metadata::read_cleaned_end(env, dir).unwrap_or(Offset(i64::MAX));
    let mut findings = Vec::new();
    let mut is_wanted = true;
    for base_offset in Listing::read(env, dir)?.segments {
        let reader = Reader::open(env, dir, base_offset, gaps_below)?;
        let damage = reader.scan(&mut |_, bytes, position| {
            if is_wanted {
                is_wanted = visit(DumpedBatch {
                    file: reader.path.clone(),
                    position,
                    batch: Batch::parse(Bytes::copy_from_slice(bytes))?,
                });
            }
            Ok(())
        })?;
        findings.extend(damage.map(|(position, why)| Finding {
            kind: FindingKind::Damage,
            file: reader.path.to_path_buf(),
            position,
            why,
        }));
        if !is_wanted {
            break;
        }
    }
    Ok(findings)
}

/// A segment opened for reading only.
struct Reader {
    path: Arc<Path>,
    file: Arc<dyn File>,
    base_offset: Offset,
    size_bytes: u64,
    gaps_below: Offset,
}

impl Reader {
    fn open(
        env: &Env,
        dir: &Path,
        base_offset: Offset,
        gaps_below: Offset,
    ) -> Result<Self, LogError> {
        let path = names::path(dir, FileKind::Log, base_offset);
        let file = env
            .files
            .open(&path, OpenMode::Read)
            .map_err(LogError::io("open segment", &path))?;
        let size_bytes = file
            .length_bytes()
            .map_err(LogError::io("read the size of", &path))?;
        Ok(Self {
            path: path.into(),
            file: file.into(),
            base_offset,
            size_bytes,
            gaps_below,
        })
    }

    /// Scans the segment; returns where and why it could not go on.
    fn scan(&self, visit: &mut Visit<'_>) -> Result<Option<(u64, String)>, LogError> {
        let range = ScanRange {
            position: 0,
            end_position: self.size_bytes,
            expected: self.base_offset,
            gaps_below: self.gaps_below,
            leader_epoch_max: i32::MAX,
        };
        match scan(&*self.file, &self.path, range, visit) {
            Ok(damage) => Ok(damage.map(|damage| (damage.position, damage.why))),
            Err(LogError::Corrupt { position, why, .. }) => Ok(Some((position, why))),
            Err(error) => Err(error),
        }
    }

    fn has_indexes(
        &self,
        env: &Env,
        dir: &Path,
        aborted: &[super::aborted::AbortedEntry],
        next_offset: Offset,
    ) -> bool {
        Manifest::read(env, dir, self.base_offset).is_some_and(|manifest| {
            let index = manifest.indexes.read(env, dir, self.base_offset);
            manifest.covered_bytes == self.size_bytes
                && manifest.next_offset == next_offset
                && index.is_some_and(|index| index.aborted == aborted)
        })
    }
}
