//! Facts of a topic that clients need before they write to it.

use super::{ClientError, Transport};
use crate::protocol::ErrorCode;
use crate::types::TopicName;

/// Kafka's default of `max.message.bytes`: 1 MiB and a batch header's twelve bytes before its length.
const MAX_MESSAGE_BYTES_DEFAULT: usize = 1_048_588;

/// Returns the partitions of `topic`.
pub(super) async fn partitions_count(
    transport: &dyn Transport,
    topic: &TopicName,
) -> Result<i32, ClientError> {
    match transport.topic(topic).await? {
        Some(metadata) => Ok(metadata.partitions_count),
        None => Err(unknown_topic(topic)),
    }
}

/// The largest batch that `topic` takes, in bytes: a batch must fit into a segment too.
pub(super) async fn max_message_bytes(
    transport: &dyn Transport,
    topic: &TopicName,
) -> Result<usize, ClientError> {
    let configs = transport.describe_configs(topic).await?;
    let limits = configs
        .iter()
        .filter(|entry| ["max.message.bytes", "segment.bytes"].contains(&entry.name.as_str()))
        .filter_map(|entry| entry.value.parse().ok());
    Ok(limits.min().unwrap_or(MAX_MESSAGE_BYTES_DEFAULT))
}

pub(super) fn unknown_topic(topic: &TopicName) -> ClientError {
    ClientError::Refused {
        request: "Metadata",
        code: ErrorCode::UnknownTopicOrPartition,
        kind: ErrorCode::UnknownTopicOrPartition.kind(),
        message: format!(
            "there is no topic {topic}: create it first, for example with `onceflow topic create {topic}`"
        ),
    }
}
