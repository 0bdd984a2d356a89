//! A savepoint of a job that stands still, made from its log: changelogs, committed positions, and what is under way between instances.
//!
//! The log alone is read, so it does not matter how many processes the job had, or where their state is. A cut through all its topics is
//! taken before and behind the reading, where no transaction is open. Partitions only grow: if both cuts are the same, all that was
//! read is of one moment between two commits. Otherwise somebody was at work, and there is no savepoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::between::{self, SavedBetween, SavedUnderWay, topics_between};
use super::restoring::bounds;
use super::taking::{Request, finish, remove_tree};
use super::{Manifest, SavedMark, SavedPosition, SavedSplit, SavedTopic, Savepoint, UNFINISHED};
use super::{refused, to_hex};
use crate::client::consumer::PartitionReader;
use crate::client::{Transport, wait};
use crate::env::Env;
use crate::protocol::messages::{CommittedOffset, OffsetFetchRequest, OffsetSpec, TopicMetadata};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::source::Position;
use crate::runtime::graph::topology::Topology;
use crate::runtime::life::job::Launch;
use crate::runtime::life::log_handle::Log;
use crate::runtime::life::start::read_kept;
use crate::runtime::task::changelog::{changelog_topic, key_of};
use crate::runtime::topics::positions::{Kept, positions_topic};
use crate::runtime::topics::schemas::NotedSchema;
use crate::state::{StateBackend, StateConfig, StoreDeclaration};
use crate::types::{GroupId, Isolation, Offset, TopicName, TopicPartition};

/// The end of the name of the directory in which changelogs are gathered.
const GATHERED: &str = ".gathered";
/// For how long open transactions are waited for, and how long at once.
const DECIDED_WITHIN: Duration = Duration::from_secs(10);
const READ_WAIT: Duration = Duration::from_millis(100);
/// The rows that go into RocksDB at once at most; bytes bound them, too.
const ROWS_MAX: usize = 4_096;
const ROWS_BYTES_MAX: usize = 4 << 20;

impl Launch {
    /// Takes a savepoint of the job into the directory `path`, from the log: of a job that does not run, and of one that is scaled out, once
    /// all of its instances are stopped. Its state is read from its changelogs, wherever it was kept, with what is under way between
    /// instances. A job alone that runs has [`Running::savepoint`](crate::runtime::Running::savepoint), which takes less time.
    ///
    /// # Errors
    /// If the job is at work, or a transaction of it is open; if the log does not know it, or it has no state; if the path exists, or the
    /// disk or the log fails.
    pub fn savepoint(&self, log: &Log, path: impl AsRef<Path>) -> Result<Savepoint, JobError> {
        let topology = self.graph.topology(&self.name)?;
        take(log, &self.name, Some(&topology), path.as_ref())
    }
}

impl Savepoint {
    /// As [`Launch::savepoint`], without the program of `job`, by what the log knows of it.
    ///
    /// # Errors
    /// As [`Launch::savepoint`], and if the job has sources that are no topics, or sinks that are none.
    pub fn of_stopped(log: &Log, job: &str, path: impl AsRef<Path>) -> Result<Self, JobError> {
        take(log, job, None, path.as_ref())
    }
}

fn take(
    log: &Log,
    job: &str,
    topology: Option<&Topology>,
    path: &Path,
) -> Result<Savepoint, JobError> {
    let _claim = log.claim(job)?;
    let (env, transport) = (log.env(), log.transport());
    Request::new(path).0.check(env)?;
    let positions = positions_topic(job)?;
    let Some(metadata) = wait(transport.topic(&positions))? else {
        let why =
            format!("the log knows no job {job:?}: it has no topic {positions}. Check the name");
        return Err(refused(path, why));
    };
    let mut before = Cut::default();
    before.add(env, &transport, path, (&positions, &metadata))?;
    let kept = read_kept(&transport, job)?;
    let job = Standing {
        name: job,
        topology,
        stores: stores(&transport, job, topology, &kept, path)?,
        between: topics_between(&transport, job, &Topology::default(), &kept)?,
        kept,
        path,
    };
    let all = || job.topics().chain([(&positions, &metadata)]);
    for topic in job.topics() {
        before.add(env, &transport, path, topic)?;
    }
    before.committed = committed(&transport, job.name)?;
    let gathered = gathered_beside(path);
    clear(env, path, &gathered)?;
    let taken = job.gather(env, &transport, &before, &gathered, || {
        let mut now = Cut::default();
        for topic in all() {
            now.add(env, &transport, path, topic)?;
        }
        now.committed = committed(&transport, job.name)?;
        match now == before {
            true => Ok(()),
            false => Err(refused(path, AT_WORK)),
        }
    });
    let removed = remove_tree(&*env.files, &gathered);
    let savepoint = taken?;
    removed.map_err(|e| refused(path, e))?;
    Ok(savepoint)
}

