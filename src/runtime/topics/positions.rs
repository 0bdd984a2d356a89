//! Positions of sources that are not topics: a compacted topic of the job, written in the cycle's transaction.
//!
//! Key: the source's name and the split's name, joined by a 0 byte. Value: the position, eight bytes, big-endian, and
//! behind it the source's fingerprint of the input before it, if it has one. Sinks keep their marks here, too: key, the
//! sink's name and the part's, joined by a 0 byte; value, the mark.
//!
//! Where the job keeps the time, a split's watermark has a record of its own: two 0 bytes before such a key, and the
//! milliseconds in eight bytes, big-endian. (That of a topic's partition is in the metadata of its committed offset.)
//!
//! And the topics that the job has read, because it never creates one of them anew (X8). Key: a 0 byte and the topic's
//! name. Value: the version, 1, in a byte, and the topic's id, 16 bytes. And the schemas of what else it keeps (`schemas.rs`).
//!
//! And below which number the epochs lie that an instance has shown to readers. Key: three 0 bytes and the instance. Value: the number in
//! eight bytes, big-endian. And that a part of a savepoint is restored, and the rest is not yet. Key: four 0 bytes and `restoring`. Value: the
//! savepoint's path.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::schemas::NotedSchema;
use crate::client::consumer::PartitionReader;
use crate::client::{PartitionWriter, TransactionalWriter, Transport, wait};
use crate::env::Env;
use crate::protocol::batch::{BatchBuilder, Compression};
use crate::protocol::messages::OffsetSpec;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::sink::{MarkChanges, Marks};
use crate::runtime::contract::source::Position;
use crate::runtime::task::cycle::WRITERS_COUNT;
use crate::types::{Isolation, NameError, Offset, Timestamp, TopicId, TopicName, TopicPartition};

/// The version of the rows that say which topics were read.
const TOPIC_VERSION: u8 = 1;

/// The key of the note that a restore is under way.
const RESTORING: &str = "\0\0\0\0restoring";

/// The topic of a job's positions.
pub(crate) fn positions_topic(job: &str) -> Result<TopicName, NameError> {
    TopicName::new(&format!("{job}-positions"))
}

/// Writes positions.
pub(crate) struct Positions {
    env: Env,
    builder: BatchBuilder,
    writers: [PartitionWriter; WRITERS_COUNT],
}

impl Positions {
    pub(crate) fn new(
        env: Env,
        topic: TopicName,
        writers: &[TransactionalWriter; WRITERS_COUNT],
    ) -> Self {
        let partition = TopicPartition::new(topic, 0);
        Self {
            env,
            builder: BatchBuilder::new(Compression::None, None),
            writers: writers
                .each_ref()
                .map(|writer| writer.partition(&partition)),
        }
    }

    pub(crate) fn append(
        &mut self,
        writer: usize,
        source: &str,
        split: &str,
        position: &Position,
    ) -> Result<(), JobError> {
        let value = [&position.offset.0.to_be_bytes(), &*position.fingerprint].concat();
        self.append_named(writer, source, split, Some(&value))?;
        if let Some(watermark) = position.watermark {
            let key = [&[0, 0], source.as_bytes(), &[0], split.as_bytes()].concat();
            let value = watermark.0.to_be_bytes();
            self.builder
                .push(self.env.clock.wall(), Some(&key), Some(&value));
        }
        Ok(())
    }

    fn append_named(
        &mut self,
        writer: usize,
        name: &str,
        part: &str,
        value: Option<&[u8]>,
    ) -> Result<(), JobError> {
        let key = [name.as_bytes(), &[0], part.as_bytes()].concat();
        self.builder.push(self.env.clock.wall(), Some(&key), value);
        if self.builder.size_bytes() > 256 * 1024 {
            self.flush(writer)
        } else {
            Ok(())
        }
    }

