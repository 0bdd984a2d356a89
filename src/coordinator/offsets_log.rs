//! The records of `__consumer_offsets`, in Kafka's schemas.
//!
//! ```text
//! key    i16 version = 1 (0 is read, too) | string group | string topic | i32 partition
//! value  i16 version = 3 | i64 offset | i32 leader epoch | string metadata | i64 commit ms
//! ```
//! Keys of version 2 name a classic group's members (`membership_log.rs`), those of 3 to 8 a group of the consumer protocol
//! (`consumer_log.rs`).
//! `docs/format.md` has the page with the history.

use bytes::{BufMut, Bytes, BytesMut};

use super::consumer_log::{CONSUMER_KEY_VERSION_MAX, ConsumerKey, is_known_key};
use super::wire::{Reader, put_string};
use super::{CONSUMER_OFFSETS_TOPIC, CoordinatorError};
use crate::protocol::messages::CommittedOffset;
use crate::types::{GroupId, Offset, Timestamp, TopicName, TopicPartition};

const OFFSET_KEY_VERSION: i16 = 1;
pub(super) const GROUP_METADATA_KEY_VERSION: i16 = 2;
const OFFSET_VALUE_VERSION: i16 = 3;
/// The first version of a value without an expiry time of its own.
const OFFSET_VALUE_VERSION_MIN: i16 = 2;

/// Content of a journal's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// The position of a group in a partition.
    Offset(GroupId, TopicPartition),
    /// A classic group's members.
    Classic(GroupId),
    /// A record of a group of the consumer protocol.
    Consumer(GroupId, ConsumerKey),
}

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    /// If it is damaged or of a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CoordinatorError> {
        let mut reader = Reader::new(CONSUMER_OFFSETS_TOPIC, bytes);
        let version = reader.int16()?;
        if !is_known_key(version) {
            return Err(reader.newer(version, CONSUMER_KEY_VERSION_MAX));
        }
        let group = GroupId::new(reader.string()?)
            .map_err(|_| reader.corrupt("the group id is not valid"))?;
        if version == GROUP_METADATA_KEY_VERSION {
            reader.end()?;
            return Ok(Self::Classic(group));
        }
        if version > GROUP_METADATA_KEY_VERSION {
            let key = ConsumerKey::decode(version, &mut reader)?;
            reader.end()?;
            return Ok(Self::Consumer(group, key));
        }
        let topic = TopicName::new(reader.string()?)
            .map_err(|_| reader.corrupt("a topic name is not valid"))?;
        let partition = TopicPartition::new(topic, reader.int32()?);
        reader.end()?;
        Ok(Self::Offset(group, partition))
    }
}

/// The key of `group`'s position in `partition`.
#[must_use]
pub(crate) fn encode_key(group: &GroupId, partition: &TopicPartition) -> Bytes {
    let mut to = BytesMut::new();
    to.put_i16(OFFSET_KEY_VERSION);
    put_string(&mut to, group.as_str());
    put_string(&mut to, partition.topic.as_str());
    to.put_i32(partition.partition);
    to.freeze()
}

/// The value of a position committed at `commit`.
///
/// # Panics
/// If the metadata is longer than 32,767 bytes; the coordinator refuses such requests.
#[must_use]
pub(crate) fn encode_value(committed: &CommittedOffset, commit: Timestamp) -> Bytes {
    let mut to = BytesMut::new();
    to.put_i16(OFFSET_VALUE_VERSION);
    to.put_i64(committed.offset.0);
    to.put_i32(committed.leader_epoch);
    put_string(&mut to, &committed.metadata);
    to.put_i64(commit.0);
    to.freeze()
}

/// Reads a position, and when it was committed.
///
/// # Errors
/// If it is damaged or of a newer version.
pub(crate) fn decode_value(bytes: &[u8]) -> Result<(CommittedOffset, Timestamp), CoordinatorError> {
    let mut reader = Reader::new(CONSUMER_OFFSETS_TOPIC, bytes);
    let version = reader.int16()?;
    if !(OFFSET_VALUE_VERSION_MIN..=OFFSET_VALUE_VERSION).contains(&version) {
        return Err(reader.newer(version, OFFSET_VALUE_VERSION));
    }
    let offset = Offset(reader.int64()?);
    let leader_epoch = match version {
        OFFSET_VALUE_VERSION_MIN => -1,
        _ => reader.int32()?,
    };
    let committed = CommittedOffset {
        offset,
        leader_epoch,
        metadata: reader.string()?.to_owned(),
    };
    let commit = Timestamp(reader.int64()?);
    reader.end()?;
    Ok((committed, commit))
}

#[cfg(test)]
mod tests;