const AT_WORK: &str =
    "the job was at work meanwhile: stop it, all of its instances, and take it again";

/// Where changelogs are gathered until the savepoint has its files.
fn gathered_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(GATHERED);
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// Removes what an attempt left that was interrupted.
fn clear(env: &Env, path: &Path, gathered: &Path) -> Result<(), JobError> {
    let failed = |e: std::io::Error| refused(path, e);
    if !env.files.exists(gathered).map_err(failed)? {
        return Ok(());
    }
    let entries = env.files.read_dir(gathered).map_err(failed)?;
    let is_ours = |name: &str| {
        name == "rocksdb" || name.starts_with("meta.json") || name.starts_with("savepoint.")
    };
    if let Some(other) = entries.iter().find(|it| !is_ours(&it.name)) {
        let why = format!(
            "{} is there and has {:?} in it, which is of no savepoint: move it away, or choose another path",
            gathered.display(),
            other.name
        );
        return Err(refused(path, why));
    }
    remove_tree(&*env.files, gathered).map_err(failed)
}

/// The ends of partitions, where nothing is open in them, and the committed positions of the job's group.
#[derive(Default, PartialEq)]
struct Cut {
    ends: BTreeMap<TopicPartition, Offset>,
    committed: BTreeMap<TopicPartition, CommittedOffset>,
}

impl Cut {
    /// Waits until all that stands in a topic is decided.
    fn add(
        &mut self,
        env: &Env,
        transport: &Arc<dyn Transport>,
        path: &Path,
        (topic, metadata): (&TopicName, &TopicMetadata),
    ) -> Result<(), JobError> {
        let begin = env.clock.now();
        for partition in 0..metadata.partitions_count {
            let place = TopicPartition::new(topic.clone(), partition);
            let end = |isolation| {
                let listed = wait(transport.list_offset(&place, OffsetSpec::Latest, isolation));
                listed.map(|found| found.map_or(Offset::ZERO, |it| it.offset))
            };
            loop {
                // In this order: were nothing open at the second, something could have been at the first.
                let decided = end(Isolation::ReadCommitted)?;
                if decided == end(Isolation::ReadUncommitted)? {
                    self.ends.insert(place, decided);
                    break;
                }
                if env.clock.now().since(begin) > DECIDED_WITHIN {
                    let why = format!(
                        "a transaction is open in {place}: the job is at work, or a process of it died and its transaction has not timed out \
                         yet. Stop all of its instances, and take it again"
                    );
                    return Err(refused(path, why));
                }
                // Readers at the end have what is not on the disk yet brought there.
                let isolation = Isolation::ReadCommitted;
                let transport = Arc::clone(transport);
                let mut reader = PartitionReader::new(transport, place.clone(), decided, isolation);
                wait(reader.fetch(READ_WAIT))?;
            }
        }
        Ok(())
    }
}

/// The committed positions of the job's group, none of which is of an open transaction.
fn committed(
    transport: &Arc<dyn Transport>,
    job: &str,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, JobError> {
    let request = OffsetFetchRequest {
        group: GroupId::new(job)?,
        partitions: None,
        require_stable: true,
    };
    let fetched = wait(transport.offset_fetch(request))?.into_iter();
    Ok(fetched
        .filter_map(|(place, committed)| Some((place, committed?)))
        .collect())
}

/// A store of the job, as the log knows it.
struct StoreInLog {
    noted: NotedSchema,
    topic: TopicName,
    metadata: TopicMetadata,
}

/// The stores that have a changelog: the program's, or all that the log has notes of.
fn stores(
    transport: &Arc<dyn Transport>,
    job: &str,
    topology: Option<&Topology>,
    kept: &Kept,
    path: &Path,
) -> Result<BTreeMap<String, StoreInLog>, JobError> {
    let mut stores = BTreeMap::new();
    for noted in &kept.schemas {
        let Some(store) = noted.store() else {
            continue;
        };
        let is_given_up = topology.is_some_and(|it| !it.stores.contains_key(store));
        let topic = changelog_topic(job, store)?;
        let metadata = wait(transport.topic(&topic))?.filter(|_| !is_given_up);
        if metadata.is_none() && !is_given_up && kept.has_source_changelog(store) {
            let why = format!(
                "the topic that the table {store:?} is made of is its only changelog (`reuse_source_topics`), and is not read here: take the \
                 savepoint while the job runs"
            );
            return Err(refused(path, why));
        }
        let Some(metadata) = metadata else {
            continue;
        };
        if noted.topic_id() == metadata.id.to_string() {
            let noted = noted.clone();
            let in_log = StoreInLog {
                noted,
                topic,
                metadata,
            };
            stores.insert(store.to_owned(), in_log);
        }
    }
    let counts: BTreeSet<i32> = stores
        .values()
        .map(|it| it.metadata.partitions_count)
        .collect();
    match counts.len() {
        0 => Err(refused(
            path,
            "the job has no state: where it stands is in its committed positions",
        )),
        1 => Ok(stores),
        _ => Err(refused(
            path,
            "its changelogs have different numbers of partitions: one of them is not the job's own",
        )),
    }
}

/// A job that stands still.
struct Standing<'a> {
    name: &'a str,
    topology: Option<&'a Topology>,
    stores: BTreeMap<String, StoreInLog>,
    between: BTreeMap<TopicName, TopicMetadata>,
    kept: Kept,
    path: &'a Path,
}

