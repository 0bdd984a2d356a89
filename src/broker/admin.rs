//! Creating, growing, changing and deleting topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checkpoints::partition_dir;
use super::configs::{self, Configs};
use super::core::Core;
use super::partition::Partition;
use super::topics::{Topic, TopicEntry, TopicList};
use super::{BrokerConfig, BrokerError};
use crate::env::failpoint;
use crate::log::{CleanupPolicy, LogConfig, PartitionLog};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{ConfigEntry, NewTopic, PartitionDescription, TopicMetadata};
use crate::types::{PartitionIndex, TopicId, TopicName, TopicPartition};

/// The most partitions of a topic: with five digits and the longest name, a directory's name still has 255 bytes.
const PARTITIONS_COUNT_MAX: i32 = 100_000;

impl Core {
    pub(super) fn create_topic(&self, new: &NewTopic) -> Result<TopicMetadata, BrokerError> {
        self.check_may_change(&new.name)?;
        self.create_any_topic(new)
    }

    pub(super) fn check_topic(&self, new: &NewTopic) -> Result<(), BrokerError> {
        self.check_may_change(&new.name)?;
        if self.topics.topic(&new.name).is_ok() {
            return Err(exists(&new.name));
        }
        log_config(&self.config, &new.name, &new.configs)?;
        check_partitions_count(new.partitions_count)
    }

    /// Whether the topic is one that operators and clients may change, and the broker serves.
    fn check_may_change(&self, name: &TopicName) -> Result<(), BrokerError> {
        self.check_open()?;
        match name.is_internal() {
            true => Err(internal(name)),
            false => Ok(()),
        }
    }

    /// Creates a topic, internal or not.
    fn create_any_topic(&self, new: &NewTopic) -> Result<TopicMetadata, BrokerError> {
        check_partitions_count(new.partitions_count)?;
        let config = self.log_config(&new.name, &new.configs)?;
        let mut list = self.topics.lock_list();
        let id = TopicId(self.env.random.next_u128());
        let name = new.name.as_str();
        match list.topics.get(name) {
            Some(entry) if entry.partitions_count > 0 && !entry.is_deleting => {
                return Err(exists(&new.name));
            }
            // A creation or deletion that failed half way in this process.
            Some(_) => self.directory.clear_unfinished(&mut list, &new.name)?,
            None => {}
        }
        self.forget_checkpoints(&new.name)?;
        let entry = TopicEntry {
            id: id.to_string(),
            partitions_count: 0,
            growing_to: Some(new.partitions_count),
            is_deleting: false,
            configs: new.configs.clone(),
        };
        self.directory.change_list(&mut list, |list| {
            list.topics.insert(name.to_owned(), entry);
        })?;
        failpoint("topic.create_intended");
        let topic = Topic {
            name: new.name.clone(),
            id,
            partitions: Vec::new(),
            configs: new.configs.clone(),
        };
        self.grow(&mut list, topic, new.partitions_count, &config)
    }

    pub(super) fn create_partitions(
        &self,
        name: &TopicName,
        total_count: i32,
    ) -> Result<(), BrokerError> {
        self.check_may_change(name)?;
        check_partitions_count(total_count)?;
        self.check_not_held(name, "whose rows are found by the number of its partitions")?;
        let mut list = self.topics.lock_list();
        let topic = self.topics.topic(name)?;
        let present = topic.metadata().partitions_count;
        if total_count <= present {
            return Err(BrokerError::new(
                ErrorCode::InvalidPartitions,
                format!(
                    "topic {name} has {present} partitions already, and partitions cannot be taken away: ask for more than {present}"
                ),
            ));
        }
        let config = self.log_config(name, &topic.configs)?;
        // What a failed growth left must not stand in the way of this one.
        self.directory.clear_unfinished(&mut list, name)?;
        self.change_entry(&mut list, name, |entry| {
            entry.growing_to = Some(total_count)
        })?;
        failpoint("topic.create_intended");
        self.grow(&mut list, Topic::clone(&topic), total_count, &config)
            .map(drop)
    }

