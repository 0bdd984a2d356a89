//! `Consumer`: reads the partitions that it is assigned, from positions that it keeps and may commit.
//!
//! At `read_committed`, the default, it shows the records of committed transactions and plain records only;
//! positions pass markers and aborted records, so that offsets have gaps. A position that retention overtook
//! is an error, never a jump (S14). A consumer that subscribes to topics is a member of its group and shares the partitions
//! with the others; one that assigns partitions itself has them all alone.
//!
//! Reading order: this file, `committed.rs` (what may be seen), `reader.rs` (one partition, for the runtime), `records.rs`,
//! `subscription.rs`, `group/mod.rs`.

mod committed;
mod config;
mod group;
mod offsets;
mod reader;
mod records;
mod standstill;
mod subscription;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "http")]
pub(in crate::client) use committed::{AbortFilter, Fate};
pub use committed::{CommittedBatch, FetchedBatches, UnreadableBatch};
pub use config::{
    AssignmentStrategies, AssignmentStrategy, ConsumerConfig, GroupProtocol, OffsetReset,
};
pub use reader::PartitionReader;
pub use records::{ConsumerRecord, ConsumerRecords};
pub use subscription::RebalanceListener;

use self::committed::unreadable;
use self::reader::{fetch_error, visible_end};
use self::records::{Codecs, RawRecord};
use self::subscription::Subscribed;
use super::producer::serializer::default_serializer;
use super::{ClientError, Transport};
use crate::codec::{Codec, Datum};
use crate::env::Instant;
use crate::protocol::batch::{BatchError, Header};
use crate::protocol::messages::{FetchPartition, FetchRequest, FetchedPartition};
use crate::types::{Offset, TopicPartition};

/// Reads records of keys `K` and values `V`.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use onceflow::broker::{Broker, BrokerConfig};
/// use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset};
/// use onceflow::client::{Admin, InProcess, Producer, ProducerConfig, ProducerRecord, wait};
/// use onceflow::testing::Env;
/// use onceflow::types::{GroupId, TopicName, TopicPartition};
///
/// # let directory = tempfile::tempdir()?;
/// let env = Env::real();
/// let broker = Broker::open(env.clone(), &directory.path().join("data"), BrokerConfig::default())?;
/// let transport = Arc::new(InProcess::new(env, broker.clone()));
/// let lines = TopicName::new("lines")?;
///
/// let config = ConsumerConfig::default()
///     .group_id(GroupId::new("readers")?)
///     .auto_offset_reset(OffsetReset::Earliest);
/// let mut consumer: Consumer<str, str> = Consumer::new(transport.clone(), config);
/// let producer: Producer<str, str> = Producer::new(transport.clone(), ProducerConfig::default())?;
/// wait(async {
///     Admin::new(transport).create_topic(&lines, 1).await?;
///     producer.send(ProducerRecord::new(&lines).value("to be or not to be")).await?.await?;
///
///     consumer.assign([TopicPartition::new(lines, 0)]);
///     let records = consumer.poll(Duration::from_secs(10)).await?;
///     for record in records.iter() {
///         assert_eq!(record.value()?.as_deref(), Some("to be or not to be"));
///     }
///     assert_eq!(records.len(), 1);
///     consumer.commit().await
/// })?;
/// # wait(producer.close())?;
/// # broker.close()?;
/// # Ok::<(), anyhow::Error>(())
/// ```
pub struct Consumer<K: ?Sized + Datum, V: ?Sized + Datum> {
    transport: Arc<dyn Transport>,
    config: ConsumerConfig,
    codecs: Arc<Codecs<K, V>>,
    assigned: BTreeMap<TopicPartition, Assigned>,
    /// Fetches begin after this partition, so that each has its turn.
    last_served: Option<TopicPartition>,
    subscribed: Option<Subscribed>,
    last_auto_commit: Instant,
}

/// State of an assigned partition.
#[derive(Default)]
struct Assigned {
    /// The next offset to be returned; `None` until it was looked up.
    position: Option<Offset>,
    is_paused: bool,
    /// Fetched, but not returned yet.
    fetched: Option<FetchedBatches>,
    current: Option<records::Cursor>,
}

impl Assigned {
    fn seek(&mut self, position: Offset) {
        self.position = Some(position);
        self.fetched = None;
        self.current = None;
    }

    fn has_buffered(&self) -> bool {
        self.fetched.is_some() || self.current.is_some()
    }

