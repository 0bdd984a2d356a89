//! [`SourceChangelog`]: the topic that a table is made of, where it is the changelog of the table's store, too.
//!
//! The records of the topic below the job's committed position are what the table had there, since the log removes no record for the
//! sake of one behind that position (`broker/holds.rs`). So the position of the store in its changelog is that of the source, and a restore
//! decodes the topic's records as the source does. `life/source_tables.rs` decides which tables have no other changelog.

use std::sync::Arc;
use std::time::Duration;

use super::context::JobContext;
use crate::broker::{CompactionHold, HeldPartition};
use crate::client::consumer::PartitionReader;
use crate::client::wait;
use crate::codec::{CodecError, tell_apart};
use crate::env::progress::Unit;
use crate::env::warn;
use crate::protocol::batch::Record;
use crate::protocol::messages::{OffsetSpec, TopicMetadata};
use crate::runtime::contract::error::JobError;
use crate::state::CycleStore;
use crate::types::{GroupId, Isolation, Offset, TopicName, TopicPartition};

/// Longest wait of a restore at once for records.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// The pause between looks whether the schema of a record has come, and the most looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LOOKS_MAX: u32 = 500;

/// Makes of a record's value the value as the table's store has it; `false` where the key is deleted.
pub(crate) type RowOf = Arc<
    dyn Fn(Option<&[u8]>, Option<&[u8]>, &mut Vec<u8>) -> Result<bool, CodecError> + Send + Sync,
>;

/// A table that is made of a topic's records as they are, and could have that topic as its changelog.
#[derive(Clone)]
pub(crate) struct SourceTable {
    pub(crate) topic: String,
    /// Whether the topic has its keys in another codec than the job.
    pub(crate) has_other_keys: bool,
    pub(crate) row_of: RowOf,
}

/// A source topic that is the changelog of a table's store.
#[derive(Clone)]
pub(crate) struct SourceChangelog {
    pub(crate) topic: TopicMetadata,
    pub(crate) group: GroupId,
    /// The name of the store.
    pub(crate) table: String,
    pub(crate) row_of: RowOf,
    /// The committed position of each partition, as the job found it.
    pub(crate) committed: Vec<Option<Offset>>,
    /// Compaction of each.
    pub(crate) held: Vec<HeldPartition>,
}

impl JobContext {
    /// Whether a source topic is the changelog of a table.
    pub(crate) fn is_changelog(&self, topic: &TopicName) -> bool {
        let mut changelogs = self.source_changelogs.values();
        changelogs.any(|it| it.topic.name == *topic)
    }
}

impl SourceChangelog {
    fn place(&self, partition: u16) -> TopicPartition {
        TopicPartition::new(self.topic.name.clone(), i32::from(partition))
    }

    pub(super) fn end(&self, partition: u16) -> Option<Offset> {
        *self.committed.get(usize::from(partition))?
    }

    /// Forgets what RocksDB holds of partitions that cannot be continued from there: a tombstone behind may be gone by now.
    pub(super) fn wipe_what_cannot_be_continued(
        &self,
        job: &JobContext,
        partitions: &[u16],
    ) -> Result<(), JobError> {
        for &partition in partitions {
            let Some(position) = job.backend.position(&self.table, partition) else {
                continue;
            };
            let held = self.held.get(usize::from(partition));
            let end = self.end(partition);
            if !held.is_some_and(|held| can_continue(position, end, held)) {
                let topic = self.place(partition);
                warn!(%position, ?end, %topic, "the state on disk does not fit the topic that it is made of; restoring all of it");
                job.backend.wipe(&self.table, partition)?;
            }
        }
        Ok(())
    }

