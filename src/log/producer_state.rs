//! Producers of one partition: the window of recent batches, and the open transactions.
//!
//! Pure: it decides about headers and never touches a file. It answers whether a batch is new, a duplicate (I6)
//! or forbidden, and where the oldest open transaction begins (I5).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::protocol::ErrorCode;
use crate::protocol::batch::{ControlType, Header};
use crate::types::{
    EpochAtEnd, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, Timestamp,
};

use super::AppendOrigin;
use super::leader_epochs::LeaderEpochs;

/// Batches of a producer that are remembered (Kafka's `NUM_BATCHES_TO_RETAIN`): as many as may be in flight.
pub(crate) const WINDOW_BATCHES: usize = 5;

/// A batch in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowBatch {
    pub(crate) first_sequence: Sequence,
    pub(crate) last_sequence: Sequence,
    pub(crate) first_offset: Offset,
    pub(crate) last_offset: Offset,
    /// Its largest record timestamp.
    pub(crate) timestamp: Timestamp,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerEntry {
    pub(crate) producer_epoch: ProducerEpoch,
    /// The epoch of the coordinator that wrote the last marker; −1 before the first.
    pub(crate) coordinator_epoch: i32,
    /// The last batches of this epoch, oldest first.
    pub(crate) window: VecDeque<WindowBatch>,
    /// The first offset of the open transaction.
    pub(crate) transaction_start: Option<Offset>,
    /// Wall clock of the last append: idle producers are forgotten by it, not by record timestamps, which may be old.
    pub(crate) last_append: Timestamp,
    /// The time of its last batch or marker: the largest of the records'.
    pub(crate) last_timestamp: Timestamp,
    /// Where the last marker stands: compaction keeps it while it is all that the log has of the producer.
    pub(crate) last_marker: Option<Offset>,
}

impl ProducerEntry {
    pub(crate) fn new(producer_epoch: ProducerEpoch) -> Self {
        Self {
            producer_epoch,
            coordinator_epoch: -1,
            window: VecDeque::with_capacity(WINDOW_BATCHES),
            transaction_start: None,
            last_append: Timestamp::NONE,
            last_timestamp: Timestamp::NONE,
            last_marker: None,
        }
    }

    fn move_to_epoch(&mut self, producer_epoch: ProducerEpoch) {
        if self.producer_epoch != producer_epoch {
            self.producer_epoch = producer_epoch;
            self.window.clear();
        }
    }

    /// The sequence that the next batch of the same epoch must begin with.
    fn next_sequence(&self) -> Sequence {
        self.window
            .back()
            .map_or(Sequence::ZERO, |last| last.last_sequence.plus(1))
    }
}

/// Verdict on a batch or marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new: write it.
    Append,
    /// It was written before.
    Duplicate {
        first_offset: Offset,
        last_offset: Offset,
        timestamp: Timestamp,
    },
    /// It must not be written.
    Refuse(ErrorCode, String),
}

/// A transaction that a marker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndedTransaction {
    pub(crate) producer_id: ProducerId,
    pub(crate) first_offset: Offset,
    /// The offset of the marker.
    pub(crate) last_offset: Offset,
    /// Where the oldest transaction that is still open begins, or one past the marker.
    pub(crate) last_stable_offset: Offset,
    pub(crate) kind: ControlType,
}

/// All producers of one partition, and the leader epochs under which they wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProducerState {
    /// Shared with the reads that are under way.
    pub(super) epochs: Arc<LeaderEpochs>,
    entries: BTreeMap<ProducerId, ProducerEntry>,
    /// The open transactions by first offset.
    open: BTreeMap<Offset, ProducerId>,
}

impl ProducerState {
    /// Judges a data batch that is about to be appended.
    pub(crate) fn check(&self, header: &Header, origin: AppendOrigin) -> Verdict {
        if !header.producer.id.is_some() {
            return Verdict::Append;
        }
        // Whoever was idle for longer than producers are remembered goes on where it was. That a delayed batch of an ended
        // transaction joins no other is the coordinator's business (C13).
        let Some(entry) = self.entries.get(&header.producer.id) else {
            return Verdict::Append;
        };
        if let Some(duplicate) = Self::find_duplicate(entry, header) {
            return duplicate;
        }
        let (known, given) = (entry.producer_epoch, header.producer.epoch);
        if given < known {
            return Verdict::Refuse(
                ErrorCode::InvalidProducerEpoch,
                format!(
                    "producer {} has epoch {known} here, the batch has {given}",
                    header.producer.id
                ),
            );
        }
        if let Some(refusal) = Self::check_transaction(entry, header) {
            return refusal;
        }
        match origin {
            AppendOrigin::Coordinator => Verdict::Append,
            AppendOrigin::Client => Self::check_sequence(entry, header),
        }
    }