    /// Forgets the position of a split: it is read from its beginning.
    pub(crate) fn forget(
        &mut self,
        writer: usize,
        source: &str,
        split: &str,
    ) -> Result<(), JobError> {
        self.append_named(writer, source, split, None)
    }

    /// Notes what a cycle changes of a sink's marks.
    pub(crate) fn append_marks(
        &mut self,
        writer: usize,
        sink: &str,
        changes: &MarkChanges,
    ) -> Result<(), JobError> {
        let mut changes = changes.iter();
        changes.try_for_each(|(part, mark)| self.append_named(writer, sink, part, mark))
    }

    /// Notes that the job has read a topic.
    pub(crate) fn append_topic(
        &mut self,
        writer: usize,
        topic: &TopicName,
        id: TopicId,
    ) -> Result<(), JobError> {
        let key = [&[0], topic.as_str().as_bytes()].concat();
        let value = [&[TOPIC_VERSION], &id.0.to_be_bytes()[..]].concat();
        let now = self.env.clock.wall();
        self.builder.push(now, Some(&key), Some(&value));
        self.flush(writer)
    }

    /// Notes of what types a store's changelog or a repartition topic is.
    pub(crate) fn append_schema(
        &mut self,
        writer: usize,
        noted: &NotedSchema,
    ) -> Result<(), JobError> {
        let (key, value) = noted.to_record();
        self.builder
            .push(self.env.clock.wall(), Some(&key), Some(&value));
        self.flush(writer)
    }

    /// Notes that an instance shows readers no epoch above this one until it notes another.
    pub(crate) fn append_epochs(
        &mut self,
        writer: usize,
        instance: &str,
        last: u64,
    ) -> Result<(), JobError> {
        let key = [&[0, 0, 0], instance.as_bytes()].concat();
        let now = self.env.clock.wall();
        self.builder
            .push(now, Some(&key), Some(&last.to_be_bytes()));
        self.flush(writer)
    }

    /// Notes that a part of a savepoint is restored, until it is noted that all of it is.
    pub(crate) fn append_restoring(
        &mut self,
        writer: usize,
        savepoint: Option<&str>,
    ) -> Result<(), JobError> {
        let (key, value) = (RESTORING.as_bytes(), savepoint.map(str::as_bytes));
        self.builder.push(self.env.clock.wall(), Some(key), value);
        self.flush(writer)
    }

    pub(crate) fn flush(&mut self, writer: usize) -> Result<(), JobError> {
        if !self.builder.is_empty() {
            self.writers[writer].hand_over(&mut self.builder)?;
        }
        Ok(())
    }
}

/// The committed positions by source and split, and the marks by sink and part, as they are stored.
#[derive(Default)]
pub(crate) struct NamedPositions {
    stored: HashMap<(String, String), Vec<u8>>,
    watermarks: HashMap<(String, String), Timestamp>,
}

impl NamedPositions {
    pub(crate) fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// The names of everything: of a source and its split, or of a sink and its part.
    pub(crate) fn names(&self) -> impl Iterator<Item = &(String, String)> {
        self.stored.keys()
    }

    /// The position of a split, if it has one.
    pub(crate) fn position(&self, source: &str, split: &str) -> Result<Option<Position>, JobError> {
        let place = (source.to_owned(), split.to_owned());
        let stored = self.stored.get(&place);
        stored
            .map(|value| {
                let (offset, fingerprint) =
                    value.split_first_chunk().ok_or_else(|| JobError::Source {
                        source_name: source.to_owned(),
                        why: format!(
                            "the committed position of {split} is none: the name was another thing's; give the source another one"
                        ),
                    })?;
                Ok(Position {
                    offset: Offset(i64::from_be_bytes(*offset)),
                    fingerprint: fingerprint.to_vec(),
                    watermark: self.watermarks.get(&place).copied(),
                })
            })
            .transpose()
    }

    /// The marks of a sink.
    pub(crate) fn marks(&self, sink: &str) -> Marks {
        let own = self.stored.iter().filter(|((of, _), _)| of == sink);
        own.map(|((_, part), mark)| (part.clone(), mark.clone()))
            .collect()
    }
}

