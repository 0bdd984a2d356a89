//! Fetch: split by leader, each part parked at its broker on a connection of its own.
//!
//! There are no fetch sessions (KIP-227): readers ask for few partitions, and naming them costs less than a session.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::cluster::{Cluster, Plan, Target};
use super::epochs::Doubt;
use super::judge::{Next, Repeat, error_of, judge, refused};
use super::metadata::{Leader, NodeId};
use crate::client::ClientError;
use crate::protocol::batch::Batches;
use crate::protocol::messages::{
    AbortedTransaction, FetchPartition, FetchRequest, FetchedPartition, FetchedRecords,
};
use crate::protocol::wire::messages::{fetch as wire, offset_for_leader_epoch as ends};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{Isolation, Offset, ProducerId, TopicId, TopicName, TopicPartition};

/// With several leaders none of them is left waiting longer than this, because one may have records while another has none.
const SHARED_WAIT_MAX: Duration = Duration::from_millis(200);
/// Who asks, as the protocol names readers.
const CONSUMER: i32 = -1;
/// Longest search for a partition that nobody leads or knows before the reader is told.
const MISSING_PATIENCE: Duration = Duration::from_secs(5);

/// The partitions that one broker leads.
type Parts = BTreeMap<NodeId, Vec<(FetchPartition, Leader)>>;

/// Result of one broker's part.
#[derive(Default)]
struct Part {
    fetched: Vec<FetchedPartition>,
    /// Partitions that another broker may answer for, and the error.
    failed: Vec<(TopicPartition, ClientError)>,
}

impl Cluster {
    /// Reads; leaders that moved are found again meanwhile. Partitions without an answer are left out.
    pub(super) async fn fetch(
        &self,
        request: FetchRequest,
    ) -> Result<Vec<FetchedPartition>, ClientError> {
        let began = self.now();
        let mut backoff = self.backoff();
        loop {
            let (parts, mut failed) = self.split(&request).await;
            let left = request.max_wait.saturating_sub(self.now().since(began));
            let part = self.fetch_parts(&request, parts, left).await;
            failed.extend(part.failed);
            let is_over = self.now().since(began) >= request.max_wait;
            let has_records = part.fetched.iter().any(has_something);
            let is_hopeless =
                |(_, error): &(_, ClientError)| judge(error, Repeat::Always) == Next::GiveUp;
            if let Some(at) = failed.iter().position(is_hopeless) {
                let (place, error) = failed.swap_remove(at);
                return failure(place, error);
            }
            if has_records || (is_over && failed.is_empty()) {
                return Ok(part.fetched);
            }
            let Some((place, error)) = failed.into_iter().next() else {
                continue;
            };
            let waited = self.now().since(began);
            match judge(&error, Repeat::Always) {
                Next::Again if waited < self.settings.default_api_timeout => {}
                Next::AgainForAWhile if waited < MISSING_PATIENCE => {}
                _ => return failure(place, error),
            }
            self.pause(&mut backoff).await;
        }
    }

    /// Who is to be asked for what.
    async fn split(&self, request: &FetchRequest) -> (Parts, Vec<(TopicPartition, ClientError)>) {
        let (mut parts, mut failed) = (Parts::new(), Vec::new());
        for wanted in &request.partitions {
            match self.leader(&wanted.partition).await {
                Ok(leader) => {
                    let part = parts.entry(leader.node).or_default();
                    part.push((wanted.clone(), leader));
                }
                Err(error) => failed.push((wanted.partition.clone(), error)),
            }
        }
        (parts, failed)
    }

    /// Asks every leader; the first that has something ends the wait.
    async fn fetch_parts(&self, request: &FetchRequest, parts: Parts, wait: Duration) -> Part {
        let wait = match parts.len() {
            0 | 1 => wait,
            _ => wait.min(SHARED_WAIT_MAX),
        };
        let asked = parts
            .into_iter()
            .map(|(node, wanted)| self.fetch_part(request, node, wanted, wait));
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut all = Part::default();
        while let Some(part) = asked.next().await {
            all.fetched.extend(part.fetched);
            all.failed.extend(part.failed);
            if all.fetched.iter().any(has_something) {
                break;
            }
        }
        all
    }

    async fn fetch_part(
        &self,
        request: &FetchRequest,
        node: NodeId,
        wanted: Vec<(FetchPartition, Leader)>,
        wait: Duration,
    ) -> Part {
        let (wanted, mut doubted) = self.without_truncated(node, wanted).await;
        if wanted.is_empty() {
            return doubted;
        }
        let plan = Plan::new(Target::Node(node)).parked(wait);
        let message = self.message(request, &wanted, wait);
        match self.attempt(&plan, &message).await {
            Ok(answer) => {
                let part = self.take_fetched(answer, &wanted);
                doubted.fetched.extend(part.fetched);
                doubted.failed.extend(part.failed);
                doubted
            }
            Err(error) => {
                let failed = wanted.into_iter().map(|(wanted, leader)| {
                    self.deny(&wanted.partition, leader, None);
                    (wanted.partition, error.clone())
                });
                doubted.failed.extend(failed);
                doubted
            }
        }
    }

