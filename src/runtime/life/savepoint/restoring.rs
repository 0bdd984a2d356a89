//! Restoring a savepoint: a transaction of the job's own, after which changelogs and positions are what they were.
//!
//! Of a changelog that goes on behind the savepoint only what was changed since is written again: the value of then, or a deletion. Another
//! one is filled with all rows. RocksDB follows its changelogs when the job starts, as after any commit, so nothing but the log is
//! touched; a crash before the commit changes nothing. If the time for a transaction is too short, there are several (`writing.rs`), and the
//! job does not start before the last one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::between::{
    check_between, create_topics_between, members, topics_between, write_between,
};
use super::writing::Writing;
use super::{SavedTopic, Savepoint, from_hex, refused};
use crate::client::consumer::PartitionReader;
use crate::client::{ClientError, TransactionalWriter, Transport, wait};
use crate::env::{Env, failpoint, warn};
use crate::protocol::messages::{
    CommittedOffset, GroupMember, OffsetFetchRequest, OffsetSpec, TopicMetadata,
};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::sink::MarkChanges;
use crate::runtime::contract::source::Position;
use crate::runtime::graph::topology::Topology;
use crate::runtime::life::job::{Job, Launch};
use crate::runtime::life::kept::init_writers;
use crate::runtime::life::log_handle::Log;
use crate::runtime::life::opened::{Topics, stored_by};
use crate::runtime::life::start::{Settings, read_kept, state_partitions};
use crate::runtime::task::changelog::{changelog_topic, key_of};
use crate::runtime::task::cycle::Commit;
use crate::runtime::topics::positions::{Kept, Positions, positions_topic, read_positions};
use crate::runtime::topics::schemas::note_restored;
use crate::state::{StateAtRest, StateConfig, StoreDeclaration};
use crate::types::{GroupId, Isolation, Offset, Timestamp, TopicId, TopicName, TopicPartition};

/// The longest wait for a changelog at once.
pub(super) const READ_WAIT_MAX: Duration = Duration::from_millis(500);
/// Is shown a key of a changelog.
pub(super) type EachKey<'a> = dyn FnMut(&[u8], &mut Writing<'_>) -> Result<(), JobError> + 'a;
/// The most keys that were written again and are remembered, so that none is written twice for each of its changes.
const KEYS_MAX: usize = 100_000;

/// The writes of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The rows of state that were written or deleted.
    pub rows: u64,
    /// The positions that were set.
    pub positions: usize,
}

impl Launch {
    /// Puts the job back to where it was when the savepoint was taken: its state, timers, times and the positions of its sources, in one
    /// transaction of its own, so that all of them change or none does. Whoever runs the job elsewhere is fenced. Then start it.
    ///
    /// However long it takes, it does not expire: after half of the job's transaction timeout a part is committed, with a note that the rest is
    /// not. A job with that note does not start; restoring again, this savepoint or another one, completes it.
    ///
    /// The log may be the one that the job ran on, which goes on being its home: what it wrote to sinks since then stays there, and comes
    /// once more when it reads the same input again. Or it is one that does not know the job, and has the input as far as
    /// it was read. Where the log is Kafka, positions are those of the job's group. A log that has no changelogs
    /// of the job gets as many state partitions as the job asks for, each row where its key belongs.
    ///
    /// # Errors
    /// If the savepoint is damaged (the file is named), or of another job; if the log knows the job with another number of
    /// state partitions; if the job would misread or
    /// orphan a part of it, with the difference; if the input does not reach as far, or no longer back; if the job runs in
    /// this process, or is shared between several; if the log fails. Nothing is changed then, unless the error says that a part is.
    pub fn restore(&self, log: &Log, savepoint: &Savepoint) -> Result<Restored, JobError> {
        let topology = self.graph.topology(&self.name)?;
        let program = (&*self.name, &topology, &self.settings);
        restore(log, program, self.settings.scale_out.is_some(), savepoint)
    }
}

