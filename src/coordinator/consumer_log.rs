//! The records of `__consumer_offsets` that hold a group of the consumer protocol (KIP-848), in Kafka's schemas.
//!
//! ```text
//! key    i16 version = 3 to 8, 16 | string group | 5, 7, 8: string member id | 16: string regular expression
//! 3      group            i32 epoch | tag 0: i64 metadata hash (ours: FNV-1a of the subscribed topics)
//! 4      group's topics   passed over (older releases of Kafka)
//! 5      member           string? instance id | string? rack | string client id | string client host | [string] topics
//!                         | string? regex | i32 rebalance timeout ms | string? assignor
//! 6      target           i32 assignment epoch
//! 7      member's target  [partitions]
//! 8      member's current i32 epoch | i32 previous epoch | i8 state | [partitions] owned | [partitions] to be given up
//! 16     topics named by  [string] topics | i64 version of the topics (ours: 0) | i64 when, ms (ours: 0)
//! partitions              uuid topic id | [i32] partitions
//! ```
//! Each value begins with an i16 version 0; its strings and arrays are compact, and tagged fields end it and each element.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::group::{Assignment, MemberState};
use super::membership_log::{duration, millis};
use super::wire::{
    Reader, put_compact_count, put_compact_string, put_nullable_compact_string, put_string,
    put_tagged, put_varint,
};
use super::{CONSUMER_OFFSETS_TOPIC, CoordinatorError};
use crate::protocol::messages::groups::ClientIdentity;
use crate::types::{GroupId, TopicId, TopicName};

/// The last key version of these records.
pub(super) const CONSUMER_KEY_VERSION_MAX: i16 = EXPRESSION_KEY_VERSION;
const CURRENT_KEY_VERSION: i16 = 8;
const EXPRESSION_KEY_VERSION: i16 = 16;

/// Whether the journal may hold keys of this version: those between are of Kafka's share and streams groups.
pub(super) fn is_known_key(version: i16) -> bool {
    (0..=CURRENT_KEY_VERSION).contains(&version) || version == EXPRESSION_KEY_VERSION
}
const VALUE_VERSION: i16 = 0;
const METADATA_HASH_TAG: u32 = 0;
/// A topic id, an empty array, no tagged fields.
const PARTITIONS_BYTES_MIN: usize = 18;

/// Content of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConsumerKey {
    /// The group's epoch.
    Group,
    /// The group's topics, as older releases of Kafka stored them.
    Topics,
    /// A member's subscription.
    Member(String),
    /// The epoch of the target assignment.
    Target,
    /// A member's target assignment.
    TargetMember(String),
    /// A member's assignment.
    Current(String),
    /// The topics that a regular expression of members names.
    Expression(String),
}

impl ConsumerKey {
    /// The key's bytes.
    ///
    /// # Panics
    /// If the member id or expression is longer than 32,767 bytes; the coordinator refuses such members.
    #[must_use]
    pub(crate) fn encode(&self, group: &GroupId) -> Bytes {
        let (version, member) = match self {
            Self::Group => (3, None),
            Self::Topics => (4, None),
            Self::Member(member) => (5, Some(member)),
            Self::Target => (6, None),
            Self::TargetMember(member) => (7, Some(member)),
            Self::Current(member) => (CURRENT_KEY_VERSION, Some(member)),
            Self::Expression(expression) => (EXPRESSION_KEY_VERSION, Some(expression)),
        };
        let mut to = BytesMut::new();
        to.put_i16(version);
        put_string(&mut to, group.as_str());
        if let Some(member) = member {
            put_string(&mut to, member);
        }
        to.freeze()
    }

    /// Reads what follows the group id.
    pub(super) fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, CoordinatorError> {
        let mut member = || reader.string().map(str::to_owned);
        Ok(match version {
            3 => Self::Group,
            4 => Self::Topics,
            5 => Self::Member(member()?),
            6 => Self::Target,
            7 => Self::TargetMember(member()?),
            CURRENT_KEY_VERSION => Self::Current(member()?),
            EXPRESSION_KEY_VERSION => Self::Expression(member()?),
            _ => return Err(reader.newer(version, CONSUMER_KEY_VERSION_MAX)),
        })
    }
}