    /// Leaves out what a new leader does not have any more (KIP-320).
    async fn without_truncated(
        &self,
        node: NodeId,
        wanted: Vec<(FetchPartition, Leader)>,
    ) -> (Vec<(FetchPartition, Leader)>, Part) {
        let (mut sound, mut part) = (Vec::with_capacity(wanted.len()), Part::default());
        for (wanted, leader) in wanted {
            let (place, offset) = (&wanted.partition, wanted.offset);
            let topic = self.topic_id(&place.topic);
            let checked = match self.epochs.doubt(place, offset, leader.epoch, topic) {
                None => Ok(()),
                Some(Doubt::EndOf(epoch)) => {
                    self.check_position(node, &wanted, leader, epoch).await
                }
                Some(Doubt::Recreated) => Err(ClientError::TopicRecreated {
                    partition: place.clone(),
                    position: offset,
                }),
            };
            match checked {
                Ok(()) => sound.push((wanted, leader)),
                Err(error) => {
                    if error.kind() == ErrorKind::Fatal {
                        self.epochs.forget(place, offset);
                    }
                    part.failed.push((wanted.partition, error));
                }
            }
        }
        (sound, part)
    }

    /// Asks the leader where the epoch of the record before the position ends.
    async fn check_position(
        &self,
        node: NodeId,
        wanted: &FetchPartition,
        leader: Leader,
        epoch: i32,
    ) -> Result<(), ClientError> {
        let place = &wanted.partition;
        let message = ends::OffsetForLeaderEpochRequest {
            replica_id: CONSUMER,
            topics: vec![ends::OffsetForLeaderTopic {
                topic: place.topic.to_string(),
                partitions: vec![ends::OffsetForLeaderPartition {
                    partition: place.partition,
                    current_leader_epoch: leader.epoch,
                    leader_epoch: epoch,
                }],
            }],
        };
        let plan = Plan::new(Target::Node(node)).about(place);
        let asked = self.attempt(&plan, &message).await;
        let answer = asked.inspect_err(|_| self.deny(place, leader, None))?;
        let mut ends = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        let end = ends.next().unwrap_or_default();
        if let Some(code) = error_of(end.error_code) {
            self.deny(place, leader, None);
            let name = "OffsetForLeaderEpoch";
            return Err(refused(name, code, &place.to_string(), None));
        }
        if end.leader_epoch < 0 || end.end_offset < wanted.offset.0 {
            return Err(ClientError::LogTruncated {
                partition: place.clone(),
                position: wanted.offset,
                end_offset: (end.end_offset >= 0).then_some(Offset(end.end_offset)),
            });
        }
        self.epochs.confirm(place, wanted.offset, leader.epoch);
        Ok(())
    }

    fn topic_id(&self, topic: &TopicName) -> TopicId {
        self.metadata(|metadata| metadata.id_of(topic))
            .unwrap_or_default()
    }