    /// Makes the missing partitions of a topic whose growth is announced, confirms it, and shows the topic.
    fn grow(
        &self,
        list: &mut TopicList,
        mut topic: Topic,
        total_count: i32,
        config: &LogConfig,
    ) -> Result<TopicMetadata, BrokerError> {
        let present = topic.metadata().partitions_count;
        let name = topic.name.clone();
        let made: Result<Vec<_>, BrokerError> = (present..total_count)
            .map(|index| self.create_partition(&name, index, topic.id, config))
            .collect();
        failpoint("topic.partitions_made");
        // After a failure the list says what is unfinished: it is taken away at the next try or open.
        let made = made?;
        self.change_entry(list, &name, |entry| {
            entry.partitions_count = total_count;
            entry.growing_to = None;
        })?;
        failpoint("topic.created");
        topic.partitions.extend(made);
        let metadata = topic.metadata();
        self.topics.insert(topic);
        Ok(metadata)
    }

    fn create_partition(
        &self,
        topic: &TopicName,
        index: PartitionIndex,
        id: TopicId,
        config: &LogConfig,
    ) -> Result<Arc<Partition>, BrokerError> {
        let name = TopicPartition::new(topic.clone(), index);
        let dir = partition_dir(&self.directory.log_dir(), &name);
        let (env, config) = (&self.env, config.clone());
        let log = PartitionLog::create_with_cache(env, &dir, id, config, &self.segments)?;
        Ok(Arc::new(Partition::new(name, Ok(log))))
    }

    pub(super) fn delete_topic(&self, name: &TopicName) -> Result<(), BrokerError> {
        self.check_may_change(name)?;
        let mut list = self.topics.lock_list();
        let topic = self.topics.topic(name)?;
        // From here on the topic is gone, whatever happens.
        self.change_entry(&mut list, name, |entry| entry.is_deleting = true)?;
        failpoint("topic.delete_intended");
        self.topics.remove(name);
        for partition in &topic.partitions {
            let gone = format!("topic {name} was deleted");
            let why = BrokerError::new(ErrorCode::UnknownTopicOrPartition, gone);
            drop(partition.take(why));
        }
        if let Err(error) = self.directory.clear_unfinished(&mut list, name) {
            crate::env::warn!(topic = %name, error = error.message, "a deleted topic's files are still there: housekeeping will remove them");
        }
        drop(list);
        self.forget_offsets(name);
        Ok(())
    }

    /// Removes what is left of deleted topics.
    pub(super) fn finish_deletions(&self) -> Result<(), BrokerError> {
        let mut list = self.topics.lock_list();
        let entries = list.topics.iter();
        let deleted: Vec<_> = entries
            .filter(|(_, entry)| entry.is_deleting)
            .map(|(name, _)| TopicName::new(name))
            .collect::<Result<_, _>>()?;
        deleted
            .iter()
            .try_for_each(|name| self.directory.clear_unfinished(&mut list, name))
    }

    pub(super) fn alter_configs(
        &self,
        name: &TopicName,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), BrokerError> {
        self.check_may_change(name)?;
        let mut list = self.topics.lock_list();
        let (topic, config) = self.changed_topic(name, changes)?;
        let configs = topic.configs.clone();
        self.change_entry(&mut list, name, |entry| entry.configs = configs)?;
        for partition in &topic.partitions {
            if let Ok(mut log) = partition.lock() {
                log.set_config(config.clone());
            }
        }
        self.topics.insert(topic);
        Ok(())
    }

    pub(super) fn check_configs(
        &self,
        name: &TopicName,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), BrokerError> {
        self.check_may_change(name)?;
        self.changed_topic(name, changes).map(drop)
    }

