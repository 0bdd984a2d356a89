//! `Producer`: sends records, in batches, each written once however often its request is sent (I6).
//!
//! A `send` encodes the record into its partition's open batch and returns a future of its fate. One
//! thread hands batches over, sends again what failed, and keeps the order. Memory is bounded: a `send`
//! waits while `buffer.memory` is full (I10). With a transactional id, all between `begin_transaction` and
//! `commit_transaction` becomes visible together or never (I1).
//!
//! Reading order: this file, `accumulator.rs` (what is decided, pure), `queue.rs`, `sender.rs` (the thread), `transaction.rs`.

mod accumulator;
mod builder;
mod close;
mod config;
mod delivery;
mod interceptor;
mod memory;
mod partitioner;
mod queue;
mod record;
mod sender;
pub(in crate::client) mod serializer;
#[cfg(test)]
mod tests;
mod timers;
mod transaction;

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use builder::ProducerBuilder;
pub use config::ProducerConfig;
pub use delivery::{Callback, Delivery};
pub use interceptor::ProducerInterceptor;
use parking_lot::RwLock;
pub use partitioner::{DefaultPartitioner, Partitioner, Partitioning, RoundRobinPartitioner};
pub use record::{ProducerRecord, RecordHeader, RecordMetadata};

use self::accumulator::{Appended, Encoded};
use self::memory::{Reservation, Reserved};
use self::sender::{Shared, closed};
use self::serializer::Serializer;
use super::topics::{max_message_bytes, partitions_count};
use super::{ClientError, CommitOutcome, Transport};
use crate::codec::{CodecError, Datum};
use crate::env::Instant;
use crate::protocol::batch::Compression;
use crate::protocol::messages::{CommittedOffset, GroupMember, TransactionResult};
use crate::types::{GroupId, PartitionIndex, TopicName, TopicPartition};

/// Sends records of keys `K` and values `V`. Cheap to clone; clones share batches and transaction.
///
/// Dropping the last clone sends what is buffered in the background; [`Producer::close`] waits for it.
///
/// ```
/// use std::sync::Arc;
/// use onceflow::broker::{Broker, BrokerConfig};
/// use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
/// use onceflow::client::{Admin, CommitOutcome, InProcess, wait};
/// use onceflow::testing::Env;
/// use onceflow::types::{TopicName, TransactionalId};
///
/// # let directory = tempfile::tempdir()?;
/// let env = Env::real();
/// let broker = Broker::open(env.clone(), &directory.path().join("data"), BrokerConfig::default())?;
/// let transport = Arc::new(InProcess::new(env, broker.clone()));
/// let orders = TopicName::new("orders")?;
/// wait(Admin::new(transport.clone()).create_topic(&orders, 3))?;
///
/// let config = ProducerConfig::default().transactional_id(TransactionalId::new("shop-1")?);
/// let producer: Producer<str, u64> = Producer::new(transport, config)?;
/// wait(async {
///     producer.init_transactions().await?;
///     producer.begin_transaction()?;
///     let sent = producer.send(ProducerRecord::new(&orders).key("tea").value(&3)).await?;
///     assert_eq!(producer.commit_transaction().await?, CommitOutcome::Committed);
///     assert_eq!(sent.await?.offset.map(|offset| offset.0), Some(0));
///     producer.close().await
/// })?;
/// broker.close()?;
/// # Ok::<(), anyhow::Error>(())
/// ```
pub struct Producer<K: ?Sized + Datum, V: ?Sized + Datum> {
    inner: Arc<Inner<K, V>>,
}

struct Inner<K: ?Sized + Datum, V: ?Sized + Datum> {
    shared: Arc<Shared>,
    keys: Box<dyn Serializer<K>>,
    values: Box<dyn Serializer<V>>,
    partitioner: Box<dyn Partitioner>,
    interceptors: Arc<[Box<dyn ProducerInterceptor<K, V>>]>,
    topics: RwLock<HashMap<TopicName, Topic>>,
}

/// Known facts of a topic.
#[derive(Clone, Copy)]
struct Topic {
    partitions_count: i32,
    /// No batch may be larger, in bytes.
    max_message_bytes: usize,
    since: Instant,
}

/// Where a record is to go, and with what.
struct Place<'a> {
    partition: &'a TopicPartition,
    limit_bytes: usize,
    reservation: Option<Reservation>,
    callback: &'a mut Option<Callback>,
}

