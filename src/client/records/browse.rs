//! A page of a partition: where it begins, and how it is read.

use serde_json::{Value, json};

use super::page::{Page, Row, State};
use super::walk::{Marks, corrupt, fetch};
use super::{LookError, Records};
use crate::protocol::messages::OffsetSpec;
use crate::types::{Isolation, Offset, Timestamp, TopicPartition};

/// The offsets of a page, where nobody says how many.
pub(crate) const LIMIT: usize = 50;
/// The most offsets of a page.
pub(crate) const LIMIT_MAX: usize = 500;
/// The bytes that are fetched at once.
const FETCH_BYTES: usize = 256 << 10;
/// No page reads more, but for its first batch.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The partition's first record.
    Beginning,
    /// Offset counted back from its end.
    Last(i64),
    /// This offset.
    At(Offset),
    /// The first record of this time or later.
    Time(Timestamp),
}

impl Records {
    /// A page of a partition as JSON: its marks, its rows, and where the next page begins.
    ///
    /// # Errors
    /// If there is no such partition; if the offset was deleted, or is not written yet; if the log cannot be read.
    pub(crate) async fn browse(
        &self,
        place: &TopicPartition,
        from: From,
        limit: usize,
    ) -> Result<Value, LookError> {
        self.check(place).await?;
        let marks = Marks::of(&*self.transport, place).await?;
        let begin = self.begin(place, from, &marks).await?;
        let (rows, next) = self.rows(place, begin, &marks, limit).await?;
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        Ok(json!({
            "topic": place.topic.as_str(),
            "partition": place.partition,
            "log_start_offset": marks.start.0,
            "last_stable_offset": marks.stable.0,
            "high_watermark": marks.end.0,
            "from": begin.0,
            "records": rows,
            "next": (next < marks.end).then_some(next.0),
        }))
    }

    /// The row at an offset, if there is one: compaction may have removed it.
    pub(super) async fn row(
        &self,
        place: &TopicPartition,
        offset: Offset,
        marks: &Marks,
    ) -> Result<Option<Row>, LookError> {
        self.begin(place, From::At(offset), marks).await?;
        let (rows, _) = self.rows(place, offset, marks, 1).await?;
        Ok(rows.into_iter().next().filter(|row| row.offset == offset))
    }

    /// The offset at which a page begins.
    async fn begin(
        &self,
        place: &TopicPartition,
        from: From,
        marks: &Marks,
    ) -> Result<Offset, LookError> {
        let place = place.clone();
        Ok(match from {
            From::Beginning => marks.start,
            From::Last(count) => Offset(marks.end.0.saturating_sub(count)).max(marks.start),
            From::At(offset) if offset < marks.start => {
                let (first, end) = (marks.start, marks.end);
                return Err(LookError::Deleted {
                    place,
                    offset,
                    first,
                    end,
                });
            }
            From::At(offset) if offset >= marks.end => {
                let end = marks.end;
                return Err(LookError::NotWritten { place, offset, end });
            }
            From::At(offset) => offset,
            From::Time(time) => {
                let spec = OffsetSpec::Timestamp(time);
                let isolation = Isolation::ReadUncommitted;
                let listed = self.transport.list_offset(&place, spec, isolation).await?;
                listed
                    .map_or(marks.end, |listed| listed.offset)
                    .max(marks.start)
            }
        })
    }

    /// The rows from an offset on, and where the next ones begin.
    async fn rows(
        &self,
        place: &TopicPartition,
        begin: Offset,
        marks: &Marks,
        limit: usize,
    ) -> Result<(Vec<Row>, Offset), LookError> {
        let (mut rows, mut next, mut read_bytes) = (Vec::new(), begin, 0);
        while next < marks.end && rows.len() < limit && read_bytes < PAGE_BYTES_MAX {
            let isolation = match next < marks.stable {
                true => Isolation::ReadCommitted,
                false => Isolation::ReadUncommitted,
            };
            let fetched = fetch(&*self.transport, place, next, isolation, FETCH_BYTES).await?;
            read_bytes += fetched.records.len().max(1);
            let page = Page::of(fetched, next, isolation, limit - rows.len());
            let mut page = page.map_err(|e| corrupt(place, next, &e))?;
            if page.next <= next {
                break;
            }
            if page.rows.iter().any(|row| row.state == State::Open) {
                page.settle(&self.transport.describe_producers(place).await?);
            }
            next = page.next;
            rows.append(&mut page.rows);
        }
        Ok((rows, next))
    }
}
