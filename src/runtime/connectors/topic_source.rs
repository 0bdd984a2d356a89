//! A topic as a source: committed records only, at the positions that the job's group committed.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::topic_sink::{TombstonePolicy, Topic, prepare};
use crate::client::consumer::PartitionReader;
use crate::client::wait;
use crate::codec::{Codec, CodecError, CodecUse, Datum, OrNull};
use crate::protocol::messages::{NewTopic, OffsetSpec};
use crate::runtime::task::fetched::{FetchCursor, Taken, emit_unreadable};
use crate::runtime::task::source_changelog::SourceTable;
use crate::runtime::topics::source_topics::{Wanted, find_source_topic};
use crate::runtime::{
    Emit, Emitted, JobContext, JobError, Key, Pace, Raw, Read, ReadLetter, Source, Split,
    SplitReader, TakeRecord, Unkeyed,
};
use crate::types::{Isolation, Offset, TopicName, TopicPartition};

/// A topic as a source of keyed records; see [`keyed_topic`].
pub struct KeyedTopic<K: ?Sized, V: Datum + ?Sized, C = <V as Datum>::DefaultCodec> {
    topic: Topic<V, C>,
    keys: Option<TranslateKey>,
    key: PhantomData<fn(&K)>,
}

/// A record whose schema is on its way is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Keys of another codec than the default one of their type.
trait KeyTranslation: Send + Sync {
    /// Writes a key as the default codec of its type has it.
    fn translate(&self, key: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError>;

    fn prepare(&self) -> Result<(), CodecError>;
}

type TranslateKey = Arc<dyn KeyTranslation>;

/// Keys of `K` in the codec `D`.
struct KeysIn<K: ?Sized, D>(D, PhantomData<fn(&K)>);

impl<K: Datum + ?Sized, D: Codec<K>> KeyTranslation for KeysIn<K, D> {
    fn translate(&self, key: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        K::DefaultCodec::default().encode(&*self.0.decode(key)?, out)
    }

