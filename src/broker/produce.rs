//! Appending records.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::core::Core;
use super::older_transactions::Joining;
use super::partition::{LockedLog, Partition};
use super::sync::Waiter;
use super::{BrokerError, Reply};
use crate::env::failpoint;
use crate::log::{AppendOrigin, Appended, PartitionLog};
use crate::protocol::ErrorCode;
use crate::protocol::batch::{Header, NewRecords};
use crate::protocol::messages::{Acks, ProduceRequest, ProduceResponse};
use crate::types::{ProducerIdentity, Sequence, TransactionalId};

/// An append that was done, and what is needed to answer for it.
struct Produced {
    partition: Arc<Partition>,
    response: ProduceResponse,
    is_transactional: bool,
    flush: Flush,
}

/// When the topic's settings want a sync that nobody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// `flush.messages`: so many records were appended since the last one.
    Now,
    /// `flush.ms`.
    Within(Duration),
    /// They don't.
    AsBroker,
}

impl Flush {
    fn of(log: &PartitionLog) -> Self {
        let config = log.config();
        let appended_count = log.log_end_offset().since(log.synced_end());
        match u64::try_from(config.flush_ms) {
            _ if appended_count >= config.flush_messages => Self::Now,
            Ok(millis) if config.flush_ms < i64::MAX => Self::Within(Duration::from_millis(millis)),
            _ => Self::AsBroker,
        }
    }
}

impl Core {
    pub(super) fn produce(
        &self,
        request: ProduceRequest,
        joining: Joining,
    ) -> Reply<ProduceResponse> {
        let is_all = request.acks == Acks::All;
        let produced = match self.append(request, joining) {
            Ok(produced) => produced,
            Err(error) => return Reply::ready(Err(error)),
        };
        let Produced {
            partition,
            response,
            is_transactional,
            flush,
        } = produced;
        if self.waits_for_sync(is_all, is_transactional) {
            let (sender, reply) = Reply::waiting();
            self.syncs
                .wait_for(partition, Waiter::Produce { sender, response });
            self.sync_if_inline();
            return reply;
        }
        self.after_append(&partition, is_transactional);
        self.flush_by_settings(&partition, flush);
        Reply::ready(Ok(response))
    }

    /// Whether an append is answered only once it is durable. The records of a transaction become durable with its
    /// decision (D4); before it there is nothing to wait for.
    fn waits_for_sync(&self, is_all: bool, is_transactional: bool) -> bool {
        is_all && !is_transactional && self.is_fsync()
    }

    /// Readers learn of an append that nobody waits for.
    fn after_append(&self, partition: &Arc<Partition>, is_transactional: bool) {
        if !self.is_fsync() {
            if partition.has_reader_for(is_transactional) {
                partition.wake_all();
            }
            return;
        }
        partition.wake_uncommitted();
        // A transaction's records are synced by its commit, and nobody at `read_committed` sees them before.
        if is_transactional {
            return;
        }
        if partition.has_committed_reader() {
            self.syncs.request(partition.clone());
            self.sync_if_inline();
        } else {
            self.flush_later(partition);
        }
    }

    fn flush_by_settings(&self, partition: &Arc<Partition>, flush: Flush) {
        match flush {
            Flush::Now => {
                self.syncs.request(partition.clone());
                self.sync_if_inline();
            }
            Flush::Within(delay) if partition.plan_own_flush() => {
                let due = self.env.clock.now().plus(delay);
                self.unflushed_until.lock().push((due, partition.clone()));
            }
            Flush::Within(_) | Flush::AsBroker => {}
        }
    }

    /// Has the partition synced at the next flush interval.
    pub(super) fn flush_later(&self, partition: &Arc<Partition>) {
        if partition.plan_flush() {
            self.unflushed.lock().push(partition.clone());
        }
    }

