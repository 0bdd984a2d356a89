//! The topics that a job writes: what they are for, and how they are created where they are absent.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::positions::positions_topic;
use crate::client::{ClientError, Transport, wait};
use crate::protocol::messages::{ConfigEntry, NewTopic, TopicMetadata};
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::task::changelog::changelog_topic;
use crate::runtime::task::poison::PoisonPolicy;
use crate::runtime::task::repartition::repartition_topic;
use crate::types::TopicName;

/// The largest record that the topics between a job's parts take: as long as the longest line that a source reads.
const RECORD_BYTES_MAX: u64 = 64 << 20;
/// Segments of a changelog are small, so that compaction, which leaves the active one alone, has something to do. A record fits.
const CHANGELOG_SEGMENT_BYTES: u64 = RECORD_BYTES_MAX;
/// Segments of a repartition topic are small, so that what was read can be deleted soon. A record fits.
const REPARTITION_SEGMENT_BYTES: u64 = RECORD_BYTES_MAX;
/// A dead letter has headers beside what its source took. Less than the largest request that a Kafka broker takes, 100 MiB.
const DEAD_LETTER_BYTES_MAX: u64 = 96 << 20;
/// One that is replayed has some more.
const REPLAY_BYTES_MAX: u64 = 97 << 20;

/// Use of a topic by a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicRole {
    /// Positions of sources that are not topics, and lengths of files.
    Positions,
    /// The changes of a store.
    Changelog,
    /// Records on their way to the process that owns their key, when a job is spread over several.
    Repartition,
    /// Results.
    Sink,
    /// Records that could not be processed.
    DeadLetter,
    /// Letters that the job is to take back.
    Replay,
}

/// A topic that a job writes, and creates if it is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobTopic {
    /// Its name.
    pub name: TopicName,
    /// Its use.
    pub role: TopicRole,
    /// The partitions that it is created with; `None` for as many as the job has state partitions.
    pub partitions_count: Option<i32>,
    /// Its settings, by Kafka's names; others have the log's defaults.
    pub configs: BTreeMap<String, String>,
}

impl JobTopic {
    /// Refuses a topic whose settings would lose what was acknowledged (K10): one that somebody created otherwise,
    /// or that a cluster's defaults make so.
    pub(crate) fn check(&self, configs: &[ConfigEntry]) -> Result<(), JobError> {
        let is = |name: &str, value: &str| {
            let entry = configs.iter().find(|entry| entry.name == name);
            entry.is_some_and(|entry| entry.value == value)
        };
        let is_kept = matches!(self.role, TopicRole::Positions | TopicRole::Changelog);
        let why = if is("unclean.leader.election.enable", "true") {
            "has unclean.leader.election.enable=true, with which a replica that lacks acknowledged records may lead: set it to false"
        } else if is_kept && !is("cleanup.policy", "compact") {
            "must have cleanup.policy=compact: with another policy, state or positions would be deleted by their age"
        } else {
            return Ok(());
        };
        Err(JobError::UnsafeTopic {
            topic: self.name.clone(),
            why,
        })
    }
}

impl fmt::Display for JobTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        match self.partitions_count {
            Some(count) => write!(f, "  partitions={count}")?,
            None => f.write_str("  partitions=<state partitions>")?,
        }
        let mut configs = self.configs.iter();
        configs.try_for_each(|(name, value)| write!(f, "  {name}={value}"))
    }
}

/// The topics that the job writes, those that its state depends on first.
pub(crate) fn job_topics(
    job: &str,
    topology: &Topology,
    poison: &PoisonPolicy,
    is_spread: bool,
) -> Result<Vec<JobTopic>, JobError> {
    let mut topics = vec![JobTopic {
        name: positions_topic(job)?,
        role: TopicRole::Positions,
        partitions_count: Some(1),
        configs: compacted_configs(),
    }];
    for store in topology.stores.keys() {
        topics.push(JobTopic {
            name: changelog_topic(job, store)?,
            role: TopicRole::Changelog,
            partitions_count: None,
            configs: with_large_records(compacted_configs(), RECORD_BYTES_MAX),
        });
    }
    for exchange in topology.exchanges.iter().filter(|_| is_spread) {
        topics.push(JobTopic {
            name: repartition_topic(job, &exchange.name)?,
            role: TopicRole::Repartition,
            partitions_count: None,
            configs: repartition_configs(),
        });
    }
    topics.extend(topology.sink_topics.iter().map(|(name, sink)| JobTopic {
        name: name.clone(),
        role: TopicRole::Sink,
        partitions_count: sink.partitions_count,
        configs: {
            let mut configs = of_any_time();
            if topology.uses_time {
                // A result has the time of its window, which says nothing of its age: input of last year is not to be deleted at once.
                configs.insert("retention.ms".to_owned(), "-1".to_owned());
            }
            configs.extend(sink.configs.clone());
            configs
        },
    }));
    for name in topology.replay_topics() {
        topics.push(JobTopic {
            name: TopicName::new(name)?,
            role: TopicRole::Replay,
            partitions_count: Some(1),
            configs: replay_configs(),
        });
    }
    if let PoisonPolicy::DeadLetter(name) = poison {
        topics.push(JobTopic {
            name: name.clone(),
            role: TopicRole::DeadLetter,
            partitions_count: Some(1),
            configs: with_large_records(of_any_time(), DEAD_LETTER_BYTES_MAX),
        });
    }
    Ok(topics)
}

/// Settings of a job's topics by the topic's name, each with Kafka's names and values.
pub(crate) type TopicConfigs = BTreeMap<String, BTreeMap<String, String>>;