    fn find_duplicate(entry: &ProducerEntry, header: &Header) -> Option<Verdict> {
        if header.producer.epoch != entry.producer_epoch || header.base_sequence == Sequence::NONE {
            return None;
        }
        let last_sequence = header.last_sequence();
        let same = |known: &&WindowBatch| {
            known.first_sequence == header.base_sequence && known.last_sequence == last_sequence
        };
        entry
            .window
            .iter()
            .find(same)
            .map(|known| Verdict::Duplicate {
                first_offset: known.first_offset,
                last_offset: known.last_offset,
                timestamp: known.timestamp,
            })
    }

    fn check_transaction(entry: &ProducerEntry, header: &Header) -> Option<Verdict> {
        let start = entry.transaction_start?;
        if !header.is_transactional() {
            return Some(Verdict::Refuse(
                ErrorCode::InvalidTxnState,
                format!(
                    "producer {} has a transaction open since offset {start}, but the batch is not transactional",
                    header.producer.id
                ),
            ));
        }
        (header.producer.epoch > entry.producer_epoch).then(|| {
            Verdict::Refuse(
                ErrorCode::ConcurrentTransactions,
                format!(
                    "producer {} has a transaction of epoch {} open since offset {start}: it must end before epoch {} begins",
                    header.producer.id, entry.producer_epoch, header.producer.epoch
                ),
            )
        })
    }

    fn check_sequence(entry: &ProducerEntry, header: &Header) -> Verdict {
        let expected = match header.producer.epoch > entry.producer_epoch {
            true => Sequence::ZERO,
            false => entry.next_sequence(),
        };
        if header.base_sequence == expected {
            return Verdict::Append;
        }
        Verdict::Refuse(
            ErrorCode::OutOfOrderSequenceNumber,
            format!(
                "producer {} of epoch {} must go on with sequence {}, not {}",
                header.producer.id, header.producer.epoch, expected.0, header.base_sequence.0
            ),
        )
    }

    /// Judges a marker that is about to be appended (KIP-1228: a marker's epoch is above its data's, unless the
    /// transaction was one that keeps its epoch).
    pub(crate) fn check_marker(
        &self,
        producer: ProducerIdentity,
        coordinator_epoch: i32,
        epochs: EpochAtEnd,
    ) -> Verdict {
        let Some(entry) = self.entries.get(&producer.id) else {
            return Verdict::Append;
        };
        if coordinator_epoch < entry.coordinator_epoch {
            return Verdict::Refuse(
                ErrorCode::TransactionCoordinatorFenced,
                format!(
                    "a coordinator of epoch {} wrote here before; this marker's has {coordinator_epoch}",
                    entry.coordinator_epoch
                ),
            );
        }
        let is_kept = epochs == EpochAtEnd::Kept
            && producer.epoch == entry.producer_epoch
            && entry.transaction_start.is_some();
        if producer.epoch > entry.producer_epoch || is_kept {
            return Verdict::Append;
        }
        if producer.epoch == entry.producer_epoch && entry.transaction_start.is_none() {
            // A retry whose first attempt was written (KAFKA-19999), or a marker for a partition that got no data.
            let offset = entry.last_marker.unwrap_or(Offset::ZERO);
            return Verdict::Duplicate {
                first_offset: offset,
                last_offset: offset,
                timestamp: Timestamp::NONE,
            };
        }
        Verdict::Refuse(
            ErrorCode::InvalidProducerEpoch,
            format!(
                "producer {} has epoch {} here; a marker must have a higher one, not {}",
                producer.id, entry.producer_epoch, producer.epoch
            ),
        )
    }