    fn append(&self, request: ProduceRequest, joining: Joining) -> Result<Produced, BrokerError> {
        self.check_open()?;
        let ProduceRequest {
            partition: name,
            records,
            transactional_id,
            acks,
            ..
        } = request;
        if name.topic.is_internal() {
            return Err(BrokerError::new(
                ErrorCode::InvalidTopicException,
                format!(
                    "the topic {} belongs to a coordinator: write to another one",
                    name.topic
                ),
            ));
        }
        let transaction = check_transaction(records.bytes(), transactional_id)?;
        let partition = self.partition(&name)?;
        let mut log = partition.lock()?;
        // Checked under the partition's lock: a transaction that ends waits for this lock before it syncs the
        // partition, so that nothing is appended to it after its data was synced (C13).
        if let Some((id, producer)) = &transaction {
            self.join_or_check(id, *producer, &partition, joining)?;
        }
        if joining == Joining::ByAppend {
            check_first_sequence(&log, records.bytes())?;
        }
        failpoint("produce.before_append");
        let appended = self.append_to(&mut log, records)?;
        failpoint("produce.after_append");
        if !self.waits_for_sync(acks == Acks::All, transaction.is_some()) {
            // Told under the log's lock, so that whoever hears of the records finds them.
            log.acknowledge();
        }
        let response = ProduceResponse {
            base_offset: appended.base_offset,
            log_append_time: appended.log_append_time,
            log_start_offset: log.log_start_offset(),
        };
        let flush = Flush::of(&log);
        drop(log);
        Ok(Produced {
            partition,
            response,
            is_transactional: transaction.is_some(),
            flush,
        })
    }

    fn append_to(
        &self,
        log: &mut LockedLog<'_>,
        records: NewRecords,
    ) -> Result<Appended, BrokerError> {
        let result = log.append(records, AppendOrigin::Client);
        result.map_err(|e| self.append_failed(e, log.poisoned().is_some()))
    }
}

/// The transaction that all batches of `records` belong to.
///
/// # Errors
/// If they do not agree with each other or with `transactional_id`.
fn check_transaction(
    records: &Bytes,
    transactional_id: Option<TransactionalId>,
) -> Result<Option<(TransactionalId, ProducerIdentity)>, BrokerError> {
    let mut producer = None;
    let mut rest = &records[..];
    while !rest.is_empty() {
        let header = Header::parse(rest)
            .map_err(|e| BrokerError::new(e.code(), format!("a record batch was refused: {e}")))?;
        if header.is_transactional() != transactional_id.is_some() {
            return Err(disagreement(match transactional_id {
                Some(_) => "a batch that is not transactional came with a transactional id",
                None => "a transactional batch came without its transactional id",
            }));
        }
        if *producer.get_or_insert(header.producer) != header.producer {
            return Err(disagreement(
                "one request held batches of several producers",
            ));
        }
        rest = rest.get(header.total_bytes()..).unwrap_or_default();
    }
    match (transactional_id, producer) {
        (Some(id), Some(producer)) => Ok(Some((id, producer))),
        (Some(_), None) => Err(disagreement("a produce request held no batch")),
        (None, _) => Ok(None),
    }
}

/// A producer of ours, and a transaction that has an epoch of its own (D3, KIP-890), begin with sequence 0 in each partition:
/// a batch that overtook the first one is refused, and sent again behind it. Our producers take a new sequence where a
/// partition forgot them; others go on where they were, and come by [`Joining::Before`].
fn check_first_sequence(log: &PartitionLog, records: &Bytes) -> Result<(), BrokerError> {
    let Ok(header) = Header::parse(records) else {
        return Ok(());
    };
    let first = header.base_sequence;
    if !header.has_producer() || first == Sequence::ZERO || log.knows_producer(header.producer.id) {
        return Ok(());
    }
    let code = match header.is_transactional() {
        true => ErrorCode::OutOfOrderSequenceNumber,
        false => ErrorCode::UnknownProducerId,
    };
    Err(BrokerError::new(
        code,
        format!(
            "producer {} is not known here, so its first sequence must be 0, not {}",
            header.producer.id, first.0
        ),
    ))
}

fn disagreement(what: &str) -> BrokerError {
    BrokerError::new(
        ErrorCode::InvalidRequest,
        format!("{what}: this is an error of the client"),
    )
}