    /// Moves up to `count` records to `out`, and the position behind them.
    fn take(
        &mut self,
        partition: &TopicPartition,
        count: usize,
        out: &mut Vec<RawRecord>,
    ) -> Result<(), ClientError> {
        let full_len = out.len() + count;
        while out.len() < full_len {
            let Some(cursor) = &mut self.current else {
                if !self.next_batch()? {
                    return Ok(());
                }
                continue;
            };
            let bytes = cursor.records.bytes().clone();
            match cursor.records.next() {
                Some(Ok(record)) if record.offset < cursor.from => {}
                Some(Ok(record)) => {
                    let record = RawRecord::new(partition, &record, &bytes);
                    self.position = Some(record.next_offset());
                    out.push(record);
                }
                Some(Err(error)) => {
                    let header = *cursor.records.header();
                    return Err(self.damaged(partition, &header, &error));
                }
                None => {
                    self.position = Some(cursor.records.header().next_offset());
                    self.current = None;
                }
            }
        }
        Ok(())
    }

    /// Goes on to the next batch that may be seen; whether there is one.
    fn next_batch(&mut self) -> Result<bool, ClientError> {
        let Some(fetched) = &mut self.fetched else {
            return Ok(false);
        };
        let next = fetched.next();
        if next.is_none() {
            self.position = Some(fetched.end());
            self.fetched = None;
        }
        match next.transpose() {
            Ok(Some(batch)) => {
                self.current = Some(records::Cursor {
                    records: batch.records().clone(),
                    from: self.position.unwrap_or_default(),
                });
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => {
                self.fetched = None;
                Err(error)
            }
        }
    }

    fn damaged(
        &mut self,
        partition: &TopicPartition,
        header: &Header,
        error: &BatchError,
    ) -> ClientError {
        self.current = None;
        self.fetched = None;
        unreadable(partition, self.position.unwrap_or_default(), header, error)
    }
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> Consumer<K, V> {
    /// A consumer with the types' own codecs, yet without partitions.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, config: ConsumerConfig) -> Self {
        let now = transport.env().clock.now();
        Self {
            transport,
            config,
            codecs: Arc::new(Codecs {
                keys: default_serializer(),
                values: default_serializer(),
            }),
            assigned: BTreeMap::new(),
            last_served: None,
            subscribed: None,
            last_auto_commit: now,
        }
    }

    /// A consumer with codecs of your choice.
    #[must_use]
    pub fn with_codecs(
        transport: Arc<dyn Transport>,
        config: ConsumerConfig,
        keys: impl Codec<K>,
        values: impl Codec<V>,
    ) -> Self {
        Self {
            codecs: Arc::new(Codecs {
                keys: Box::new(keys),
                values: Box::new(values),
            }),
            ..Self::new(transport, config)
        }
    }

    /// Reads exactly these partitions from now on. Those assigned already keep their positions. A subscription ends.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.subscribed = None;
        let mut before = std::mem::take(&mut self.assigned);
        for partition in partitions {
            let assigned = before.remove(&partition).unwrap_or_default();
            self.assigned.insert(partition, assigned);
        }
    }