    /// Takes note of the leader epoch of a batch; [`ProducerState::apply`] does it for data.
    pub(super) fn note_epoch(&mut self, header: &Header) {
        if self.epochs.is_news(header) {
            Arc::make_mut(&mut self.epochs).note(header);
        }
    }

    /// Forgets the leader epochs of what lies below the first offset.
    pub(super) fn begin_epochs_at(&mut self, log_start: Offset) {
        Arc::make_mut(&mut self.epochs).begin_at(log_start);
    }

    /// Takes note of a data batch that was written, or that is read again in recovery.
    pub(crate) fn apply(&mut self, header: &Header, now: Timestamp) {
        self.note_epoch(header);
        let ProducerIdentity { id, epoch } = header.producer;
        if !id.is_some() {
            return;
        }
        let entry = self
            .entries
            .entry(id)
            .or_insert_with(|| ProducerEntry::new(epoch));
        entry.move_to_epoch(epoch);
        entry.last_append = now;
        entry.last_timestamp = header.max_timestamp;
        if header.base_sequence != Sequence::NONE {
            if entry.window.len() == WINDOW_BATCHES {
                entry.window.pop_front();
            }
            entry.window.push_back(WindowBatch {
                first_sequence: header.base_sequence,
                last_sequence: header.last_sequence(),
                first_offset: header.base_offset,
                last_offset: header.last_offset(),
                timestamp: header.max_timestamp,
            });
        }
        if header.is_transactional() && entry.transaction_start.is_none() {
            entry.transaction_start = Some(header.base_offset);
            self.open.insert(header.base_offset, id);
        }
    }

    /// Takes note of a marker of `time` at `offset`; returns the transaction that it ended, if one was open.
    pub(crate) fn apply_marker(
        &mut self,
        producer: ProducerIdentity,
        kind: ControlType,
        coordinator_epoch: i32,
        (offset, time): (Offset, Timestamp),
        now: Timestamp,
    ) -> Option<EndedTransaction> {
        let entry = self
            .entries
            .entry(producer.id)
            .or_insert_with(|| ProducerEntry::new(producer.epoch));
        entry.move_to_epoch(producer.epoch);
        entry.coordinator_epoch = entry.coordinator_epoch.max(coordinator_epoch);
        entry.last_append = now;
        entry.last_timestamp = time;
        entry.last_marker = Some(offset);
        let first_offset = entry.transaction_start.take()?;
        let removed = self.open.remove(&first_offset);
        assert_eq!(
            removed,
            Some(producer.id),
            "each open transaction is listed by its first offset"
        );
        Some(EndedTransaction {
            producer_id: producer.id,
            first_offset,
            last_offset: offset,
            last_stable_offset: self.first_open_offset().unwrap_or(offset.plus(1)),
            kind,
        })
    }

    /// Where the oldest open transaction begins.
    pub(crate) fn first_open_offset(&self) -> Option<Offset> {
        self.open.first_key_value().map(|(&offset, _)| offset)
    }

    /// The open transactions by first offset, with the epoch of their data.
    pub(crate) fn open_transactions(
        &self,
    ) -> impl Iterator<Item = (ProducerIdentity, Offset)> + '_ {
        self.open.iter().filter_map(|(&offset, &id)| {
            let epoch = self.entries.get(&id)?.producer_epoch;
            Some((ProducerIdentity { id, epoch }, offset))
        })
    }

    /// The producer's entry.
    pub(crate) fn entry(&self, id: ProducerId) -> Option<&ProducerEntry> {
        self.entries.get(&id)
    }

    /// All entries by id.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = (ProducerId, &ProducerEntry)> {
        self.entries.iter().map(|(&id, entry)| (id, entry))
    }

    /// Puts an entry read from a snapshot in place.
    pub(crate) fn insert(&mut self, id: ProducerId, entry: ProducerEntry) {
        if let Some(start) = entry.transaction_start {
            self.open.insert(start, id);
        }
        self.entries.insert(id, entry);
    }

    /// Forgets producers that appended nothing for `expiration_ms`; never one with an open transaction (C26).
    pub(crate) fn expire(&mut self, now: Timestamp, expiration_ms: i64) {
        self.entries.retain(|_, entry| {
            entry.transaction_start.is_some()
                || now.0.saturating_sub(entry.last_append.0) < expiration_ms
        });
    }
}
