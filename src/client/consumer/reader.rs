//! `PartitionReader`: reads one partition batch by batch, in place; the runtime's source.

use std::sync::Arc;
use std::time::Duration;

use super::FetchedBatches;
use super::standstill::Standstill;
use crate::client::wait::wait;
use crate::client::{ClientError, Transport};
use crate::env::warn;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{FetchPartition, FetchRequest, FetchedRecords, OffsetSpec};
use crate::types::{Isolation, Offset, TopicPartition};

/// Most bytes of a fetch unless told otherwise.
const MAX_BYTES_DEFAULT: usize = 1 << 20;

/// Reads one partition from a position on.
pub struct PartitionReader {
    transport: Arc<dyn Transport>,
    partition: TopicPartition,
    isolation: Isolation,
    max_bytes: usize,
    position: Offset,
    end_offset: Offset,
    log_start_offset: Offset,
    standstill: Standstill,
}

impl PartitionReader {
    /// Reads `partition` from `position` on.
    #[must_use]
    pub fn new(
        transport: Arc<dyn Transport>,
        partition: TopicPartition,
        position: Offset,
        isolation: Isolation,
    ) -> Self {
        Self {
            transport,
            partition,
            isolation,
            max_bytes: MAX_BYTES_DEFAULT,
            position,
            end_offset: position,
            log_start_offset: Offset::ZERO,
            standstill: Standstill::default(),
        }
    }

    /// A fetch returns at most `max_bytes`, but at least one batch.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Where the next fetch begins.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.position
    }

    /// One past the last offset that could be seen at the last fetch.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// The partition's first offset at the last fetch.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// Continues at `position`.
    pub fn seek(&mut self, position: Offset) {
        self.position = position;
    }

    /// Reads on; waits up to `max_wait` for something new to be visible, and returns an empty
    /// iterator if there is nothing. The position moves behind what is returned.
    ///
    /// # Errors
    /// [`ClientError::OffsetOutOfRange`] if the position is outside the partition (S14); or if there
    /// is no such partition, or its files cannot be read.
    pub async fn fetch(&mut self, max_wait: Duration) -> Result<FetchedBatches, ClientError> {
        let request = FetchRequest {
            partitions: vec![FetchPartition {
                partition: self.partition.clone(),
                offset: self.position,
                max_bytes: self.max_bytes,
            }],
            isolation: self.isolation,
            min_bytes: 1,
            max_bytes: self.max_bytes,
            max_wait,
        };
        let answer = self.transport.fetch(request).await?;
        let result = answer.into_iter().next().map(|fetched| fetched.result);
        match result.unwrap_or(Err(ErrorCode::UnknownTopicOrPartition)) {
            Ok(fetched) => Ok(self.advance(fetched)),
            Err(code) => {
                let transport = &*self.transport;
                Err(fetch_error(
                    transport,
                    &self.partition,
                    self.position,
                    self.isolation,
                    code,
                )
                .await)
            }
        }
    }

    /// Reads what is there now, from a thread that must not wait. In-process it never blocks for longer
    /// than the read itself.
    ///
    /// # Errors
    /// As [`PartitionReader::fetch`].
    pub fn fetch_now(&mut self) -> Result<FetchedBatches, ClientError> {
        wait(self.fetch(Duration::ZERO))
    }

    fn advance(&mut self, fetched: FetchedRecords) -> FetchedBatches {
        self.end_offset = visible_end(&fetched, self.isolation);
        self.log_start_offset = fetched.log_start_offset;
        if self.isolation == Isolation::ReadCommitted {
            self.watch(&fetched);
        }
        let partition = self.partition.clone();
        let batches = FetchedBatches::new(partition, self.position, self.isolation, fetched);
        self.position = batches.end();
        batches
    }
}

impl PartitionReader {
    /// K8: a transaction that nobody will end holds this reader back for good, and only an operator can help.
    fn watch(&mut self, fetched: &FetchedRecords) {
        let (stable, end) = (fetched.last_stable_offset, fetched.high_watermark);
        let now = self.transport.env().clock.now();
        if let Some(stood) = self.standstill.step(stable, end, now) {
            warn!(
                partition = %self.partition,
                last_stable_offset = %stable,
                high_watermark = %end,
                stood_seconds = stood.as_secs(),
                "committed records wait for a transaction that is open for too long: \
                 `onceflow txn list` and `onceflow txn hanging` name its producer"
            );
        }
    }
}

/// One past the last offset that may be seen.
pub(super) fn visible_end(fetched: &FetchedRecords, isolation: Isolation) -> Offset {
    match isolation {
        Isolation::ReadCommitted => fetched.last_stable_offset,
        Isolation::ReadUncommitted => fetched.high_watermark,
    }
}

/// A fetch's error code as an error that says what to do.
pub(super) async fn fetch_error(
    transport: &dyn Transport,
    partition: &TopicPartition,
    position: Offset,
    isolation: Isolation,
    code: ErrorCode,
) -> ClientError {
    match code {
        ErrorCode::OffsetOutOfRange => {
            match out_of_range(transport, partition, position, isolation).await {
                Ok(error) | Err(error) => error,
            }
        }
        _ => ClientError::Refused {
            request: "Fetch",
            code,
            message: format!("{partition} at offset {position}: {code}"),
            kind: code.kind(),
        },
    }
}

async fn out_of_range(
    transport: &dyn Transport,
    partition: &TopicPartition,
    position: Offset,
    isolation: Isolation,
) -> Result<ClientError, ClientError> {
    let offset = async |spec| {
        let listed = transport.list_offset(partition, spec, isolation).await?;
        Ok::<_, ClientError>(listed.map_or(Offset(-1), |listed| listed.offset))
    };
    Ok(ClientError::OffsetOutOfRange {
        partition: partition.clone(),
        position,
        log_start_offset: offset(OffsetSpec::Earliest).await?,
        end_offset: offset(OffsetSpec::Latest).await?,
    })
}

impl std::fmt::Debug for PartitionReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionReader")
            .field("partition", &self.partition)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