/// The bytes of one record while it is on its way into a batch.
#[derive(Default)]
struct Scratch {
    key: Vec<u8>,
    value: Vec<u8>,
}

thread_local! {
    /// Reused, so that a record costs no allocation. Taken while in use: an encoder may send, too.
    static SCRATCH: Cell<Option<Scratch>> = const { Cell::new(None) };
}

/// A scratch larger than this is not kept, in bytes: one huge record must not pin its memory.
const SCRATCH_KEPT_BYTES_MAX: usize = 1 << 20;

impl Scratch {
    fn take() -> Self {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        scratch.key.clear();
        scratch.value.clear();
        scratch
    }

    fn put_back(self) {
        if self.key.capacity() + self.value.capacity() <= SCRATCH_KEPT_BYTES_MAX {
            SCRATCH.set(Some(self));
        }
    }
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> Producer<K, V> {
    /// A producer with the types' own codecs and the default partitioner.
    ///
    /// # Errors
    /// If the settings contradict each other, or no thread can be started.
    pub fn new(transport: Arc<dyn Transport>, config: ProducerConfig) -> Result<Self, ClientError> {
        Self::builder(transport, config).build()
    }

    /// For other codecs, partitioners, interceptors.
    #[must_use]
    pub fn builder(transport: Arc<dyn Transport>, config: ProducerConfig) -> ProducerBuilder<K, V> {
        ProducerBuilder::new(transport, config)
    }

    /// Puts the record into its partition's batch, and waits only while `buffer.memory` is full.
    /// Records sent one after the other to a partition are written in that order. The returned
    /// [`Delivery`] completes when the record is acknowledged; it need not be awaited.
    ///
    /// # Errors
    /// If the record cannot be encoded or is too large (nothing was sent then, and a transaction stays
    /// usable, S15), there is no such topic or partition, `max.block.ms` is over, the transaction
    /// cannot take it, or the producer is closed.
    pub async fn send(&self, record: ProducerRecord<'_, K, V>) -> Result<Delivery, ClientError> {
        self.send_record(record, None).await
    }

    /// As [`Producer::send`], and has `callback` called with the record's fate. Callbacks of a
    /// partition come in the order of its records. None is called if this returns an error.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_with_callback(
        &self,
        record: ProducerRecord<'_, K, V>,
        callback: impl FnOnce(Result<RecordMetadata, ClientError>) + Send + 'static,
    ) -> Result<Delivery, ClientError> {
        self.send_record(record, Some(Box::new(callback))).await
    }

    /// Has everything sent so far written now, and waits until it is. Failures are told by the
    /// deliveries.
    pub async fn flush(&self) {
        let shared = &self.inner.shared;
        let completions = shared.core.lock().accumulator.flush();
        shared.wake();
        for completion in completions {
            completion.done().await;
        }
    }

    /// Takes over the transactional id: fences every earlier holder and ends the transaction it left
    /// open (I4). To be called once before the first transaction, and after a [`CommitOutcome::Unknown`].
    ///
    /// # Errors
    /// If the producer has no transactional id, was fenced, or the coordinator does not answer
    /// within `max.block.ms`.
    pub async fn init_transactions(&self) -> Result<(), ClientError> {
        self.inner.shared.init_transactions()?.await
    }

    /// Opens a transaction: all records sent until its end are part of it.
    ///
    /// # Errors
    /// If one is open, or the producer is not initialised, or fenced.
    pub fn begin_transaction(&self) -> Result<(), ClientError> {
        self.inner.shared.begin_transaction()
    }

