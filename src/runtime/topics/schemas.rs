//! The schemas of what a job keeps in the log, noted in the log: another build that would misread it is refused, also where it
//! finds no local state.
//!
//! A schema is a record of the job's positions topic, written in the transaction of the first cycle that may use it. Key: a 0 byte, then
//! `store NAME` or `repartition TOPIC`. Value, in JSON: `{"version":1,"topic":…,"codec":1,"key":"text","value":"u64"}`. Where values have versions, the
//! note's version is 2, and it has `"value_version":2,"earlier":{"1":"u32"}` besides: the version that is written, and the types of
//! the earlier ones, of which there may be values. A codec of 32,768 more is that of a store which tells its first version from later ones:
//! a store does so from its first value on, or never, so the note decides. A note about another incarnation of the topic binds nobody. A log without a note takes on the types of the first build that commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::positions::{positions_topic, read_positions};
use crate::client::consumer::PartitionReader;
use crate::client::{Transport, wait};
use crate::codec::{CodecId, Misread, Schema, TypeIdentity, first_version, is_first};
use crate::protocol::batch::Record;
use crate::protocol::messages::{OffsetFetchRequest, OffsetSpec, TopicMetadata};
use crate::runtime::contract::error::JobError;
use crate::state::StateError;
use crate::types::{GroupId, Isolation, Offset, TopicId, TopicName, TopicPartition};

/// The version of a note about values with versions: the latest that is known.
const VERSION: u32 = 2;
/// The version of any other note.
const VERSION_OF_UNVERSIONED: u32 = 1;

/// A schema as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotedSchema {
    /// The thing that it belongs to.
    pub(crate) name: String,
    /// The incarnation of the topic that holds the bytes.
    topic: String,
    schema: Schema,
}

#[derive(Serialize, Deserialize)]
struct Value {
    version: u32,
    topic: String,
    // As in `Schema`, which serde could not flatten: it would not take numbers as keys.
    codec: CodecId,
    key: TypeIdentity,
    value: TypeIdentity,
    #[serde(default = "first_version", skip_serializing_if = "is_first")]
    value_version: u8,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    earlier: BTreeMap<u8, TypeIdentity>,
}

impl NotedSchema {
    /// The key and the value of its record.
    pub(crate) fn to_record(&self) -> (Vec<u8>, Vec<u8>) {
        let schema = self.schema.clone();
        let is_plain = is_first(&schema.value_version) && schema.earlier.is_empty();
        let value = Value {
            version: match is_plain {
                true => VERSION_OF_UNVERSIONED,
                false => VERSION,
            },
            topic: self.topic.clone(),
            codec: schema.codec,
            key: schema.key,
            value: schema.value,
            value_version: schema.value_version,
            earlier: schema.earlier,
        };
        let key = [&[0], self.name.as_bytes()].concat();
        (key, serde_json::to_vec(&value).unwrap_or_default())
    }

    /// The store whose changelog it is of, if it is of one.
    pub(crate) fn store(&self) -> Option<&str> {
        self.name.strip_prefix("store ")
    }

    /// The incarnation of the topic that holds the bytes.
    pub(crate) fn topic_id(&self) -> &str {
        &self.topic
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The note about another incarnation of its topic that holds the same bytes.
    pub(crate) fn moved_to(self, topic: TopicId) -> Self {
        Self {
            topic: topic.to_string(),
            ..self
        }
    }

    /// The note of this name whose record has this value.
    pub(crate) fn of_value(name: String, value: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(value).ok()?;
        (value.version <= VERSION).then(|| Self::of_parts(name, value))
    }

    fn of_parts(name: String, value: Value) -> Self {
        Self {
            name,
            topic: value.topic,
            schema: Schema {
                codec: value.codec,
                key: value.key,
                value: value.value,
                value_version: value.value_version,
                earlier: value.earlier,
            },
        }
    }

    /// The topic whose records it is of, if that is one between the processes of a job that was scaled out.
    pub(crate) fn repartition_topic(&self) -> Option<&str> {
        self.name.strip_prefix("repartition ")
    }

    /// The schema in a record of the positions topic; `None` if it is something else. No name of a topic has a space.
    pub(crate) fn of_record(
        record: &Record<'_>,
        topic: &TopicName,
    ) -> Result<Option<Self>, JobError> {
        let key = record.key.and_then(|key| key.strip_prefix(&[0]));
        // A second 0 byte is that of a watermark.
        let is_name = |name: &&[u8]| name.contains(&b' ') && !name.starts_with(&[0]);
        let Some(name) = key.filter(is_name) else {
            return Ok(None);
        };
        let refuse = |why: &str| JobError::Source {
            source_name: topic.to_string(),
            why: format!("record {} {why}", record.offset),
        };
        #[derive(Deserialize)]
        struct VersionOnly {
            version: u32,
        }
        let bytes = record.value.unwrap_or_default();
        if serde_json::from_slice::<VersionOnly>(bytes).is_ok_and(|it| it.version > VERSION) {
            return Err(refuse(
                "notes a schema as a newer version of Onceflow does: use that version",
            ));
        }
        let foreign =
            || refuse("notes no schema: the topic is the job's own, write nothing into it");
        let value: Value = serde_json::from_slice(bytes).map_err(|_| foreign())?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| foreign())?;
        Ok(Some(Self::of_parts(name, value)))
    }
}

