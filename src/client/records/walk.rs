//! `Walk`: reads a partition forward, a bounded number of bytes.

use std::time::Duration;

use super::LookError;
use crate::client::{ClientError, Transport};
use crate::protocol::ErrorCode;
use crate::protocol::batch::{Batch, BatchError, Batches};
use crate::protocol::messages::{FetchPartition, FetchRequest, FetchedRecords, OffsetSpec};
use crate::types::{Isolation, Offset, TopicPartition};

/// The bytes of the first fetch of a walk; each later one reads twice as much.
const FIRST_BYTES: usize = 32 << 10;
const FETCH_BYTES_MAX: usize = 1 << 20;

/// Where a partition begins and ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub(super) start: Offset,
    /// The last stable offset.
    pub(super) stable: Offset,
    /// The high watermark.
    pub(super) end: Offset,
}

impl Marks {
    pub(super) async fn of(
        transport: &dyn Transport,
        place: &TopicPartition,
    ) -> Result<Self, ClientError> {
        let at = async |spec, isolation| {
            let listed = transport.list_offset(place, spec, isolation).await?;
            Ok::<_, ClientError>(listed.map_or(Offset::ZERO, |listed| listed.offset))
        };
        // In this order, so that the bounds of what moves meanwhile are in order.
        let start = at(OffsetSpec::Earliest, Isolation::ReadUncommitted).await?;
        let stable = at(OffsetSpec::Latest, Isolation::ReadCommitted).await?;
        let end = at(OffsetSpec::Latest, Isolation::ReadUncommitted).await?;
        Ok(Self {
            start,
            stable: stable.max(start),
            end: end.max(stable).max(start),
        })
    }
}

/// One fetch.
pub(super) async fn fetch(
    transport: &dyn Transport,
    place: &TopicPartition,
    from: Offset,
    isolation: Isolation,
    max_bytes: usize,
) -> Result<FetchedRecords, LookError> {
    let request = FetchRequest {
        partitions: vec![FetchPartition {
            partition: place.clone(),
            offset: from,
            max_bytes,
        }],
        isolation,
        min_bytes: 1,
        max_bytes,
        max_wait: Duration::ZERO,
    };
    let answer = transport.fetch(request).await?;
    let result = answer.into_iter().next().map(|fetched| fetched.result);
    match result.unwrap_or(Err(ErrorCode::UnknownTopicOrPartition)) {
        Ok(fetched) => Ok(fetched),
        // Deleted since it was asked where the partition begins.
        Err(ErrorCode::OffsetOutOfRange) => {
            let marks = Marks::of(transport, place).await?;
            Err(LookError::Deleted {
                place: place.clone(),
                offset: from,
                first: marks.start,
                end: marks.end,
            })
        }
        Err(code) => Err(ClientError::Refused {
            request: "Fetch",
            code,
            message: format!("{place} at offset {from}: {code}"),
            kind: code.kind(),
        }
        .into()),
    }
}

/// The error about a batch that cannot be taken apart.
pub(super) fn corrupt(place: &TopicPartition, offset: Offset, error: &BatchError) -> LookError {
    let error = ClientError::Corrupt {
        partition: place.clone(),
        offset,
        why: error.to_string(),
    };
    error.into()
}

/// A way through a partition from an offset on, up to another one, or until its bytes are used up.
pub(super) struct Walk<'t> {
    transport: &'t dyn Transport,
    place: &'t TopicPartition,
    isolation: Isolation,
    position: Offset,
    until: Offset,
    left_bytes: usize,
    chunk_bytes: usize,
}

impl<'t> Walk<'t> {
    pub(super) fn new(
        transport: &'t dyn Transport,
        place: &'t TopicPartition,
        isolation: Isolation,
        (position, until): (Offset, Offset),
        left_bytes: usize,
    ) -> Self {
        Self {
            transport,
            place,
            isolation,
            position,
            until,
            left_bytes,
            chunk_bytes: FIRST_BYTES,
        }
    }

    /// The next batches; `None` at the end, or if there may be more that is not read.
    pub(super) async fn next(&mut self) -> Result<Option<FetchedRecords>, LookError> {
        if self.position >= self.until || self.left_bytes == 0 {
            return Ok(None);
        }
        let fetched = fetch(
            self.transport,
            self.place,
            self.position,
            self.isolation,
            self.chunk_bytes,
        )
        .await?;
        let end = end_of(&fetched).map_err(|e| corrupt(self.place, self.position, &e))?;
        // Where nothing is given although the partition goes on, its end moved or a reader is held: nothing more is to be had.
        let Some(end) = end.filter(|end| *end > self.position) else {
            self.until = self.position;
            return Ok(None);
        };
        self.left_bytes = self.left_bytes.saturating_sub(fetched.records.len());
        self.chunk_bytes = (2 * self.chunk_bytes).min(FETCH_BYTES_MAX);
        self.position = end;
        Ok(Some(fetched))
    }

    /// Whether it ended because its bytes were used up.
    pub(super) fn is_cut_short(&self) -> bool {
        self.position < self.until && self.left_bytes == 0
    }
}

/// One past the last whole batch.
fn end_of(fetched: &FetchedRecords) -> Result<Option<Offset>, BatchError> {
    let batches = Batches::new(fetched.records.clone());
    let last = batches.last().transpose()?;
    Ok(last.map(|batch: Batch| batch.header().next_offset()))
}