impl Savepoint {
    /// As [`Launch::restore`], without the job's program: its types are compared with those of the savepoint when it starts.
    ///
    /// # Errors
    /// As [`Launch::restore`].
    pub fn restore(&self, log: &Log) -> Result<Restored, JobError> {
        let saved = StateAtRest::open(log.env(), &self.path)?;
        let stores = saved.stores().into_iter().map(|store| {
            let unknown = "its stores have no types: restore it from the job's program";
            let schema = store.schema();
            let schema = schema.ok_or_else(|| refused(&self.path, unknown))?;
            Ok((store.name, schema))
        });
        let topology = Topology {
            stores: stores.collect::<Result<_, JobError>>()?,
            ..Topology::default()
        };
        let settings = Job::new(self.job())
            .exactly_once(Commit::every(Duration::ZERO))
            .settings;
        let is_scaled_out = !self.manifest.between.is_empty() || {
            let kept = read_kept(&log.transport(), self.job())?;
            !topics_between(&log.transport(), self.job(), &topology, &kept)?.is_empty()
        };
        let program = (self.job(), &topology, &settings);
        restore(log, program, is_scaled_out, self)
    }
}

fn restore(
    log: &Log,
    (job, topology, settings): (&str, &Topology, &Settings),
    is_scaled_out: bool,
    savepoint: &Savepoint,
) -> Result<Restored, JobError> {
    let _claim = log.claim(job)?;
    let saved = check_savepoint(log, job, topology, settings, savepoint)?;
    let settings = Settings {
        state_partitions: settings.state_partitions.or(Some(saved.state_partitions())),
        ..settings.clone()
    };
    let count = state_partitions(log, job, topology, &settings)?;
    check_between(savepoint, count, is_scaled_out)?;
    let (env, transport) = (log.env(), log.transport());
    let before = read_kept(&transport, job)?;
    refuse_others(&transport, job, &before, is_scaled_out, savepoint.path())?;
    let mut restore = Restore {
        job,
        state_partitions: count,
        savepoint,
        saved: &saved,
        transport: &transport,
        inputs: inputs(&transport, savepoint)?,
        env,
        between: BTreeMap::new(),
    };
    // I4: nobody changes what is read from here on. Instances of a job that is scaled out take these ids when they start, too.
    let writers = init_writers(&transport, job, settings.transaction_timeout)?;
    failpoint("restore.fenced");
    let topics = Topics::create(&transport, job, topology, &settings, count, BTreeMap::new())?;
    if is_scaled_out {
        restore.between = create_topics_between(&transport, job, topology, &before, savepoint)?;
    }
    failpoint("restore.topics_created");
    let timeout = settings.transaction_timeout;
    let mut writing = Writing::new(env, job, savepoint.path(), &writers, timeout)?;
    if is_scaled_out {
        hold_instances_off(&transport, job, &before, savepoint.path(), &mut writing)?;
    }
    let kept = read_positions(&transport, &positions_topic(job)?)?;
    let written = restore.write(topology, &settings, &topics, &kept, &mut writing);
    let decided = written.and_then(|positions| {
        let rows = writing.decide(&kept)?;
        Ok(Restored { rows, positions })
    });
    let restored = decided.map_err(|e| writing.failed(e))?;
    // From here on all stores have changelogs of their own.
    transport.release_compaction(&GroupId::new(job)?, None)?;
    Ok(restored)
}

/// Refuses a job that runs on several processes, or that is no longer scaled out and has something under way between them.
fn refuse_others(
    transport: &Arc<dyn Transport>,
    job: &str,
    kept: &Kept,
    is_scaled_out: bool,
    path: &Path,
) -> Result<(), JobError> {
    if is_scaled_out {
        return members(transport, job)?.map_or(Ok(()), |who| Err(refused(path, who)));
    }
    let between = topics_between(transport, job, &Topology::default(), kept)?;
    match between.keys().next() {
        None => Ok(()),
        Some(topic) => Err(refused(
            path,
            format!(
                "the job was scaled out, and {topic} may hold what is under way between its instances: restore it with `scale_out`, which one                  process can have as well; or, if that is to be given up, delete the topic first"
            ),
        )),
    }
}

/// Instances have transactional ids of their own. One that starts from here on finds the note, at the latest when it has joined the group;
/// one that joined before is found there.
pub(super) fn hold_instances_off(
    transport: &Arc<dyn Transport>,
    job: &str,
    before: &Kept,
    path: &Path,
    writing: &mut Writing<'_>,
) -> Result<(), JobError> {
    writing.hold_instances_off()?;
    if let Some(who) = members(transport, job)? {
        writing.let_instances_start(before)?;
        return Err(match path.as_os_str().is_empty() {
            false => refused(path, who),
            true => JobError::Incompatible {
                job: job.to_owned(),
                why: who,
            },
        });
    }
    Ok(())
}

