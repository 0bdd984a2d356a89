//! Records under way between the instances of a job that is scaled out: saved with the state, and put back behind everything that is there.
//!
//! ```text
//! saved:     partition  ── read ──┤ position ── under way ──┤ end          → between/TOPIC-PARTITION, and the end
//! restored:  partition  ── whatever came since ──┤ new position ── under way, once more
//! ```
//! A stored row knows the offset of the record that it is of, so no offset behind the new position may be one of before: on another
//! log the topic is filled up to the saved end first, with marks of nobody.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::restoring::bounds;
use super::writing::Writing;
use super::{Savepoint, refused};
use crate::client::consumer::PartitionReader;
use crate::client::{ClientError, Transport, wait};
use crate::env::progress::Unit;
use crate::env::{Env, File, OpenMode};
use crate::protocol::ErrorCode;
use crate::protocol::batch::{
    BATCH_BYTES_MAX, Batch, BatchBuilder, BatchProducer, Compression, DecompressionLimit, Record,
};
use crate::protocol::messages::{CommittedOffset, NewTopic, TopicMetadata};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::senders::{Mark, Origin, Tasks, Way};
use crate::runtime::contract::time::Advance;
use crate::runtime::graph::topology::Topology;
use crate::runtime::task::repartition::repartition_topic;
use crate::runtime::topics::job_topics::{ensure_topic, repartition_configs};
use crate::runtime::topics::positions::Kept;
use crate::runtime::topics::schemas::NotedSchema;
use crate::types::{GroupId, Isolation, Offset, Timestamp, TopicName, TopicPartition};

/// The folder of a savepoint that holds what was under way.
pub(super) const FOLDER: &str = "between";
/// A batch in a file is of this size, or of one record that is larger.
const BATCH_BYTES: usize = 192 << 10;
/// A batch's length stands behind its first offset, and counts what comes behind itself.
const LENGTH_AT: usize = 8;
const LENGTH_END: usize = LENGTH_AT + 4;

/// A topic between the instances of the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::runtime::life) struct SavedBetween {
    pub(super) topic: String,
    /// The types of its records, as the log notes them.
    pub(super) schema: String,
    pub(super) partitions: Vec<SavedUnderWay>,
}

/// One partition of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::runtime::life) struct SavedUnderWay {
    pub(super) partition: i32,
    /// The end of the partition.
    pub(super) end: Offset,
    /// As committed with the position: the clocks of the senders, if the job keeps the time.
    pub(super) metadata: String,
    /// The records under way, marks of the time included; they are in a file if there are any.
    pub(super) records: u64,
}

impl SavedBetween {
    /// Whether nothing of it is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.partitions.iter().all(|it| it.records == 0)
    }
}

fn file_of(topic: &str, partition: i32) -> String {
    format!("{FOLDER}/{topic}-{partition}")
}

/// Writes the records of a partition from `from` to `end` into a file below `folder`; returns how many they are.
pub(super) fn save(
    env: &Env,
    transport: &Arc<dyn Transport>,
    place: &TopicPartition,
    (from, end): (Offset, Offset),
    folder: &Path,
) -> Result<u64, JobError> {
    let path = folder.join(file_of(place.topic.as_str(), place.partition));
    let failed = |e: std::io::Error| refused(&path, e);
    let (mut file, mut at, mut count) = (None, 0, 0);
    let mut builder = BatchBuilder::new(Compression::None, None);
    let mut write = |builder: &mut BatchBuilder| {
        let file: &mut Box<dyn File> = match &mut file {
            Some(file) => file,
            none => none.insert(env.files.open(&path, OpenMode::CreateNew)?),
        };
        let bytes = builder.finish(BatchProducer::Plain);
        file.write_all_at(&bytes, at)?;
        at += bytes.len() as u64;
        Ok::<(), std::io::Error>(())
    };
    read_committed(transport, place, (from, end), &mut |record| {
        builder.push_with_headers_of(record.timestamp, record.key, record.value, record.headers);
        count += 1;
        match builder.size_bytes() >= BATCH_BYTES {
            true => write(&mut builder).map_err(failed),
            false => Ok(()),
        }
    })?;
    if !builder.is_empty() {
        write(&mut builder).map_err(failed)?;
    }
    Ok(count)
}