    /// Makes `offsets` part of the transaction: the group's positions move with it, or not at all (I8).
    ///
    /// # Errors
    /// If no transaction is open, or the group refuses; the transaction must then be aborted.
    pub async fn send_offsets(
        &self,
        group: GroupId,
        member: GroupMember,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<(), ClientError> {
        let shared = &self.inner.shared;
        shared.send_offsets(group, member, offsets)?.await
    }

    /// Commits: waits for all records, then makes everything visible together. The commit begins with
    /// the call; if the future is dropped it goes on, and a second call gets the same outcome (C17).
    ///
    /// # Errors
    /// [`ClientError::MustAbort`] if a record or position failed; an error of kind `Fenced` if another
    /// producer has the id now.
    pub fn commit_transaction(
        &self,
    ) -> impl Future<Output = Result<CommitOutcome, ClientError>> + Send + use<K, V> {
        let begun = self.inner.shared.end_transaction(TransactionResult::Commit);
        async move { begun?.await }
    }

    /// Aborts: gives up unsent records, and nothing of the transaction ever becomes visible. As
    /// [`Producer::commit_transaction`] otherwise.
    ///
    /// # Errors
    /// If no transaction is open, or another producer has the id now.
    pub fn abort_transaction(
        &self,
    ) -> impl Future<Output = Result<CommitOutcome, ClientError>> + Send + use<K, V> {
        let begun = self.inner.shared.end_transaction(TransactionResult::Abort);
        async move { begun?.await }
    }

    /// Refuses further records, aborts an open transaction, and waits until the rest is written.
    ///
    /// # Errors
    /// If the open transaction could not be aborted; the coordinator will, after its timeout.
    pub async fn close(&self) -> Result<(), ClientError> {
        self.close_within(self.inner.shared.config.delivery_timeout)
            .await
    }

    /// As [`Producer::close`], but gives up what is not written after `timeout`.
    ///
    /// # Errors
    /// As [`Producer::close`].
    pub async fn close_within(&self, timeout: Duration) -> Result<(), ClientError> {
        self.inner.shared.close(timeout)?.await
    }

    async fn send_record(
        &self,
        mut record: ProducerRecord<'_, K, V>,
        callback: Option<Callback>,
    ) -> Result<Delivery, ClientError> {
        for interceptor in self.inner.interceptors.iter() {
            interceptor.on_send(&mut record);
        }
        let topic = match self.inner.known_topic(&record.topic) {
            Some(topic) => topic,
            None => self.inner.ask_for_topic(&record.topic).await?,
        };
        let mut scratch = Scratch::take();
        let delivery = self
            .inner
            .append(&record, topic, &mut scratch, callback)
            .await;
        scratch.put_back();
        delivery
    }
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> Inner<K, V> {
    fn known_topic(&self, name: &TopicName) -> Option<Topic> {
        let topic = *self.topics.read().get(name)?;
        let age = self.shared.timers.now().since(topic.since);
        (age < self.shared.config.metadata_max_age).then_some(topic)
    }

    async fn ask_for_topic(&self, name: &TopicName) -> Result<Topic, ClientError> {
        let transport = &*self.shared.transport;
        let topic = Topic {
            partitions_count: partitions_count(transport, name).await?,
            max_message_bytes: max_message_bytes(transport, name).await?,
            since: self.shared.timers.now(),
        };
        self.topics.write().insert(name.clone(), topic);
        Ok(topic)
    }

    async fn append(
        &self,
        record: &ProducerRecord<'_, K, V>,
        topic: Topic,
        scratch: &mut Scratch,
        callback: Option<Callback>,
    ) -> Result<Delivery, ClientError> {
        let headers: Vec<(&str, Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|(name, value)| (&**name, value.as_deref()))
            .collect();
        let encoded = self.encode(record, scratch, &headers)?;
        let limit_bytes = self.check_size(&encoded, topic)?;
        let partition = self.choose_partition(record, &encoded, topic)?;
        let mut callback = self.with_interceptors(callback);
        let mut reservation = None;
        loop {
            let now = self.shared.timers.now();
            let mut place = Place {
                partition: &partition,
                limit_bytes,
                reservation: reservation.take(),
                callback: &mut callback,
            };
            match self.try_append(&encoded, &mut place, now)? {
                Appended::NeedsMemory(bytes) => {
                    reservation = Some(self.reserve(bytes, now).await?);
                }
                Appended::Done {
                    completion,
                    place,
                    wakes_sender,
                } => {
                    if wakes_sender {
                        self.shared.wake();
                    }
                    return Ok(Delivery::new(completion, place));
                }
            }
        }
    }

    fn encode<'a>(
        &self,
        record: &ProducerRecord<'_, K, V>,
        scratch: &'a mut Scratch,
        headers: &'a [(&'a str, Option<&'a [u8]>)],
    ) -> Result<Encoded<'a>, ClientError> {
        let refused = |part| {
            let place = record.topic.to_string();
            move |source: CodecError| ClientError::Codec {
                part,
                place,
                source,
            }
        };
        if let Some(key) = &record.key {
            let encoded = self.keys.encode(key, &mut scratch.key);
            encoded.map_err(refused("key"))?;
        }
        if let Some(value) = &record.value {
            let encoded = self.values.encode(value, &mut scratch.value);
            encoded.map_err(refused("value"))?;
        }
        let clock = &self.shared.transport.env().clock;
        Ok(Encoded {
            timestamp: record.timestamp.unwrap_or_else(|| clock.wall()),
            key: record.key.as_ref().map(|_| &*scratch.key),
            value: record.value.as_ref().map(|_| &*scratch.value),
            headers,
        })
    }

