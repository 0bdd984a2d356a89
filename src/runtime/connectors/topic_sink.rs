//! The exactly-once sink: records of a topic, in the cycle's transaction.

use std::any::TypeId;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::codec::{Codec, CodecError, CodecUse, Datum, OrNull};
use crate::env::Clock;
use crate::runtime::graph::topology::{Graph, SinkTopic};
use crate::runtime::task::appender::TopicAppender;
use crate::runtime::{
    Failure, Flow, HeaderList, Headers, JobError, MarkChanges, OperatorContext, Record, Sink,
    SinkWriter, Unkeyed,
};
use crate::types::{Timestamp, TopicName};

/// A topic as a source or a sink; see [`topic`].
pub struct Topic<V: Datum + ?Sized, C = <V as Datum>::DefaultCodec> {
    pub(super) name: String,
    pub(super) partitions_count: Option<i32>,
    pub(super) configs: BTreeMap<String, String>,
    pub(super) codec: C,
    pub(super) is_until_end: bool,
    pub(super) on_tombstone: TombstonePolicy,
    headers: WrittenHeaders<V>,
    value: PhantomData<fn(&V)>,
}

/// Treatment by a source of values of a tombstone: a record without a value (null, which is not the same as empty), which deletes
/// its key in a compacted topic. [`Topic::as_option`] is the third way: it makes them values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TombstonePolicy {
    /// It is a poison record: the job stops, or it becomes a dead letter, as the job's policy says.
    #[default]
    Fail,
    /// It is passed over.
    Skip,
}

/// Writes the headers of a record of the topic.
type SetHeaders<V> = dyn Fn(&V, Headers<'_>, &mut HeaderList) + Send + Sync;

/// The headers of the records that a sink writes.
enum WrittenHeaders<V: ?Sized> {
    None,
    Kept,
    Set(Arc<SetHeaders<V>>),
}

impl<V: ToOwned + ?Sized + 'static> WrittenHeaders<V> {
    /// The same for values that may be deletions, of which a function for values knows nothing: they keep their headers.
    fn of_options(self) -> WrittenHeaders<Option<V::Owned>> {
        match self {
            Self::None => WrittenHeaders::None,
            Self::Kept => WrittenHeaders::Kept,
            Self::Set(set) => {
                let set_some =
                    move |value: &Option<V::Owned>, own: Headers<'_>, list: &mut HeaderList| {
                        match value {
                            Some(value) => set(value.borrow(), own, list),
                            None => list.add_all(own),
                        }
                    };
                WrittenHeaders::Set(Arc::new(set_some))
            }
        }
    }
}

impl<V: ?Sized> Clone for WrittenHeaders<V> {
    fn clone(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Kept => Self::Kept,
            Self::Set(set) => Self::Set(Arc::clone(set)),
        }
    }
}

/// A topic: as a source, its committed values, from the job's committed position on (what a null value, which is not the
/// same as an empty one, does is said with [`Topic::on_tombstone`] or [`Topic::as_option`]); as a sink, one that
/// writes each record to the topic `name`. A topic that is absent is created. Keys are written as
/// they are, and placed as the Java client's default partitioner would; records without a key go to
/// the partitions in turn, a batch each. A record without a time gets that of its writing, as a producer would give it.
pub fn topic<V: Datum + ?Sized>(name: &str) -> Topic<V> {
    Topic {
        name: name.to_owned(),
        partitions_count: None,
        configs: BTreeMap::new(),
        codec: V::DefaultCodec::default(),
        is_until_end: false,
        on_tombstone: TombstonePolicy::default(),
        headers: WrittenHeaders::None,
        value: PhantomData,
    }
}

impl<V: Datum + ?Sized, C: Codec<V>> Topic<V, C> {
    /// Sets the partitions of the topic if this job creates it.
    #[must_use]
    pub fn partitions(self, count: i32) -> Self {
        Self {
            partitions_count: Some(count.max(1)),
            ..self
        }
    }