/// Shows the committed records of a partition from one offset up to another.
pub(super) fn read_committed(
    transport: &Arc<dyn Transport>,
    place: &TopicPartition,
    (from, end): (Offset, Offset),
    each: &mut dyn FnMut(&Record<'_>) -> Result<(), JobError>,
) -> Result<(), JobError> {
    let transport = Arc::clone(transport);
    let env = transport.env().clone();
    let total = u64::try_from(end.since(from)).ok();
    let mut told = env.progress(format!("reading {place}"), Unit::Things("offsets"), total);
    let mut reader = PartitionReader::new(transport, place.clone(), from, Isolation::ReadCommitted);
    while reader.position() < end {
        told.at(u64::try_from(reader.position().since(from)).unwrap_or(0));
        for batch in wait(reader.fetch(super::restoring::READ_WAIT_MAX))? {
            for record in batch?.iter() {
                let record = record?;
                if record.offset < end {
                    each(&record)?;
                }
            }
        }
    }
    Ok(())
}

/// Shows the records of a saved partition, in order.
fn for_each_saved(
    env: &Env,
    savepoint: &Savepoint,
    file: &str,
    each: &mut dyn FnMut(&Record<'_>) -> Result<(), JobError>,
) -> Result<(), JobError> {
    let path = savepoint.path().join(file);
    let damaged = |why: &dyn std::fmt::Display| {
        refused(
            savepoint.path(),
            format!("its file {} cannot be read: {why}", path.display()),
        )
    };
    let opened = env.files.open(&path, OpenMode::Read);
    let (opened, mut at) = (opened.map_err(|e| damaged(&e))?, 0);
    loop {
        let mut head = [0; LENGTH_END];
        match opened.read_full_at(&mut head, at) {
            Ok(0) => return Ok(()),
            Ok(LENGTH_END) => {}
            Ok(_) => return Err(damaged(&"it ends within a batch")),
            Err(e) => return Err(damaged(&e)),
        }
        let [.., a, b, c, d] = head;
        let length = usize::try_from(i32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > BATCH_BYTES_MAX {
            return Err(damaged(&"it has a batch of no possible length"));
        }
        let mut bytes = vec![0; LENGTH_END + length];
        let read = opened.read_full_at(&mut bytes, at);
        if read.map_err(|e| damaged(&e))? < bytes.len() {
            return Err(damaged(&"it ends within a batch"));
        }
        at += bytes.len() as u64;
        let batch = Batch::parse(Bytes::from(bytes)).map_err(|e| damaged(&e))?;
        let records = batch.records(&DecompressionLimit::default());
        for record in records.map_err(|e| damaged(&e))?.iter() {
            each(&record.map_err(|e| damaged(&e))?)?;
        }
    }
}

/// The topics between the job's instances that are there: those that the log has notes of, and those of the program.
pub(super) fn topics_between(
    transport: &Arc<dyn Transport>,
    job: &str,
    topology: &Topology,
    kept: &Kept,
) -> Result<BTreeMap<TopicName, TopicMetadata>, JobError> {
    let noted = kept.schemas.iter();
    let noted = noted.filter_map(NotedSchema::repartition_topic);
    let mut names: Vec<TopicName> = noted.map(TopicName::new).collect::<Result<_, _>>()?;
    for exchange in &topology.exchanges {
        names.push(repartition_topic(job, &exchange.name)?);
    }
    let mut found = BTreeMap::new();
    for name in names {
        if let Some(metadata) = wait(transport.topic(&name))? {
            found.insert(name, metadata);
        }
    }
    Ok(found)
}

/// As [`topics_between`]; those that the savepoint has and the log has not are made first.
pub(super) fn create_topics_between(
    transport: &Arc<dyn Transport>,
    job: &str,
    topology: &Topology,
    kept: &Kept,
    savepoint: &Savepoint,
) -> Result<BTreeMap<TopicName, TopicMetadata>, JobError> {
    let mut found = topics_between(transport, job, topology, kept)?;
    let is_of_program = |name: &TopicName| {
        let mut exchanges = topology.exchanges.iter();
        exchanges.any(|it| repartition_topic(job, &it.name).is_ok_and(|it| it == *name))
    };
    for between in &savepoint.manifest.between {
        let name = TopicName::new(&between.topic)?;
        if !topology.exchanges.is_empty() && !is_of_program(&name) && !between.is_empty() {
            let why = format!(
                "records are under way in {name}, and the job has no step behind that topic any more: run the build of the job that it was \
                 taken of, until they are read"
            );
            return Err(refused(savepoint.path(), why));
        }
        if let Entry::Vacant(place) = found.entry(name) {
            let topic = NewTopic {
                name: place.key().clone(),
                partitions_count: i32::from(savepoint.state_partitions()),
                configs: repartition_configs(),
            };
            place.insert(ensure_topic(transport, topic)?);
        }
    }
    Ok(found)
}

/// A savepoint with records under way fits the number of state partitions that it was taken in, and a job that is scaled out.
pub(super) fn check_between(
    savepoint: &Savepoint,
    state_partitions: u16,
    is_scaled_out: bool,
) -> Result<(), JobError> {
    let under_way = savepoint.manifest.between.iter().find(|it| !it.is_empty());
    let Some(between) = under_way else {
        return Ok(());
    };
    if !is_scaled_out {
        let why = format!(
            "records were under way between the job's instances, in {}, when it was taken: restore it with `scale_out`, which one process can \
             have as well",
            between.topic
        );
        return Err(refused(savepoint.path(), why));
    }
    if state_partitions != savepoint.state_partitions() {
        let why = format!(
            "records were under way between the job's instances, in {}, each for one of {} state partitions: ask for as many",
            between.topic,
            savepoint.state_partitions()
        );
        return Err(refused(savepoint.path(), why));
    }
    Ok(())
}

/// Gives up what is under way now, and puts what was saved behind it; returns the positions from which the topics are to be read.
pub(super) fn write_between(
    env: &Env,
    transport: &Arc<dyn Transport>,
    topics: &BTreeMap<TopicName, TopicMetadata>,
    savepoint: Option<&Savepoint>,
    writing: &mut Writing<'_>,
) -> Result<Vec<(TopicPartition, CommittedOffset)>, JobError> {
    let mut positions = Vec::new();
    for (topic, metadata) in topics {
        let all = savepoint.map_or(&[][..], |it| &it.manifest.between[..]);
        let between = all.iter().find(|it| it.topic == topic.as_str());
        if let Some(between) = between {
            let name = format!("repartition {topic}");
            let noted = NotedSchema::of_value(name, between.schema.as_bytes());
            if let Some(noted) = noted {
                let noted = noted.moved_to(metadata.id);
                writing.positions.append_schema(0, &noted)?;
            }
        }
        let saved = between.map_or(&[][..], |it| &it.partitions[..]);
        // Where partitions are others now, clocks of senders say nothing, and offsets of any of them stand in rows.
        let is_alike = i32::try_from(saved.len()) == Ok(metadata.partitions_count);
        let farthest = saved.iter().map(|it| it.end).max();
        if let (Some(savepoint), false) = (savepoint, is_alike)
            && between.is_some_and(|it| !it.is_empty())
        {
            let why = format!(
                "records were under way in the {} partitions of {topic}, which has {} now: delete the topic, and restore it again",
                saved.len(),
                metadata.partitions_count
            );
            return Err(refused(savepoint.path(), why));
        }
        for partition in 0..metadata.partitions_count {
            let saved = saved.iter().find(|it| it.partition == partition);
            let saved = saved.filter(|_| is_alike);
            let place = TopicPartition::new(topic.clone(), partition);
            let (_, end) = bounds(transport, &place)?;
            let beyond = saved.map(|it| it.end).or(farthest);
            let offset = fill(&place, end, beyond.unwrap_or(end), writing)?;
            if let (Some(savepoint), Some(saved)) = (savepoint, saved)
                && saved.records > 0
            {
                let target = writing.open(&place);
                let file = file_of(topic.as_str(), partition);
                for_each_saved(env, savepoint, &file, &mut |record| {
                    writing.push_record(target, record)
                })?;
                writing.finish_rows()?;
            }
            let committed = CommittedOffset {
                offset,
                leader_epoch: -1,
                metadata: saved.map_or_else(String::new, |it| it.metadata.clone()),
            };
            positions.push((place, committed));
        }
    }
    Ok(positions)
}

/// A mark that changes no clock.
fn mark_of_nobody() -> Mark {
    Mark {
        way: Way {
            from: Origin::Step,
            name: Arc::from(""),
            number: u8::MAX,
        },
        tasks: Tasks::default(),
        told: Advance {
            watermark: Timestamp::MIN,
            is_idle: false,
        },
    }
}

/// Appends marks of nobody, which change nothing wherever they are read, until a partition that ends at `end` reaches to `beyond`; returns
/// an offset behind which none of before comes again.
fn fill(
    place: &TopicPartition,
    end: Offset,
    beyond: Offset,
    writing: &mut Writing<'_>,
) -> Result<Offset, JobError> {
    if end >= beyond {
        return Ok(end);
    }
    let mut value = Vec::new();
    mark_of_nobody().encode(&mut value);
    let target = writing.open(place);
    for _ in end.0..beyond.0 {
        writing.push_keyless(target, &value)?;
    }
    writing.finish_rows()?;
    Ok(beyond)
}

/// The instances that are in the job's group, in words; `None` if there are none.
pub(super) fn members(
    transport: &Arc<dyn Transport>,
    job: &str,
) -> Result<Option<String>, JobError> {
    let described = match wait(transport.describe_group(&GroupId::new(job)?)) {
        Ok(described) => described,
        Err(e) if is_no_group(&e) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let names = described.members.into_iter();
    let names: Vec<String> = names
        .map(|member| member.instance_id.unwrap_or(member.member_id))
        .collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "the job is scaled out, and these instances are in its group: {}. Stop all of them; one that was killed is given up after its \
             session timeout",
            names.join(", ")
        )
    }))
}

fn is_no_group(error: &ClientError) -> bool {
    error.code() == Some(ErrorCode::GroupIdNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_of_nobody_changes_no_clock() {
        let nobody = mark_of_nobody();
        let mut value = Vec::new();
        nobody.encode(&mut value);
        assert_eq!(Mark::decode(&value), Some(nobody));
    }
}