/// The contents of one of a job's own topics.
pub(crate) struct Stored {
    noted: NotedSchema,
    /// The store.
    store: Option<String>,
    topic: TopicMetadata,
}

impl Stored {
    /// A store, whose changelog is `topic`.
    pub(crate) fn store(store: &str, topic: &TopicMetadata, schema: &Schema) -> Self {
        Self::new(format!("store {store}"), Some(store), topic, schema)
    }

    /// Records under way between the processes of a job.
    pub(crate) fn repartition(topic: &TopicMetadata, schema: &Schema) -> Self {
        Self::new(format!("repartition {}", topic.name), None, topic, schema)
    }

    fn new(name: String, store: Option<&str>, topic: &TopicMetadata, schema: &Schema) -> Self {
        Self {
            noted: NotedSchema {
                name,
                topic: topic.id.to_string(),
                schema: schema.clone(),
            },
            store: store.map(str::to_owned),
            topic: topic.clone(),
        }
    }

    /// Its name where a change is accepted.
    fn accepted_name(&self) -> &str {
        self.store.as_deref().unwrap_or(self.topic.name.as_str())
    }
}

/// Schemas that the log does not know yet, and the stores' codecs.
pub(crate) struct Checked {
    pub(crate) unnoted: Vec<NotedSchema>,
    /// The codec of each store, which says whether its values are told apart.
    pub(crate) codecs: BTreeMap<String, CodecId>,
}

/// Refuses a build that would misread what an earlier one left in the log.
///
/// # Errors
/// If types differ and the change is not among those `accepted`.
pub(crate) fn check_schemas(
    transport: &Arc<dyn Transport>,
    job: &str,
    stored: Vec<Stored>,
    accepted: &[String],
) -> Result<Checked, JobError> {
    let known = read_positions(transport, &positions_topic(job)?)?.schemas;
    let (mut unnoted, mut codecs) = (Vec::new(), BTreeMap::new());
    for mut now in stored {
        let before = known.iter().find(|it| it.name == now.noted.name);
        let before = before.filter(|it| it.topic == now.noted.topic);
        let is_accepted = accepted.iter().any(|it| it == now.accepted_name());
        if let Some(before) = before {
            check(transport, job, before, &now, is_accepted)?;
            now.noted.schema = now.noted.schema.after(&before.schema);
        }
        if let Some(store) = now.store {
            codecs.insert(store, now.noted.schema.codec);
        }
        if before != Some(&now.noted) {
            unnoted.push(now.noted);
        }
    }
    Ok(Checked { unnoted, codecs })
}

/// The schemas to note where a savepoint takes the place of all that was stored: what the log knows of later versions is over.
pub(crate) fn note_restored(
    stored: Vec<Stored>,
    saved: &BTreeMap<String, Schema>,
) -> Vec<NotedSchema> {
    let mut noted = Vec::new();
    for Stored {
        noted: mut now,
        store,
        ..
    } in stored
    {
        if let Some(saved) = store.and_then(|store| saved.get(&store)) {
            now.schema = now.schema.after(saved);
        }
        noted.push(now);
    }
    noted
}

fn check(
    transport: &Arc<dyn Transport>,
    job: &str,
    before: &NotedSchema,
    now: &Stored,
    is_accepted: bool,
) -> Result<(), JobError> {
    let (before, asked) = (&before.schema, &now.noted.schema);
    let Some(why) = before.misread(asked) else {
        return Ok(());
    };
    // Another codec is another way to write: no bytes of the one mean anything to the other.
    let is_of_codec = before.codec.of_values() == asked.codec.of_values();
    if is_accepted && is_of_codec && matches!(why, Misread::Type(_)) {
        return Ok(());
    }
    if let Some(store) = &now.store {
        return Err(match is_of_codec {
            true => StateError::misread(store, why),
            false => StateError::CodecChanged {
                store: store.clone(),
                stored: before.codec,
                asked: asked.codec,
            },
        }
        .into());
    }
    let Misread::Type(difference) = why else {
        return Ok(());
    };
    if is_read_to_the_end(transport, job, &now.topic)? {
        return Ok(());
    }
    Err(JobError::Incompatible {
        job: job.to_owned(),
        why: format!(
            "records are under way between its processes in {0}, with {1} of the type {2}, and the job now has {3} there: \
             run the earlier build until they are read; if the bytes mean the same in both types, accept the change of {0:?} \
             where the job is launched",
            now.topic.name.as_str(),
            difference.part,
            difference.stored,
            difference.asked
        ),
    })
}