    /// A setting that the topic gets if this job creates it, by Kafka's name: `.config("max.message.bytes", "8388608")`.
    /// A topic that is there already keeps its own.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.configs.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Writes values with another codec.
    #[must_use]
    pub fn codec<D: Codec<V>>(self, codec: D) -> Topic<V, D> {
        Topic {
            name: self.name,
            partitions_count: self.partitions_count,
            configs: self.configs,
            codec,
            is_until_end: self.is_until_end,
            on_tombstone: self.on_tombstone,
            headers: self.headers,
            value: PhantomData,
        }
    }

    /// As a source of values: what it does with a tombstone. The default is to fail.
    #[must_use]
    pub fn on_tombstone(self, policy: TombstonePolicy) -> Self {
        Self {
            on_tombstone: policy,
            ..self
        }
    }

    /// Values that may be deletions: `None` is a record without a value, a tombstone, which deletes its key in a compacted
    /// topic. As a sink it needs a key.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("names");
    /// job.keyed_source(keyed_topic::<u64, str>("users").as_option())
    ///     .map(|name: &Option<String>| name.as_ref().map(|name| name.to_uppercase()))
    ///     .sink(topic::<str>("names").as_option());
    /// ```
    #[must_use]
    pub fn as_option(self) -> Topic<Option<V::Owned>, OrNull<C, V>>
    where
        Option<V::Owned>: Datum,
    {
        Topic {
            name: self.name,
            partitions_count: self.partitions_count,
            configs: self.configs,
            codec: OrNull::new(self.codec),
            is_until_end: self.is_until_end,
            on_tombstone: self.on_tombstone,
            headers: self.headers.of_options(),
            value: PhantomData,
        }
    }

    /// As a sink: writes each record with the headers that it has ([`Record::headers`]): those of the topic that it came from, unless
    /// a step changed them. A record that a step made of several has those of the last.
    #[must_use]
    pub fn keep_headers(self) -> Self {
        Self {
            headers: WrittenHeaders::Kept,
            ..self
        }
    }

    /// As a sink: writes each record with the headers that `set` adds to an empty list. It sees the value and the headers that the
    /// record has.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::runtime::{HeaderList, Headers};
    ///
    /// let job = Job::new("lengths");
    /// let out = topic::<str>("out").headers(|line: &str, own: Headers<'_>, headers: &mut HeaderList| {
    ///     headers.add_all(own);
    ///     headers.add("length", Some(line.len().to_string().as_bytes()));
    /// });
    /// job.source(topic::<str>("in")).sink(out);
    /// ```
    #[must_use]
    pub fn headers<F>(self, set: F) -> Self
    where
        F: Fn(&V, Headers<'_>, &mut HeaderList) + Send + Sync + 'static,
    {
        Self {
            headers: WrittenHeaders::Set(Arc::new(set)),
            ..self
        }
    }

    /// As a source: ends at what is the end of the topic when the job starts, instead of waiting for more.
    #[must_use]
    pub fn until_end(self) -> Self {
        Self {
            is_until_end: true,
            ..self
        }
    }
}

impl<K: ?Sized + 'static, V: Datum + ?Sized, C: Codec<V>> Sink<K, V> for Topic<V, C> {
    type Writer = TopicWriter<V, C>;

    fn name(&self) -> String {
        format!("topic {}", self.name)
    }

    fn open(&self, context: &mut OperatorContext) -> Result<TopicWriter<V, C>, JobError> {
        let job = context.job();
        let appender = TopicAppender::new(
            job,
            context.writer_cell(),
            TopicName::new(&self.name)?,
            job.compression,
        )?;
        Ok(TopicWriter {
            partitions_count: appender.partitions_count(),
            appender,
            codec: self.codec.clone(),
            scratch: Vec::with_capacity(64),
            is_keyed: TypeId::of::<Key<K>>() != TypeId::of::<Key<Unkeyed>>(),
            records: 0,
            clock: Arc::clone(&job.env().clock),
            written_at: Timestamp::NONE,
            has_times: job.uses_time,
            headers: self.headers.clone(),
            list: HeaderList::default(),
            value: PhantomData,
        })
    }