    /// Refuses a record that no batch may hold, before it enters the transaction (S15); returns the
    /// limit of a batch.
    fn check_size(&self, encoded: &Encoded<'_>, topic: Topic) -> Result<usize, ClientError> {
        let config = &self.shared.config;
        let size_bytes = encoded.batch_bytes();
        // The topic's limit is on the compressed batch, which is not known yet.
        let topic_limit = match config.compression {
            Compression::None => topic.max_message_bytes,
            _ => usize::MAX,
        };
        let limits = [
            ("max.request.size", config.max_request_size_bytes),
            ("buffer.memory", config.buffer_memory_bytes),
            ("the topic's max.message.bytes", topic_limit),
        ];
        match limits.into_iter().find(|(_, limit)| size_bytes > *limit) {
            None => Ok(topic.max_message_bytes),
            Some((limit, limit_bytes)) => Err(ClientError::RecordTooLarge {
                size_bytes,
                limit_bytes,
                limit,
            }),
        }
    }

    fn choose_partition(
        &self,
        record: &ProducerRecord<'_, K, V>,
        encoded: &Encoded<'_>,
        topic: Topic,
    ) -> Result<TopicPartition, ClientError> {
        let choose = || -> PartitionIndex {
            self.partitioner.partition(&Partitioning {
                topic: &record.topic,
                key: encoded.key,
                value: encoded.value,
                size_bytes: encoded.size_bytes(0),
                partitions_count: topic.partitions_count,
            })
        };
        let partition = record.partition.unwrap_or_else(choose);
        match (0..topic.partitions_count).contains(&partition) {
            true => Ok(TopicPartition::new(record.topic.clone(), partition)),
            false => Err(ClientError::NoSuchPartition {
                topic: record.topic.clone(),
                partition,
                partitions_count: topic.partitions_count,
            }),
        }
    }

    fn try_append(
        &self,
        encoded: &Encoded<'_>,
        to: &mut Place<'_>,
        now: Instant,
    ) -> Result<Appended, ClientError> {
        let mut core = self.shared.core.lock();
        if core.is_closed {
            return Err(closed());
        }
        core.transaction.check_send()?;
        let limit_bytes = to.limit_bytes;
        let reservation = &mut to.reservation;
        let accumulator = &mut core.accumulator;
        let appended = accumulator.append(to.partition, encoded, limit_bytes, reservation, now);
        if let Appended::Done {
            completion, place, ..
        } = &appended
        {
            core.transaction.note_effect();
            // Under the lock: the sender cannot have the batch answered before.
            if let Some(callback) = to.callback.take() {
                completion.call_back(*place, callback);
            }
        }
        Ok(appended)
    }

    async fn reserve(&self, bytes: usize, now: Instant) -> Result<Reservation, ClientError> {
        let bytes = bytes.min(self.shared.config.buffer_memory_bytes);
        let max_block = self.shared.config.max_block;
        match self.shared.memory.reserve(bytes, now, max_block) {
            Reserved::Now(reservation) => Ok(reservation),
            Reserved::Later(granted) => {
                // The sender sends half-full batches while somebody waits, and ends the wait in time.
                self.shared.wake();
                granted.await.unwrap_or_else(|_| Err(closed()))
            }
        }
    }

    /// The user's callback together with the interceptors'.
    fn with_interceptors(&self, callback: Option<Callback>) -> Option<Callback> {
        if self.interceptors.is_empty() {
            return callback;
        }
        let interceptors = self.interceptors.clone();
        Some(Box::new(move |outcome| {
            for interceptor in interceptors.iter() {
                interceptor.on_acknowledgement(&outcome);
            }
            if let Some(callback) = callback {
                callback(outcome);
            }
        }))
    }
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> Clone for Producer<K, V> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> Drop for Inner<K, V> {
    /// The thread sends what is left, and ends.
    fn drop(&mut self) {
        self.shared.stop_when_idle();
    }
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> std::fmt::Debug for Producer<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Producer")
    }
}
