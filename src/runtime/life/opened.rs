//! The opening of a job: the topics that it writes, which are created where they are absent, and its state.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::kept::identity;
use super::log_handle::Log;
use super::source_tables::{SourceChangelogs, source_changelogs};
use super::start::Settings;
use super::surprises::warn_of_surprises;
use crate::client::{Transport, wait};
use crate::codec::Schema;
use crate::env::{Env, failpoint, warn};
use crate::protocol::messages::{NewTopic, TopicMetadata};
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::task::changelog::changelog_topic;
use crate::runtime::task::repartition::repartition_topic;
use crate::runtime::topics::job_topics::{
    JobTopic, TopicRole, ensure_topic, job_topics, record_bytes_max, with_configs,
};
use crate::runtime::topics::schemas::{Checked, NotedSchema, Stored, check_schemas};
use crate::state::{StateBackend, StateConfig, StoreDeclaration};
use crate::types::TopicName;

/// Things that a job opens once, also where it is spread and has several incarnations.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(super) topics: Arc<Topics>,
    pub(super) unnoted: Vec<NotedSchema>,
    pub(crate) backend: StateBackend,
    pub(super) source_changelogs: SourceChangelogs,
}

impl Opened {
    /// Creates the topics that are absent and opens the state.
    pub(crate) fn new(
        log: &Log,
        name: &str,
        topology: &Topology,
        settings: &Settings,
        state_partitions: u16,
    ) -> Result<Self, JobError> {
        let transport = log.transport();
        let source_changelogs =
            source_changelogs(&transport, name, topology, settings, state_partitions)?;
        failpoint("start.compaction_held");
        warn_of_surprises(&transport, name, topology, &source_changelogs)?;
        let reused = source_changelogs.iter();
        let reused = reused.map(|(store, it)| (store.clone(), it.topic.clone()));
        let topics = Topics::create(
            &transport,
            name,
            topology,
            settings,
            state_partitions,
            reused.collect(),
        )?;
        failpoint("start.topics_created");
        // Before the state is opened, which takes on the types that the job has now.
        let stored = stored_by(name, topology, settings, &topics)?;
        let Checked { unnoted, codecs } =
            check_schemas(&transport, name, stored, &settings.retyped)?;
        let stores = topology.stores.iter().map(|(store, schema)| {
            let codec = codecs.get(store).copied().unwrap_or(schema.codec);
            let schema = Schema {
                codec,
                ..schema.clone()
            };
            let changelog = topics.changelog(name, store)?.id;
            Ok(StoreDeclaration {
                name: store.clone(),
                schema,
                changelog,
            })
        });
        let stores = stores.collect::<Result<_, JobError>>()?;
        let backend = open_state(log, name, topology, settings, state_partitions, stores)?;
        failpoint("start.state_opened");
        Ok(Self {
            topics: Arc::new(topics),
            unnoted,
            backend,
            source_changelogs,
        })
    }
}

/// A thing that the job keeps under a schema: its stores, and what is under way between its processes.
pub(super) fn stored_by(
    name: &str,
    topology: &Topology,
    settings: &Settings,
    topics: &Topics,
) -> Result<Vec<Stored>, JobError> {
    let mut stored = Vec::new();
    for (store, schema) in &topology.stores {
        let topic = topics.changelog(name, store)?;
        stored.push(Stored::store(store, topic, schema));
    }
    let exchanges = topology.exchanges.iter();
    for node in exchanges.filter(|_| settings.scale_out.is_some()) {
        let topic = &topics.found[&repartition_topic(name, &node.name)?];
        stored.push(Stored::repartition(topic, &node.schema));
    }
    Ok(stored)
}

fn open_state(
    log: &Log,
    name: &str,
    topology: &Topology,
    settings: &Settings,
    state_partitions: u16,
    stores: Vec<StoreDeclaration>,
) -> Result<StateBackend, JobError> {
    let config = StateConfig {
        memory_bytes: settings.memory_bytes,
        changelog_tail_bytes_max: settings.changelog_tail_bytes_max,
        state_partitions,
        topology: topology.fingerprint(),
        dropped_stores: settings.dropped_stores.clone(),
        retyped_stores: settings.retyped.clone(),
        stores,
        rocks_files: log.state_files().clone(),
        ..StateConfig::default()
    };
    let folder = log.state_dir();
    let created = create_folders(log.env(), folder);
    created.map_err(|e| JobError::Folder {
        path: folder.to_owned(),
        why: e.to_string(),
    })?;
    // Names of jobs and instances are valid names of topics, so this is a valid name of a folder.
    Ok(StateBackend::open(
        log.env(),
        &log.state_dir().join(identity(name, settings)?),
        config,
    )?)
}