/// Adds what the user wants of topics that the job writes results or dead letters to.
///
/// # Errors
/// If the job writes no such topic.
pub(crate) fn with_configs(
    mut topics: Vec<JobTopic>,
    configs: &TopicConfigs,
    job: &str,
) -> Result<Vec<JobTopic>, JobError> {
    for (name, wanted) in configs {
        let is_users = |topic: &&mut JobTopic| {
            matches!(topic.role, TopicRole::Sink | TopicRole::DeadLetter)
                && topic.name.as_str() == name
        };
        let topic = topics.iter_mut().find(is_users);
        let topic = topic.ok_or_else(|| JobError::Topology {
            job: job.to_owned(),
            why: format!(
                "it has settings for the topic {name:?}, which is neither a sink of it nor its dead-letter topic: correct the name"
            ),
        })?;
        topic.configs.extend(wanted.clone());
    }
    Ok(topics)
}

/// Returns a record's most bytes by these settings; `None` if they do not say.
pub(crate) fn record_bytes_max(configs: &[ConfigEntry]) -> Option<u64> {
    let limits = configs
        .iter()
        .filter(|entry| ["max.message.bytes", "segment.bytes"].contains(&entry.name.as_str()));
    limits.filter_map(|entry| entry.value.parse().ok()).min()
}

/// The topic of that name, created as asked if there is none. Several processes may ask at once: one creates it.
///
/// # Errors
/// If there is none and it cannot be created, or the log does not answer.
pub(crate) fn ensure_topic(
    transport: &Arc<dyn Transport>,
    topic: NewTopic,
) -> Result<TopicMetadata, ClientError> {
    let name = topic.name.clone();
    if let Some(found) = wait(transport.topic(&name))? {
        return Ok(found);
    }
    let created = wait(transport.create_topic(topic));
    // Somebody else may have been first.
    match (created, wait(transport.topic(&name))?) {
        (Ok(topic), _) | (Err(_), Some(topic)) => Ok(topic),
        (Err(e), None) => Err(e),
    }
}

/// Settings with a limit of records that is no smaller than those of what the job reads.
fn with_large_records(
    mut configs: BTreeMap<String, String>,
    record_bytes: u64,
) -> BTreeMap<String, String> {
    configs.insert("max.message.bytes".to_owned(), record_bytes.to_string());
    configs
}

/// The setting of a topic that takes records of any event time.
const OF_ANY_TIME: &str = "message.timestamp.after.max.ms";

/// Settings of a topic that takes what a source topic took, whatever its event time and however the clock was set meanwhile.
fn of_any_time() -> BTreeMap<String, String> {
    BTreeMap::from([(OF_ANY_TIME.to_owned(), i64::MAX.to_string())])
}

fn compacted_configs() -> BTreeMap<String, String> {
    [
        ("cleanup.policy", "compact".to_owned()),
        ("segment.bytes", CHANGELOG_SEGMENT_BYTES.to_string()),
        (OF_ANY_TIME, i64::MAX.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Returns settings that keep a repartition topic's records until read for good, whatever the time.
pub(crate) fn repartition_configs() -> BTreeMap<String, String> {
    let configs = [
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("segment.bytes", REPARTITION_SEGMENT_BYTES.to_string()),
        // What the job could read it can send on to itself, whatever its event time.
        ("message.timestamp.after.max.ms", i64::MAX.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    with_large_records(configs.into(), RECORD_BYTES_MAX)
}

/// Letters to replay are kept: they say which ones were.
pub(crate) fn replay_configs() -> BTreeMap<String, String> {
    let mut configs = with_large_records(of_any_time(), REPLAY_BYTES_MAX);
    configs.insert("cleanup.policy".to_owned(), "delete".to_owned());
    configs.insert("retention.ms".to_owned(), "-1".to_owned());
    configs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Log;

    fn checked(role: TopicRole, configs: &[(&str, &str)]) -> Result<(), JobError> {
        let topic = JobTopic {
            name: TopicName::new("t").unwrap(),
            role,
            partitions_count: None,
            configs: BTreeMap::new(),
        };
        let entry = |(name, value): &(&str, &str)| ConfigEntry {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
            is_default: true,
            documentation: String::new(),
        };
        topic.check(&configs.iter().map(entry).collect::<Vec<_>>())
    }

    /// Several that find none create it at once: all of them go on with the one that is created.
    #[test]
    fn a_topic_that_somebody_else_creates_meanwhile_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::embedded(folder.path().join("data")).unwrap();
        let transport = log.transport();
        for round in 0..50 {
            let together = std::sync::Barrier::new(4);
            let ensure = || {
                together.wait();
                let topic = NewTopic {
                    name: TopicName::new(&format!("t{round}")).unwrap(),
                    partitions_count: 1,
                    configs: BTreeMap::new(),
                };
                ensure_topic(&transport, topic).unwrap().id
            };
            let ids = std::thread::scope(|scope| {
                let threads = [(); 4].map(|()| scope.spawn(ensure));
                threads.map(|thread| thread.join().unwrap())
            });
            assert!(ids.iter().all(|id| *id == ids[0]));
        }
    }

    #[test]
    fn k10_topics_that_would_lose_what_was_acknowledged_are_refused() {
        let unclean = ("unclean.leader.election.enable", "true");
        let refused = checked(TopicRole::Sink, &[unclean])
            .unwrap_err()
            .to_string();
        assert!(refused.contains("set it to false"), "{refused}");
        let aged = checked(TopicRole::Changelog, &[("cleanup.policy", "delete")]);
        assert!(aged.unwrap_err().to_string().contains("compact"));
        let both = checked(
            TopicRole::Positions,
            &[("cleanup.policy", "compact,delete")],
        );
        assert!(both.is_err());
        checked(TopicRole::Changelog, &[("cleanup.policy", "compact")]).unwrap();
        checked(TopicRole::Sink, &[("cleanup.policy", "delete")]).unwrap();
    }
}