    /// Reads what RocksDB lacks of a partition, up to the committed position; returns that.
    pub(super) fn restore(
        &self,
        job: &JobContext,
        store: &mut dyn CycleStore,
        partition: u16,
    ) -> Result<Offset, JobError> {
        let Some(end) = self.end(partition) else {
            return Ok(Offset::ZERO);
        };
        let place = self.place(partition);
        let position = match job.backend.position(store.name(), partition) {
            Some(position) => position,
            None => {
                let isolation = Isolation::ReadCommitted;
                let first = job
                    .transport
                    .list_offset(&place, OffsetSpec::Earliest, isolation);
                wait(first)?.map_or(Offset::ZERO, |found| found.offset)
            }
        };
        let mut reader = PartitionReader::new(
            Arc::clone(&job.transport),
            place.clone(),
            position,
            Isolation::ReadCommitted,
        );
        let mut row = Vec::new();
        let total = u64::try_from(end.since(position)).ok();
        let what = format!("restoring {} from {place}", store.name());
        let mut told = job.env.progress(what, Unit::Things("offsets"), total);
        while reader.position() < end {
            told.at(u64::try_from(reader.position().since(position)).unwrap_or(0));
            for batch in wait(reader.fetch(WAIT_MAX))? {
                let batch = batch?;
                for record in batch.iter() {
                    let record = record?;
                    if record.offset >= end {
                        break;
                    }
                    self.restore_record(job, store, partition, &record, &mut row)?;
                }
            }
        }
        let holds = job.transport.compaction_holds(&self.group)?;
        if self.is_compacted_as_before(partition, &holds.unwrap_or_default()) {
            return Ok(end);
        }
        warn!(topic = %place, "the topic was compacted while a table was restored from it");
        Err(JobError::NotCommitted {
            job: job.name.clone(),
        })
    }

    fn restore_record(
        &self,
        job: &JobContext,
        store: &mut dyn CycleStore,
        partition: u16,
        record: &Record<'_>,
        row: &mut Vec<u8>,
    ) -> Result<(), JobError> {
        let refuse = |why: &str| JobError::Source {
            source_name: self.place(partition).to_string(),
            why: format!(
                "record {}, of which a table is restored, {why}",
                record.offset
            ),
        };
        let Some(key) = record.key else {
            return Err(refuse("has no key by now"));
        };
        let mut looks = 0;
        let has_value = loop {
            row.clear();
            match (self.row_of)(record.key, record.value, row) {
                Err(CodecError::Awaited { .. }) if looks < LOOKS_MAX => {
                    looks += 1;
                    job.env.clock.sleep(LOOK_AGAIN);
                }
                decoded => {
                    break decoded.map_err(|e| refuse(&format!("cannot be decoded: {e}")))?;
                }
            }
        };
        if job.backend.are_told_apart(&self.table) {
            tell_apart(row, 0);
        }
        let value = has_value.then_some(row.as_slice());
        Ok(store.restore(partition, key, value, record.offset.plus(1))?)
    }

    /// Whether a partition is compacted as far as it was.
    fn is_compacted_as_before(&self, partition: u16, holds: &[CompactionHold]) -> bool {
        let partition = usize::from(partition);
        let mut holds = holds.iter();
        let hold = holds.find(|it| it.table == self.table && it.topic_id == self.topic.id);
        let now = hold.and_then(|hold| hold.partitions.get(partition));
        now.is_some_and(|now| {
            let before = self.held.get(partition).and_then(|held| held.now);
            now.now.map(|it| it.0) == before.map(|it| it.0)
        })
    }
}

/// Whether rows of RocksDB as of `position` and the records from there to `end` are the table at `end`: nothing was removed behind the
/// position since the topic became the changelog.
fn can_continue(position: Offset, end: Option<Offset>, held: &HeldPartition) -> bool {
    let Some((cleaned_end, start)) = held.now else {
        return false;
    };
    let is_whole = position >= cleaned_end || cleaned_end == held.cleaned_end_before;
    position >= start && end.is_some_and(|end| position <= end) && is_whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_on_disk_are_continued_only_where_no_tombstone_behind_them_can_be_gone() {
        let held = |before, now| HeldPartition {
            cleaned_end_before: Offset(before),
            now: Some((Offset(now), Offset(0))),
        };
        let can = |position, end: Option<i64>, held| {
            can_continue(Offset(position), end.map(Offset), &held)
        };
        assert!(can(5, Some(9), held(0, 5)));
        assert!(can(9, Some(9), held(0, 9)));
        // A compaction went past the rows.
        assert!(!can(4, Some(9), held(0, 5)));
        // It did so before the first record was read, and not since.
        assert!(can(4, Some(9), held(20, 20)));
        // The job went back, or begins anew.
        assert!(!can(9, Some(8), held(0, 0)));
        assert!(!can(0, None, held(0, 0)));
    }
}
