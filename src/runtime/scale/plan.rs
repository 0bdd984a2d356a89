//! Plan of the shares: the job's source topics, and its state with the repartition topics before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::assignor::{Task, TopicGroup};
use crate::client::Transport;
use crate::protocol::messages::{NewTopic, TopicMetadata};
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::task::marks::Beginning;
use crate::runtime::task::repartition::repartition_topic;
use crate::runtime::topics::job_topics::{ensure_topic, repartition_configs};
use crate::types::{TopicName, TopicPartition};

/// Topics that are partitioned alike: a task has the same partition of all of them.
struct Alike {
    topics: Vec<TopicName>,
    partitions_count: i32,
}

/// The job's topics as tasks, and tasks as topics' partitions.
pub(crate) struct Plan {
    groups: Vec<Alike>,
    /// The group of the repartition topics, whose partitions are the state partitions; jobs without a shuffle have none.
    state: Option<u16>,
    has_stores: bool,
}

impl Plan {
    /// Finds what there is to share out. Topics that are absent are created; `find` finds those of sources, and is
    /// told whether one is read until its end.
    ///
    /// # Errors
    /// If a source reads no topic or a sink writes files, which belong to one machine.
    pub(crate) fn new(
        transport: &Arc<dyn Transport>,
        job: &str,
        topology: &Topology,
        state_partitions: u16,
        topic_partitions: i32,
        find: impl Fn(NewTopic, bool) -> Result<TopicMetadata, JobError>,
    ) -> Result<Self, JobError> {
        let refuse = |why: String| JobError::Topology {
            job: job.to_owned(),
            why,
        };
        if let Some(sink) = topology.sinks.first() {
            return Err(refuse(format!(
                "its sink {} belongs to one process, but the job is spread over several: end in a topic, and write the sink \
                 with a job of its own",
                sink.name
            )));
        }
        let mut groups = Vec::new();
        for source in &topology.sources {
            let (name, count) = source.lister.topic().ok_or_else(|| {
                refuse(format!(
                    "its source {} cannot be shared out to several processes, which only topics can: \
                     bring it into a topic with a job of its own",
                    source.name
                ))
            })?;
            let topic = NewTopic {
                name: TopicName::new(&name)?,
                partitions_count: count.unwrap_or(topic_partitions),
                configs: BTreeMap::new(),
            };
            let topic = find(topic, source.lister.reads_until_end())?;
            groups.push(Alike {
                topics: vec![topic.name],
                partitions_count: topic.partitions_count,
            });
        }
        let state = match topology.exchanges.is_empty() {
            true => None,
            false => {
                let topics = topology.exchanges.iter().map(|exchange| {
                    ensure_repartition(transport, job, &exchange.name, state_partitions)
                });
                groups.push(Alike {
                    topics: topics.collect::<Result<_, JobError>>()?,
                    partitions_count: i32::from(state_partitions),
                });
                Some(number(groups.len() - 1))
            }
        };
        Ok(Self {
            groups,
            state,
            has_stores: !topology.stores.is_empty(),
        })
    }

    /// A source and a store behind an exchange, each in so many parts.
    #[cfg(test)]
    pub(super) fn sample(partitions_count: i32) -> Self {
        let alike = |name: &str| Alike {
            topics: TopicName::new(name).into_iter().collect(),
            partitions_count,
        };
        Self {
            groups: vec![alike("lines"), alike("job-exchange-0-repartition")],
            state: Some(1),
            has_stores: true,
        }
    }

    /// Where the job's chains begin, in the order of the feeds that read them.
    pub(crate) fn beginnings(&self, topology: &Topology, state_partitions: u16) -> Vec<Beginning> {
        let sources = topology.sources.iter().zip(&self.groups);
        let sources = sources.map(|(source, group)| Beginning {
            name: source.name.as_str().into(),
            tasks_count: u32::try_from(group.partitions_count).unwrap_or(0),
        });
        let steps = topology.exchanges.iter().map(|exchange| Beginning {
            name: Arc::clone(&exchange.name),
            tasks_count: u32::from(state_partitions),
        });
        sources.chain(steps).collect()
    }

