//! Finding offsets, and moving a partition's first one.

use super::BrokerError;
use super::core::Core;
use super::partition::LockedLog;
use crate::protocol::messages::{ListedOffset, OffsetSpec};
use crate::types::{Isolation, Offset, Timestamp, TopicPartition};

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
            OffsetSpec::Latest => without_timestamp(visible_end(&log, isolation)),
            OffsetSpec::Timestamp(timestamp) => log.offset_for_timestamp(timestamp, isolation)?,
            OffsetSpec::MaxTimestamp => log.max_timestamp_offset()?,
        })
    }

    pub(super) fn delete_records(
        &self,
        name: &TopicPartition,
        before: Offset,
    ) -> Result<Offset, BrokerError> {
        self.check_open()?;
        let partition = self.partition(name)?;
        let mut log = partition.lock()?;
        let result = log.delete_records(before);
        let log_start = result.map_err(|e| self.append_failed(e, log.poisoned().is_some()))?;
        drop(log);
        // Otherwise the records would be back after a crash.
        self.write_checkpoints()?;
        Ok(log_start)
    }
}

fn visible_end(log: &LockedLog<'_>, isolation: Isolation) -> Offset {
    match isolation {
        Isolation::ReadUncommitted => log.high_watermark(),
        Isolation::ReadCommitted => log.last_stable_offset(),
    }
}