/// The contents of a job's topic of positions.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) positions: NamedPositions,
    /// The topics that it has read, and who they were at its last commit.
    pub(crate) read_topics: BTreeMap<TopicName, TopicId>,
    /// The types of what it stored.
    pub(crate) schemas: Vec<NotedSchema>,
    /// The last epoch that each instance may have shown to readers.
    pub(crate) epochs: BTreeMap<String, u64>,
    /// The savepoint of which a part is restored, and the rest is not.
    pub(crate) restoring: Option<String>,
}

impl Kept {
    /// Whether the job has committed rows of a store whose changelog was a topic that it reads.
    pub(crate) fn has_source_changelog(&self, store: &str) -> bool {
        let noted = self
            .schemas
            .iter()
            .find(|noted| noted.store() == Some(store));
        let mut read = self.read_topics.values();
        noted.is_some_and(|noted| read.any(|id| id.to_string() == noted.topic_id()))
    }
}

/// Reads all that a job keeps in its topic of positions.
pub(crate) fn read_positions(
    transport: &Arc<dyn Transport>,
    topic: &TopicName,
) -> Result<Kept, JobError> {
    let place = TopicPartition::new(topic.clone(), 0);
    let list = |spec| wait(transport.list_offset(&place, spec, Isolation::ReadCommitted));
    let start = list(OffsetSpec::Earliest)?.map_or(Offset::ZERO, |found| found.offset);
    let end = list(OffsetSpec::Latest)?.map_or(Offset::ZERO, |found| found.offset);
    let mut reader = PartitionReader::new(
        Arc::clone(transport),
        place.clone(),
        start,
        Isolation::ReadCommitted,
    );
    let mut kept = Kept::default();
    while reader.position() < end {
        for batch in reader.fetch_now()? {
            let batch = batch?;
            for record in batch.iter() {
                let record = record?;
                if let Some(noted) = NotedSchema::of_record(&record, topic)? {
                    kept.schemas.retain(|it| it.name != noted.name);
                    kept.schemas.push(noted);
                    continue;
                }
                let entry = parse(record.key, record.value).ok_or_else(|| JobError::Source {
                    source_name: topic.to_string(),
                    why: format!("record {} is no position: the topic is the job's own, write nothing into it", record.offset),
                })?;
                match entry {
                    Entry::Named(key, Some(value)) => {
                        kept.positions.stored.insert(key, value);
                    }
                    Entry::Named(key, None) => {
                        kept.positions.stored.remove(&key);
                    }
                    Entry::Watermark(key, watermark) => {
                        kept.positions.watermarks.insert(key, watermark);
                    }
                    Entry::Topic(topic, id) => {
                        kept.read_topics.insert(topic, id);
                    }
                    Entry::Epochs(instance, last) => {
                        kept.epochs.insert(instance, last);
                    }
                    Entry::Restoring(savepoint) => kept.restoring = savepoint,
                }
            }
        }
    }
    Ok(kept)
}

enum Entry {
    /// A position or a mark.
    Named((String, String), Option<Vec<u8>>),
    Watermark((String, String), Timestamp),
    Topic(TopicName, TopicId),
    Epochs(String, u64),
    Restoring(Option<String>),
}

fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Entry> {
    let key = std::str::from_utf8(key?).ok()?;
    if key == RESTORING {
        let savepoint = value.map(|path| String::from_utf8_lossy(path).into_owned());
        return Some(Entry::Restoring(savepoint));
    }
    if let Some(topic) = parse_topic(key, value) {
        return Some(topic);
    }
    // A source has a name, so no watermark's key looks like this.
    if let Some(instance) = key.strip_prefix("\0\0\0") {
        let last = u64::from_be_bytes(value?.try_into().ok()?);
        return Some(Entry::Epochs(instance.to_owned(), last));
    }
    if let Some(place) = key.strip_prefix("\0\0") {
        let (source, split) = place.split_once('\0')?;
        let millis = i64::from_be_bytes(value?.try_into().ok()?);
        let place = (source.to_owned(), split.to_owned());
        return Some(Entry::Watermark(place, Timestamp(millis)));
    }
    let (source, split) = key.split_once('\0')?;
    Some(Entry::Named(
        (source.to_owned(), split.to_owned()),
        value.map(<[u8]>::to_vec),
    ))
}