/// Whether the job has read all that it sent through a repartition topic.
fn is_read_to_the_end(
    transport: &Arc<dyn Transport>,
    job: &str,
    topic: &TopicMetadata,
) -> Result<bool, JobError> {
    let partitions = 0..topic.partitions_count;
    let partitions = partitions.map(|it| TopicPartition::new(topic.name.clone(), it));
    let request = OffsetFetchRequest {
        group: GroupId::new(job)?,
        partitions: Some(partitions.collect()),
        require_stable: true,
    };
    for (partition, committed) in wait(transport.offset_fetch(request))? {
        let committed = committed.map_or(Offset::ZERO, |it| it.offset);
        if has_records(transport, &partition, committed)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is a committed record from `position` on; markers are none.
fn has_records(
    transport: &Arc<dyn Transport>,
    partition: &TopicPartition,
    position: Offset,
) -> Result<bool, JobError> {
    let list = |spec| wait(transport.list_offset(partition, spec, Isolation::ReadCommitted));
    let start = list(OffsetSpec::Earliest)?.map_or(Offset::ZERO, |found| found.offset);
    let end = list(OffsetSpec::Latest)?.map_or(Offset::ZERO, |found| found.offset);
    let mut reader = PartitionReader::new(
        Arc::clone(transport),
        partition.clone(),
        position.max(start),
        Isolation::ReadCommitted,
    );
    while reader.position() < end {
        for batch in reader.fetch_now()? {
            if batch?.iter().next().is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch::{
        BatchBuilder, BatchProducer, Batches, Compression, DecompressionLimit,
    };
    use crate::types::Timestamp;

    fn noted() -> NotedSchema {
        NotedSchema {
            name: "store counts".to_owned(),
            topic: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
            schema: Schema::of::<str, u64>(),
        }
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Option<NotedSchema>, JobError> {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(Timestamp(0), Some(key), Some(value));
        let bytes = builder.finish(BatchProducer::Plain).freeze();
        let batch = Batches::new(bytes).next().unwrap().unwrap();
        let records = batch.records(&DecompressionLimit::default()).unwrap();
        let record = records.iter().next().unwrap().unwrap();
        NotedSchema::of_record(&record, &TopicName::new("job-positions").unwrap())
    }

    #[test]
    fn x3_the_bytes_of_a_noted_schema_stand() {
        let (key, value) = noted().to_record();
        assert_eq!(key, b"\0store counts");
        assert_eq!(
            std::str::from_utf8(&value).unwrap(),
            r#"{"version":1,"topic":"AAAAAAAAAAAAAAAAAAAAAQ","codec":1,"key":"text","value":"u64"}"#
        );
        assert_eq!(read(&key, &value).unwrap(), Some(noted()));
        let mut versioned = noted();
        versioned.schema.value_version = 2;
        versioned.schema.earlier = [(1, TypeIdentity::of::<u32>())].into();
        let (_, value) = versioned.to_record();
        assert_eq!(
            std::str::from_utf8(&value).unwrap(),
            r#"{"version":2,"topic":"AAAAAAAAAAAAAAAAAAAAAQ","codec":1,"key":"text","value":"u64","value_version":2,"earlier":{"1":"u32"}}"#
        );
        assert_eq!(read(&key, &value).unwrap(), Some(versioned));
        assert_eq!(read(b"lines\0all", &[0; 8]).unwrap(), None);
        assert_eq!(read(b"\0a-topic", &[1; 17]).unwrap(), None);
    }

    #[test]
    fn x3_a_newer_note_and_one_that_is_none_are_refused() {
        let newer = read(b"\0store counts", br#"{"version":3,"more":true}"#).unwrap_err();
        assert!(newer.to_string().contains("newer version"), "{newer}");
        let foreign = read(b"\0store counts", b"{}").unwrap_err();
        assert!(foreign.to_string().contains("job's own"), "{foreign}");
    }
}