    fn prepare(&self) -> Result<(), CodecError> {
        self.0.prepare(CodecUse::Read)
    }
}

/// A source of the keys and values of the topic `name`. Keys are in the default codec of `K` ([`KeyedTopic::key_codec`] reads others); a record
/// without a key (null, not empty) is a poison record, and so is one without a value, unless
/// [`KeyedTopic::on_tombstone`] or [`KeyedTopic::as_option`] says otherwise.
///
/// ```
/// use onceflow::prelude::*;
///
/// let job = Job::new("latest");
/// job.keyed_source(keyed_topic::<str, u64>("word-counts")).reduce("sums", |sum, n| *sum += n).changes().sink(topic("sums"));
/// ```
pub fn keyed_topic<K: Datum + ?Sized, V: Datum + ?Sized>(name: &str) -> KeyedTopic<K, V> {
    KeyedTopic {
        topic: super::topic(name),
        keys: None,
        key: PhantomData,
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, C: Codec<V>> KeyedTopic<K, V, C> {
    /// Reads values with another codec.
    #[must_use]
    pub fn codec<D: Codec<V>>(self, codec: D) -> KeyedTopic<K, V, D> {
        KeyedTopic {
            topic: self.topic.codec(codec),
            keys: self.keys,
            key: PhantomData,
        }
    }

    /// Reads keys with another codec: what other programs write has its keys as text, mostly. From here on they are in the default codec
    /// of `K`, as all keys of the job.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("cities");
    /// // onceflow produce people --key      a line is a key, a tab and a value
    /// let people = keyed_topic::<str, str>("people").key_codec(Text).codec(Text);
    /// job.keyed_source(people).count("changes").changes().sink(topic("changes"));
    /// ```
    #[must_use]
    pub fn key_codec<D: Codec<K>>(self, codec: D) -> Self {
        Self {
            keys: Some(Arc::new(KeysIn::<K, D>(codec, PhantomData))),
            ..self
        }
    }

    /// Sets the treatment of tombstones; see [`Topic::on_tombstone`].
    #[must_use]
    pub fn on_tombstone(self, policy: TombstonePolicy) -> Self {
        Self {
            topic: self.topic.on_tombstone(policy),
            keys: self.keys,
            key: PhantomData,
        }
    }

    /// Values that may be deletions; see [`Topic::as_option`].
    #[must_use]
    pub fn as_option(self) -> KeyedTopic<K, Option<V::Owned>, OrNull<C, V>>
    where
        Option<V::Owned>: Datum,
    {
        KeyedTopic {
            topic: self.topic.as_option(),
            keys: self.keys,
            key: PhantomData,
        }
    }

    /// Ends at what is the end of the topic when the job starts, instead of waiting for more.
    #[must_use]
    pub fn until_end(self) -> Self {
        Self {
            topic: self.topic.until_end(),
            keys: self.keys,
            key: PhantomData,
        }
    }
}

impl<K: Datum + ?Sized, V: Datum<Owned = V>, C: Codec<V>> KeyedTopic<K, V, C> {
    /// The topic as the changelog of a table of its values.
    pub(in crate::runtime) fn as_changelog(&self) -> SourceTable {
        let codec = self.topic.codec.clone();
        SourceTable {
            topic: self.topic.name.clone(),
            has_other_keys: self.keys.is_some(),
            row_of: Arc::new(move |_key, value, row| {
                let Some(value) = value else {
                    return Ok(false);
                };
                V::DefaultCodec::default().encode(&*codec.decode(value)?, row)?;
                Ok(true)
            }),
        }
    }
}

impl<V: Datum + ?Sized, C: Codec<V>> Source for Topic<V, C> {
    type Key = Unkeyed;
    type Value = V;
    type Reader = TopicReader<V, C>;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn topic(&self) -> Option<(String, Option<i32>)> {
        Some((self.name.clone(), self.partitions_count))
    }

    fn reads_until_end(&self) -> bool {
        self.is_until_end
    }

    fn letters(&self) -> Option<Arc<dyn ReadLetter<Unkeyed, V>>> {
        Some(Arc::new(TopicLetters::of(self, None)))
    }

    fn prepare(&self) -> Result<(), JobError> {
        prepare_source(self, None)
    }

    fn splits(&self, context: &JobContext) -> Result<Vec<Split>, JobError> {
        splits(self, context)
    }

    fn open(
        &self,
        split: &Split,
        position: Option<Offset>,
        context: &JobContext,
    ) -> Result<Self::Reader, JobError> {
        TopicReader::open(self, None, split, position, context)
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, C: Codec<V>> Source for KeyedTopic<K, V, C> {
    type Key = K;
    type Value = V;
    type Reader = TopicReader<V, C>;

    fn name(&self) -> String {
        self.topic.name.clone()
    }

    fn topic(&self) -> Option<(String, Option<i32>)> {
        Source::topic(&self.topic)
    }

    fn reads_until_end(&self) -> bool {
        self.topic.is_until_end
    }

    fn letters(&self) -> Option<Arc<dyn ReadLetter<K, V>>> {
        let keys = self.keys.clone();
        Some(Arc::new(TopicLetters::of(&self.topic, keys)))
    }

    fn prepare(&self) -> Result<(), JobError> {
        prepare_source(&self.topic, self.keys.as_ref())
    }

    fn splits(&self, context: &JobContext) -> Result<Vec<Split>, JobError> {
        splits(&self.topic, context)
    }

    fn open(
        &self,
        split: &Split,
        position: Option<Offset>,
        context: &JobContext,
    ) -> Result<Self::Reader, JobError> {
        let keys = self.keys.clone();
        TopicReader::open(&self.topic, keys, split, position, context)
    }
}

/// Gets the codecs of a topic ready.
fn prepare_source<V: Datum + ?Sized, C: Codec<V>>(
    topic: &Topic<V, C>,
    keys: Option<&TranslateKey>,
) -> Result<(), JobError> {
    let refuse = |topic: &str, why| JobError::Source {
        source_name: topic.to_owned(),
        why,
    };
    prepare(topic.codec.prepare(CodecUse::Read), &topic.name, refuse)?;
    let keys = keys.map_or(Ok(()), |keys| keys.prepare());
    prepare(keys, &topic.name, refuse)
}

/// The partitions of a topic.
fn splits<V: Datum + ?Sized, C: Codec<V>>(
    topic: &Topic<V, C>,
    context: &JobContext,
) -> Result<Vec<Split>, JobError> {
    let name = TopicName::new(&topic.name)?;
    let wanted = Wanted::of(context.has_read(&name), topic.is_until_end);
    let topic = NewTopic {
        name: name.clone(),
        partitions_count: topic.partitions_count.unwrap_or(context.topic_partitions),
        configs: topic.configs.clone(),
    };
    let (env, transport) = (context.env(), context.transport());
    let metadata = find_source_topic(env, transport, context.name(), topic, wanted)?;
    let partitions = 0..metadata.partitions_count;
    Ok(partitions
        .map(|partition| Split::Partition(TopicPartition::new(name.clone(), partition)))
        .collect())
}

/// A null value is no value of any type: it says that its key was deleted.
const NO_VALUE: CodecError = CodecError::Absent {
    part: "value",
    advice: "in a compacted topic it deletes the key, and a source of plain values does not say what it does here: pass it over \
             (`on_tombstone`), read it as `None` (`as_option`), or keep such records as dead letters (`PoisonPolicy::DeadLetter`)",
};
/// A null key is no key of any type.
const NO_KEY: CodecError = CodecError::Absent {
    part: "key",
    advice: "read the topic without keys, and key it by its value",
};

/// Reads one partition.
pub struct TopicReader<V: ?Sized, C> {
    cursor: FetchCursor,
    codec: C,
    keys: Option<TranslateKey>,
    /// The key of a record as the job has it, if the topic has it otherwise.
    translated: Vec<u8>,
    /// Where to end, if anywhere.
    end: Option<Offset>,
    /// Whether tombstones are passed over.
    is_skipping: bool,
    /// The partition that it reads, and of how many, if the topic is the changelog of a table: then no key may be elsewhere.
    place: Option<(TopicPartition, u32)>,
    value: PhantomData<fn(&V)>,
}

impl<V: Datum + ?Sized, C: Codec<V>> TopicReader<V, C> {
    fn open(
        topic: &Topic<V, C>,
        keys: Option<TranslateKey>,
        split: &Split,
        position: Option<Offset>,
        context: &JobContext,
    ) -> Result<Self, JobError> {
        let Split::Partition(partition) = split else {
            unreachable!("this source lists partitions")
        };
        let list = |spec| {
            wait(
                context
                    .transport()
                    .list_offset(partition, spec, Isolation::ReadCommitted),
            )
        };
        // A job that never committed begins at the start: a record that it was not shown would be lost in silence.
        let start = match position {
            Some(position) => position,
            None => list(OffsetSpec::Earliest)?.map_or(Offset::ZERO, |found| found.offset),
        };
        let end = match topic.is_until_end {
            true => list(OffsetSpec::Latest)?.map(|found| found.offset),
            false => None,
        };
        let reader = PartitionReader::new(
            context.transport().clone(),
            partition.clone(),
            start,
            Isolation::ReadCommitted,
        );
        Ok(Self {
            cursor: FetchCursor::new(reader),
            codec: topic.codec.clone(),
            keys,
            translated: Vec::new(),
            end,
            is_skipping: topic.on_tombstone == TombstonePolicy::Skip,
            place: (context.is_changelog(&partition.topic))
                .then(|| (partition.clone(), u32::from(context.state_partitions()))),
            value: PhantomData,
        })
    }

    fn read_with<K: ?Sized>(
        &mut self,
        waker: &Waker,
        emit: &mut impl Emit<K, V>,
        key_of: impl for<'r> Fn(Option<&'r [u8]>) -> Result<Key<'r, K>, CodecError>,
    ) -> Result<Read, JobError> {
        if self.end.is_some_and(|end| self.cursor.position() >= end) {
            return Ok(Read::Exhausted);
        }
        let (codec, is_skipping, place) = (&self.codec, self.is_skipping, &self.place);
        let (keys, translated) = (&self.keys, &mut self.translated);
        let (before, mut is_waiting) = (self.cursor.position(), false);
        let read = self.cursor.read(waker, |offered| {
            let record = match offered {
                Ok(record) => record,
                Err(bad) => return emit_unreadable(emit, bad).map(Taken::Yes),
            };
            let Some(decoded) = decode_value(codec, record.value, is_skipping) else {
                return Ok(Taken::Yes(Pace::GoOn));
            };
            let key = translate(keys.as_ref(), record.key, translated).and_then(&key_of);
            let record_in = match (&decoded, key) {
                (Ok(value), Ok(key)) => Ok((key, &**value)),
                (Err(e), _) => Err(e.clone()),
                (_, Err(e)) => Err(e),
            };
            if let (Some(place), Ok((key, _))) = (place, &record_in) {
                check_place(place, *key, record.offset)?;
            }
            if let Err(CodecError::Awaited { .. }) = record_in {
                is_waiting = true;
                return Ok(Taken::NotYet);
            }
            let emitted = emit.emit(Emitted {
                record: record_in,
                timestamp: record.timestamp,
                offset: record.offset,
                raw: Raw::Bytes {
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                },
            });
            emitted.map(Taken::Yes)
        })?;
        match is_waiting && self.cursor.position() == before {
            true => Ok(Read::Later(LOOK_AGAIN)),
            false => Ok(read),
        }
    }
}

/// Refuses a record that is not in its key's own partition of a topic that is a table's changelog: another state partition would miss it.
#[inline]
fn check_place<K: ?Sized>(
    (place, count): &(TopicPartition, u32),
    key: Key<'_, K>,
    offset: Offset,
) -> Result<(), JobError> {
    let home = key.partition(*count);
    if i32::try_from(home) == Ok(place.partition) {
        return Ok(());
    }
    Err(JobError::Source {
        source_name: place.to_string(),
        why: format!(
            "the key of record {offset} belongs into partition {home} by Kafka's default partitioner (murmur2), and the topic is the \
             changelog of a table (`reuse_source_topics`), which needs it there: have producers place records so, and give the job \
             another name, without `reuse_source_topics` if such records must stay"
        ),
    })
}

/// A record's key as the job has it.
#[inline]
fn translate<'r>(
    keys: Option<&TranslateKey>,
    key: Option<&'r [u8]>,
    translated: &'r mut Vec<u8>,
) -> Result<Option<&'r [u8]>, CodecError> {
    let (Some(translate), Some(key)) = (keys, key) else {
        return Ok(key);
    };
    translated.clear();
    translate.translate(key, translated)?;
    Ok(Some(translated))
}

/// The value of a record; `None` for a tombstone that is passed over.
#[inline]
fn decode_value<'r, V: Datum + ?Sized>(
    codec: &impl Codec<V>,
    value: Option<&'r [u8]>,
    is_skipping: bool,
) -> Option<Result<Cow<'r, V>, CodecError>> {
    Some(match value {
        Some(value) => codec.decode(value),
        None => match codec.decode_null() {
            Some(deletion) => Ok(Cow::Owned(deletion)),
            None if is_skipping => return None,
            None => Err(NO_VALUE),
        },
    })
}

