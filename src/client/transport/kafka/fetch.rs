//! Fetch: split by leader, each part parked at its broker on a connection of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::cluster::{Cluster, Plan, Target};
use super::judge::{Next, Repeat, error_of, judge, refused};
use super::metadata::{Leader, NodeId};
use crate::client::ClientError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    AbortedTransaction, FetchPartition, FetchRequest, FetchedPartition, FetchedRecords,
};
use crate::protocol::wire::messages::fetch as wire;
use crate::types::{Isolation, Offset, ProducerId, TopicName, TopicPartition};

/// With several leaders none of them is left waiting longer than this, because one may have records while another has none.
const SHARED_WAIT_MAX: Duration = Duration::from_millis(200);
/// How long a partition that nobody leads or knows is looked for before the reader is told.
const MISSING_PATIENCE: Duration = Duration::from_secs(5);

/// The partitions that one broker leads.
type Parts = BTreeMap<NodeId, Vec<(FetchPartition, Leader)>>;

/// What one broker's part came to.
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
                // The others are served; this one's reader hears of it when nothing else comes.
                _ if has_records => return Ok(part.fetched),
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
        let mut all = Part {
            fetched: Vec::new(),
            failed: Vec::new(),
        };
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
        let plan = Plan::new(Target::Node(node)).parked(wait);
        let message = message(request, &wanted, wait);
        match self.attempt(&plan, &message).await {
            Ok(answer) => self.take_fetched(answer, &wanted),
            Err(error) => {
                let failed = wanted.into_iter().map(|(wanted, leader)| {
                    self.deny(&wanted.partition, leader, None);
                    (wanted.partition, error.clone())
                });
                Part {
                    fetched: Vec::new(),
                    failed: failed.collect(),
                }
            }
        }
    }

    fn take_fetched(
        &self,
        answer: wire::FetchResponse,
        wanted: &[(FetchPartition, Leader)],
    ) -> Part {
        let mut part = Part {
            fetched: Vec::new(),
            failed: Vec::new(),
        };
        let whole = error_of(answer.error_code);
        if let Some(code) = whole {
            let error = refused("Fetch", code, "", None);
            let places = wanted.iter().map(|(wanted, _)| wanted.partition.clone());
            part.failed
                .extend(places.map(|place| (place, error.clone())));
            return part;
        }
        for topic in answer.responses {
            let Ok(name) = TopicName::new(&topic.topic) else {
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
        data: wire::PartitionData,
        part: &mut Part,
    ) {
        let Some(code) = error_of(data.error_code) else {
            part.fetched.push(FetchedPartition {
                partition: place,
                result: Ok(records(data)),
            });
            return;
        };
        let error = refused("Fetch", code, &place.to_string(), None);
        if judge(&error, Repeat::Always) == Next::GiveUp {
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

fn message(
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
            partitions,
            ..wire::FetchTopic::default()
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

fn bytes(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn isolation_level(isolation: Isolation) -> i8 {
    match isolation {
        Isolation::ReadUncommitted => 0,
        Isolation::ReadCommitted => 1,
    }
}

fn records(data: wire::PartitionData) -> FetchedRecords {
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
        records: data.records,
        aborted_transactions: aborted.collect(),
        high_watermark: Offset(data.high_watermark),
        last_stable_offset: Offset(last_stable_offset),
        log_start_offset: Offset(data.log_start_offset),
    }
}
