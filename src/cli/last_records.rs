//! Where the last records of a partition begin: counted as a reader counts them, without markers, aborted records and
//! offsets that compaction left empty.

use std::time::Duration;

use super::session::Session;
use crate::client::consumer::PartitionReader;
use crate::types::{Isolation, Offset, TopicPartition};

/// Bytes of a fetch.
const FETCH_BYTES: usize = 4 << 20;

/// The offset of the `count`-th last record of `[first, end)`, or `first` if there are fewer.
///
/// # Errors
/// If the partition cannot be read.
pub(super) fn begin_of_last(
    session: &Session,
    partition: &TopicPartition,
    isolation: Isolation,
    (first, end): (Offset, Offset),
    count: i64,
) -> anyhow::Result<Offset> {
    let (mut start, mut left, mut step) = (end, count, count);
    while left > 0 && start > first {
        // Twice as far each time, since nobody knows how many offsets hold no record.
        let from = Offset(start.0.saturating_sub(step)).max(first);
        let range = Range { from, to: start };
        let found = range.count(session, partition, isolation)?;
        if found >= left {
            return range.skip(session, partition, isolation, found - left);
        }
        (start, left, step) = (from, left - found, step.saturating_mul(2));
    }
    Ok(start)
}

#[derive(Clone, Copy)]
struct Range {
    from: Offset,
    to: Offset,
}

impl Range {
    fn count(
        self,
        session: &Session,
        partition: &TopicPartition,
        isolation: Isolation,
    ) -> anyhow::Result<i64> {
        let mut count = 0;
        self.read(session, partition, isolation, &mut |_| {
            count += 1;
            true
        })?;
        Ok(count)
    }

    /// The offset of the first record behind so many.
    fn skip(
        self,
        session: &Session,
        partition: &TopicPartition,
        isolation: Isolation,
        count: i64,
    ) -> anyhow::Result<Offset> {
        let (mut found, mut left) = (self.to, count);
        self.read(session, partition, isolation, &mut |offset| {
            left -= 1;
            if left < 0 {
                found = offset;
            }
            left >= 0
        })?;
        Ok(found)
    }

    /// Shows `each` the offsets of the records, until it wants no more.
    fn read(
        self,
        session: &Session,
        partition: &TopicPartition,
        isolation: Isolation,
        each: &mut dyn FnMut(Offset) -> bool,
    ) -> anyhow::Result<()> {
        let transport = session.transport();
        let reader = PartitionReader::new(transport, partition.clone(), self.from, isolation);
        let mut reader = reader.with_max_bytes(FETCH_BYTES);
        while reader.position() < self.to {
            let before = reader.position();
            for batch in session.wait(reader.fetch(Duration::ZERO))? {
                for record in batch?.iter() {
                    let offset = record?.offset;
                    if offset >= self.to || !each(offset) {
                        return Ok(());
                    }
                }
            }
            if reader.position() == before {
                // Deleted meanwhile: the caller reads on from here and says so.
                return Ok(());
            }
        }
        Ok(())
    }
}
