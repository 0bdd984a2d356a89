//! The records of `__consumer_offsets` that hold a classic group's members, in Kafka's schema.
//!
//! ```text
//! key    i16 version = 2 | string group
//! value  i16 version = 3 (0 to 2 are read, too) | string protocol type | i32 generation | string? protocol | string? leader
//!        | i64 state since, ms | [member]
//! member string id | string? instance id | string client id | string client host | i32 rebalance timeout ms
//!        | i32 session timeout ms | bytes subscription | bytes assignment
//! ```
//! `string?` may be null (length −1). Version 0 has no rebalance timeout, 0 and 1 no time, 0 to 2 no instance id.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::offsets_log::GROUP_METADATA_KEY_VERSION;
use super::wire::{Reader, put_bytes, put_nullable_string, put_string};
use super::{CONSUMER_OFFSETS_TOPIC, CoordinatorError};
use crate::protocol::messages::groups::ClientIdentity;
use crate::types::{GroupId, Timestamp, TopicName};

const VALUE_VERSION: i16 = 3;
/// A member without strings and bytes: three lengths of 16 bits, two numbers and two lengths of 32 (version 0 has one number).
const MEMBER_BYTES_MIN: usize = 18;

/// The durable part of a classic group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassicRecord {
    /// The kind of members, empty if there never were any.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The protocol that was chosen; none without members.
    pub protocol: Option<String>,
    /// The leader's member id; none without members.
    pub leader: Option<String>,
    /// Since when, or [`Timestamp::NONE`].
    pub state_since: Timestamp,
    /// The members.
    pub members: Vec<ClassicMemberRecord>,
}

/// A member in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassicMemberRecord {
    /// Its member id.
    pub member_id: String,
    /// Its instance id, if it is static.
    pub instance_id: Option<String>,
    /// Who it is.
    pub client: ClientIdentity,
    /// So long the group waits for it in a rebalance.
    pub rebalance_timeout: Duration,
    /// Without a heartbeat for so long, it is removed.
    pub session_timeout: Duration,
    /// Its words for the protocol that was chosen.
    pub subscription: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

/// The key of a classic group's record.
#[must_use]
pub(crate) fn classic_key(group: &GroupId) -> Bytes {
    let mut to = BytesMut::new();
    to.put_i16(GROUP_METADATA_KEY_VERSION);
    put_string(&mut to, group.as_str());
    to.freeze()
}

impl ClassicRecord {
    /// The value's bytes.
    ///
    /// # Panics
    /// If a string is longer than 32,767 bytes, or a member's bytes than 2 GiB; the coordinator refuses such members.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_i16(VALUE_VERSION);
        put_string(&mut to, &self.protocol_type);
        to.put_i32(self.generation);
        put_nullable_string(&mut to, self.protocol.as_deref());
        put_nullable_string(&mut to, self.leader.as_deref());
        to.put_i64(self.state_since.0);
        to.put_i32(i32::try_from(self.members.len()).unwrap_or(i32::MAX));
        for member in &self.members {
            put_string(&mut to, &member.member_id);
            put_nullable_string(&mut to, member.instance_id.as_deref());
            put_string(&mut to, &member.client.client_id);
            put_string(&mut to, &member.client.client_host);
            to.put_i32(millis(member.rebalance_timeout));
            to.put_i32(millis(member.session_timeout));
            put_bytes(&mut to, &member.subscription);
            put_bytes(&mut to, &member.assignment);
        }
        to.freeze()
    }

    /// Reads a value.
    ///
    /// # Errors
    /// If it is damaged or of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CoordinatorError> {
        let mut reader = Reader::new(CONSUMER_OFFSETS_TOPIC, bytes);
        let version = reader.int16()?;
        if !(0..=VALUE_VERSION).contains(&version) {
            return Err(reader.newer(version, VALUE_VERSION));
        }
        let mut record = Self {
            protocol_type: reader.string()?.to_owned(),
            generation: reader.int32()?,
            protocol: reader.nullable_string()?.map(str::to_owned),
            leader: reader.nullable_string()?.map(str::to_owned),
            state_since: match version {
                2.. => Timestamp(reader.int64()?),
                _ => Timestamp::NONE,
            },
            members: Vec::new(),
        };
        for _ in 0..reader.array(MEMBER_BYTES_MIN)? {
            record.members.push(decode_member(&mut reader, version)?);
        }
        reader.end()?;
        Ok(record)
    }
}

fn decode_member(
    reader: &mut Reader<'_>,
    version: i16,
) -> Result<ClassicMemberRecord, CoordinatorError> {
    let member_id = reader.string()?.to_owned();
    let instance_id = match version {
        3.. => reader.nullable_string()?.map(str::to_owned),
        _ => None,
    };
    let client = ClientIdentity {
        client_id: reader.string()?.to_owned(),
        client_host: reader.string()?.to_owned(),
    };
    let rebalance_timeout = match version {
        1.. => Some(duration(reader.int32()?)),
        _ => None,
    };
    let session_timeout = duration(reader.int32()?);
    Ok(ClassicMemberRecord {
        member_id,
        instance_id,
        client,
        rebalance_timeout: rebalance_timeout.unwrap_or(session_timeout),
        session_timeout,
        subscription: Bytes::copy_from_slice(reader.bytes32()?),
        assignment: Bytes::copy_from_slice(reader.bytes32()?),
    })
}

/// A duration as Kafka's 32-bit milliseconds, the longest one if it is longer.
pub(super) fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// Kafka's milliseconds as a duration; a negative number is none at all.
pub(super) fn duration(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The topics of a classic consumer's subscription (`ConsumerProtocolSubscription`: i16 version, then an array of strings).
///
/// # Errors
/// If the bytes are not a subscription.
pub(crate) fn subscribed_topics(metadata: &[u8]) -> Result<Vec<TopicName>, CoordinatorError> {
    let mut reader = Reader::new(CONSUMER_OFFSETS_TOPIC, metadata);
    reader.int16()?;
    let mut topics = Vec::new();
    for _ in 0..reader.array(size_of::<i16>())? {
        let topic = TopicName::new(reader.string()?);
        topics.push(topic.map_err(|_| reader.corrupt("a topic name is not valid"))?);
    }
    Ok(topics)
}

#[cfg(test)]
mod tests;