fn begin() -> BytesMut {
    let mut to = BytesMut::new();
    to.put_i16(VALUE_VERSION);
    to
}

fn finish(mut to: BytesMut) -> Bytes {
    put_varint(&mut to, 0);
    to.freeze()
}

/// Reads one value whole: its version, its fields, and tagged fields that nobody knows.
fn read<T>(
    bytes: &[u8],
    fields: impl FnOnce(&mut Reader<'_>) -> Result<T, CoordinatorError>,
) -> Result<T, CoordinatorError> {
    let mut reader = Reader::new(CONSUMER_OFFSETS_TOPIC, bytes);
    let version = reader.int16()?;
    if version != VALUE_VERSION {
        return Err(reader.newer(version, VALUE_VERSION));
    }
    let value = fields(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn skip_tags(reader: &mut Reader<'_>) -> Result<(), CoordinatorError> {
    reader.tagged_fields(|_, _| Ok(()))
}

/// A group's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupRecord {
    /// The epoch.
    pub epoch: i32,
    /// Of the topics that the members read; 0 if there are none.
    pub metadata_hash: i64,
}

impl GroupRecord {
    /// The value's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = begin();
        to.put_i32(self.epoch);
        put_varint(&mut to, 1);
        put_tagged(
            &mut to,
            METADATA_HASH_TAG,
            &self.metadata_hash.to_be_bytes(),
        );
        to.freeze()
    }

    /// Reads a value.
    ///
    /// # Errors
    /// If it is damaged or of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CoordinatorError> {
        read(bytes, |reader| {
            let epoch = reader.int32()?;
            let mut metadata_hash = 0;
            reader.tagged_fields(|tag, content| {
                if tag == METADATA_HASH_TAG {
                    metadata_hash = content.int64()?;
                }
                Ok(())
            })?;
            Ok(Self {
                epoch,
                metadata_hash,
            })
        })
    }
}

/// A member's subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MemberRecord {
    /// Its instance id, if it is static.
    pub instance_id: Option<String>,
    /// Where it is.
    pub rack_id: Option<String>,
    /// Who it is.
    pub client: ClientIdentity,
    /// The topics it wants.
    pub subscribed_topic_names: BTreeSet<TopicName>,
    /// A regular expression of topics (RE2), which names whole topics.
    pub subscribed_topic_regex: Option<String>,
    /// The time that it may take to give partitions up.
    pub rebalance_timeout: Duration,
    /// The assignor it wants.
    pub server_assignor: Option<String>,
}

impl MemberRecord {
    /// The value's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = begin();
        put_nullable_compact_string(&mut to, self.instance_id.as_deref());
        put_nullable_compact_string(&mut to, self.rack_id.as_deref());
        put_compact_string(&mut to, &self.client.client_id);
        put_compact_string(&mut to, &self.client.client_host);
        put_compact_count(&mut to, self.subscribed_topic_names.len());
        for topic in &self.subscribed_topic_names {
            put_compact_string(&mut to, topic.as_str());
        }
        put_nullable_compact_string(&mut to, self.subscribed_topic_regex.as_deref());
        to.put_i32(millis(self.rebalance_timeout));
        put_nullable_compact_string(&mut to, self.server_assignor.as_deref());
        finish(to)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// If it is damaged or of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CoordinatorError> {
        read(bytes, |reader| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let mut record = Self {
                instance_id: owned(reader.nullable_compact_string()?),
                rack_id: owned(reader.nullable_compact_string()?),
                client: ClientIdentity {
                    client_id: reader.compact_string()?.to_owned(),
                    client_host: reader.compact_string()?.to_owned(),
                },
                ..Self::default()
            };
            for _ in 0..reader.compact_array(1)? {
                let topic = TopicName::new(reader.compact_string()?);
                let topic = topic.map_err(|_| reader.corrupt("a topic name is not valid"))?;
                record.subscribed_topic_names.insert(topic);
            }
            record.subscribed_topic_regex = owned(reader.nullable_compact_string()?);
            record.rebalance_timeout = duration(reader.int32()?);
            record.server_assignor = owned(reader.nullable_compact_string()?);
            skip_tags(reader)?;
            Ok(record)
        })
    }
}

