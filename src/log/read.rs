//! Reads: planned under the owner's lock from what is in memory, executed outside it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::{Bytes, BytesMut};

use super::aborted::AbortedEntry;
use super::error::LogError;
use super::index::Anchor;
use super::leader_epochs::LeaderEpochs;
use super::partition::PartitionLog;
use super::read_buffers::ReadBuffers;
use super::scan::{check_batch, check_place};
use super::segment::Segment;
use super::stream::StreamPermit;
use crate::env::File;
use crate::protocol::batch::{HEADER_BYTES, Header};
use crate::protocol::messages::{AbortedTransaction, FetchedRecords};
use crate::types::{Isolation, Offset};

/// Bytes read at once in search of the first batch: about the distance between two index entries.
pub(super) const SEEK_BYTES: u64 = 4096;

/// A read that was planned under the lock, to be executed outside it.
pub struct ReadPlan {
    pub(super) from: Offset,
    /// The reader sees no batch from here on.
    pub(super) to: Offset,
    pub(super) max_bytes: usize,
    /// The segment of `from`, and the next one in case that compaction left nothing behind `from` in the first.
    pub(super) slices: Vec<Slice>,
    /// If it may come as a stream.
    pub(super) stream: Option<StreamPermit>,
    /// Whether a stream of this log met damage.
    pub(super) has_damage: Arc<AtomicBool>,
    aborted: Vec<AbortedEntry>,
    high_watermark: Offset,
    last_stable_offset: Offset,
    log_start_offset: Offset,
}

impl std::fmt::Debug for ReadPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadPlan")
            .field("from", &self.from)
            .field("to", &self.to)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// Known offset of the batch at the start of a slice.
#[derive(Debug, Clone, Copy)]
enum Known {
    /// It is the first one of a segment.
    BaseOffset(Offset),
    /// An index entry stands for it.
    LastOffset(Offset),
}

/// Where a segment is to be read.
pub(super) struct Slice {
    pub(super) path: Arc<Path>,
    file: Arc<dyn File>,
    pub(super) position: u64,
    pub(super) end_position: u64,
    known: Known,
    gaps_below: Offset,
    /// Where offsets may be missing between batches, the index proves the place of each of them (F8).
    anchors: Vec<Anchor>,
    epochs: Arc<LeaderEpochs>,
    pub(super) buffers: Arc<ReadBuffers>,
}

impl ReadPlan {
    /// Whether there is nothing to read yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Reads whole batches, and checks each one's structure, checksum and place.
    ///
    /// # Errors
    /// [`LogError::Io`] or [`LogError::Corrupt`] with file and position. Nothing damaged is skipped.
    pub fn execute(self) -> Result<FetchedRecords, LogError> {
        let (records, end) = self.read()?;
        Ok(self.fetched(records, end))
    }

    /// The batches, and one past the last offset of them.
    pub(super) fn read(&self) -> Result<(Bytes, Offset), LogError> {
        for slice in &self.slices {
            let (records, end) = slice.read(self.from, self.to, self.max_bytes)?;
            if !records.is_empty() {
                return Ok((records, end));
            }
        }
        Ok((Bytes::new(), self.from))
    }

    /// `records`, all below `end`, with the partition's marks.
    pub(super) fn fetched<R>(&self, records: R, end: Offset) -> FetchedRecords<R> {
        let is_met = |entry: &&AbortedEntry| entry.first_offset < end;
        let mut aborted: Vec<_> = self
            .aborted
            .iter()
            .filter(is_met)
            .map(|entry| AbortedTransaction {
                producer_id: entry.producer_id,
                first_offset: entry.first_offset,
            })
            .collect();
        aborted.sort_by_key(|transaction| transaction.first_offset);
        FetchedRecords {
            records,
            aborted_transactions: aborted,
            high_watermark: self.high_watermark,
            last_stable_offset: self.last_stable_offset,
            log_start_offset: self.log_start_offset,
        }
    }
}

impl Slice {
    /// The batches from the one that holds `from`, below `to`, and one past the last offset of them.
    pub(super) fn read(
        &self,
        from: Offset,
        to: Offset,
        max_bytes: usize,
    ) -> Result<(Bytes, Offset), LogError> {
        let Some((position, first)) = self.seek(from)? else {
            return Ok((Bytes::new(), from));
        };
        if first.base_offset >= to {
            return Ok((Bytes::new(), from));
        }
        let left = usize::try_from(self.end_position - position).unwrap_or(usize::MAX);
        let wanted = max_bytes.max(first.total_bytes()).min(left);
        let mut buffer = self.buffers.take(wanted);
        self.read_at(&mut buffer, position)?;
        let (length, end) = self.check(&buffer, position, first.base_offset, to)?;
        Ok((buffer.freeze(length), end))
    }

