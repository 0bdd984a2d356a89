//! `RecordStream`: a large read in pieces, each checked before it is handed out.
//!
//! A reader of many bytes gets the first of them while the rest is still in the file; nobody holds more than a piece,
//! and a piece is copied and checked while the processor's cache has it. The length of the whole is known beforehand,
//! as a response's frame needs it: a stream ends where the index says that a batch begins, or with its segment.
//! A stream keeps its file open while its reader takes it, so there are only so many at a time; other reads are whole.
//! Damage found half way can't be told in the answer any more, since its beginning is gone. The reader is cut
//! off, and from then on the log reads ahead of its answers ([`ReadPlan::open`]), so that the next one says what is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::cache::StreamPlace;
use super::error::LogError;
use super::partition::PartitionLog;
use super::read::{ReadPlan, SEEK_BYTES, Slice};
use crate::protocol::batch::Header;
use crate::protocol::messages::FetchedRecords;
use crate::types::{Isolation, Offset};

/// Bytes read, checked and handed out at once: a second-level cache has room for them and for what is sent of them.
const PIECE_BYTES: usize = 256 << 10;
/// Less is read at once: it is a piece or two.
const STREAM_BYTES_MIN: u64 = 384 << 10;

/// Records that were read, or that come in pieces.
#[derive(Debug)]
pub enum RecordSource {
    /// Whole record batches.
    Read(Bytes),
    /// To be read when their turn comes.
    Stream(RecordStream),
}

impl RecordSource {
    /// Returns the batches' bytes.
    #[must_use]
    pub fn length_bytes(&self) -> usize {
        match self {
            Self::Read(records) => records.len(),
            Self::Stream(stream) => stream.left_bytes(),
        }
    }

    /// Returns those of them in memory.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Read(records) => records.len(),
            Self::Stream(_) => 0,
        }
    }
}

/// Whole record batches of one segment, piece by piece.
pub struct RecordStream {
    slice: Slice,
    position: u64,
    expected: Offset,
    to: Offset,
    has_damage: Arc<AtomicBool>,
    _place: StreamPlace,
}

impl std::fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordStream")
            .field("position", &self.position)
            .field("end_position", &self.slice.end_position)
            .finish_non_exhaustive()
    }
}

impl RecordStream {
    /// Bytes that [`RecordStream::next_piece`] holds in memory, if no batch is larger.
    pub const HELD_BYTES: usize = PIECE_BYTES;

    /// Returns the bytes to come.
    #[must_use]
    pub fn left_bytes(&self) -> usize {
        usize::try_from(self.slice.end_position - self.position).unwrap_or(usize::MAX)
    }

    /// The next whole batches, each checked as `ReadPlan::execute` does; `None` once all have come.
    ///
    /// # Errors
    /// As `ReadPlan::execute`. Nothing more can be read from this stream then.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, LogError> {
        if self.left_bytes() == 0 {
            return Ok(None);
        }
        match self.read_piece() {
            Ok(piece) => Ok(Some(piece)),
            Err(error) => {
                self.has_damage.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn read_piece(&mut self) -> Result<Bytes, LogError> {
        let mut wanted = PIECE_BYTES;
        loop {
            let mut buffer = self.slice.buffers.take(wanted.min(self.left_bytes()));
            self.slice.read_at(&mut buffer, self.position)?;
            let (length, next) =
                self.slice
                    .check(&buffer, self.position, self.expected, self.to)?;
            if length > 0 {
                self.position += length as u64;
                self.expected = next;
                return Ok(buffer.freeze(length));
            }
            // A batch larger than a piece; that it ends before the stream does has been checked with its header.
            let header = Header::parse(&buffer);
            let larger = header.map_or(0, |header| header.total_bytes());
            if larger <= buffer.len() {
                let why = "the batches do not end where the index says that one begins";
                return Err(LogError::corrupt(&self.slice.path, self.position, why));
            }
            wanted = larger;
        }
    }
}

/// Where a stream ends.
#[derive(Clone, Copy)]
struct StreamEnd {
    position: u64,
    /// No record before `position` has this offset or a later one.
    offset: Offset,
}

/// That a read may come as a stream, and up to where.
pub(super) struct StreamPermit {
    end: StreamEnd,
    place: StreamPlace,
}

impl PartitionLog {
    /// As [`PartitionLog::plan_read`], for [`ReadPlan::open`]: a stream if there are fewer than 256 (or than a quarter of the
    /// files that this process may open).
    ///
    /// # Errors
    /// As [`PartitionLog::plan_read`].
    pub fn plan_stream(
        &self,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<ReadPlan, LogError> {
        let mut plan = self.plan_read(from, max_bytes, isolation)?;
        if max_bytes as u64 >= STREAM_BYTES_MIN && !self.has_damage.load(Ordering::Relaxed) {
            let end = self.stream_end(&plan)?;
            plan.stream = end
                .zip(self.cache.stream_place())
                .map(|(end, place)| StreamPermit { end, place });
        }
        Ok(plan)
    }

    /// The last place, as far as the reader sees and within what it wants, where a batch is known to begin or a segment ends.
    fn stream_end(&self, plan: &ReadPlan) -> Result<Option<StreamEnd>, LogError> {
        let Some(slice) = plan.slices.first() else {
            return Ok(None);
        };
        let segment = &self.segments[self.segment_of(plan.from)];
        let limit = slice.position.saturating_add(plan.max_bytes as u64);
        if segment.size_bytes <= limit && segment.next_offset <= plan.to {
            return Ok(Some(StreamEnd {
                position: segment.size_bytes,
                offset: segment.next_offset,
            }));
        }
        let anchor = self.with_index(segment, |index| {
            index.offsets.last_before(limit.saturating_add(1), plan.to)
        })?;
        Ok(anchor.map(|anchor| StreamEnd {
            position: u64::from(anchor.position),
            offset: anchor.last_offset,
        }))
    }
}

impl ReadPlan {
    /// As [`ReadPlan::execute`], but large reads of a plan by [`PartitionLog::plan_stream`] come as a stream, and others
    /// take at most `held_bytes_max` in memory, though at least one batch.
    ///
    /// # Errors
    /// As [`ReadPlan::execute`].
    pub fn open(mut self, held_bytes_max: usize) -> Result<FetchedRecords<RecordSource>, LogError> {
        if let Some((stream, end)) = self.stream()? {
            return Ok(self.fetched(RecordSource::Stream(stream), end));
        }
        self.max_bytes = self.max_bytes.min(held_bytes_max);
        let (records, end) = self.read()?;
        Ok(self.fetched(RecordSource::Read(records), end))
    }

    fn stream(&mut self) -> Result<Option<(RecordStream, Offset)>, LogError> {
        let (Some(permit), Some(slice)) = (self.stream.take(), self.slices.first()) else {
            return Ok(None);
        };
        let end = permit.end;
        if end.position < slice.position + STREAM_BYTES_MIN {
            return Ok(None);
        }
        let Some((position, first)) = slice.seek(self.from)? else {
            return Ok(None);
        };
        if first.base_offset >= self.to || end.position < position + STREAM_BYTES_MIN {
            return Ok(None);
        }
        let mut slice = self.slices.swap_remove(0);
        slice.end_position = end.position;
        let stream = RecordStream {
            slice,
            position,
            expected: first.base_offset,
            to: end.offset,
            has_damage: Arc::clone(&self.has_damage),
            _place: permit.place,
        };
        Ok(Some((stream, end.offset)))
    }
}

const _: () = assert!(STREAM_BYTES_MIN > SEEK_BYTES && STREAM_BYTES_MIN > PIECE_BYTES as u64);
