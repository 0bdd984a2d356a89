//! The answers to Kafka's requests, from the broker. One file a family of requests.
//!
//! A handler turns a message of the wire into calls of [`Broker`](crate::broker::Broker), and what they return into
//! the message that answers it, for every version at once: the codec leaves out what a version lacks. Each part of a
//! request is answered by itself, with Kafka's code; what a client may not see, it is not told.

pub(super) mod acls;
pub(super) mod api_versions;
mod broker_settings;
pub(super) mod cluster;
mod config_types;
pub(super) mod configs;
pub(super) mod consumer_groups;
pub(super) mod fetch;
mod fetch_session;
pub(super) mod groups;
pub(super) mod log_dirs;
pub(super) mod metadata;
pub(super) mod offsets;
pub(super) mod positions;
pub(super) mod produce;
#[cfg(test)]
mod tests;
pub(super) mod topics;
pub(super) mod transactions;
pub(super) mod txn_markers;
pub(super) mod users;

pub(super) use config_types::broker_synonym;
pub(super) use fetch_session::FetchSessions;

use super::dispatch::Call;
use super::security::{Operation, Resource};
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::TopicMetadata;
use crate::types::{GroupId, TopicId, TopicName, TopicPartition};

/// The number of the only broker.
const NODE_ID: i32 = 0;
/// Kafka's number for "no error".
const NONE: i16 = 0;

/// Kafka's number of a result.
fn code<T, E: Into<ErrorCode> + Copy>(result: &Result<T, E>) -> i16 {
    match result {
        Ok(_) => NONE,
        Err(error) => (*error).into().code(),
    }
}

/// Kafka's number of a broker's result, which is logged if it is an error.
fn broker_code<T>(result: &Result<T, BrokerError>) -> i16 {
    match result {
        Ok(_) => NONE,
        Err(error) => {
            tracing::debug!(%error, "request refused");
            error.code.code()
        }
    }
}

/// The message of a result that is an error.
fn message<T>(result: &Result<T, BrokerError>) -> Option<String> {
    result.as_ref().err().map(|error| error.message.clone())
}

fn topic_name(name: &str) -> Result<TopicName, BrokerError> {
    TopicName::new(name).map_err(BrokerError::from)
}

fn group_id(name: &str) -> Result<GroupId, BrokerError> {
    GroupId::new(name)
        .map_err(|error| BrokerError::new(ErrorCode::InvalidGroupId, error.to_string()))
}

impl Call<'_> {
    /// # Errors
    /// `TopicAuthorizationFailed`.
    fn allow_topic(&self, operation: Operation, topic: &str) -> Result<(), BrokerError> {
        self.allow(
            operation,
            Resource::Topic(topic),
            ErrorCode::TopicAuthorizationFailed,
        )
    }

    /// # Errors
    /// `GroupAuthorizationFailed`.
    fn allow_group(&self, operation: Operation, group: &str) -> Result<(), BrokerError> {
        self.allow(
            operation,
            Resource::Group(group),
            ErrorCode::GroupAuthorizationFailed,
        )
    }

    /// # Errors
    /// `TransactionalIdAuthorizationFailed`.
    fn allow_transactions(&self, operation: Operation, id: &str) -> Result<(), BrokerError> {
        let code = ErrorCode::TransactionalIdAuthorizationFailed;
        self.allow(operation, Resource::TransactionalId(id), code)
    }

    /// # Errors
    /// `ClusterAuthorizationFailed`.
    fn allow_cluster(&self, operation: Operation) -> Result<(), BrokerError> {
        self.allow(
            operation,
            Resource::Cluster,
            ErrorCode::ClusterAuthorizationFailed,
        )
    }

    fn allow(
        &self,
        operation: Operation,
        resource: Resource<'_>,
        code: ErrorCode,
    ) -> Result<(), BrokerError> {
        match self.session.is_allowed(operation, resource) {
            true => Ok(()),
            false => Err(code.into()),
        }
    }

    /// The partition of a topic on which `operation` is allowed, if it may exist.
    fn partition(
        &self,
        operation: Operation,
        topic: &str,
        partition: i32,
    ) -> Result<TopicPartition, BrokerError> {
        self.allow_topic(operation, topic)?;
        Ok(TopicPartition::new(topic_name(topic)?, partition))
    }

    /// Checks what a client takes for the leader's epoch; −1 is no opinion (KIP-320).
    ///
    /// # Errors
    /// `FencedLeaderEpoch`: it knows the broker from before its last start, and must look whether records were lost;
    /// `UnknownLeaderEpoch`; `UnknownTopicOrPartition` rather than these where there is no such partition.
    fn check_leader_epoch(&self, of: &TopicPartition, current: i32) -> Result<(), ErrorCode> {
        let epoch = self.broker().leader_epoch();
        if current < 0 || current == epoch {
            return Ok(());
        }
        let topic = self.topic(of.topic.as_str()).map_err(|it| it.code)?;
        match current < epoch {
            _ if !(0..topic.partitions_count).contains(&of.partition) => {
                Err(ErrorCode::UnknownTopicOrPartition)
            }
            true => Err(ErrorCode::FencedLeaderEpoch),
            false => Err(ErrorCode::UnknownLeaderEpoch),
        }
    }

    /// Returns the client's rights on `resource`, as Kafka's bits: one for each operation that there is on such a thing.
    fn authorized_operations(&self, resource: Resource<'_>) -> i32 {
        let operations = Operation::on(resource.kind()).iter();
        let allowed = operations.filter(|it| self.session.may(**it, resource));
        allowed.fold(0, |bits, it| bits | 1 << it.number())
    }

    /// A topic that exists, by its name.
    fn topic(&self, name: &str) -> Result<TopicMetadata, BrokerError> {
        let name = topic_name(name)?;
        let found = self.broker().topic(&name)?;
        found.ok_or_else(|| ErrorCode::UnknownTopicOrPartition.into())
    }

    /// A topic that exists, by its id.
    fn topic_by_id(&self, id: TopicId) -> Result<TopicMetadata, BrokerError> {
        let found = self.broker().topic_by_id(id)?;
        found.ok_or_else(|| ErrorCode::UnknownTopicId.into())
    }
}

/// Values of partitions by topic, in the order in which they come: those of one topic follow each other.
fn group_by_topic<T>(
    pairs: impl IntoIterator<Item = (TopicPartition, T)>,
) -> Vec<(TopicName, Vec<(i32, T)>)> {
    let mut topics: Vec<(TopicName, Vec<(i32, T)>)> = Vec::new();
    for (partition, value) in pairs {
        match topics.last_mut() {
            Some((topic, values)) if *topic == partition.topic => {
                values.push((partition.partition, value));
            }
            _ => topics.push((partition.topic, vec![(partition.partition, value)])),
        }
    }
    topics
}
