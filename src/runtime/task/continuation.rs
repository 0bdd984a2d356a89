//! Whether rows on disk can be continued from their changelog: it must reach back to their position, and have all deletions behind it.
//!
//! Compaction lets a deletion go `delete.retention.ms` after it first met it. Rows that are older than that (a process that comes back
//! after days, while others went on with its state, or whose log was compacted before it restored) may have been deleted by records
//! that are gone, and would come back. A clock says how old they are, since no offset does: the first record of the last
//! `delete.retention.ms` must not lie behind them.

use std::sync::Arc;

use crate::client::{Transport, wait};
use crate::protocol::messages::OffsetSpec;
use crate::runtime::contract::error::JobError;
use crate::types::{Isolation, Offset, Timestamp, TopicName, TopicPartition};

/// Kafka's default of `delete.retention.ms`: a day.
const DELETE_RETENTION_MS: i64 = 24 * 60 * 60 * 1_000;
/// Clocks of different machines may differ by this part of the retention: an hour of a day.
const MARGIN_PART: i64 = 24;

/// The changelog of a store, of which rows on disk are to be continued.
pub(crate) struct Continuation<'a> {
    transport: &'a Arc<dyn Transport>,
    topic: &'a TopicName,
    now: Timestamp,
    /// Asked for where it matters.
    delete_retention_ms: Option<i64>,
}

/// The first and the end offset of a changelog partition. The end is that of all records, also those of transactions
/// that are being decided: positions of a cycle can be visible before the markers of its changelog are written (I2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
}

impl Bounds {
    /// Asks the log for them.
    pub(crate) fn of(
        transport: &Arc<dyn Transport>,
        place: &TopicPartition,
    ) -> Result<Self, JobError> {
        let list = |spec| wait(transport.list_offset(place, spec, Isolation::ReadUncommitted));
        let start = list(OffsetSpec::Earliest)?.map_or(Offset::ZERO, |found| found.offset);
        let end = list(OffsetSpec::Latest)?.map_or(Offset::ZERO, |found| found.offset);
        Ok(Self { start, end })
    }
}

impl<'a> Continuation<'a> {
    /// Rows that are to be continued at the time `now`.
    pub(crate) fn new(
        transport: &'a Arc<dyn Transport>,
        topic: &'a TopicName,
        now: Timestamp,
    ) -> Self {
        Self {
            transport,
            topic,
            now,
            delete_retention_ms: None,
        }
    }

    /// Finds why rows as of `position` cannot be continued in a partition (S6); `None` if they can.
    pub(crate) fn obstacle(
        &mut self,
        place: &TopicPartition,
        position: Offset,
        bounds: Bounds,
    ) -> Result<Option<&'static str>, JobError> {
        if !(bounds.start..=bounds.end).contains(&position) {
            return Ok(Some("it does not fit its changelog"));
        }
        if is_all_there(position, bounds.end) {
            return Ok(None);
        }
        let since = young_since(self.now, self.delete_retention_ms()?);
        let spec = OffsetSpec::Timestamp(since);
        let young = wait(
            self.transport
                .list_offset(place, spec, Isolation::ReadUncommitted),
        )?;
        let has_all = young.is_some_and(|young| young.offset <= position);
        Ok((!has_all).then_some("it is so old that its changelog may lack deletions behind it"))
    }

    fn delete_retention_ms(&mut self) -> Result<i64, JobError> {
        if let Some(known) = self.delete_retention_ms {
            return Ok(known);
        }
        let configs = wait(self.transport.describe_configs(self.topic))?;
        let mut configs = configs.iter();
        let config = configs.find(|config| config.name == "delete.retention.ms");
        let told = config.and_then(|config| config.value.parse().ok());
        Ok(*self
            .delete_retention_ms
            .insert(told.unwrap_or(DELETE_RETENTION_MS)))
    }
}

/// Whether rows lack nothing, or the marker alone of the transaction that their position is the end of.
fn is_all_there(position: Offset, end: Offset) -> bool {
    end.since(position) <= 1
}

/// Since when no deletion can be gone.
fn young_since(now: Timestamp, delete_retention_ms: i64) -> Timestamp {
    let kept = delete_retention_ms.saturating_sub(delete_retention_ms / MARGIN_PART);
    Timestamp(now.0.saturating_sub(kept).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_job_that_ended_in_order_are_continued_however_old_they_are() {
        assert!(is_all_there(Offset(7), Offset(7)));
        assert!(is_all_there(Offset(7), Offset(8)));
        assert!(!is_all_there(Offset(7), Offset(9)));
    }

    #[test]
    fn deletions_are_there_for_an_hour_less_than_a_day() {
        let hour = 60 * 60 * 1_000;
        let now = Timestamp(100 * hour);
        assert_eq!(young_since(now, DELETE_RETENTION_MS), Timestamp(77 * hour));
        assert_eq!(young_since(now, 0), now);
        assert_eq!(young_since(now, i64::MAX), Timestamp(0));
    }
}