    fn message(
        &self,
        request: &FetchRequest,
        wanted: &[(FetchPartition, Leader)],
        wait: Duration,
    ) -> wire::FetchRequest {
        let mut topics: BTreeMap<&TopicName, Vec<wire::FetchPartition>> = BTreeMap::new();
        for (wanted, leader) in wanted {
            let partitions = topics.entry(&wanted.partition.topic).or_default();
            partitions.push(wire::FetchPartition {
                partition: wanted.partition.partition,
                current_leader_epoch: leader.epoch,
                fetch_offset: wanted.offset.0,
                partition_max_bytes: bytes(wanted.max_bytes),
                ..wire::FetchPartition::default()
            });
        }
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| wire::FetchTopic {
                topic: topic.to_string(),
                topic_id: self.topic_id(topic),
                partitions,
            });
        wire::FetchRequest {
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: bytes(request.min_bytes),
            max_bytes: bytes(request.max_bytes),
            isolation_level: isolation_level(request.isolation),
            topics: topics.collect(),
            ..wire::FetchRequest::default()
        }
    }

    fn take_fetched(
        &self,
        answer: wire::FetchResponse,
        wanted: &[(FetchPartition, Leader)],
    ) -> Part {
        let mut part = Part::default();
        let whole = error_of(answer.error_code);
        if let Some(code) = whole {
            let error = refused("Fetch", code, "", None);
            let places = wanted.iter().map(|(wanted, _)| wanted.partition.clone());
            part.failed
                .extend(places.map(|place| (place, error.clone())));
            return part;
        }
        let endpoints = answer.node_endpoints.into_iter();
        let endpoints = endpoints.map(|node| (node.node_id, node.host, node.port));
        self.metadata(|metadata| metadata.learn_endpoints(endpoints));
        for topic in answer.responses {
            // From version 13 on topics go by their ids.
            let name = match topic.topic.as_str() {
                "" => self.metadata(|metadata| metadata.name_of(topic.topic_id)),
                name => TopicName::new(name).ok(),
            };
            let Some(name) = name else {
                continue;
            };
            for data in topic.partitions {
                let place = TopicPartition::new(name.clone(), data.partition_index);
                let asked = wanted.iter().find(|(wanted, _)| wanted.partition == place);
                if let Some((_, leader)) = asked {
                    self.take_partition(place, *leader, data, &mut part);
                }
            }
        }
        part
    }

    fn take_partition(
        &self,
        place: TopicPartition,
        leader: Leader,
        mut data: wire::PartitionData,
        part: &mut Part,
    ) {
        let Some(code) = error_of(data.error_code) else {
            let batches = std::mem::take(&mut data.records).into_bytes();
            let result = match is_intact(&batches) {
                true => {
                    let topic = self.topic_id(&place.topic);
                    self.epochs.note(&place, &batches, leader.epoch, topic);
                    Ok(fetched(batches, data))
                }
                false => Err(ErrorCode::CorruptMessage),
            };
            part.fetched.push(FetchedPartition {
                partition: place,
                result,
            });
            return;
        };
        let error = refused("Fetch", code, &place.to_string(), None);
        let is_denied = code == ErrorCode::TopicAuthorizationFailed;
        if judge(&error, Repeat::Always) == Next::GiveUp && !is_denied {
            part.fetched.push(FetchedPartition {
                partition: place,
                result: Err(code),
            });
            return;
        }
        let current = Leader {
            node: data.current_leader.leader_id,
            epoch: data.current_leader.leader_epoch,
        };
        self.deny(&place, leader, (current.node >= 0).then_some(current));
        part.failed.push((place, error));
    }
}

/// Whether every checksum fits. Kafka does not look at them when it reads, and neither TCP nor a disk is to be trusted.
fn is_intact(records: &Bytes) -> bool {
    let batches = Batches::new(records.clone()).map_while(Result::ok);
    batches
        .map(|batch| batch.check_crc())
        .all(|crc| crc.is_ok())
}

/// Whether the wait is over: there are records, or an error that waiting does not mend.
fn has_something(fetched: &FetchedPartition) -> bool {
    fetched
        .result
        .as_ref()
        .map_or(true, |records| !records.records.is_empty())
}

/// An error of a partition is told as such where it has Kafka's number.
fn failure(
    place: TopicPartition,
    error: ClientError,
) -> Result<Vec<FetchedPartition>, ClientError> {
    match error.code() {
        Some(code @ ErrorCode::UnknownTopicOrPartition) => Ok(vec![FetchedPartition {
            partition: place,
            result: Err(code),
        }]),
        _ => Err(error),
    }
}

fn bytes(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn isolation_level(isolation: Isolation) -> i8 {
    match isolation {
        Isolation::ReadUncommitted => 0,
        Isolation::ReadCommitted => 1,
    }
}

fn fetched(records: Bytes, data: wire::PartitionData) -> FetchedRecords {
    let aborted = data.aborted_transactions.unwrap_or_default();
    let aborted = aborted.into_iter().map(|transaction| AbortedTransaction {
        producer_id: ProducerId(transaction.producer_id),
        first_offset: Offset(transaction.first_offset),
    });
    // Brokers leave the last stable offset out for readers that don't stop there.
    let last_stable_offset = match data.last_stable_offset {
        ..0 => data.high_watermark,
        offset => offset,
    };
    FetchedRecords {
        records,
        aborted_transactions: aborted.collect(),
        high_watermark: Offset(data.high_watermark),
        last_stable_offset: Offset(last_stable_offset),
        log_start_offset: Offset(data.log_start_offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch::{BatchBuilder, BatchProducer, Compression};
    use crate::types::Timestamp;

    #[test]
    fn a_bit_that_flipped_on_the_way_is_noticed() {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(Timestamp(1), None, Some(b"value"));
        let mut bytes = builder.finish(BatchProducer::Plain);
        let cut_off = bytes[..bytes.len() - 1].to_vec();
        assert!(is_intact(&bytes.clone().freeze()));
        assert!(
            is_intact(&Bytes::from(cut_off)),
            "what is not whole is fetched again"
        );
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(!is_intact(&bytes.freeze()));
    }
}
