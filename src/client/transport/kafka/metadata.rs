//! `Metadata`: what is known of the cluster: its brokers, and who leads each partition. No I/O.
//!
//! A leader is believed until a broker denies it or the knowledge is too old. Old news never replaces newer: a
//! partition's leader epoch only grows, unless the topic was created anew (another topic id).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::env::Instant;
use crate::net::Address;
use crate::protocol::ErrorCode;
use crate::protocol::messages::TopicMetadata;
use crate::protocol::wire::messages::metadata::{
    MetadataResponse, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::types::{TopicId, TopicName, TopicPartition};

/// A broker's number in its cluster.
pub(super) type NodeId = i32;

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub(super) node: NodeId,
    /// −1 if unknown.
    pub(super) epoch: i32,
}

/// The cache's answer about a partition's leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    Known(Leader),
    /// It must be asked for.
    Ask,
    /// The cluster said just now that there is none.
    NoLeader,
    /// The cluster said just now that there is no such topic or partition.
    NoSuchPartition,
}

#[derive(Debug)]
struct Topic {
    id: TopicId,
    is_internal: bool,
    partitions: BTreeMap<i32, Partition>,
    learnt: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Partition {
    leader: Option<NodeId>,
    epoch: i32,
    /// A broker denied it since.
    is_denied: bool,
}

/// The cluster as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    brokers: BTreeMap<NodeId, Address>,
    controller: Option<NodeId>,
    topics: HashMap<TopicName, Topic>,
}

impl Metadata {
    /// Takes the answer to a Metadata request. Topics that were not asked for are kept.
    pub(super) fn learn(&mut self, response: &MetadataResponse, now: Instant) {
        let brokers = response.brokers.iter().filter_map(|broker| {
            let port = u16::try_from(broker.port).ok()?;
            let host = broker.host.clone();
            Some((broker.node_id, Address { host, port }))
        });
        let brokers: BTreeMap<_, _> = brokers.collect();
        if !brokers.is_empty() {
            self.brokers = brokers;
        }
        self.controller = (response.controller_id >= 0).then_some(response.controller_id);
        for topic in &response.topics {
            self.learn_topic(topic, now);
        }
    }

    fn learn_topic(&mut self, topic: &MetadataResponseTopic, now: Instant) {
        let Some(name) = topic
            .name
            .as_deref()
            .and_then(|name| TopicName::new(name).ok())
        else {
            return;
        };
        match ErrorCode::from_code(topic.error_code) {
            None => {}
            Some(ErrorCode::UnknownTopicOrPartition) => {
                self.topics.remove(&name);
                return;
            }
            Some(_) => return,
        }
        let known = self
            .topics
            .remove(&name)
            .filter(|known| known.id == topic.topic_id);
        let partitions = topic.partitions.iter().map(|news| {
            let index = news.partition_index;
            let old = known
                .as_ref()
                .and_then(|known| known.partitions.get(&index));
            (index, newer(old, news))
        });
        let topic = Topic {
            id: topic.topic_id,
            is_internal: topic.is_internal,
            partitions: partitions.collect(),
            learnt: now,
        };
        self.topics.insert(name, topic);
    }

    /// Who leads the partition. `since` is when the caller began to look: news from then on is not asked for again.
    pub(super) fn leader(
        &self,
        place: &TopicPartition,
        now: Instant,
        max_age: Duration,
        since: Option<Instant>,
    ) -> Lookup {
        let Some(topic) = self.topics.get(&place.topic) else {
            return Lookup::Ask;
        };
        let is_fresh = since.is_some_and(|since| topic.learnt >= since);
        if !is_fresh && now.since(topic.learnt) > max_age {
            return Lookup::Ask;
        }
        match topic.partitions.get(&place.partition) {
            Some(Partition {
                is_denied: true, ..
            }) => Lookup::Ask,
            Some(Partition {
                leader: Some(node),
                epoch,
                ..
            }) if self.brokers.contains_key(node) => Lookup::Known(Leader {
                node: *node,
                epoch: *epoch,
            }),
            Some(_) if is_fresh => Lookup::NoLeader,
            None if is_fresh => Lookup::NoSuchPartition,
            Some(_) | None => Lookup::Ask,
        }
    }

    /// A broker denied to lead the partition at the epoch it was asked with. `current` is what it said instead.
    pub(super) fn deny(&mut self, place: &TopicPartition, asked: Leader, current: Option<Leader>) {
        let Some(topic) = self.topics.get_mut(&place.topic) else {
            return;
        };
        let Some(partition) = topic.partitions.get_mut(&place.partition) else {
            return;
        };
        let is_old_news = partition.epoch > asked.epoch || partition.leader != Some(asked.node);
        match current {
            Some(current)
                if current.epoch > partition.epoch && self.brokers.contains_key(&current.node) =>
            {
                *partition = Partition {
                    leader: Some(current.node),
                    epoch: current.epoch,
                    is_denied: false,
                };
            }
            _ if is_old_news => {}
            _ => partition.is_denied = true,
        }
    }

    /// Brokers that an answer names beside the leaders it hints at (KIP-951).
    pub(super) fn learn_endpoints(
        &mut self,
        endpoints: impl Iterator<Item = (NodeId, String, i32)>,
    ) {
        for (node, host, port) in endpoints {
            if let Ok(port) = u16::try_from(port) {
                self.brokers.insert(node, Address { host, port });
            }
        }
    }

    /// The broker could not be reached: what it led may have moved.
    pub(super) fn deny_all_of(&mut self, node: NodeId) {
        let partitions = self
            .topics
            .values_mut()
            .flat_map(|topic| topic.partitions.values_mut());
        partitions
            .filter(|partition| partition.leader == Some(node))
            .for_each(|partition| partition.is_denied = true);
    }

    pub(super) fn address(&self, node: NodeId) -> Option<&Address> {
        self.brokers.get(&node)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.brokers.keys().copied()
    }

    pub(super) fn controller(&self) -> Option<NodeId> {
        self.controller
            .filter(|node| self.brokers.contains_key(node))
    }

    /// The name of the topic with this id.
    pub(super) fn name_of(&self, id: TopicId) -> Option<TopicName> {
        let mut topics = self.topics.iter();
        let found = topics.find(|(_, topic)| topic.id == id);
        found.map(|(name, _)| name.clone())
    }

    /// The id of the topic.
    pub(super) fn id_of(&self, name: &TopicName) -> Option<TopicId> {
        self.topics.get(name).map(|topic| topic.id)
    }

    /// Forgets the topic, so that it is asked for again.
    pub(super) fn forget(&mut self, topic: &TopicName) {
        self.topics.remove(topic);
    }

    /// The topic, if it was learnt at or after `since`.
    pub(super) fn topic(&self, name: &TopicName, since: Instant) -> Option<TopicMetadata> {
        let topic = self
            .topics
            .get(name)
            .filter(|topic| topic.learnt >= since)?;
        Some(TopicMetadata {
            name: name.clone(),
            id: topic.id,
            partitions_count: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            is_internal: topic.is_internal,
        })
    }
}

/// The partition after the news, which may be older than what is known.
fn newer(old: Option<&Partition>, news: &MetadataResponsePartition) -> Partition {
    let new = Partition {
        leader: (news.leader_id >= 0).then_some(news.leader_id),
        epoch: news.leader_epoch,
        is_denied: false,
    };
    match old {
        Some(old) if old.epoch > new.epoch && new.epoch >= 0 && !old.is_denied => *old,
        _ => new,
    }
}