/// Creates the folder, and those above it that are absent.
fn create_folders(env: &Env, folder: &Path) -> io::Result<()> {
    let is_absent = |path: &&Path| {
        let is_named = !path.as_os_str().is_empty();
        is_named && !env.files.exists(path).unwrap_or(false)
    };
    let absent: Vec<&Path> = folder.ancestors().take_while(is_absent).collect();
    absent
        .into_iter()
        .rev()
        .try_for_each(|path| env.files.create_dir(path))
}

/// The topics that the job writes.
pub(super) struct Topics {
    pub(super) found: HashMap<TopicName, TopicMetadata>,
    /// The source topics that are changelogs, by store.
    reused: BTreeMap<String, TopicMetadata>,
}

impl Topics {
    /// Creates what is missing.
    pub(super) fn create(
        transport: &Arc<dyn Transport>,
        name: &str,
        topology: &Topology,
        settings: &Settings,
        state_partitions: u16,
        reused: BTreeMap<String, TopicMetadata>,
    ) -> Result<Self, JobError> {
        let mut topics = Self {
            found: HashMap::new(),
            reused,
        };
        let default_count = settings.partitions_of_new_topics(state_partitions);
        let is_spread = settings.scale_out.is_some();
        let mut wanted = job_topics(name, topology, &settings.poison, is_spread)?;
        for store in topics.reused.keys() {
            let own = changelog_topic(name, store)?;
            wanted.retain(|topic| topic.name != own);
        }
        let largest_read = largest_source_record(transport, topology);
        for topic in with_configs(wanted, &settings.topic_configs, name)? {
            let partitions_count = topic.partitions_count.unwrap_or(match topic.role {
                TopicRole::Changelog | TopicRole::Repartition => i32::from(state_partitions),
                _ => default_count,
            });
            topics.ensure(transport, topic, partitions_count, largest_read)?;
        }
        Ok(topics)
    }

    /// The changelog of a store.
    fn changelog(&self, job: &str, store: &str) -> Result<&TopicMetadata, JobError> {
        match self.reused.get(store) {
            Some(topic) => Ok(topic),
            None => Ok(&self.found[&changelog_topic(job, store)?]),
        }
    }

    fn ensure(
        &mut self,
        transport: &Arc<dyn Transport>,
        topic: JobTopic,
        partitions_count: i32,
        largest_read: u64,
    ) -> Result<(), JobError> {
        let metadata = ensure_topic(
            transport,
            NewTopic {
                name: topic.name.clone(),
                partitions_count,
                configs: topic.configs.clone(),
            },
        )?;
        let configs = wait(transport.describe_configs(&topic.name))?;
        topic.check(&configs)?;
        let is_between = !matches!(topic.role, TopicRole::Sink | TopicRole::Positions);
        let limit = record_bytes_max(&configs).filter(|limit| is_between && *limit < largest_read);
        if let Some(limit) = limit {
            warn!(topic = %topic.name, limit, largest_read, "the topic takes smaller records than the job reads: a large one will stop the job; raise max.message.bytes of the topic");
        }
        self.found.insert(topic.name, metadata);
        Ok(())
    }
}

/// The limit of the source topics' records; 0 if none is known, because the job may not ask or the topics are absent.
fn largest_source_record(transport: &Arc<dyn Transport>, topology: &Topology) -> u64 {
    let sources = topology.sources.iter();
    let sources = sources.filter(|source| source.replays.is_none());
    let topics = sources.filter_map(|source| TopicName::new(&source.lister.topic()?.0).ok());
    let limits = topics.filter_map(|topic| {
        wait(transport.topic(&topic)).ok().flatten()?;
        record_bytes_max(&wait(transport.describe_configs(&topic)).ok()?)
    });
    limits.max().unwrap_or(0)
}
