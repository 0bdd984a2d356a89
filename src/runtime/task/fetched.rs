//! A topic partition read record by record: what was fetched is kept where the reader pauses within it.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::client::ClientError;
use crate::client::consumer::{CommittedBatch, FetchedBatches, PartitionReader, UnreadableBatch};
use crate::codec::CodecError;
use crate::protocol::batch::{Headers, Record, Records};
use crate::runtime::{Emit, Emitted, JobError, Pace, Raw, Read};
use crate::types::Offset;

/// The wait of a fetch at the end of the log before it is sent again.
const LONG_POLL: Duration = Duration::from_secs(5);

/// A fetch is either over, or on its way with the reader.
enum FetchState {
    Idle(PartitionReader),
    Waiting(BoxFuture<'static, (PartitionReader, Result<FetchedBatches, ClientError>)>),
    /// Only within a call.
    Moved,
}

impl FetchState {
    /// One past the last record that could be seen at the last fetch.
    fn end_seen(&self) -> Option<Offset> {
        match self {
            Self::Idle(reader) => Some(reader.end_offset()),
            Self::Waiting(_) | Self::Moved => None,
        }
    }

    /// The fetched batches, or nothing yet; then `waker` is called when there is something, or nothing came for so long.
    fn poll(
        &mut self,
        waker: &Waker,
        at_most: Duration,
    ) -> Poll<Result<FetchedBatches, ClientError>> {
        let mut fetch = match std::mem::replace(self, Self::Moved) {
            Self::Idle(mut reader) => async move {
                let fetched = reader.fetch(at_most).await;
                (reader, fetched)
            }
            .boxed(),
            Self::Waiting(fetch) => fetch,
            Self::Moved => unreachable!("a fetch is put back before the call returns"),
        };
        match fetch.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready((reader, fetched)) => {
                *self = Self::Idle(reader);
                Poll::Ready(fetched)
            }
            Poll::Pending => {
                *self = Self::Waiting(fetch);
                Poll::Pending
            }
        }
    }
}

/// The next record of a partition, or the rest of a batch whose records nobody can read.
pub(in crate::runtime) type Offered<'a> = Result<Record<'a>, &'a UnreadableBatch>;

/// The fate of a record that was offered.
pub(in crate::runtime) enum Taken {
    /// It is behind the position.
    Yes(Pace),
    /// It is offered again by the next read.
    NotYet,
}

/// Where the reading of a partition stands, to the record.
pub(in crate::runtime) struct FetchCursor {
    fetch: FetchState,
    /// The batches that were fetched and not begun.
    batches: Option<FetchedBatches>,
    /// The batch that is begun.
    batch: Option<CommittedBatch>,
    /// The rest of it.
    records: Option<Records>,
    /// A batch that was fetched, and from where on nobody can read it.
    unreadable: Option<UnreadableBatch>,
    /// Behind the last record taken.
    position: Offset,
    /// One past the last record that could be seen at the last fetch, if there was one.
    end: Option<Offset>,
}

impl FetchCursor {
    pub(in crate::runtime) fn new(reader: PartitionReader) -> Self {
        Self {
            position: reader.position(),
            end: None,
            fetch: FetchState::Idle(reader),
            batches: None,
            batch: None,
            records: None,
            unreadable: None,
        }
    }

    pub(in crate::runtime) fn position(&self) -> Offset {
        self.position
    }

    /// Whether the last fetch saw nothing behind the position.
    pub(in crate::runtime) fn has_caught_up(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }

    /// Gives `take` one record after the other, until it wants to pause or all that was fetched is taken.
    pub(in crate::runtime) fn read(
        &mut self,
        waker: &Waker,
        take: impl FnMut(Offered<'_>) -> Result<Taken, JobError>,
    ) -> Result<Read, JobError> {
        if self.batches.is_none() {
            // The first fetch says at once whether there is something.
            let at_most = self.end.map_or(Duration::ZERO, |_| LONG_POLL);
            match self.fetch.poll(waker, at_most) {
                Poll::Ready(fetched) => {
                    self.batches = Some(fetched?);
                    self.end = self.fetch.end_seen();
                }
                Poll::Pending => return Ok(Read::Pending),
            }
        }
        let before = self.position;
        if self.take_fetched(take)? == Pace::Pause {
            return Ok(Read::Progress);
        }
        // A long poll that found nothing is sent again by the next call.
        Ok(match self.position > before {
            true => Read::Progress,
            false => Read::Later(Duration::ZERO),
        })
    }

    fn take_fetched(
        &mut self,
        mut take: impl FnMut(Offered<'_>) -> Result<Taken, JobError>,
    ) -> Result<Pace, JobError> {
        while self.batches.is_some() {
            if let Pace::Pause = self.take_records(&mut take)? {
                return Ok(Pace::Pause);
            }
            if let Some(bad) = &self.unreadable {
                let next = bad.batch.header().next_offset();
                let taken = take(Err(bad))?;
                if let Taken::NotYet = taken {
                    return Ok(Pace::Pause);
                }
                self.unreadable = None;
                self.position = next;
                if let Taken::Yes(Pace::Pause) = taken {
                    return Ok(Pace::Pause);
                }
            }
            self.begin_batch()?;
        }
        Ok(Pace::GoOn)
    }

    /// Offers the rest of the batch that is begun.
    fn take_records(
        &mut self,
        take: &mut impl FnMut(Offered<'_>) -> Result<Taken, JobError>,
    ) -> Result<Pace, JobError> {
        let Some(records) = &mut self.records else {
            return Ok(Pace::GoOn);
        };
        while let Some(record) = records.next() {
            let record = match record {
                Ok(record) => record,
                Err(why) => {
                    let begun = self.batch.as_ref();
                    let from = |batch: &CommittedBatch| {
                        let first = batch.header().base_offset;
                        batch.unreadable_from(first.max(self.position), why)
                    };
                    self.unreadable = begun.map(from);
                    self.records = None;
                    return Ok(Pace::GoOn);
                }
            };
            // A fetch begins with the whole batch that holds the position.
            if record.offset < self.position {
                continue;
            }
            let next = record.offset.plus(1);
            match take(Ok(record))? {
                Taken::Yes(Pace::GoOn) => self.position = next,
                Taken::Yes(Pace::Pause) => {
                    self.position = next;
                    return Ok(Pace::Pause);
                }
                Taken::NotYet => {
                    // From the batch's start; what is before the position is passed over.
                    let begun = self.batch.as_ref();
                    self.records = begun.map(|batch| batch.records().clone());
                    return Ok(Pace::Pause);
                }
            }
        }
        Ok(Pace::GoOn)
    }

    /// Goes on to the next batch of what was fetched, or lets go of it.
    fn begin_batch(&mut self) -> Result<(), JobError> {
        let Some(batches) = &mut self.batches else {
            return Ok(());
        };
        self.batch = match (batches.next(), batches.take_unreadable()) {
            (None, _) => None,
            (Some(Ok(batch)), _) => Some(batch),
            (Some(Err(_)), Some(bad)) => {
                (self.batch, self.records) = (None, None);
                self.unreadable = Some(bad);
                return Ok(());
            }
            (Some(Err(error)), None) => return Err(error.into()),
        };
        let begun = self.batch.as_ref();
        self.records = begun.map(|batch| batch.records().clone());
        if self.records.is_none() {
            // Markers and aborted records at the end are behind the reader, too.
            self.position = self.position.max(batches.end());
            self.batches = None;
        }
        Ok(())
    }
}

/// Hands over, as one poison record, the part of a batch that nobody can read: the job's policy decides. A dead letter of it
/// holds the whole batch as it is stored.
#[cold]
pub(in crate::runtime) fn emit_unreadable<K: ?Sized, V: ?Sized>(
    emit: &mut impl Emit<K, V>,
    bad: &UnreadableBatch,
) -> Result<Pace, JobError> {
    let header = bad.batch.header();
    let bytes = bad.batch.bytes();
    let last = header.last_offset();
    emit.emit(Emitted {
        record: Err(CodecError::Decode {
            codec: "a record batch",
            length_bytes: bytes.len(),
            why: format!(
                "nobody can read offsets {} to {last}: {}",
                bad.offset, bad.why
            ),
        }),
        timestamp: header.max_timestamp,
        offset: bad.offset,
        raw: Raw::Bytes {
            key: None,
            value: Some(bytes),
            headers: Headers::default(),
        },
    })
}