    /// Checks the whole batches below `to` in `bytes`, the first of which begins with `expected`; returns how many bytes
    /// they have, and one past their last offset.
    pub(super) fn check(
        &self,
        bytes: &[u8],
        position: u64,
        mut expected: Offset,
        to: Offset,
    ) -> Result<(usize, Offset), LogError> {
        let mut length = 0;
        while let Some(header) = self.check_next(&bytes[length..], position, length, expected)? {
            if header.base_offset >= to {
                break;
            }
            expected = header.next_offset();
            length += header.total_bytes();
        }
        Ok((length, expected))
    }

    /// The header of the batch at the start of `bytes`, all of it checked; `None` if it is not there as a whole.
    fn check_next(
        &self,
        bytes: &[u8],
        position: u64,
        skipped: usize,
        expected: Offset,
    ) -> Result<Option<Header>, LogError> {
        if bytes.len() < HEADER_BYTES {
            return Ok(None);
        }
        let at = position + skipped as u64;
        let damaged = |why: String| LogError::corrupt(&self.path, at, why);
        let header = Header::parse(bytes).map_err(|e| damaged(e.to_string()))?;
        if header.total_bytes() as u64 > self.end_position - at {
            return Err(damaged(format!(
                "the batch has {} bytes, more than are left",
                header.total_bytes()
            )));
        }
        if header.total_bytes() > bytes.len() {
            return Ok(None);
        }
        let header = check_batch(bytes).map_err(damaged)?;
        check_place(&header, expected, self.gaps_below).map_err(damaged)?;
        self.epochs.check(&header).map_err(damaged)?;
        let index = self
            .anchors
            .partition_point(|anchor| u64::from(anchor.position) < at);
        if let Some(anchor) = self
            .anchors
            .get(index)
            .filter(|anchor| u64::from(anchor.position) == at)
        {
            check_anchor(&header, anchor.last_offset).map_err(damaged)?;
        }
        Ok(Some(header))
    }

    /// Walks over headers to the first batch that ends at or behind `from`.
    pub(super) fn seek(&self, from: Offset) -> Result<Option<(u64, Header)>, LogError> {
        let mut window = BytesMut::new();
        let mut window_position = self.position;
        let mut position = self.position;
        let mut expected = None;
        while position < self.end_position {
            let mut skip = usize::try_from(position - window_position).unwrap_or(usize::MAX);
            if window.len() < skip.saturating_add(HEADER_BYTES) {
                let count = (self.end_position - position).min(SEEK_BYTES);
                window = BytesMut::zeroed(usize::try_from(count).unwrap_or(0));
                self.read_at(&mut window, position)?;
                window_position = position;
                skip = 0;
            }
            let damaged = |why: String| LogError::corrupt(&self.path, position, why);
            let header = Header::parse(&window[skip..]).map_err(|e| damaged(e.to_string()))?;
            match (expected, self.known) {
                (Some(expected), _) | (None, Known::BaseOffset(expected)) => {
                    check_place(&header, expected, self.gaps_below).map_err(damaged)?;
                }
                (None, Known::LastOffset(last_offset)) => {
                    check_anchor(&header, last_offset).map_err(damaged)?;
                }
            }
            self.epochs.check(&header).map_err(damaged)?;
            if header.last_offset() >= from {
                return Ok(Some((position, header)));
            }
            expected = Some(header.next_offset());
            position += header.total_bytes() as u64;
        }
        Ok(None)
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<(), LogError> {
        match self.file.read_exact_at(buffer, position) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(
                LogError::corrupt(&self.path, position, "the file is shorter than it was"),
            ),
            // F12: an unreadable place is an error with its position, never skipped.
            Err(error) => Err(LogError::io("read", &self.path)(std::io::Error::new(
                error.kind(),
                format!("{error} (at byte {position})"),
            ))),
        }
    }
}

fn check_anchor(header: &Header, last_offset: Offset) -> Result<(), String> {
    match header.last_offset() == last_offset {
        true => Ok(()),
        false => Err(format!(
            "the batch ends with offset {}, but the index says {last_offset}",
            header.last_offset()
        )),
    }
}

