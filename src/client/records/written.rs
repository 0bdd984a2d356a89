//! The records that a transaction wrote in a partition: found by its producer's epoch, which grows with each transaction.
//!
//! Where to look is told by the times of markers, which are the coordinator's clock: a transaction's marker comes after its commit was
//! asked for. That the beginning is there is told by the sequence: the first batch of an epoch has 0.

use super::LookError;
use super::bisect::{Bisect, Side};
use super::page::{Row, State};
use super::walk::{Marks, Walk, corrupt};
use crate::client::Transport;
use crate::protocol::batch::{Batch, BatchError, Batches, ControlType, DecompressionLimit, Header};
use crate::types::{Isolation, Offset, ProducerIdentity, Sequence, Timestamp, TopicPartition};

/// The time before its commit in which a transaction is looked for, in milliseconds: more where its beginning was not there.
const LOOK_BACK_MILLIS: [i64; 3] = [2_000, 60_000, 20 * 60_000];
/// The time after its commit was asked for in which a marker is looked for, in milliseconds.
const LOOK_AHEAD_MILLIS: i64 = 5 * 60_000;
/// No attempt reads more of a partition.
const SEARCH_BYTES_MAX: usize = 32 << 20;
/// A probe looks so far for a marker.
const PROBE_BYTES_MAX: usize = 2 << 20;

/// The transaction that is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Under which it wrote.
    pub(super) producer: ProducerIdentity,
    /// When its positions were committed.
    pub(super) time: Timestamp,
    /// The rows of a partition that are shown.
    pub(super) limit: usize,
}

/// The part of a transaction that lies in one partition.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) rows: Vec<Row>,
    pub(super) count: u64,
    pub(super) first: Option<Offset>,
    pub(super) last: Option<Offset>,
    /// The marker there: its offset and kind.
    pub(super) end: Option<(Offset, ControlType)>,
    /// Whether its first batch is among what was read.
    has_begin: bool,
}

impl Part {
    /// Whether all that it wrote was seen.
    pub(super) fn is_whole(&self) -> bool {
        self.has_begin && self.end.is_some()
    }

    pub(super) fn is_touched(&self) -> bool {
        self.count > 0 || self.end.is_some()
    }

    /// Takes the next batch of the partition. Returns whether more may come.
    fn take(&mut self, batch: &Batch, wanted: &Wanted) -> Result<bool, BatchError> {
        let header = batch.header();
        let (epoch, own) = (header.producer.epoch, wanted.producer.epoch);
        if header.producer.id != wanted.producer.id {
            let is_later = header.max_timestamp > wanted.time.plus_millis(LOOK_AHEAD_MILLIS);
            return Ok(!(header.is_control() && is_later));
        }
        match (header.is_control(), epoch.0.cmp(&own.0)) {
            // A marker has the epoch that follows: that of the transaction before has the wanted one.
            (true, std::cmp::Ordering::Greater) => {
                let kind = batch.control()?.map(|marker| marker.kind);
                let is_own = epoch.0 == own.0 + 1;
                self.end = kind
                    .filter(|_| is_own)
                    .map(|kind| (header.base_offset, kind));
                Ok(false)
            }
            (true, _) | (false, std::cmp::Ordering::Less) => Ok(true),
            (false, std::cmp::Ordering::Greater) => Ok(false),
            (false, std::cmp::Ordering::Equal) => {
                self.take_records(batch, header, wanted.limit)?;
                Ok(true)
            }
        }
    }

    fn take_records(
        &mut self,
        batch: &Batch,
        header: &Header,
        limit: usize,
    ) -> Result<(), BatchError> {
        self.has_begin |= header.base_sequence == Sequence::ZERO;
        let records = batch.records(&DecompressionLimit::default())?;
        for record in records.iter() {
            let record = record?;
            self.count += 1;
            self.first = self.first.or(Some(record.offset));
            self.last = Some(record.offset);
            if self.rows.len() < limit {
                self.rows
                    .push(Row::of_record(&record, batch, State::Committed, true));
            }
        }
        Ok(())
    }
}

/// Looks for what the transaction wrote in a partition.
///
/// # Errors
/// If the partition cannot be read.
pub(super) async fn find(
    transport: &dyn Transport,
    place: &TopicPartition,
    wanted: &Wanted,
) -> Result<Part, LookError> {
    let marks = Marks::of(transport, place).await?;
    let mut part = Part::default();
    for back in LOOK_BACK_MILLIS {
        let begin =
            behind_markers_before(transport, place, &marks, wanted.time.plus_millis(-back)).await?;
        part = read(transport, place, (begin, marks.end), wanted).await?;
        if !part.is_touched() || part.is_whole() || begin == marks.start {
            break;
        }
    }
    Ok(part)
}

async fn read(
    transport: &dyn Transport,
    place: &TopicPartition,
    bounds: (Offset, Offset),
    wanted: &Wanted,
) -> Result<Part, LookError> {
    let mut part = Part::default();
    let mut walk = Walk::new(
        transport,
        place,
        Isolation::ReadUncommitted,
        bounds,
        SEARCH_BYTES_MAX,
    );
    while let Some(fetched) = walk.next().await? {
        for batch in Batches::new(fetched.records) {
            let goes_on = batch.and_then(|batch| part.take(&batch, wanted));
            if !goes_on.map_err(|e| corrupt(place, bounds.0, &e))? {
                return Ok(part);
            }
        }
    }
    Ok(part)
}

/// An offset before which all markers are older than a time; not the last such one where markers are far apart.
async fn behind_markers_before(
    transport: &dyn Transport,
    place: &TopicPartition,
    marks: &Marks,
    time: Timestamp,
) -> Result<Offset, LookError> {
    let mut bisect = Bisect::new(marks.start, marks.end);
    while let Some(probe) = bisect.probe() {
        let bounds = (probe, bisect.high());
        let mut walk = Walk::new(
            transport,
            place,
            Isolation::ReadUncommitted,
            bounds,
            PROBE_BYTES_MAX,
        );
        let mut seen = None;
        'walk: while let Some(fetched) = walk.next().await? {
            for batch in Batches::new(fetched.records) {
                let batch = batch.map_err(|e| corrupt(place, probe, &e))?;
                let header = batch.header();
                if header.is_control() && header.base_offset >= probe {
                    let side = match header.max_timestamp < time {
                        true => Side::Before,
                        false => Side::Behind,
                    };
                    seen = Some((header.base_offset, side)).filter(|(at, _)| *at < bounds.1);
                    break 'walk;
                }
            }
        }
        bisect.step(probe, seen);
    }
    Ok(bisect.low())
}
