//! `FetchedBatches`: the batches of one fetch that a reader may see, as they lie in the log.
//!
//! At `read_committed` the broker sends everything below the last stable offset, with the list of aborted
//! transactions; leaving those out is the reader's part. Markers are never shown, but the position passes
//! them, so that offsets have gaps.

use std::collections::HashSet;

use bytes::Bytes;

use crate::client::ClientError;
use crate::protocol::batch::{
    Batch, BatchError, Batches, ControlType, DecompressionLimit, Header, Record, Records,
};
use crate::protocol::messages::{AbortedTransaction, FetchedRecords};
use crate::types::{Isolation, Offset, ProducerId, TopicPartition};

/// The batches of one fetch from one partition, filtered; an iterator. A batch whose records nobody can read is an error, and
/// the next call goes on behind it; after damage there is nothing more.
#[derive(Debug)]
pub struct FetchedBatches {
    partition: TopicPartition,
    batches: Batches,
    filter: AbortFilter,
    from: Offset,
    /// One past everything that was yielded or left out.
    next_offset: Offset,
    end: Offset,
    unreadable: Option<UnreadableBatch>,
    is_failed: bool,
}

/// A batch that arrived as it was sent, and whose records, or some of them, nobody can read.
#[derive(Debug, Clone)]
pub struct UnreadableBatch {
    /// The whole batch.
    pub batch: Batch,
    /// The first offset that was not shown.
    pub offset: Offset,
    /// The fault.
    pub why: BatchError,
}

impl UnreadableBatch {
    /// Says that nobody can read it, and where it is.
    #[must_use]
    pub fn error(&self, partition: &TopicPartition) -> ClientError {
        unreadable(partition, self.offset, self.batch.header(), &self.why)
    }
}

impl FetchedBatches {
    /// Takes the visible part of `fetched` from offset `from` on.
    #[must_use]
    pub fn new(
        partition: TopicPartition,
        from: Offset,
        isolation: Isolation,
        fetched: FetchedRecords,
    ) -> Self {
        let aborted = match isolation {
            Isolation::ReadCommitted => fetched.aborted_transactions,
            Isolation::ReadUncommitted => Vec::new(),
        };
        Self {
            partition,
            end: end_of(&fetched.records, from),
            batches: Batches::new(fetched.records),
            filter: AbortFilter::new(aborted),
            from,
            next_offset: from,
            unreadable: None,
            is_failed: false,
        }
    }

    /// The batch of the last error, if only its records cannot be read: the next call goes on behind it.
    pub fn take_unreadable(&mut self) -> Option<UnreadableBatch> {
        self.unreadable.take()
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The position once everything here is consumed: one past the last whole batch, markers and
    /// aborted records included.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// One past everything that was yielded or left out so far.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    fn corrupt(&mut self, error: &BatchError) -> ClientError {
        self.is_failed = true;
        corrupt(&self.partition, self.next_offset, error)
    }

    /// Whether the batch is to be seen.
    fn is_visible(&mut self, batch: &Batch) -> Result<bool, BatchError> {
        Ok(batch.header().next_offset() > self.from && self.filter.admits(batch)?)
    }

    fn read(&mut self, batch: Batch) -> Result<CommittedBatch, ClientError> {
        let from = self.from;
        match batch.records(&DecompressionLimit::default()) {
            Ok(records) => Ok(CommittedBatch {
                batch,
                records,
                from,
            }),
            Err(why) => {
                let offset = from.max(batch.header().base_offset);
                let bad = UnreadableBatch { batch, offset, why };
                let error = bad.error(&self.partition);
                self.unreadable = Some(bad);
                Err(error)
            }
        }
    }
}

impl Iterator for FetchedBatches {
    type Item = Result<CommittedBatch, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_failed {
            let batch = match self.batches.next()? {
                Ok(batch) => batch,
                Err(error) => return Some(Err(self.corrupt(&error))),
            };
            let is_visible = match self.is_visible(&batch) {
                Ok(is_visible) => is_visible,
                Err(error) => return Some(Err(self.corrupt(&error))),
            };
            self.next_offset = self.next_offset.max(batch.header().next_offset());
            if is_visible {
                return Some(self.read(batch));
            }
        }
        None
    }
}