/// Refuses a savepoint that is not whole, or that the job cannot go on from.
fn check_savepoint(
    log: &Log,
    job: &str,
    topology: &Topology,
    settings: &Settings,
    savepoint: &Savepoint,
) -> Result<StateAtRest, JobError> {
    let refuse = |why: String| Err(refused(savepoint.path(), why));
    if savepoint.job() != job {
        return refuse(format!(
            "it is of the job {:?}, not of {:?}: take one of this job, or give it that name",
            savepoint.job(),
            job
        ));
    }
    let count = savepoint.state_partitions();
    savepoint.verify_in(log.env())?;
    let saved = StateAtRest::open(log.env(), savepoint.path())?;
    let stores = topology
        .stores
        .iter()
        .map(|(name, schema)| StoreDeclaration {
            name: name.clone(),
            schema: schema.clone(),
            changelog: TopicId(0),
        });
    saved.check(&StateConfig {
        state_partitions: count,
        stores: stores.collect(),
        dropped_stores: settings.dropped_stores.clone(),
        retyped_stores: settings.retyped.clone(),
        ..StateConfig::default()
    })?;
    Ok(saved)
}

/// Reason for no savepoint of a running job that is scaled out.
pub(in crate::runtime::life) const SCALED_OUT: &str = "the job is scaled out, and its instances do not stand still at one moment: stop all of them, and \
     take it from the log (`onceflow savepoint create PATH --job NAME --stopped`, or `Launch::savepoint`)";

/// The topics that the savepoint has positions of, as they are now: they must reach as far, and still back.
fn inputs(
    transport: &Arc<dyn Transport>,
    savepoint: &Savepoint,
) -> Result<BTreeMap<TopicName, TopicMetadata>, JobError> {
    let mut inputs = BTreeMap::new();
    for topic in &savepoint.manifest.topics {
        let name = TopicName::new(&topic.topic)?;
        let metadata = wait(transport.topic(&name))?.ok_or_else(|| {
            let why = format!(
                "it has a position of the topic {name}, which is not there: bring the input first"
            );
            refused(savepoint.path(), why)
        })?;
        check_reach(transport, savepoint, &name, topic)?;
        inputs.insert(name, metadata);
    }
    Ok(inputs)
}

fn check_reach(
    transport: &Arc<dyn Transport>,
    savepoint: &Savepoint,
    name: &TopicName,
    topic: &SavedTopic,
) -> Result<(), JobError> {
    for saved in &topic.partitions {
        let place = TopicPartition::new(name.clone(), saved.partition);
        let (start, end) = bounds(transport, &place)?;
        if saved.offset > end {
            let why = format!(
                "it was taken when {place} was read up to {}, and {place} ends at {end}: bring the rest of the input first",
                saved.offset
            );
            return Err(refused(savepoint.path(), why));
        }
        if saved.offset < start {
            let why = format!(
                "it was taken when {place} was read up to {}, and {place} begins at {start} now: the records between are deleted, and \
                 the job would go on without them",
                saved.offset
            );
            return Err(refused(savepoint.path(), why));
        }
    }
    Ok(())
}

/// The first and the end offset of a partition, of all records.
pub(super) fn bounds(
    transport: &Arc<dyn Transport>,
    place: &TopicPartition,
) -> Result<(Offset, Offset), ClientError> {
    let list = |spec| wait(transport.list_offset(place, spec, Isolation::ReadUncommitted));
    let start = list(OffsetSpec::Earliest)?.map_or(Offset::ZERO, |found| found.offset);
    let end = list(OffsetSpec::Latest)?.map_or(Offset::ZERO, |found| found.offset);
    Ok((start, end))
}

pub(super) struct Restore<'a> {
    job: &'a str,
    /// Those that the job will have.
    state_partitions: u16,
    pub(super) savepoint: &'a Savepoint,
    pub(super) saved: &'a StateAtRest,
    pub(super) transport: &'a Arc<dyn Transport>,
    inputs: BTreeMap<TopicName, TopicMetadata>,
    env: &'a Env,
    /// The topics between the instances of a job that is scaled out.
    between: BTreeMap<TopicName, TopicMetadata>,
}