impl PartitionLog {
    /// Plans a read of at most `max_bytes`, but at least one batch, from offset `from`. Nothing is read yet; at the
    /// end that the reader may see, the plan is empty.
    ///
    /// Of a sealed segment that nobody read lately, this opens the file and reads the index.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] below the log start offset or past the log end; [`LogError::Io`] if a sealed
    /// segment cannot be opened.
    pub fn plan_read(
        &self,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<ReadPlan, LogError> {
        let end = self.log_end_offset();
        if from < self.log_start || from > end {
            return Err(LogError::OffsetOutOfRange {
                offset: from,
                start: self.log_start,
                end,
            });
        }
        let to = self.visible_end(isolation);
        let mut plan = ReadPlan {
            from,
            to,
            max_bytes,
            slices: Vec::new(),
            stream: None,
            has_damage: Arc::clone(&self.has_damage),
            aborted: Vec::new(),
            high_watermark: self.high_watermark(),
            last_stable_offset: self.last_stable_offset(),
            log_start_offset: self.log_start,
        };
        if from < to {
            plan.slices = self.slices(from, max_bytes)?;
            if isolation == Isolation::ReadCommitted {
                plan.to = self.bounded_end(&plan)?;
                plan.aborted = self.aborted_between(from, plan.to)?;
            }
        }
        Ok(plan)
    }

    /// One past the last offset that a reader may see.
    #[must_use]
    pub fn visible_end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark(),
            Isolation::ReadCommitted => self.last_stable_offset(),
        }
    }

    /// The place of `from` in its segment, and the next segment that is not empty if the first may have nothing
    /// behind `from`.
    pub(super) fn slices(&self, from: Offset, max_bytes: usize) -> Result<Vec<Slice>, LogError> {
        let index = self.segment_of(from);
        let mut slices = Vec::with_capacity(2);
        slices.push(self.slice(&self.segments[index], from, max_bytes)?);
        if self.segments[index].base_offset < self.cleaned_end {
            let mut behind = self.segments[index + 1..].iter();
            if let Some(next) = behind.find(|segment| segment.size_bytes > 0) {
                slices.push(self.slice(next, next.base_offset, max_bytes)?);
            }
        }
        Ok(slices)
    }

    /// The index of the segment in whose range `offset` lies.
    pub(super) fn segment_of(&self, offset: Offset) -> usize {
        self.segments
            .partition_point(|segment| segment.base_offset <= offset)
            .saturating_sub(1)
    }

    fn slice(&self, segment: &Segment, from: Offset, max_bytes: usize) -> Result<Slice, LogError> {
        let has_gaps = segment.base_offset < self.cleaned_end;
        let (anchor, anchors) = self.with_index(segment, |index| {
            let anchor = index.offsets.floor(from);
            let position = anchor.map_or(0, |anchor| u64::from(anchor.position));
            let read_bytes = (max_bytes as u64).saturating_add(SEEK_BYTES);
            let end = position.saturating_add(read_bytes);
            let anchors = match has_gaps {
                true => index.offsets.between(position, end),
                false => Vec::new(),
            };
            (anchor, anchors)
        })?;
        Ok(Slice {
            path: segment.path.clone(),
            file: segment.file()?,
            position: anchor.map_or(0, |anchor| u64::from(anchor.position)),
            end_position: segment.size_bytes,
            known: match anchor {
                Some(anchor) => Known::LastOffset(anchor.last_offset),
                None => Known::BaseOffset(segment.base_offset),
            },
            gaps_below: self.cleaned_end,
            anchors,
            epochs: self.producers.epochs.clone(),
            buffers: self.cache.buffers.clone(),
        })
    }

    /// Where the read is to end at the latest, so that only the aborted transactions before need to be looked up.
    /// It lies behind the batch of `from`: any anchor behind the slice's own ends past `from`.
    fn bounded_end(&self, plan: &ReadPlan) -> Result<Offset, LogError> {
        let [first, ..] = &plan.slices[..] else {
            return Ok(plan.to);
        };
        let segment = &self.segments[self.segment_of(plan.from)];
        let wanted = (plan.max_bytes as u64).saturating_add(SEEK_BYTES);
        let end_position = first.position.saturating_add(wanted);
        if end_position >= segment.size_bytes {
            return Ok(plan.to);
        }
        let anchor = self.with_index(segment, |index| {
            index.offsets.at_or_after_position(end_position)
        })?;
        Ok(anchor.map_or(plan.to, |anchor| plan.to.min(anchor.last_offset.plus(1))))
    }

    fn aborted_between(&self, from: Offset, to: Offset) -> Result<Vec<AbortedEntry>, LogError> {
        let mut found = Vec::new();
        let behind = self.segments[self.segment_of(from)..].iter();
        for segment in behind.filter(|segment| segment.has_aborted()) {
            if self.with_index(segment, |index| index.aborted_in(from, to, &mut found))? {
                break;
            }
        }
        Ok(found)
    }
}