    /// Lists the partitions of each source: time waits for all of them, so processes that know different numbers cannot share the job.
    pub(crate) fn sources_as_text(&self, topology: &Topology) -> String {
        let sources = topology.sources.iter().zip(&self.groups);
        let sources = sources.map(|(source, group)| {
            format!("; {} partitions of {}", group.partitions_count, source.name)
        });
        sources.collect()
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &TopicName> {
        self.groups.iter().flat_map(|group| &group.topics)
    }

    pub(crate) fn topic_groups(&self) -> Vec<TopicGroup> {
        let groups = self.groups.iter().enumerate();
        groups
            .map(|(index, group)| TopicGroup {
                number: number(index),
                partitions_count: group.partitions_count,
                is_stateful: self.has_stores && Some(number(index)) == self.state,
            })
            .collect()
    }

    /// Counts all tasks.
    pub(crate) fn tasks_count(&self) -> usize {
        let counts = self.groups.iter().map(|group| group.partitions_count);
        counts
            .map(|count| usize::try_from(count).unwrap_or(0))
            .sum()
    }

    /// The task of a state partition.
    pub(crate) fn state_task(&self, partition: u16) -> Option<Task> {
        self.state.map(|topics| Task {
            topics,
            partition: i32::from(partition),
        })
    }

    /// The state partition of a task, if it is one.
    pub(crate) fn state_partition(&self, task: Task) -> Option<u16> {
        let is_of_state = Some(task.topics) == self.state;
        let partition = is_of_state.then_some(task.partition)?;
        u16::try_from(partition).ok()
    }

    /// The partitions of topics that a task stands for, each with the number of the feed that reads it: sources come first, in
    /// their order, then the receiving ends of exchanges.
    pub(crate) fn feeds(&self, task: Task) -> impl Iterator<Item = (usize, TopicPartition)> {
        // The groups before that of the state are one a source.
        let first = usize::from(task.topics);
        let group = self.groups.get(first);
        let topics = group.map_or(&[][..], |group| &group.topics);
        let topics = topics.iter().enumerate();
        topics.map(move |(index, topic)| {
            (
                first + index,
                TopicPartition::new(topic.clone(), task.partition),
            )
        })
    }

    /// The partitions of topics that tasks stand for.
    pub(crate) fn partitions(&self, tasks: &BTreeSet<Task>) -> Vec<TopicPartition> {
        let of_task = |task: &Task| {
            let group = self.groups.get(usize::from(task.topics));
            let topics = group.map_or(&[][..], |group| &group.topics);
            let partition = task.partition;
            topics
                .iter()
                .map(move |topic| TopicPartition::new(topic.clone(), partition))
        };
        tasks.iter().flat_map(of_task).collect()
    }

    /// The tasks that partitions of topics belong to; partitions of other topics are left out.
    pub(crate) fn tasks(&self, partitions: &[TopicPartition]) -> BTreeSet<Task> {
        let task = |place: &TopicPartition| {
            let group = self
                .groups
                .iter()
                .position(|group| group.topics.contains(&place.topic))?;
            Some(Task {
                topics: number(group),
                partition: place.partition,
            })
        };
        partitions.iter().filter_map(task).collect()
    }

    /// The state partitions among the tasks, ascending.
    pub(crate) fn state_partitions(&self, tasks: &BTreeSet<Task>) -> Vec<u16> {
        let tasks = tasks.iter();
        tasks
            .filter_map(|task| self.state_partition(*task))
            .collect()
    }
}

#[expect(clippy::expect_used, reason = "a source is a statement of the job's")]
fn number(index: usize) -> u16 {
    u16::try_from(index).expect("a job has far fewer than 65,536 sources")
}

fn ensure_repartition(
    transport: &Arc<dyn Transport>,
    job: &str,
    exchange: &str,
    state_partitions: u16,
) -> Result<TopicName, JobError> {
    let name = repartition_topic(job, exchange)?;
    let topic = NewTopic {
        name,
        partitions_count: i32::from(state_partitions),
        configs: repartition_configs(),
    };
    let topic = ensure_topic(transport, topic)?;
    match topic.partitions_count == i32::from(state_partitions) {
        true => Ok(topic.name),
        false => Err(JobError::Incompatible {
            job: job.to_owned(),
            why: format!(
                "the topic {} has {} partitions, but the job has {state_partitions} state partitions: \
                 ask for as many, or delete the topic if its records are not needed",
                topic.name, topic.partitions_count
            ),
        }),
    }
}
