//! Finding offsets, and moving a partition's first one.

use super::BrokerError;
use super::core::Core;
use super::partition::Partition;
use crate::log::CleanupPolicy;
use crate::protocol::messages::{ListedOffset, OffsetSpec};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{Isolation, Offset, Timestamp, TopicPartition};

/// Stands for all records, but for those from the first open transaction on.
const ALL_RECORDS: Offset = Offset(-1);

impl Core {
    pub(super) fn list_offset(
        &self,
        name: &TopicPartition,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Option<ListedOffset>, BrokerError> {
        self.check_open()?;
        let partition = self.partition(name)?;
        let log = partition.lock()?;
        let without_timestamp = |offset| {
            Some(ListedOffset {
                offset,
                timestamp: Timestamp::NONE,
            })
        };
        Ok(match spec {
            OffsetSpec::Earliest => without_timestamp(log.log_start_offset()),
            OffsetSpec::Latest => without_timestamp(log.visible_end(isolation)),
            OffsetSpec::Timestamp(timestamp) => log.offset_for_timestamp(timestamp, isolation)?,
            OffsetSpec::MaxTimestamp => log.max_timestamp_offset(isolation)?,
        })
    }

    pub(super) fn delete_records(
        &self,
        name: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, BrokerError> {
        self.check_open()?;
        let partition = self.partition(name)?;
        self.sync_to_delete(&partition, before)?;
        let mut log = partition.lock()?;
        if log.config().cleanup == CleanupPolicy::Compact {
            return Err(BrokerError::new(
                ErrorCode::PolicyViolation,
                format!(
                    "{name} is compacted: write tombstones, or add delete to its cleanup.policy first"
                ),
            ));
        }
        let before = match before {
            ALL_RECORDS => log.last_stable_offset(),
            before => before,
        };
        let result = log.delete_records(before);
        let log_start = result.map_err(|e| self.append_failed(e, log.poisoned().is_some()))?;
        drop(log);
        // Otherwise the records would be back after a crash.
        self.write_checkpoints()?;
        Ok(log_start)
    }

    /// Only what is durable is deleted: records that were acknowledged without a sync are synced first.
    fn sync_to_delete(&self, partition: &Partition, before: Offset) -> Result<(), BrokerError> {
        let log = partition.lock()?;
        let is_durable = !self.is_fsync()
            || log.synced_end() == log.log_end_offset()
            || (Offset::ZERO..=log.synced_end()).contains(&before);
        drop(log);
        if is_durable {
            return Ok(());
        }
        let synced = self.sync_partition(partition);
        synced.map_err(|error| match error.kind() {
            ErrorKind::Retriable => error,
            _ => self.halt(&error),
        })
    }
}
