//! Records that a test puts into topics, and the committed ones that it finds there.

use std::collections::BTreeMap;

use super::{PARTITIONS, TestBed};
use crate::client::consumer::PartitionReader;
use crate::client::wait;
use crate::codec::{Codec, Datum};
use crate::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use crate::protocol::messages::{Acks, NewTopic, OffsetSpec, ProduceRequest};
use crate::protocol::partition_for_key;
use crate::runtime::contract::error::JobError;
use crate::runtime::topics::job_topics::{TopicConfigs, ensure_topic};
use crate::types::{Isolation, Offset, PartitionIndex, Timestamp, TopicName, TopicPartition};

/// A committed record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row<K, V> {
    /// Where it stands.
    pub partition: PartitionIndex,
    /// Where in the partition.
    pub offset: Offset,
    /// Its time.
    pub timestamp: Timestamp,
    /// Its key; `None` for a record without one.
    pub key: Option<K>,
    /// Its value; `None` for a tombstone.
    pub value: Option<V>,
}

/// The bytes of a key or value of a test.
#[track_caller]
fn encode<T: Datum + ?Sized>(what: &str, value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoded = T::DefaultCodec::default().encode(value, &mut bytes);
    encoded.unwrap_or_else(|e| panic!("the {what} has no form in its codec: {e}"));
    bytes
}

#[track_caller]
fn decode<T: Datum + ?Sized>(what: &str, topic: &str, bytes: &[u8]) -> T::Owned {
    let codec = T::DefaultCodec::default();
    let decoded = codec.decode(bytes);
    let value = decoded.unwrap_or_else(|e| {
        panic!(
            "a {what} of {topic} is no `{}` ({e}): ask with the types that the job writes",
            T::identity()
        )
    });
    value.into_owned()
}

impl TestBed {
    pub(super) fn create_sources(
        &self,
        partitions: &BTreeMap<String, i32>,
        configs: &TopicConfigs,
    ) -> Result<(), JobError> {
        let transport = self.log().transport();
        let sources = self.topology.sources.iter();
        let topics = sources.filter(|source| source.replays.is_none());
        for (topic, count) in topics.filter_map(|source| source.lister.topic()) {
            let count = partitions.get(&topic).copied().or(count);
            ensure_topic(
                &transport,
                NewTopic {
                    name: TopicName::new(&topic)?,
                    partitions_count: count.unwrap_or(PARTITIONS),
                    configs: configs.get(&topic).cloned().unwrap_or_default(),
                },
            )?;
        }
        Ok(())
    }

    /// Appends a record to a topic, now by the bed's clock, in the default codecs of its types. A key's partition is the one that
    /// Kafka's default partitioner would choose.
    ///
    /// # Panics
    /// If there is no such topic, or it refuses the record.
    #[track_caller]
    pub fn send<K: Datum + ?Sized, V: Datum + ?Sized>(&mut self, topic: &str, key: &K, value: &V) {
        let now = self.now();
        self.send_at(topic, key, value, now);
    }

    /// Appends a record with a time of its own.
    ///
    /// # Panics
    /// As [`TestBed::send`].
    #[track_caller]
    pub fn send_at<K: Datum + ?Sized, V: Datum + ?Sized>(
        &mut self,
        topic: &str,
        key: &K,
        value: &V,
        time: Timestamp,
    ) {
        let (key, value) = (encode("key", key), encode("value", value));
        self.send_bytes(topic, Some(&key), Some(&value), time);
    }

    /// Appends a record without a key, to the topic's partitions in turn.
    ///
    /// # Panics
    /// As [`TestBed::send`].
    #[track_caller]
    pub fn send_value<V: Datum + ?Sized>(&mut self, topic: &str, value: &V) {
        let now = self.now();
        self.send_value_at(topic, value, now);
    }

    /// Appends a record without a key, with a time of its own.
    ///
    /// # Panics
    /// As [`TestBed::send`].
    #[track_caller]
    pub fn send_value_at<V: Datum + ?Sized>(&mut self, topic: &str, value: &V, time: Timestamp) {
        let value = encode("value", value);
        self.send_bytes(topic, None, Some(&value), time);
    }

    /// Appends a tombstone, which deletes its key.
    ///
    /// # Panics
    /// As [`TestBed::send`].
    #[track_caller]
    pub fn send_delete<K: Datum + ?Sized>(&mut self, topic: &str, key: &K) {
        let (key, now) = (encode("key", key), self.now());
        self.send_bytes(topic, Some(&key), None, now);
    }