    /// A topic with its settings changed, and what they mean.
    fn changed_topic(
        &self,
        name: &TopicName,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(Topic, LogConfig), BrokerError> {
        let mut topic = Topic::clone(&*self.topics.topic(name)?);
        for (key, value) in changes {
            match value {
                Some(value) => topic.configs.insert(key.clone(), value.clone()),
                None => topic.configs.remove(key),
            };
        }
        let config = log_config(&self.config, name, &topic.configs)?;
        if config.cleanup != CleanupPolicy::Compact {
            self.check_not_held(
                name,
                "which loses rows under another cleanup.policy than compact",
            )?;
        }
        Ok((topic, config))
    }

    /// The settings of a partition that is made now.
    fn log_config(&self, name: &TopicName, configs: &Configs) -> Result<LogConfig, BrokerError> {
        Ok(LogConfig {
            leader_epoch: self.leader_epoch,
            ..log_config(&self.config, name, configs)?
        })
    }

    pub(super) fn describe_configs(
        &self,
        name: &TopicName,
    ) -> Result<Vec<ConfigEntry>, BrokerError> {
        self.check_open()?;
        let topic = self.topics.topic(name)?;
        Ok(configs::describe(
            &topic.configs,
            &self.config.topic_defaults,
        ))
    }

    pub(super) fn describe_partitions(
        &self,
        name: &TopicName,
    ) -> Result<Vec<PartitionDescription>, BrokerError> {
        self.check_open()?;
        let topic = self.topics.topic(name)?;
        Ok(topic
            .partitions
            .iter()
            .map(|p| describe_partition(p))
            .collect())
    }

    fn change_entry(
        &self,
        list: &mut TopicList,
        name: &TopicName,
        change: impl FnOnce(&mut TopicEntry),
    ) -> Result<(), BrokerError> {
        self.directory.change_list(list, |list| {
            if let Some(entry) = list.topics.get_mut(name.as_str()) {
                change(entry);
            }
        })
    }
}

/// The log settings of a topic of this broker.
pub(super) fn log_config(
    broker: &BrokerConfig,
    topic: &TopicName,
    configs: &Configs,
) -> Result<LogConfig, BrokerError> {
    let base = LogConfig {
        durability: broker.durability,
        producer_id_expiration: broker.producer_id_expiration,
        ..LogConfig::default()
    };
    // The journals' settings are the coordinators' business, not the operator's defaults.
    let base = match topic.is_internal() {
        true => base,
        false => configs::log_config(&base, &broker.topic_defaults)?,
    };
    configs::log_config(&base, configs)
}

fn describe_partition(partition: &Partition) -> PartitionDescription {
    let mut description = PartitionDescription {
        partition: partition.name.partition,
        log_start_offset: Default::default(),
        last_stable_offset: Default::default(),
        high_watermark: Default::default(),
        log_end_offset: Default::default(),
        size_bytes: 0,
        offline: None,
    };
    match partition.lock() {
        Ok(log) => {
            description.log_start_offset = log.log_start_offset();
            description.last_stable_offset = log.last_stable_offset();
            description.high_watermark = log.high_watermark();
            description.log_end_offset = log.log_end_offset();
            description.size_bytes = log.size_bytes();
        }
        Err(why) => description.offline = Some(why.message),
    }
    description
}

fn check_partitions_count(count: i32) -> Result<(), BrokerError> {
    match count {
        1..=PARTITIONS_COUNT_MAX => Ok(()),
        _ => Err(BrokerError::new(
            ErrorCode::InvalidPartitions,
            format!("a topic has 1 to {PARTITIONS_COUNT_MAX} partitions, not {count}"),
        )),
    }
}

fn exists(name: &TopicName) -> BrokerError {
    BrokerError::new(
        ErrorCode::TopicAlreadyExists,
        format!("topic {name} exists already: choose another name, or delete it first"),
    )
}

fn internal(name: &TopicName) -> BrokerError {
    BrokerError::new(
        ErrorCode::InvalidTopicException,
        format!(
            "the topic {name} belongs to a coordinator and cannot be changed: choose another name"
        ),
    )
}
