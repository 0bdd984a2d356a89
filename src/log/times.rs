//! Lookups by time: the first record of a time or later, and the newest record.
//!
//! They name records that a reader is shown. Segments and indexes tell where to look; what is answered was read from the
//! records themselves. Markers have timestamps too, and are never an answer.

use std::cmp::Reverse;

use super::error::LogError;
use super::partition::PartitionLog;
use super::segment::{Newest, Segment};
use crate::protocol::batch::{Batch, Batches, DecompressionLimit};
use crate::protocol::messages::ListedOffset;
use crate::types::{Isolation, Offset, Timestamp};

/// Bytes read at once.
const STEP_BYTES: usize = 64 << 10;

impl PartitionLog {
    /// The first record visible at `isolation` whose timestamp is at least `timestamp`.
    ///
    /// # Errors
    /// As [`super::ReadPlan::execute`]; [`LogError::InvalidBatch`] if records cannot be decompressed.
    pub fn offset_for_timestamp(
        &self,
        timestamp: Timestamp,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, LogError> {
        let to = self.visible_end(isolation);
        let is_candidate = |segment: &&Segment| {
            segment.newest().timestamp >= timestamp && segment.next_offset > self.log_start
        };
        for segment in self.segments.iter().filter(is_candidate) {
            let from = self.with_index(segment, |index| index.times.search_start(timestamp))?;
            let from = from.max(self.log_start);
            let mut found = None;
            self.visit_batches(from, segment.next_offset.min(to), &mut |batch| {
                found = first_record(batch, from, timestamp)?;
                Ok(found.is_none())
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first of the records with the largest timestamp that is visible at `isolation`; aborted records count, as in
    /// Kafka.
    ///
    /// # Errors
    /// As [`PartitionLog::offset_for_timestamp`].
    pub fn max_timestamp_offset(
        &self,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, LogError> {
        let to = self.visible_end(isolation);
        let segments = self.segments.iter();
        let mut bounds: Vec<_> = segments.map(|it| (it.newest(), it)).collect();
        bounds.retain(|(newest, _)| newest.timestamp != Timestamp::NONE);
        bounds.sort_by_key(|(newest, _)| Reverse(newest.timestamp));
        let mut best = None;
        for (bound, segment) in bounds {
            if best.is_some_and(|best: ListedOffset| best.timestamp > bound.timestamp) {
                break;
            }
            let found = self.newest_in(segment, bound, to)?;
            best = best.max_by_time(found);
        }
        Ok(best)
    }

    /// The newest record of a segment below `to`.
    fn newest_in(
        &self,
        segment: &Segment,
        bound: Newest,
        to: Offset,
    ) -> Result<Option<ListedOffset>, LogError> {
        let (from, to) = (
            segment.base_offset.max(self.log_start),
            segment.next_offset.min(to),
        );
        // Where the segment says, if that is a record that readers see.
        if (from..to).contains(&bound.offset) {
            let found = self.newest_between(bound.offset, bound.offset.plus(1))?;
            if found.is_some_and(|found| found.timestamp >= bound.timestamp) {
                return Ok(found);
            }
        }
        // Else behind the newest one that the index knows below `to`: before it all are older.
        let indexed = self.with_index(segment, |index| index.times.newest_before(to))?;
        if let Some((timestamp, offset)) = indexed.filter(|(_, offset)| *offset >= from) {
            let found = self.newest_between(offset, to)?;
            if found.is_some_and(|found| found.timestamp >= timestamp) {
                return Ok(found);
            }
        }
        let found = self.newest_between(from, to)?;
        if to == segment.next_offset {
            // Not looked for again: what is gone from here does not come back.
            segment.set_newest(
                found.map_or(Newest::none(segment.base_offset), |found| Newest {
                    timestamp: found.timestamp,
                    offset: found.offset,
                }),
            );
        }
        Ok(found)
    }

    /// The first of the newest records in the batches of `[from, to)`, at or behind the log start offset.
    fn newest_between(&self, from: Offset, to: Offset) -> Result<Option<ListedOffset>, LogError> {
        let mut best: Option<ListedOffset> = None;
        self.visit_batches(from, to, &mut |batch| {
            let header = batch.header();
            if best.is_none_or(|best| header.max_timestamp > best.timestamp) {
                best = best.max_by_time(newest_record(batch, self.log_start)?);
            }
            Ok(true)
        })?;
        Ok(best)
    }

    /// Shows `visit` the data batches of `[from, to)`, until it wants no more.
    fn visit_batches(
        &self,
        from: Offset,
        to: Offset,
        visit: &mut dyn FnMut(&Batch) -> Result<bool, LogError>,
    ) -> Result<(), LogError> {
        let mut from = from;
        while from < to {
            let mut read = None;
            for slice in self.slices(from, STEP_BYTES)? {
                let (records, end) = slice.read(from, to, STEP_BYTES)?;
                if !records.is_empty() {
                    read = Some((records, end));
                    break;
                }
            }
            let Some((records, end)) = read else {
                return Ok(());
            };
            for batch in Batches::new(records) {
                let batch = batch?;
                if !batch.header().is_control() && !visit(&batch)? {
                    return Ok(());
                }
            }
            from = end;
        }
        Ok(())
    }
}

/// The later of two records by timestamp; of equal ones, the one with the smaller offset.
trait MaxByTime {
    fn max_by_time(self, other: Self) -> Self;
}

impl MaxByTime for Option<ListedOffset> {
    fn max_by_time(self, other: Self) -> Self {
        self.into_iter()
            .chain(other)
            .max_by_key(|record| (record.timestamp, Reverse(record.offset)))
    }
}

/// The batch's first record at or behind `from` of that time or later.
fn first_record(
    batch: &Batch,
    from: Offset,
    timestamp: Timestamp,
) -> Result<Option<ListedOffset>, LogError> {
    // A batch that nobody can read is passed over here: readers are told of it.
    let Ok(mut records) = batch.records(&DecompressionLimit::default()) else {
        return Ok(None);
    };
    while let Some(Ok(record)) = records.next() {
        if record.timestamp >= timestamp && record.offset >= from {
            return Ok(Some(ListedOffset {
                offset: record.offset,
                timestamp: record.timestamp,
            }));
        }
    }
    Ok(None)
}

/// The first of the batch's newest records at or behind `from` that have a timestamp.
fn newest_record(batch: &Batch, from: Offset) -> Result<Option<ListedOffset>, LogError> {
    let mut best = None;
    // A batch that nobody can read is passed over here: readers are told of it.
    let Ok(mut records) = batch.records(&DecompressionLimit::default()) else {
        return Ok(None);
    };
    while let Some(Ok(record)) = records.next() {
        if record.offset >= from && record.timestamp > Timestamp::NONE {
            best = best.max_by_time(Some(ListedOffset {
                offset: record.offset,
                timestamp: record.timestamp,
            }));
        }
    }
    Ok(best)
}