    /// Appends a record of any bytes: what a foreign or broken producer sends.
    ///
    /// # Panics
    /// As [`TestBed::send`].
    #[track_caller]
    pub fn send_bytes(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        time: Timestamp,
    ) {
        let count = self.partitions_of(topic).len();
        assert!(
            count > 0,
            "there is no topic {topic:?}: the job reads {:?}",
            self.source_topics()
        );
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let partition = match key {
            Some(key) => partition_for_key(key, count),
            None => {
                self.next_partition = (self.next_partition + 1) % count;
                self.next_partition
            }
        };
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(time, key, value);
        let request = ProduceRequest {
            partition: TopicPartition::new(name_of(topic), partition),
            records: builder.finish(BatchProducer::Plain).freeze().into(),
            acks: Acks::All,
            transactional_id: None,
        };
        let sent = wait(self.log().transport().produce(request));
        sent.unwrap_or_else(|e| panic!("{topic} refuses the record: {e}"));
    }

    /// The names of the topics that the job reads.
    pub(super) fn source_topics(&self) -> Vec<String> {
        let sources = self.topology.sources.iter();
        let topics = sources.filter_map(|source| Some(source.lister.topic()?.0));
        topics.collect()
    }

    pub(super) fn partitions_of(&self, topic: &str) -> Vec<TopicPartition> {
        let name = name_of(topic);
        let found = wait(self.log().transport().topic(&name));
        let found = found.unwrap_or_else(|e| panic!("{e}"));
        let count = found.map_or(0, |found| found.partitions_count);
        let all = (0..count).map(|partition| TopicPartition::new(name.clone(), partition));
        all.collect()
    }

    /// All committed records of a topic, by partition and offset; none if there is no such topic. Values are in the default codec of
    /// their type. The job works and commits before.
    ///
    /// # Panics
    /// If the job fails, or a record is not of these types.
    #[track_caller]
    pub fn rows<K: Datum + ?Sized, V: Datum + ?Sized>(
        &mut self,
        topic: &str,
    ) -> Vec<Row<K::Owned, V::Owned>> {
        self.commit();
        self.housekeep();
        self.committed_rows::<K, V>(topic)
    }

    /// The records of a topic that are committed as it stands.
    #[track_caller]
    pub(super) fn committed_rows<K: Datum + ?Sized, V: Datum + ?Sized>(
        &self,
        topic: &str,
    ) -> Vec<Row<K::Owned, V::Owned>> {
        let places = self.partitions_of(topic).into_iter();
        places
            .flat_map(|place| self.rows_from::<K, V>(&place, Offset::ZERO))
            .collect()
    }

    #[track_caller]
    pub(super) fn rows_from<K: Datum + ?Sized, V: Datum + ?Sized>(
        &self,
        place: &TopicPartition,
        from: Offset,
    ) -> Vec<Row<K::Owned, V::Owned>> {
        let transport = self.log().transport();
        let topic = place.topic.as_str();
        let isolation = Isolation::ReadCommitted;
        let end = wait(transport.list_offset(place, OffsetSpec::Latest, isolation));
        let end = end.unwrap_or_else(|e| panic!("{e}"));
        let end = end.map_or(Offset::ZERO, |end| end.offset);
        let mut reader = PartitionReader::new(transport, place.clone(), from, isolation);
        let mut rows = Vec::new();
        while reader.position() < end {
            let before = reader.position();
            let batches = reader.fetch_now().unwrap_or_else(|e| panic!("{e}"));
            for batch in batches {
                let batch = batch.unwrap_or_else(|e| panic!("{e}"));
                for record in batch.iter() {
                    let record = record.unwrap_or_else(|e| panic!("{e}"));
                    if record.offset < from {
                        continue;
                    }
                    rows.push(Row {
                        partition: place.partition,
                        offset: record.offset,
                        timestamp: record.timestamp,
                        key: record.key.map(|key| decode::<K>("key", topic, key)),
                        value: record.value.map(|value| decode::<V>("value", topic, value)),
                    });
                }
            }
            assert!(
                reader.position() > before,
                "{topic} cannot be read from {before} to its end at {end}"
            );
        }
        rows
    }
}

#[track_caller]
fn name_of(topic: &str) -> TopicName {
    TopicName::new(topic).unwrap_or_else(|e| panic!("{topic:?} is no name of a topic: {e}"))
}