/// One past the last whole batch; a damaged one ends it, and is reported when it is reached.
fn end_of(records: &Bytes, from: Offset) -> Offset {
    let batches = Batches::new(records.clone()).map_while(Result::ok);
    batches.fold(from, |end, batch| end.max(batch.header().next_offset()))
}

pub(super) fn corrupt(
    partition: &TopicPartition,
    offset: Offset,
    error: &BatchError,
) -> ClientError {
    ClientError::Corrupt {
        partition: partition.clone(),
        offset,
        why: error.to_string(),
    }
}

/// The error for a batch of which nobody can read the records from `offset` on.
pub(super) fn unreadable(
    partition: &TopicPartition,
    offset: Offset,
    header: &Header,
    why: &BatchError,
) -> ClientError {
    ClientError::Unreadable {
        partition: partition.clone(),
        offset,
        next_offset: header.next_offset(),
        why: why.to_string(),
    }
}

/// One batch whose records may be seen. Its checksum was checked by the log.
#[derive(Debug, Clone)]
pub struct CommittedBatch {
    batch: Batch,
    records: Records,
    from: Offset,
}

impl CommittedBatch {
    /// The batch's header.
    #[must_use]
    pub fn header(&self) -> &Header {
        self.records.header()
    }

    /// One past the batch's last offset.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.records.header().next_offset()
    }

    /// The records from the reader's position on, in place: nothing is copied or allocated.
    pub fn iter(&self) -> impl Iterator<Item = Result<Record<'_>, BatchError>> {
        let from = self.from;
        // A fetch begins with the whole batch that holds the position.
        let is_before = move |record: &Result<Record<'_>, BatchError>| {
            record.as_ref().is_ok_and(|record| record.offset < from)
        };
        self.records
            .iter()
            .skip_while(move |record| is_before(record))
    }

    /// The batch, from whose record at `offset` on nobody can read it, for `why`.
    #[must_use]
    pub fn unreadable_from(&self, offset: Offset, why: BatchError) -> UnreadableBatch {
        UnreadableBatch {
            batch: self.batch.clone(),
            offset,
            why,
        }
    }

    /// The decompressed records with the bytes that they borrow from; they may begin before the
    /// reader's position.
    #[must_use]
    pub fn records(&self) -> &Records {
        &self.records
    }
}

/// A batch as a reader of committed records sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Fate {
    /// Records without a transaction, or of one that was committed.
    Visible,
    /// Records of a transaction that was aborted.
    Aborted,
    /// A marker or another control batch: no records.
    Control(Option<ControlType>),
}

/// Tells the batches of aborted transactions from others, below the last stable offset.
#[derive(Debug)]
pub(in crate::client) struct AbortFilter {
    /// Not reached yet; the next one is last.
    ahead: Vec<AbortedTransaction>,
    /// Reached, their marker not yet.
    aborted: HashSet<ProducerId>,
}

impl AbortFilter {
    pub(in crate::client) fn new(mut ahead: Vec<AbortedTransaction>) -> Self {
        ahead.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self {
            ahead,
            aborted: HashSet::new(),
        }
    }

    /// Whether the next batch is data that may be seen.
    fn admits(&mut self, batch: &Batch) -> Result<bool, BatchError> {
        Ok(self.judge(batch)? == Fate::Visible)
    }

    /// The fate of the next batch.
    pub(in crate::client) fn judge(&mut self, batch: &Batch) -> Result<Fate, BatchError> {
        let header = batch.header();
        let last_offset = header.last_offset();
        let is_reached = |t: &mut AbortedTransaction| t.first_offset <= last_offset;
        while let Some(reached) = self.ahead.pop_if(is_reached) {
            self.aborted.insert(reached.producer_id);
        }
        if header.is_control() {
            let kind = batch.control()?.map(|marker| marker.kind);
            if kind == Some(ControlType::Abort) {
                self.aborted.remove(&header.producer.id);
            }
            return Ok(Fate::Control(kind));
        }
        let is_aborted = header.is_transactional() && self.aborted.contains(&header.producer.id);
        Ok(match is_aborted {
            true => Fate::Aborted,
            false => Fate::Visible,
        })
    }
}