impl Restore<'_> {
    /// Writes everything; returns how many positions were set.
    fn write(
        &self,
        topology: &Topology,
        settings: &Settings,
        topics: &Topics,
        kept: &Kept,
        writing: &mut Writing<'_>,
    ) -> Result<usize, JobError> {
        let (job, count) = (self.job, self.state_partitions);
        for store in topology.stores.keys() {
            let topic = changelog_topic(job, store)?;
            if count != self.saved.state_partitions() {
                self.write_rescaled(store, &topic, count, writing)?;
                continue;
            }
            let id = topics.found[&topic].id.to_string();
            for partition in 0..count {
                let place = TopicPartition::new(topic.clone(), i32::from(partition));
                self.write_rows(store, &id, partition, &place, writing)?;
                writing.finish_rows()?;
            }
        }
        failpoint("restore.rows_written");
        let stored = stored_by(job, topology, settings, topics)?;
        let saved = self.saved.stores().into_iter();
        let saved = saved.filter_map(|store| Some((store.name.clone(), store.schema()?)));
        for noted in note_restored(stored, &saved.collect()) {
            writing.positions.append_schema(0, &noted)?;
        }
        let named = self.write_named(kept, &mut writing.positions)?;
        let (env, transport, savepoint) = (self.env, self.transport, self.savepoint);
        let under_way = write_between(env, transport, &self.between, Some(savepoint), writing)?;
        Ok(named + self.write_committed(job, writing.writer(), under_way)?)
    }

    /// Makes one changelog partition what it was.
    fn write_rows(
        &self,
        store: &str,
        topic_id: &str,
        partition: u16,
        place: &TopicPartition,
        writing: &mut Writing<'_>,
    ) -> Result<(), JobError> {
        let target = writing.open(place);
        let (start, end) = bounds(self.transport, place)?;
        let saved = self.saved.stores().into_iter().find(|it| it.name == store);
        let position = match &saved {
            Some(_) => self.saved.position(store, partition)?,
            None => None,
        };
        let is_same = saved.as_ref().is_some_and(|it| it.changelog == topic_id);
        let value = |key: &[u8]| match &saved {
            Some(_) => self.saved.get(store, partition, key),
            None => Ok(None),
        };
        // All before its position is in the savepoint, and not changed by what comes.
        let from = position.filter(|at| is_same && (start..=end).contains(at));
        let from_offset = from.unwrap_or(start);
        let mut each = |key: &[u8], writing: &mut Writing<'_>| match value(key)? {
            Some(_) if from.is_none() => writing.step(),
            value => writing.push(target, key, value.as_deref()),
        };
        for_each_key(self.transport, place, from_offset, end, writing, &mut each)?;
        if from.is_some() || saved.is_none() {
            return Ok(());
        }
        let mut failed = Ok(());
        let visited = self.saved.visit(store, partition, &mut |key, value| {
            failed = writing.push(target, key, Some(value));
            Ok(match failed {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        let ControlFlow::Continue(()) = visited? else {
            return failed;
        };
        Ok(())
    }

    /// Sets positions of splits that are no partitions, and the marks of sinks where the log knows none.
    fn write_named(&self, kept: &Kept, positions: &mut Positions) -> Result<usize, JobError> {
        let manifest = &self.savepoint.manifest;
        let bytes = |text: &str| {
            let why = "its manifest has bytes that are none";
            from_hex(text).ok_or_else(|| refused(self.savepoint.path(), why))
        };
        let mut saved = BTreeSet::new();
        for split in &manifest.splits {
            saved.insert((split.source.as_str(), split.split.as_str()));
            let position = Position {
                offset: split.offset,
                fingerprint: bytes(&split.fingerprint)?,
                watermark: split.watermark.map(Timestamp),
            };
            positions.append(0, &split.source, &split.split, &position)?;
        }
        if manifest.sources.is_empty() && !kept.positions.is_empty() {
            let why = "the job has positions by now that are of no topics, and the savepoint, which was made without the job's program, does not say \
                       which of them are of sources: restore one that was taken while the job ran, or from its program";
            return Err(refused(self.savepoint.path(), why));
        }
        // Read for the first time since then: from the beginning again.
        for (name, part) in kept.positions.names() {
            let is_source = manifest.sources.contains(name);
            if is_source && !saved.contains(&(name.as_str(), part.as_str())) {
                positions.forget(0, name, part)?;
            }
        }
        if kept.positions.is_empty() {
            for mark in &manifest.marks {
                let mut changes = MarkChanges::default();
                changes.set(mark.part.clone(), bytes(&mark.mark)?);
                positions.append_marks(0, &mark.sink, &changes)?;
            }
        }
        for (topic, metadata) in &self.inputs {
            let was = manifest.topics.iter().find(|it| it.topic == topic.as_str());
            let was = was.and_then(|it| it.id.clone());
            if was.is_some_and(|was| was != metadata.id.to_string()) {
                warn!(%topic, "the topic is not the one that was read when the savepoint was taken: its records must be the same, which nobody can check");
            }
            if !kept.read_topics.contains_key(topic) {
                positions.append_topic(0, topic, metadata.id)?;
            }
        }
        Ok(manifest.splits.len())
    }

    /// Sets the committed offsets of the job's group.
    fn write_committed(
        &self,
        job: &str,
        writer: &TransactionalWriter,
        under_way: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<usize, JobError> {
        let mut offsets = BTreeMap::new();
        for place in committed_places(self.transport, job)? {
            // Read for the first time since then, unless the savepoint has it.
            let (start, _) = bounds(self.transport, &place)?;
            offsets.insert(place, (start, String::new()));
        }
        for topic in &self.savepoint.manifest.topics {
            for saved in &topic.partitions {
                let place = TopicPartition::new(TopicName::new(&topic.topic)?, saved.partition);
                offsets.insert(place, (saved.offset, saved.metadata.clone()));
            }
        }
        let offsets = offsets.into_iter().map(|(place, (offset, metadata))| {
            let committed = CommittedOffset {
                offset,
                leader_epoch: -1,
                metadata,
            };
            (place, committed)
        });
        let mut offsets: BTreeMap<TopicPartition, CommittedOffset> = offsets.collect();
        offsets.extend(under_way);
        send_committed(job, writer, offsets.into_iter().collect())
    }
}

/// The partitions of topics that the job's group has positions of, and that are there.
pub(super) fn committed_places(
    transport: &Arc<dyn Transport>,
    job: &str,
) -> Result<Vec<TopicPartition>, JobError> {
    let request = OffsetFetchRequest {
        group: GroupId::new(job)?,
        partitions: None,
        require_stable: true,
    };
    let mut places = Vec::new();
    for (place, committed) in wait(transport.offset_fetch(request))? {
        if committed.is_some() && wait(transport.topic(&place.topic))?.is_some() {
            places.push(place);
        }
    }
    Ok(places)
}

/// Sets committed offsets of the job's group; returns how many.
pub(super) fn send_committed(
    job: &str,
    writer: &TransactionalWriter,
    offsets: Vec<(TopicPartition, CommittedOffset)>,
) -> Result<usize, JobError> {
    let count = offsets.len();
    if count > 0 {
        let group = GroupId::new(job)?;
        wait(writer.send_offsets(group, GroupMember::default(), offsets))?;
    }
    Ok(count)
}

/// Shows the keys of the committed records of a changelog partition, each about once.
pub(super) fn for_each_key(
    transport: &Arc<dyn Transport>,
    place: &TopicPartition,
    from: Offset,
    end: Offset,
    writing: &mut Writing<'_>,
    each: &mut EachKey<'_>,
) -> Result<(), JobError> {
    let transport = Arc::clone(transport);
    let isolation = Isolation::ReadCommitted;
    let mut reader = PartitionReader::new(transport, place.clone(), from, isolation);
    let mut seen = HashSet::new();
    while reader.position() < end {
        // What this transaction writes stands behind `end`, and is not waited for.
        let batches = wait(reader.fetch(READ_WAIT_MAX))?;
        writing.look()?;
        for batch in batches {
            for record in batch?.iter() {
                let record = record?;
                let key = key_of(&record, place)?;
                if record.offset < end && !seen.contains(key) {
                    each(key, writing)?;
                    if seen.len() == KEYS_MAX {
                        seen.clear();
                    }
                    seen.insert(key.to_vec());
                }
            }
        }
    }
    Ok(())
}