fn put_partitions(to: &mut BytesMut, assignment: &Assignment) {
    put_compact_count(to, assignment.len());
    for (topic, partitions) in assignment {
        to.put_u128(topic.0);
        put_compact_count(to, partitions.len());
        partitions.iter().for_each(|it| to.put_i32(*it));
        put_varint(to, 0);
    }
}

fn read_partitions(reader: &mut Reader<'_>) -> Result<Assignment, CoordinatorError> {
    let mut assignment = Assignment::new();
    for _ in 0..reader.compact_array(PARTITIONS_BYTES_MIN)? {
        let topic = TopicId(reader.uuid()?);
        let mut partitions = BTreeSet::new();
        for _ in 0..reader.compact_array(size_of::<i32>())? {
            partitions.insert(reader.int32()?);
        }
        skip_tags(reader)?;
        if !partitions.is_empty() {
            assignment.insert(topic, partitions);
        }
    }
    Ok(assignment)
}

/// The value of [`ConsumerKey::Target`].
#[must_use]
pub(crate) fn put_assignment_epoch(epoch: i32) -> Bytes {
    let mut to = begin();
    to.put_i32(epoch);
    finish(to)
}

/// Reads the value of [`ConsumerKey::Target`].
///
/// # Errors
/// If it is damaged or of a newer version.
pub(crate) fn assignment_epoch(bytes: &[u8]) -> Result<i32, CoordinatorError> {
    read(bytes, |reader| {
        let epoch = reader.int32()?;
        skip_tags(reader)?;
        Ok(epoch)
    })
}

/// Target of a member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TargetRecord(pub(super) Assignment);

impl TargetRecord {
    /// The value's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = begin();
        put_partitions(&mut to, &self.0);
        finish(to)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// If it is damaged or of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CoordinatorError> {
        read(bytes, |reader| {
            let target = read_partitions(reader)?;
            skip_tags(reader)?;
            Ok(Self(target))
        })
    }
}

/// The topics that a regular expression names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ExpressionRecord(pub(super) BTreeSet<TopicName>);

impl ExpressionRecord {
    /// The value's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = begin();
        put_compact_count(&mut to, self.0.len());
        for topic in &self.0 {
            put_compact_string(&mut to, topic.as_str());
        }
        // Topics have no version here, and what was found is looked for again at every start.
        to.put_i64(0);
        to.put_i64(0);
        finish(to)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// If it is damaged or of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CoordinatorError> {
        read(bytes, |reader| {
            let mut topics = BTreeSet::new();
            for _ in 0..reader.compact_array(1)? {
                let topic = TopicName::new(reader.compact_string()?);
                topics.insert(topic.map_err(|_| reader.corrupt("a topic name is not valid"))?);
            }
            reader.int64()?;
            reader.int64()?;
            skip_tags(reader)?;
            Ok(Self(topics))
        })
    }
}

/// A member's assignment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CurrentRecord {
    /// Its epoch.
    pub epoch: i32,
    /// The epoch before: its answer may have been lost.
    pub previous_epoch: i32,
    pub(super) state: MemberState,
    /// Partitions to keep.
    pub(super) assigned: Assignment,
    /// Partitions to revoke.
    pub(super) revoking: Assignment,
}

impl CurrentRecord {
    /// The value's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = begin();
        to.put_i32(self.epoch);
        to.put_i32(self.previous_epoch);
        to.put_i8(self.state as i8);
        put_partitions(&mut to, &self.assigned);
        put_partitions(&mut to, &self.revoking);
        finish(to)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// If it is damaged or of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CoordinatorError> {
        read(bytes, |reader| {
            let epoch = reader.int32()?;
            let previous_epoch = reader.int32()?;
            let state = MemberState::from_number(reader.int8()?);
            let record = Self {
                epoch,
                previous_epoch,
                state: state.ok_or_else(|| reader.corrupt("a member's state is unknown"))?,
                assigned: read_partitions(reader)?,
                revoking: read_partitions(reader)?,
            };
            skip_tags(reader)?;
            Ok(record)
        })
    }
}

#[cfg(test)]
mod tests;
