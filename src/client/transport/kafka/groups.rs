//! Groups' positions, and what is known of groups and transactional ids.

use std::time::Duration;

use super::cluster::{Cluster, CoordinatorKind, Plan, Target};
use super::topics::by_topic;
use crate::broker::{GroupDescription, MemberDescription};
use crate::client::ClientError;
use crate::client::transport::FetchedOffset;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{ClientIdentity, DescribedMember, GroupState, GroupType};
use crate::protocol::messages::{
    CommittedOffset, InitProducerIdRequest, OffsetCommitRequest, OffsetFetchRequest,
    TransactionDescription, TransactionState,
};
use crate::protocol::wire::messages as wire;
use crate::types::{
    GroupId, Offset, ProducerEpoch, ProducerId, Timestamp, TopicName, TopicPartition,
    TransactionalId,
};

/// The timeout that an operator's abort leaves with the transactional id; its next holder sets its own.
const ABORT_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn coordinator(group: &GroupId) -> Plan {
    let target = Target::Coordinator(CoordinatorKind::Group, group.as_str().to_owned());
    Plan::new(target).about(format_args!("group {}", group.as_str()))
}

impl Cluster {
    pub(super) async fn offset_commit(
        &self,
        request: OffsetCommitRequest,
    ) -> Result<(), ClientError> {
        use wire::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
        let topics = by_topic(
            request
                .offsets
                .iter()
                .map(|(place, committed)| (place, committed)),
        );
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| OffsetCommitRequestTopic {
                name: topic.to_string(),
                partitions: partitions
                    .into_iter()
                    .map(|(partition, committed)| OffsetCommitRequestPartition {
                        partition_index: partition,
                        committed_offset: committed.offset.0,
                        committed_leader_epoch: committed.leader_epoch,
                        committed_metadata: Some(committed.metadata.clone()),
                    })
                    .collect(),
            });
        let message = wire::offset_commit::OffsetCommitRequest {
            group_id: request.group.as_str().to_owned(),
            generation_id_or_member_epoch: request.member.generation,
            member_id: request.member.member_id,
            group_instance_id: request.member.group_instance_id,
            topics: topics.collect(),
            ..wire::offset_commit::OffsetCommitRequest::default()
        };
        self.call(&coordinator(&request.group), &message)
            .await
            .map(drop)
    }

    /// Reads positions. Those that an undecided transaction holds are waited for: it ends, or times out (C27).
    pub(super) async fn offset_fetch(
        &self,
        request: OffsetFetchRequest,
    ) -> Result<Vec<FetchedOffset>, ClientError> {
        let message = offset_fetch_message(&request);
        let (began, mut backoff) = (self.now(), self.backoff());
        loop {
            let answer = self.call(&coordinator(&request.group), &message).await;
            let is_unstable = answer
                .as_ref()
                .is_err_and(|e| e.code() == Some(ErrorCode::UnstableOffsetCommit));
            if !is_unstable || self.now().since(began) >= self.settings.default_api_timeout {
                return Ok(positions(answer?));
            }
            self.pause(&mut backoff).await;
        }
    }

    pub(super) async fn describe_group(
        &self,
        group: &GroupId,
    ) -> Result<GroupDescription, ClientError> {
        let request = OffsetFetchRequest {
            group: group.clone(),
            partitions: None,
            require_stable: false,
        };
        let mut description = match self.describe_consumers(group).await {
            Err(e) if is_of_the_other_protocol(&e) => self.describe_classic(group).await?,
            described => described?,
        };
        // Kafka tells nobody of positions that are pending.
        let offsets = self.offset_fetch(request).await?.into_iter();
        let offsets = offsets.filter_map(|(place, committed)| Some((place, committed?)));
        description.offsets = offsets.collect();
        Ok(description)
    }

    async fn describe_consumers(&self, group: &GroupId) -> Result<GroupDescription, ClientError> {
        let request = wire::consumer_group_describe::ConsumerGroupDescribeRequest {
            group_ids: vec![group.as_str().to_owned()],
            ..Default::default()
        };
        let answer = self.call(&coordinator(group), &request).await?;
        let found = answer.groups.into_iter().next();
        let found = found.ok_or_else(|| no_such_group("ConsumerGroupDescribe"))?;
        let members = found.members.into_iter().map(|member| {
            let topics = member.assignment.topic_partitions.into_iter();
            let assignment = topics.filter_map(|topic| {
                let name = TopicName::new(&topic.topic_name).ok()?;
                let partitions = topic.partitions.into_iter();
                Some(partitions.map(move |it| TopicPartition::new(name.clone(), it)))
            });
            MemberDescription {
                member_id: member.member_id,
                instance_id: member.instance_id,
                client: ClientIdentity {
                    client_id: member.client_id,
                    client_host: member.client_host,
                },
                assignment: Some(assignment.flatten().collect()),
            }
        });
        let (members, state) = (members.collect(), found.group_state);
        let group_type = GroupType::Consumer;
        Ok(GroupDescription::new(
            group.clone(),
            group_type,
            state,
            members,
        ))
    }

    async fn describe_classic(&self, group: &GroupId) -> Result<GroupDescription, ClientError> {
        let request = wire::describe_groups::DescribeGroupsRequest {
            groups: vec![group.as_str().to_owned()],
            ..Default::default()
        };
        let answer = self.call(&coordinator(group), &request).await?;
        let found = answer.groups.into_iter().next();
        let found = found.ok_or_else(|| no_such_group("DescribeGroups"))?;
        if found.group_state == GroupState::Dead.name() {
            return Err(no_such_group("DescribeGroups"));
        }
        let members = found.members.into_iter().map(|member| {
            let described = DescribedMember {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                client: ClientIdentity {
                    client_id: member.client_id,
                    client_host: member.client_host,
                },
                metadata: member.member_metadata,
                assignment: member.member_assignment,
            };
            MemberDescription::of_classic(described, &found.protocol_type)
        });
        let (members, state) = (members.collect(), found.group_state);
        let group_type = GroupType::Classic;
        Ok(GroupDescription::new(
            group.clone(),
            group_type,
            state,
            members,
        ))
    }

    pub(super) async fn list_groups(&self) -> Result<Vec<GroupId>, ClientError> {
        let mut groups = Vec::new();
        for node in self.all_nodes().await? {
            let plan = Plan::new(Target::Node(node));
            let request = wire::list_groups::ListGroupsRequest::default();
            let answer = self.call(&plan, &request).await?;
            let ids = answer
                .groups
                .iter()
                .filter_map(|group| GroupId::new(&group.group_id).ok());
            groups.extend(ids);
        }
        groups.sort();
        groups.dedup();
        Ok(groups)
    }

    async fn all_nodes(&self) -> Result<Vec<super::metadata::NodeId>, ClientError> {
        self.ask_metadata(Some(Vec::new())).await?;
        Ok(self.metadata(|metadata| metadata.nodes().collect()))
    }

    pub(super) async fn delete_group(&self, group: &GroupId) -> Result<(), ClientError> {
        let request = wire::delete_groups::DeleteGroupsRequest {
            groups_names: vec![group.as_str().to_owned()],
        };
        self.call(&coordinator(group).once(), &request)
            .await
            .map(drop)
    }

    /// The transactions of these producers, or of all if there are none.
    pub(super) async fn list_transactions(
        &self,
        producers: Vec<i64>,
    ) -> Result<Vec<TransactionDescription>, ClientError> {
        let mut found = Vec::new();
        for node in self.all_nodes().await? {
            let plan = Plan::new(Target::Node(node));
            let request = wire::list_transactions::ListTransactionsRequest {
                producer_id_filters: producers.clone(),
                ..Default::default()
            };
            let answer = self.call(&plan, &request).await?;
            for listed in answer.transaction_states {
                let Ok(id) = TransactionalId::new(&listed.transactional_id) else {
                    continue;
                };
                match self.describe_transaction(&id).await {
                    Ok(description) => found.push(description),
                    // It ended its life since it was listed.
                    Err(e) if e.code() == Some(ErrorCode::TransactionalIdNotFound) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        found.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        Ok(found)
    }

    pub(super) async fn describe_transaction(
        &self,
        id: &TransactionalId,
    ) -> Result<TransactionDescription, ClientError> {
        let target = Target::Coordinator(CoordinatorKind::Transaction, id.as_str().to_owned());
        let plan = Plan::new(target).about(format_args!("transactional id {}", id.as_str()));
        let request = wire::describe_transactions::DescribeTransactionsRequest {
            transactional_ids: vec![id.as_str().to_owned()],
        };
        let answer = self.call(&plan, &request).await?;
        let found = answer.transaction_states.into_iter().next();
        let found = found.ok_or_else(|| {
            ClientError::refused("DescribeTransactions", ErrorCode::TransactionalIdNotFound)
        })?;
        let partitions = found.topics.iter().flat_map(|topic| {
            let name = TopicName::new(&topic.topic).ok();
            let partitions = topic.partitions.iter();
            partitions
                .filter_map(move |partition| Some(TopicPartition::new(name.clone()?, *partition)))
        });
        Ok(TransactionDescription {
            transactional_id: id.clone(),
            producer_id: ProducerId(found.producer_id),
            producer_epoch: ProducerEpoch(found.producer_epoch),
            state: state(&found.transaction_state),
            timeout: Duration::from_millis(
                u64::try_from(found.transaction_timeout_ms).unwrap_or(0),
            ),
            start: Timestamp(found.transaction_start_time_ms),
            partitions: partitions.collect(),
        })
    }

    /// Takes the id over, which aborts what is open and fences its holder.
    pub(super) async fn abort_transaction(&self, id: &TransactionalId) -> Result<(), ClientError> {
        self.describe_transaction(id).await?;
        let request = InitProducerIdRequest {
            transactional_id: Some(id.clone()),
            transaction_timeout: ABORT_TIMEOUT,
            current: None,
        };
        let (began, mut backoff) = (self.now(), self.backoff());
        loop {
            let answer = self.init_producer_id(request.clone()).await;
            let is_busy = answer
                .as_ref()
                .is_err_and(|e| e.code() == Some(ErrorCode::ConcurrentTransactions));
            if !is_busy || self.now().since(began) >= self.settings.default_api_timeout {
                return answer.map(drop);
            }
            self.pause(&mut backoff).await;
        }
    }
}

/// Whether the group has, or had, members of the classic protocol; or there is none.
fn is_of_the_other_protocol(error: &ClientError) -> bool {
    let other = [ErrorCode::GroupIdNotFound, ErrorCode::UnsupportedVersion];
    error.code().is_some_and(|code| other.contains(&code))
}

fn no_such_group(request: &'static str) -> ClientError {
    ClientError::refused(request, ErrorCode::GroupIdNotFound)
}

/// Kafka's names of the states, as it writes them.
fn state(name: &str) -> TransactionState {
    match name {
        "Ongoing" => TransactionState::Ongoing,
        "PrepareCommit" => TransactionState::PrepareCommit,
        "PrepareAbort" => TransactionState::PrepareAbort,
        "CompleteCommit" => TransactionState::CompleteCommit,
        "CompleteAbort" => TransactionState::CompleteAbort,
        "Dead" => TransactionState::Dead,
        "PrepareEpochFence" => TransactionState::PrepareEpochFence,
        _ => TransactionState::Empty,
    }
}

/// The question in the words of the newest version, which every cluster with transactions v2 speaks.
fn offset_fetch_message(request: &OffsetFetchRequest) -> wire::offset_fetch::OffsetFetchRequest {
    use wire::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
    let topics = request.partitions.as_ref().map(|partitions| {
        let topics = by_topic(partitions.iter().map(|place| (place, ())));
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| OffsetFetchRequestTopics {
                name: topic.to_string(),
                partition_indexes: partitions
                    .into_iter()
                    .map(|(partition, ())| partition)
                    .collect(),
            });
        topics.collect()
    });
    wire::offset_fetch::OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: request.group.as_str().to_owned(),
            member_id: None,
            member_epoch: -1,
            topics,
        }],
        require_stable: request.require_stable,
        ..wire::offset_fetch::OffsetFetchRequest::default()
    }
}

fn positions(answer: wire::offset_fetch::OffsetFetchResponse) -> Vec<FetchedOffset> {
    let topics = answer.groups.into_iter().flat_map(|group| group.topics);
    let positions = topics.flat_map(|topic| {
        let name = TopicName::new(&topic.name).ok();
        topic.partitions.into_iter().filter_map(move |partition| {
            let place = TopicPartition::new(name.clone()?, partition.partition_index);
            let committed = (partition.committed_offset >= 0).then(|| CommittedOffset {
                offset: Offset(partition.committed_offset),
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata.unwrap_or_default(),
            });
            Some((place, committed))
        })
    });
    positions.collect()
}