    /// It keeps no marks: its records are in the job's own transaction.
    fn declare(self: Arc<Self>, graph: &Graph) {
        match TopicName::new(&self.name) {
            Ok(topic) => {
                graph.add_sink_topic(
                    topic,
                    SinkTopic {
                        partitions_count: self.partitions_count,
                        configs: self.configs.clone(),
                    },
                );
                let (topic, codec) = (self.name.clone(), self.codec.clone());
                let refuse = |topic: &str, why| JobError::Sink {
                    sink: format!("topic {topic}"),
                    why,
                };
                graph.add_preparation(Arc::new(move || {
                    prepare(codec.prepare(CodecUse::Write), &topic, refuse)
                }));
            }
            Err(e) => graph.add_fault(e.to_string()),
        }
    }
}

/// Turns the result of a codec's preparation into the job's.
pub(super) fn prepare(
    prepared: Result<(), CodecError>,
    topic: &str,
    refuse: impl Fn(&str, String) -> JobError,
) -> Result<(), JobError> {
    prepared.map_err(|e| match e {
        CodecError::RegistryUnavailable { .. } => JobError::RegistryUnavailable {
            topic: topic.to_owned(),
            why: e.to_string(),
        },
        other => refuse(topic, other.to_string()),
    })
}

/// Stands for a key type that may be unsized, where a `TypeId` is wanted.
struct Key<K: ?Sized>(PhantomData<K>);

/// Records without a key that go to one partition before the next one's turn.
const UNKEYED_RUN_RECORDS: u32 = 1024;

/// The refusal of a deletion that names nothing.
const NO_KEY: &str =
    "a deletion without a key deletes nothing: key the stream, or filter what is `None`";

/// One worker's end of the sink.
pub struct TopicWriter<V: ?Sized, C> {
    appender: TopicAppender,
    partitions_count: u32,
    codec: C,
    scratch: Vec<u8>,
    is_keyed: bool,
    records: u32,
    clock: Arc<dyn Clock>,
    /// The time of the cycle's records that have none; [`Timestamp::NONE`] until there is one.
    written_at: Timestamp,
    /// Whether each record has a time: then that of [`Timestamp::NONE`], 1 ms before 1970, is a time like the others.
    has_times: bool,
    headers: WrittenHeaders<V>,
    /// The headers of one record, where they are set.
    list: HeaderList,
    value: PhantomData<fn(&V)>,
}

impl<V: Datum + ?Sized, C: Codec<V>> TopicWriter<V, C> {
    /// The time for a record that has none: one look at the clock a cycle.
    fn time_of_writing(&mut self) -> Timestamp {
        if self.written_at == Timestamp::NONE {
            self.written_at = self.clock.wall();
        }
        self.written_at
    }
}

impl<K: ?Sized, V: Datum + ?Sized, C: Codec<V>> SinkWriter<K, V> for TopicWriter<V, C> {
    #[inline]
    fn write(&mut self, record: Record<'_, K, V>) -> Flow {
        let is_deletion = self.codec.is_null(record.value);
        if is_deletion && !self.is_keyed {
            return Err(Failure::poison(NO_KEY));
        }
        self.scratch.clear();
        if !is_deletion {
            self.codec.encode(record.value, &mut self.scratch)?;
        }
        let (partition, key) = match self.is_keyed {
            true => (
                record.key.partition(self.partitions_count),
                Some(record.key.bytes()),
            ),
            false => {
                self.records = self.records.wrapping_add(1);
                (
                    self.records / UNKEYED_RUN_RECORDS % self.partitions_count,
                    None,
                )
            }
        };
        let timestamp = match record.meta.timestamp {
            Timestamp::NONE if !self.has_times => self.time_of_writing(),
            of_the_record => of_the_record,
        };
        let value = (!is_deletion).then_some(&*self.scratch);
        let appender = &mut self.appender;
        match &self.headers {
            WrittenHeaders::None => appender.append(partition, timestamp, key, value),
            WrittenHeaders::Kept => {
                appender.append_with(partition, timestamp, key, value, record.headers)
            }
            WrittenHeaders::Set(set) => {
                self.list.clear();
                set(record.value, record.headers, &mut self.list);
                appender.append_with(partition, timestamp, key, value, self.list.headers())
            }
        }
    }

    fn prepare_commit(&mut self, _marks: &mut MarkChanges) -> Flow {
        self.written_at = Timestamp::NONE;
        self.appender.flush_all()
    }
}