    /// The partitions that are read.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.keys()
    }

    /// Continues at `offset`.
    ///
    /// # Errors
    /// If the partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), ClientError> {
        self.assigned_mut(partition)?.seek(offset);
        Ok(())
    }

    /// Returns no records of the partition until it is resumed; what was fetched is kept.
    ///
    /// # Errors
    /// If the partition is not assigned.
    pub fn pause(&mut self, partition: &TopicPartition) -> Result<(), ClientError> {
        self.assigned_mut(partition)?.is_paused = true;
        Ok(())
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// If the partition is not assigned.
    pub fn resume(&mut self, partition: &TopicPartition) -> Result<(), ClientError> {
        self.assigned_mut(partition)?.is_paused = false;
        Ok(())
    }

    /// The paused partitions.
    pub fn paused(&self) -> impl Iterator<Item = &TopicPartition> {
        let paused = self.assigned.iter().filter(|(_, state)| state.is_paused);
        paused.map(|(partition, _)| partition)
    }

    /// Returns the next records, at most `max.poll.records`; waits up to `timeout` for some. Empty if
    /// there were none. If the future is dropped, no record is lost.
    ///
    /// # Errors
    /// [`ClientError::OffsetOutOfRange`] if retention overtook a position (S14),
    /// [`ClientError::NoPosition`] if there is none and `auto.offset.reset` is `none`; or if a partition
    /// does not exist or cannot be read. The positions stay, so that a later poll goes on there.
    /// With a subscription, also why the group has refused the member.
    pub async fn poll(&mut self, timeout: Duration) -> Result<ConsumerRecords<K, V>, ClientError> {
        let _polling = self.begin_poll();
        let deadline = self.now().plus(timeout);
        self.auto_commit().await;
        loop {
            self.follow_group().await?;
            self.find_positions().await?;
            let records = self.take_buffered()?;
            let left = deadline.since(self.now());
            if !records.is_empty() {
                return Ok(ConsumerRecords::new(records, self.codecs.clone()));
            }
            let has_fetched = self.fetch(left.min(self.config.fetch_max_wait)).await?;
            let is_over = left.is_zero();
            if is_over && !has_fetched {
                return Ok(ConsumerRecords::new(Vec::new(), self.codecs.clone()));
            }
        }
    }

    fn now(&self) -> Instant {
        self.transport.env().clock.now()
    }

    fn assigned_mut(&mut self, partition: &TopicPartition) -> Result<&mut Assigned, ClientError> {
        self.assigned
            .get_mut(partition)
            .ok_or_else(|| ClientError::NotAssigned {
                partition: partition.clone(),
            })
    }

    fn take_buffered(&mut self) -> Result<Vec<RawRecord>, ClientError> {
        let mut out = Vec::new();
        for (partition, assigned) in &mut self.assigned {
            let room = self.config.max_poll_records.max(1) - out.len();
            if room == 0 {
                break;
            }
            if assigned.is_paused || !assigned.has_buffered() {
                continue;
            }
            match assigned.take(partition, room, &mut out) {
                Ok(()) => {}
                // What was taken before must not be lost; the error comes again with the next poll.
                Err(_) if !out.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(out)
    }

    /// Fetches for every partition that has nothing buffered; whether anything came.
    async fn fetch(&mut self, max_wait: Duration) -> Result<bool, ClientError> {
        let partitions = self.fetch_partitions();
        if partitions.is_empty() {
            self.pause_or_rebalance(max_wait).await?;
            return Ok(false);
        }
        self.last_served = partitions.first().map(|first| first.partition.clone());
        let request = FetchRequest {
            partitions,
            isolation: self.config.isolation,
            min_bytes: self.config.fetch_min_bytes,
            max_bytes: self.config.fetch_max_bytes,
            max_wait,
        };
        let mut has_fetched = false;
        for answer in self.transport.fetch(request).await? {
            has_fetched |= self.take_answer(answer).await?;
        }
        Ok(has_fetched)
    }

    /// Lists fetches, beginning after the partition that came first the last time.
    fn fetch_partitions(&self) -> Vec<FetchPartition> {
        let wanted = self.assigned.iter().filter_map(|(partition, assigned)| {
            let is_wanted = !assigned.is_paused && !assigned.has_buffered();
            let offset = assigned.position.filter(|_| is_wanted)?;
            Some(FetchPartition {
                partition: partition.clone(),
                offset,
                max_bytes: self.config.max_partition_fetch_bytes,
            })
        });
        let mut wanted: Vec<_> = wanted.collect();
        let turn = wanted
            .iter()
            .position(|next| Some(&next.partition) > self.last_served.as_ref());
        wanted.rotate_left(turn.unwrap_or(0));
        wanted
    }

    async fn take_answer(&mut self, answer: FetchedPartition) -> Result<bool, ClientError> {
        let isolation = self.config.isolation;
        let Some(assigned) = self.assigned.get_mut(&answer.partition) else {
            return Ok(false);
        };
        let position = assigned.position.unwrap_or_default();
        let fetched = match answer.result {
            Ok(fetched) => fetched,
            Err(code) => {
                let transport = &*self.transport;
                let partition = &answer.partition;
                return Err(fetch_error(transport, partition, position, isolation, code).await);
            }
        };
        if fetched.records.is_empty() {
            return Ok(false);
        }
        debug_assert!(position <= visible_end(&fetched, isolation));
        assigned.fetched = Some(FetchedBatches::new(
            answer.partition,
            position,
            isolation,
            fetched,
        ));
        Ok(true)
    }
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> std::fmt::Debug for Consumer<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Consumer").field(&self.config).finish()
    }
}