/// The way back for letters of a topic.
pub(super) struct TopicLetters<V: ?Sized, C> {
    codec: C,
    keys: Option<TranslateKey>,
    is_skipping: bool,
    value: PhantomData<fn(&V)>,
}

impl<V: Datum + ?Sized, C: Codec<V>> TopicLetters<V, C> {
    fn of(topic: &Topic<V, C>, keys: Option<TranslateKey>) -> Self {
        Self {
            codec: topic.codec.clone(),
            keys,
            is_skipping: topic.on_tombstone == TombstonePolicy::Skip,
            value: PhantomData,
        }
    }

    fn read_with<K: ?Sized>(
        &self,
        key: Result<Key<'_, K>, CodecError>,
        value: Option<&[u8]>,
        take: &mut TakeRecord<'_, K, V>,
    ) -> Result<Pace, JobError> {
        let Some(decoded) = decode_value(&self.codec, value, self.is_skipping) else {
            return Ok(Pace::GoOn);
        };
        match (&decoded, key) {
            (Ok(value), Ok(key)) => take(Ok((key, &**value))),
            (Err(e), _) => take(Err(e.clone())),
            (_, Err(e)) => take(Err(e)),
        }
    }
}

impl<V: Datum + ?Sized, C: Codec<V>> ReadLetter<Unkeyed, V> for TopicLetters<V, C> {
    fn read(
        &self,
        _key: Option<&[u8]>,
        value: Option<&[u8]>,
        take: &mut TakeRecord<'_, Unkeyed, V>,
    ) -> Result<Pace, JobError> {
        self.read_with(Ok(Key::none()), value, take)
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, C: Codec<V>> ReadLetter<K, V> for TopicLetters<V, C> {
    fn read(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        take: &mut TakeRecord<'_, K, V>,
    ) -> Result<Pace, JobError> {
        let mut translated = Vec::new();
        let key = translate(self.keys.as_ref(), key, &mut translated);
        let key = key.and_then(|key| key.map(Key::new).ok_or(NO_KEY));
        self.read_with(key, value, take)
    }
}

/// The way back for late letters, as a sink with the default codecs wrote them.
pub(in crate::runtime) fn keyed_letters<K: Datum + ?Sized, V: Datum + ?Sized>()
-> Arc<dyn ReadLetter<K, V>> {
    Arc::new(TopicLetters::of(&super::topic::<V>(""), None))
}

impl<V: Datum + ?Sized, C: Codec<V>> SplitReader<Unkeyed, V> for TopicReader<V, C> {
    fn read(&mut self, waker: &Waker, emit: &mut impl Emit<Unkeyed, V>) -> Result<Read, JobError> {
        self.read_with(waker, emit, |_| Ok(Key::none()))
    }

    fn position(&self) -> Offset {
        self.cursor.position()
    }

    fn has_caught_up(&self) -> bool {
        self.cursor.has_caught_up()
    }
}

/// Keyed reading; told apart from the unkeyed one by [`Datum`], which [`Unkeyed`] is not.
impl<K: Datum + ?Sized, V: Datum + ?Sized, C: Codec<V>> SplitReader<K, V> for TopicReader<V, C> {
    fn read(&mut self, waker: &Waker, emit: &mut impl Emit<K, V>) -> Result<Read, JobError> {
        self.read_with(waker, emit, |key| key.map(Key::new).ok_or(NO_KEY))
    }

    fn position(&self) -> Offset {
        self.cursor.position()
    }

    fn has_caught_up(&self) -> bool {
        self.cursor.has_caught_up()
    }
}