/// No position looks like this: a source has a name, or its split is a path, which no topic's name is.
fn parse_topic(key: &str, value: Option<&[u8]>) -> Option<Entry> {
    let topic = TopicName::new(key.strip_prefix('\0')?).ok()?;
    let (&version, id) = value?.split_first()?;
    let id = u128::from_be_bytes(id.try_into().ok()?);
    (version == TOPIC_VERSION).then_some(Entry::Topic(topic, TopicId(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_was_read_has_these_bytes() {
        let value: Vec<u8> = [1].into_iter().chain(16..32).collect();
        let Some(Entry::Topic(topic, id)) = parse(Some(b"\0in"), Some(&value)) else {
            panic!("it is no topic")
        };
        assert_eq!(topic.as_str(), "in");
        assert_eq!(id.0, 0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f);
    }

    #[test]
    fn the_epochs_of_an_instance_have_these_bytes() {
        let value = [0, 0, 0, 0, 0, 0x10, 0, 2];
        let Some(Entry::Epochs(instance, last)) = parse(Some(b"\0\0\0job@a"), Some(&value)) else {
            panic!("it is no epoch")
        };
        assert_eq!((&*instance, last), ("job@a", 0x10_0002));
    }

    #[test]
    fn a_restore_that_is_under_way_has_these_bytes() {
        let parsed = |value| parse(Some(b"\0\0\0\0restoring"), value);
        let Some(Entry::Restoring(Some(path))) = parsed(Some(b"backup/monday")) else {
            panic!("it is no restore")
        };
        assert_eq!(path, "backup/monday");
        assert!(matches!(parsed(None), Some(Entry::Restoring(None))));
    }

    #[test]
    fn a_watermark_has_these_bytes() {
        let value = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
        let Some(Entry::Watermark(key, at)) = parse(Some(b"\0\0lines\0/in"), Some(&value)) else {
            panic!("it is no watermark")
        };
        assert_eq!(key, ("lines".to_owned(), "/in".to_owned()));
        assert_eq!(at, Timestamp(-2));
    }

    #[test]
    fn a_position_has_these_bytes() {
        let value = [0, 0, 0, 0, 0, 0, 1, 2, 1, 9];
        let Some(Entry::Named(key, Some(value))) = parse(Some(b"lines\0/in"), Some(&value)) else {
            panic!("it is no position")
        };
        let short = ("lines".to_owned(), "/short".to_owned());
        let named = NamedPositions {
            stored: [(key, value), (short, vec![1])].into(),
            ..NamedPositions::default()
        };
        let at = named.position("lines", "/in").unwrap().unwrap();
        assert_eq!((at.offset, &at.fingerprint[..]), (Offset(258), &[1, 9][..]));
        assert_eq!(named.position("lines", "/other").unwrap(), None);
        assert!(named.position("lines", "/short").is_err());
    }

    #[test]
    fn a_mark_has_these_bytes() {
        let parsed = parse(Some(b"ledger\0worker-0"), Some(&[7]));
        let Some(Entry::Named(key, Some(mark))) = parsed else {
            panic!("it is no mark")
        };
        let named = NamedPositions {
            stored: [(key, mark)].into(),
            ..NamedPositions::default()
        };
        let marks = named.marks("ledger");
        assert_eq!(marks.iter().collect::<Vec<_>>(), [("worker-0", &[7][..])]);
        assert_eq!(named.marks("other"), Marks::default());
    }
}
