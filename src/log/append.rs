//! Appends: checks, place, one write, and what is then known.

use bytes::BytesMut;

use super::error::LogError;
use super::partition::{AppendOrigin, Appended, PartitionLog};
use super::producer_state::Verdict;
use super::segment::Segment;
use super::{aborted::AbortedEntry, derived};
use crate::env::{File, failpoint};
use crate::protocol::ErrorCode;
use crate::protocol::batch::{
    Batch, BatchError, ControlRecord, ControlType, DecompressionLimit, HEADER_BYTES, Header,
    NewRecords, RecordRules, check_client_batch, check_client_records, encode_marker, stamp,
    stamp_log_append_time, stamp_max_timestamp,
};
use crate::types::{Durability, EpochAtEnd, Offset, ProducerIdentity, Timestamp, TimestampType};

/// The operating system is asked to begin writing after so many bytes, so that the next sync has little left to do.
const WRITEBACK_BYTES: u64 = 4 << 20;

impl PartitionLog {
    /// Appends whole record batches. Batches of an idempotent or transactional producer come one at a time.
    ///
    /// Of a batch that somebody else built every record is read first, and the header gets what follows from them.
    ///
    /// # Errors
    /// [`LogError::Refused`] and [`LogError::InvalidBatch`] if the batches are not allowed, and
    /// [`LogError::StorageFull`]: then nothing was written. [`LogError::Io`] poisons the log.
    pub fn append(
        &mut self,
        records: impl Into<NewRecords>,
        origin: AppendOrigin,
    ) -> Result<Appended, LogError> {
        self.check_usable()?;
        let records = records.into();
        let mut headers = self.check_batches(&records, origin)?;
        // As in Kafka, a batch that comes again must keep the topic's rules too: the clock and the settings go on.
        self.check_records(&records, origin, &mut headers)?;
        if let Some(duplicate) = self.judge(&headers, origin)? {
            return Ok(duplicate);
        }
        let records = records.into_bytes();
        let mut bytes = match self.recompressed(&records, origin, &mut headers)? {
            Some(bytes) => bytes,
            None => records
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..])),
        };
        let log_append_time = self.place(&mut bytes, &mut headers);
        let rolled = self.roll_if_due(&headers, bytes.len())?;
        self.write(&bytes)?;
        let now = self.env.clock.wall();
        let density = self.density();
        for header in &headers {
            self.active_mut().note(header, density);
            self.producers.apply(header, now);
        }
        self.advance_last_stable();
        let (first, last) = (headers.first(), headers.last());
        Ok(Appended {
            base_offset: first.map_or(Offset::ZERO, |header| header.base_offset),
            last_offset: last.map_or(Offset::ZERO, Header::last_offset),
            log_append_time,
            is_duplicate: false,
            rolled,
        })
    }

    /// Ends the producer's transaction in this partition. A repeated marker appends nothing and is a duplicate.
    ///
    /// # Errors
    /// As [`PartitionLog::append`]; [`LogError::Refused`] if the marker's producer epoch is not above that of the
    /// data, or its coordinator epoch below the last one.
    pub fn append_marker(
        &mut self,
        producer: ProducerIdentity,
        marker: ControlRecord,
    ) -> Result<Appended, LogError> {
        self.append_marker_as(producer, marker, EpochAtEnd::Bumped)
    }

    /// As [`PartitionLog::append_marker`], for a transaction that keeps its producer's epoch: the marker has that of
    /// the data. The caller sees to it that no such marker comes late, since its epoch would not show it.
    ///
    /// # Errors
    /// As [`PartitionLog::append_marker`].
    pub fn append_marker_of_kept_epoch(
        &mut self,
        producer: ProducerIdentity,
        marker: ControlRecord,
    ) -> Result<Appended, LogError> {
        self.append_marker_as(producer, marker, EpochAtEnd::Kept)
    }

    fn append_marker_as(
        &mut self,
        producer: ProducerIdentity,
        marker: ControlRecord,
        epochs: EpochAtEnd,
    ) -> Result<Appended, LogError> {
        self.check_usable()?;
        match self
            .producers
            .check_marker(producer, marker.coordinator_epoch, epochs)
        {
            Verdict::Append => {}
            Verdict::Duplicate {
                first_offset,
                last_offset,
                ..
            } => {
                return Ok(Appended::duplicate(
                    first_offset,
                    last_offset,
                    Timestamp::NONE,
                ));
            }
            Verdict::Refuse(code, why) => return Err(LogError::refused(code, why)),
        }
        let now = self.env.clock.wall();
        let mut bytes = encode_marker(producer, marker, now);
        let mut headers = vec![Header::parse(&bytes)?];
        self.place(&mut bytes, &mut headers);
        let rolled = self.roll_if_due(&headers, bytes.len())?;
        self.write(&bytes)?;
        let offset = self.log_end_offset();
        for header in &headers {
            let density = self.density();
            self.active_mut().note(header, density);
            self.producers.note_epoch(header);
        }
        self.end_transaction(producer, marker, offset, now);
        // Its transaction is decided, durably: a power loss that takes the marker has it written again.
        self.acknowledge();
        Ok(Appended {
            base_offset: offset,
            last_offset: offset,
            log_append_time: Timestamp::NONE,
            is_duplicate: false,
            rolled,
        })
    }

    fn end_transaction(
        &mut self,
        producer: ProducerIdentity,
        marker: ControlRecord,
        offset: Offset,
        now: Timestamp,
    ) {
        let ended = self.producers.apply_marker(
            producer,
            marker.kind,
            marker.coordinator_epoch,
            (offset, now),
            now,
        );
        if let Some(ended) = ended.filter(|ended| ended.kind == ControlType::Abort) {
            // I5: readers must know what to leave out before the last stable offset lets them read it.
            self.active_mut().note_aborted(AbortedEntry::from(ended));
        }
        self.advance_last_stable();
    }

    /// Checks each batch's header and checksum; returns the headers.
    fn check_batches(
        &self,
        records: &NewRecords,
        origin: AppendOrigin,
    ) -> Result<Vec<Header>, LogError> {
        let records = records.bytes();
        let mut headers = Vec::with_capacity(1);
        let mut rest = records.clone();
        while !rest.is_empty() {
            let total_bytes = Header::parse(&rest)?.total_bytes();
            if total_bytes > rest.len() {
                return Err(LogError::InvalidBatch(BatchError::TooShort {
                    need_bytes: total_bytes,
                    have_bytes: rest.len(),
                }));
            }
            let batch = Batch::parse(rest.split_to(total_bytes))?;
            self.check_batch(&batch, origin)?;
            headers.push(*batch.header());
        }
        let has_producer = headers.iter().any(Header::has_producer);
        if headers.is_empty() || (headers.len() > 1 && has_producer) {
            return Err(LogError::refused(
                ErrorCode::InvalidRecord,
                format!(
                    "{} batches came at once: batches with a producer id come one at a time",
                    headers.len()
                ),
            ));
        }
        self.check_fits_segment(records.len())?;
        Ok(headers)
    }

    pub(super) fn check_fits_segment(&self, bytes_count: usize) -> Result<(), LogError> {
        let segment_bytes = self.config.segment_bytes;
        match bytes_count > segment_bytes as usize {
            true => Err(LogError::refused(
                ErrorCode::RecordListTooLarge,
                format!(
                    "{bytes_count} bytes are more than a segment's {segment_bytes} (segment.bytes)"
                ),
            )),
            false => Ok(()),
        }
    }

    fn check_batch(&self, batch: &Batch, origin: AppendOrigin) -> Result<(), LogError> {
        let header = batch.header();
        if origin == AppendOrigin::Client {
            check_client_batch(header)?;
            self.check_fits_message(header)?;
        }
        Ok(batch.check_crc()?)
    }

    /// Reads the records of what somebody else built, and of what does not surely keep the topic's rules. Afterwards
    /// `headers` say nothing that the records do not.
    fn check_records(
        &self,
        records: &NewRecords,
        origin: AppendOrigin,
        headers: &mut [Header],
    ) -> Result<(), LogError> {
        let rules = match origin {
            AppendOrigin::Client => self.record_rules(),
            AppendOrigin::Coordinator => RecordRules::default(),
        };
        if let NewRecords::Built(batch) = records
            && batch.surely_keeps(&rules)
        {
            return Ok(());
        }
        let mut rest = records.bytes().clone();
        for header in headers {
            let batch = Batch::parse(rest.split_to(header.total_bytes()))?;
            let limit = DecompressionLimit::default();
            header.max_timestamp = check_client_records(&batch, &limit, &rules)?;
        }
        Ok(())
    }

    pub(super) fn check_fits_message(&self, header: &Header) -> Result<(), LogError> {
        let (has_bytes, may_bytes) = (header.total_bytes(), self.config.max_message_bytes);
        match has_bytes > may_bytes as usize {
            true => Err(LogError::refused(
                ErrorCode::MessageTooLarge,
                format!(
                    "the batch has {has_bytes} bytes, at most {may_bytes} are allowed (max.message.bytes)"
                ),
            )),
            false => Ok(()),
        }
    }

    /// The demands of the topic on each record that a client appends now.
    fn record_rules(&self) -> RecordRules {
        let now = self.env.clock.wall();
        let is_checked = self.config.timestamp_type == TimestampType::CreateTime;
        let earliest = now.0.saturating_sub(self.config.timestamp_before_max_ms);
        let latest = now.0.saturating_add(self.config.timestamp_after_max_ms);
        RecordRules {
            is_key_required: self.config.cleanup.is_compacting(),
            timestamps: is_checked.then_some(Timestamp(earliest)..=Timestamp(latest)),
        }
    }

    /// Checks the batches against what is known of their producers; `Some` for a duplicate.
    fn judge(
        &self,
        headers: &[Header],
        origin: AppendOrigin,
    ) -> Result<Option<Appended>, LogError> {
        for header in headers {
            match self.producers.check(header, origin) {
                Verdict::Append => {}
                Verdict::Refuse(code, why) => return Err(LogError::refused(code, why)),
                Verdict::Duplicate {
                    first_offset,
                    last_offset,
                    timestamp,
                } => {
                    let log_append_time = match self.config.timestamp_type {
                        TimestampType::LogAppendTime => timestamp,
                        TimestampType::CreateTime => Timestamp::NONE,
                    };
                    let known = Appended::duplicate(first_offset, last_offset, log_append_time);
                    return Ok(Some(known));
                }
            }
        }
        Ok(None)
    }

    /// Stamps offsets (and time, if the log sets it) into the batches and their headers.
    fn place(&self, bytes: &mut [u8], headers: &mut [Header]) -> Timestamp {
        let is_stamped = self.config.timestamp_type == TimestampType::LogAppendTime;
        let log_append_time = match is_stamped {
            true => self.env.clock.wall(),
            false => Timestamp::NONE,
        };
        let mut offset = self.log_end_offset();
        let mut rest = bytes;
        for header in headers {
            let (batch, behind) = rest.split_at_mut(header.total_bytes());
            stamp(batch, offset, self.config.leader_epoch);
            header.base_offset = offset;
            header.partition_leader_epoch = self.config.leader_epoch;
            if is_stamped && !header.is_control() {
                stamp_log_append_time(batch, log_append_time);
                header.max_timestamp = log_append_time;
            } else {
                stamp_max_timestamp(batch, header.max_timestamp);
            }
            offset = header.next_offset();
            rest = behind;
        }
        log_append_time
    }

    /// Writes at the end of the active segment, all or nothing.
    fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        assert!(
            bytes.len() >= HEADER_BYTES,
            "only whole batches are written"
        );
        let position = self.active().size_bytes;
        let file = self.active().file()?;
        if let Err(error) = file.write_all_at(bytes, position) {
            return self.undo_write(error, &*file, position);
        }
        let end = position + bytes.len() as u64;
        let (before, after) = (position / WRITEBACK_BYTES, end / WRITEBACK_BYTES);
        if before != after {
            let from = before * WRITEBACK_BYTES;
            file.start_writeback(from, after * WRITEBACK_BYTES - from);
        }
        Ok(())
    }

    /// F13: a full disk leaves the log as it was, if the part that was written can be cut off again.
    fn undo_write(
        &mut self,
        error: std::io::Error,
        file: &dyn File,
        position: u64,
    ) -> Result<(), LogError> {
        let path = self.active().path.clone();
        let is_cut = file.set_length(position).is_ok();
        if is_cut && is_storage_full(&error) {
            return Err(LogError::StorageFull {
                path: path.to_path_buf(),
            });
        }
        self.fail(LogError::io("append to", &path)(error))
    }

    fn roll_if_due(&mut self, headers: &[Header], bytes_count: usize) -> Result<bool, LogError> {
        let is_due = self.is_roll_due(headers, bytes_count);
        if is_due {
            self.roll()?;
        }
        Ok(is_due)
    }

    fn is_roll_due(&self, headers: &[Header], bytes_count: usize) -> bool {
        let active = self.active();
        let (Some(last), false) = (headers.last(), active.size_bytes == 0) else {
            return false;
        };
        let newest = headers.iter().map(|header| header.max_timestamp).max();
        let span_ms = newest.map_or(0, |newest| newest.0.saturating_sub(active.range.first.0));
        let size_bytes = active.size_bytes + bytes_count as u64;
        size_bytes > u64::from(self.config.segment_bytes)
            || (active.range.first != Timestamp::NONE && span_ms > self.segment_span_ms())
            || active.index_in_memory().offsets.size_bytes()
                >= self.config.segment_index_bytes as usize
            || last.last_offset().since(active.base_offset) > i64::from(i32::MAX)
    }

    /// The span of record timestamps that the active segment may hold, in milliseconds. On a compacted topic no record
    /// may stay in it, where it is not compacted, for longer than `max_compaction_lag_ms`.
    fn segment_span_ms(&self) -> i64 {
        let config = &self.config;
        let span_ms = match config.cleanup.is_compacting() {
            true => config.segment_ms.min(config.max_compaction_lag_ms),
            false => config.segment_ms,
        };
        let jitter_ms = config.segment_jitter_ms.min(span_ms);
        match u64::try_from(jitter_ms) {
            Ok(bound @ 1..) => {
                let offset = self.active().base_offset.0.to_be_bytes();
                let name = self.dir.as_os_str().as_encoded_bytes();
                let seed = [name, &offset].concat();
                let part = rapidhash::v3::rapidhash_v3(&seed) % bound;
                span_ms - i64::try_from(part).unwrap_or(0)
            }
            _ => span_ms,
        }
    }

    /// Seals the active segment and begins the next.
    pub(super) fn roll(&mut self) -> Result<(), LogError> {
        failpoint("log.before_roll");
        let base_offset = self.log_end_offset();
        if self.config.durability == Durability::Fsync {
            // I9: a segment is on the disk before the next one's name can be, so that damage in a sealed segment
            // is always rot and never a torn tail.
            self.sync_now()?;
        }
        // F14: what takes a file handle comes before the first change; there may be one to spare at the next try.
        let opened = self.open_dir();
        let created = opened.and_then(|dir| {
            let segment = Segment::create(&self.cache, &self.dir, base_offset)?;
            Ok((dir, segment))
        });
        let (dir, segment) = match created {
            Err(error @ LogError::TooManyFiles { .. }) => return Err(error),
            Err(LogError::Io { source, path, .. }) if is_storage_full(&source) => {
                return Err(LogError::StorageFull { path });
            }
            Err(error) => return self.fail(error),
            Ok(created) => created,
        };
        if let Some(sealed) = self.segments.last() {
            self.unsynced.note_roll(sealed);
        }
        let sealed = derived::Checkpoint::of(self.active(), &self.producers);
        self.segments.push(segment);
        if self.config.durability == Durability::Fsync {
            // F10: nothing in the new segment counts as durable before its name does.
            if let Err(error) = dir.sync() {
                let error = LogError::io("sync directory", &self.dir)(error);
                return self.fail(error);
            }
            self.unsynced.clear();
        }
        let written = sealed.write(&self.env, &self.dir);
        let index = self.segments.len() - 2;
        let sealed = &mut self.segments[index];
        sealed.unpin();
        match written {
            Ok(written) => sealed.leave_index_to_files(written),
            Err(error) => {
                crate::env::warn!(%error, "derived files were not written: they will be rebuilt");
            }
        }
        failpoint("log.after_roll");
        Ok(())
    }
}

impl Appended {
    fn duplicate(base_offset: Offset, last_offset: Offset, log_append_time: Timestamp) -> Self {
        Self {
            base_offset,
            last_offset,
            log_append_time,
            is_duplicate: true,
            rolled: false,
        }
    }
}

/// Whether an error means that there is no space, rather than that the disk is broken (F13, F14).
pub(super) fn is_storage_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