impl Standing<'_> {
    fn topics(&self) -> impl Iterator<Item = (&TopicName, &TopicMetadata)> {
        let changelogs = self.stores.values().map(|it| (&it.topic, &it.metadata));
        changelogs.chain(&self.between)
    }

    fn state_partitions(&self) -> u16 {
        let first = self.stores.values().next();
        let count = first.map_or(1, |it| it.metadata.partitions_count);
        u16::try_from(count).unwrap_or(u16::MAX)
    }

    /// Reads all up to the cut, and makes the savepoint of it, if `check` finds that nobody was at work.
    fn gather(
        &self,
        env: &Env,
        transport: &Arc<dyn Transport>,
        cut: &Cut,
        gathered: &Path,
        check: impl FnOnce() -> Result<(), JobError>,
    ) -> Result<Savepoint, JobError> {
        let mut manifest = self.manifest(env, cut)?;
        let backend = self.open(env, gathered)?;
        for (store, in_log) in &self.stores {
            for partition in 0..self.state_partitions() {
                let place = TopicPartition::new(in_log.topic.clone(), i32::from(partition));
                let (start, _) = bounds(transport, &place)?;
                let end = cut.ends.get(&place).copied().unwrap_or(start);
                replay(
                    transport,
                    &backend,
                    (store, partition),
                    &place,
                    (start, end),
                )?;
            }
        }
        let copy = backend.copy_at_rest()?;
        let failed = |e: std::io::Error| refused(self.path, e);
        for topic in self.between.keys() {
            let folder = copy.join(between::FOLDER);
            if !env.files.exists(&folder).map_err(failed)? {
                env.files.create_dir(&folder).map_err(failed)?;
            }
            let saved = self.save_between(env, transport, cut, topic, &copy)?;
            manifest.between.extend(saved);
        }
        check()?;
        let taken = finish(env, &copy, self.path, manifest, Duration::ZERO);
        backend.close()?;
        taken
    }

    fn open(&self, env: &Env, gathered: &Path) -> Result<StateBackend, JobError> {
        let stores = self.stores.iter().map(|(name, store)| StoreDeclaration {
            name: name.clone(),
            schema: store.noted.schema().clone(),
            changelog: store.metadata.id,
        });
        let config = StateConfig {
            state_partitions: self.state_partitions(),
            topology: self.topology.map(Topology::fingerprint).unwrap_or_default(),
            stores: stores.collect(),
            ..StateConfig::default()
        };
        Ok(StateBackend::open(env, gathered, config)?)
    }

    /// The records under way in a topic between the instances, in files below `folder`.
    fn save_between(
        &self,
        env: &Env,
        transport: &Arc<dyn Transport>,
        cut: &Cut,
        topic: &TopicName,
        folder: &Path,
    ) -> Result<Option<SavedBetween>, JobError> {
        let mut schemas = self.kept.schemas.iter();
        let Some(noted) = schemas.find(|it| it.repartition_topic() == Some(topic.as_str())) else {
            return Ok(None);
        };
        let mut saved = SavedBetween {
            topic: topic.as_str().to_owned(),
            schema: String::from_utf8_lossy(&noted.to_record().1).into_owned(),
            partitions: Vec::new(),
        };
        let count = self.between.get(topic).map_or(0, |it| it.partitions_count);
        for partition in 0..count {
            let place = TopicPartition::new(topic.clone(), partition);
            let (start, _) = bounds(transport, &place)?;
            let end = cut.ends.get(&place).copied().unwrap_or(start);
            let committed = cut.committed.get(&place);
            let from = committed.map_or(start, |it| it.offset.max(start));
            let records = between::save(env, transport, &place, (from, end), folder)?;
            saved.partitions.push(SavedUnderWay {
                partition,
                end,
                metadata: committed.map_or_else(String::new, |it| it.metadata.clone()),
                records,
            });
        }
        Ok(Some(saved))
    }

    fn manifest(&self, env: &Env, cut: &Cut) -> Result<Manifest, JobError> {
        let mut topics = BTreeMap::<&TopicName, SavedTopic>::new();
        for (place, committed) in &cut.committed {
            if self.between.contains_key(&place.topic) {
                continue;
            }
            let topic = topics.entry(&place.topic).or_insert_with(|| SavedTopic {
                topic: place.topic.as_str().to_owned(),
                id: self
                    .kept
                    .read_topics
                    .get(&place.topic)
                    .map(ToString::to_string),
                partitions: Vec::new(),
            });
            topic.partitions.push(SavedPosition {
                partition: place.partition,
                offset: committed.offset,
                metadata: committed.metadata.clone(),
            });
        }
        let (splits, marks) = self.named()?;
        let sources = self.topology.map_or(&[][..], |it| &it.sources[..]).iter();
        Ok(Manifest {
            job: self.name.to_owned(),
            taken_at: env.clock.wall().0,
            state_partitions: self.state_partitions(),
            topology: self.topology.map(Topology::fingerprint).unwrap_or_default(),
            sources: sources.map(|source| source.name.clone()).collect(),
            topics: topics.into_values().collect(),
            splits,
            marks,
            between: Vec::new(),
            files: Vec::new(),
        })
    }

    /// Positions that are of no topics, and marks. Only the program knows which is which.
    fn named(&self) -> Result<(Vec<SavedSplit>, Vec<SavedMark>), JobError> {
        let positions = &self.kept.positions;
        let (mut splits, mut marks) = (Vec::new(), Vec::new());
        let Some(topology) = self.topology else {
            return match positions.names().next() {
                None => Ok((splits, marks)),
                Some((name, _)) => {
                    let why = format!(
                        "the job has positions of {name:?}, which is no topic, and only its program knows whether that is a source or a sink: \
                         start the job and ask it, or take it from the program (`Launch::savepoint`)"
                    );
                    Err(refused(self.path, why))
                }
            };
        };
        for (name, part) in positions.names() {
            if topology.sources.iter().any(|it| it.name == *name)
                && let Some(at) = positions.position(name, part)?
            {
                splits.push(saved_split(name, part, &at));
            }
        }
        for sink in &topology.sinks {
            let of_sink = positions.marks(&sink.name);
            let saved = of_sink.iter().map(|(part, mark)| SavedMark {
                sink: sink.name.clone(),
                part: part.to_owned(),
                mark: to_hex(mark),
            });
            marks.extend(saved);
        }
        Ok((splits, marks))
    }
}

fn saved_split(source: &str, split: &str, at: &Position) -> SavedSplit {
    SavedSplit {
        source: source.to_owned(),
        split: split.to_owned(),
        offset: at.offset,
        fingerprint: to_hex(&at.fingerprint),
        watermark: at.watermark.map(|time| time.0),
    }
}

/// Brings a changelog partition up to `end` into RocksDB.
fn replay(
    transport: &Arc<dyn Transport>,
    backend: &StateBackend,
    (store, partition): (&str, u16),
    place: &TopicPartition,
    (start, end): (Offset, Offset),
) -> Result<(), JobError> {
    let mut rows: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
    let mut size_bytes = 0;
    let write = |rows: &mut Vec<(Vec<u8>, Option<Vec<u8>>)>, next: Offset| {
        let changes = rows.iter().map(|(key, value)| (&key[..], value.as_deref()));
        let written = backend.replay(store, partition, changes, next);
        rows.clear();
        written
    };
    between::read_committed(transport, place, (start, end), &mut |record| {
        let key = key_of(record, place)?;
        size_bytes += key.len() + record.value.map_or(0, <[u8]>::len);
        rows.push((key.to_vec(), record.value.map(<[u8]>::to_vec)));
        if rows.len() == ROWS_MAX || size_bytes >= ROWS_BYTES_MAX {
            size_bytes = 0;
            write(&mut rows, record.offset.plus(1))?;
        }
        Ok(())
    })?;
    Ok(write(&mut rows, end)?)
}
