//! Messages between consumers of a classic group, opaque to the coordinator in between: subscriptions and assignments.
//!
//! Kafka's ConsumerProtocolSubscription and ConsumerProtocolAssignment, versions 0 to 3. Integers are big-endian,
//! strings have 2 bytes of length, bytes and arrays 4; a length of −1 is null.
//!
//! ```text
//! subscription   version i16 | topics [string] | user data bytes | 1: owned [topic, [i32]] | 2: generation i32 | 3: rack string
//! assignment     version i16 | partitions [topic, [i32]] | user data bytes
//! ```
//! A newer version is read as far as it is known here: Kafka only ever appends fields.

use bytes::{Buf, BufMut, Bytes, TryGetError};

use crate::types::{TopicName, TopicPartition};

/// The newest version, and the one that is written.
const VERSION: i16 = 3;

/// Reason why bytes are not a consumer's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConsumerProtocolError {
    /// They end too early.
    #[error("the {message} ends too early")]
    Truncated {
        /// `subscription` or `assignment`.
        message: &'static str,
    },
    /// A count or length is negative, or larger than what follows.
    #[error(
        "the {message} announces {announced} of something, which cannot follow in {remaining} bytes"
    )]
    Length {
        /// `subscription` or `assignment`.
        message: &'static str,
        /// The count or length.
        announced: i64,
        /// The rest.
        remaining: usize,
    },
    /// Text is not UTF-8, a topic's name is not possible, or a version is negative.
    #[error("the {message} is not valid: {why}")]
    Invalid {
        /// `subscription` or `assignment`.
        message: &'static str,
        /// The fault.
        why: String,
    },
}

/// Words of a member to the leader when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subscription {
    /// The topics that it wants.
    pub topics: Vec<TopicName>,
    /// The assignor's own words.
    pub user_data: Option<Bytes>,
    /// The partitions that it holds.
    pub owned: Vec<TopicPartition>,
    /// The generation in which it was given them; −1 if it has none.
    pub generation: i32,
    /// Where it is; longer than 32,767 bytes, it is not told.
    pub rack: Option<String>,
}

impl Subscription {
    /// The bytes, in version 3.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.put_i16(VERSION);
        put_count(&mut out, self.topics.len());
        self.topics
            .iter()
            .for_each(|topic| put_string(&mut out, topic.as_str()));
        put_bytes(&mut out, self.user_data.as_deref());
        put_partitions(&mut out, &self.owned);
        out.put_i32(self.generation);
        match &self.rack {
            Some(rack) if i16::try_from(rack.len()).is_ok() => put_string(&mut out, rack),
            _ => out.put_i16(-1),
        }
        out.into()
    }

    /// Reads a subscription of any version.
    ///
    /// # Errors
    /// If the bytes are not one.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, ConsumerProtocolError> {
        let mut reader = Reader::new("subscription", bytes)?;
        let topics = reader.array(2, Reader::topic)?;
        let user_data = reader.nullable_bytes()?;
        let has = |version| reader.version >= version;
        let (has_owned, has_generation, has_rack) = (has(1), has(2), has(3));
        let owned = match has_owned {
            true => reader.partitions()?,
            false => vec![],
        };
        let generation = match has_generation {
            true => reader.i32()?,
            false => -1,
        };
        let rack = match has_rack {
            true => reader.nullable_string()?,
            false => None,
        };
        Ok(Self {
            topics,
            user_data,
            owned,
            generation,
            rack,
        })
    }
}

/// Words of the leader to a member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Assignment {
    /// The partitions that the member is to own.
    pub partitions: Vec<TopicPartition>,
    /// The assignor's own words.
    pub user_data: Option<Bytes>,
}

impl Assignment {
    /// The bytes, in version 3.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.put_i16(VERSION);
        put_partitions(&mut out, &self.partitions);
        put_bytes(&mut out, self.user_data.as_deref());
        out.into()
    }

    /// Reads an assignment of any version. No bytes at all are no partitions, as some clients write it.
    ///
    /// # Errors
    /// If the bytes are not one.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, ConsumerProtocolError> {
        if bytes.is_empty() {
            return Ok(Self {
                partitions: vec![],
                user_data: None,
            });
        }
        let mut reader = Reader::new("assignment", bytes)?;
        Ok(Self {
            partitions: reader.partitions()?,
            user_data: reader.nullable_bytes()?,
        })
    }
}

#[expect(
    clippy::expect_used,
    reason = "2^31 topics or partitions would not fit into memory"
)]
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_i32(i32::try_from(count).expect("a member has far fewer topics and partitions"));
}

/// At most 32,767 bytes, which a topic's name is far from.
#[expect(
    clippy::expect_used,
    reason = "topics' names are short, and a longer rack is not written"
)]
fn put_string(out: &mut Vec<u8>, text: &str) {
    out.put_i16(i16::try_from(text.len()).expect("names and racks are short"));
    out.put_slice(text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_count(out, bytes.len());
            out.put_slice(bytes);
        }
        None => out.put_i32(-1),
    }
}

/// The partitions, gathered by topic in the order in which the topics first come.
fn put_partitions(out: &mut Vec<u8>, partitions: &[TopicPartition]) {
    let mut topics: Vec<(&TopicName, Vec<i32>)> = Vec::new();
    for place in partitions {
        match topics.iter_mut().find(|(topic, _)| *topic == &place.topic) {
            Some((_, indexes)) => indexes.push(place.partition),
            None => topics.push((&place.topic, vec![place.partition])),
        }
    }
    put_count(out, topics.len());
    for (topic, indexes) in topics {
        put_string(out, topic.as_str());
        put_count(out, indexes.len());
        indexes.into_iter().for_each(|index| out.put_i32(index));
    }
}

struct Reader {
    message: &'static str,
    version: i16,
    bytes: Bytes,
}

impl Reader {
    fn new(message: &'static str, bytes: &Bytes) -> Result<Self, ConsumerProtocolError> {
        let mut reader = Self {
            message,
            version: 0,
            bytes: bytes.clone(),
        };
        reader.version = reader.whole(Bytes::try_get_i16)?;
        match reader.version {
            0.. => Ok(reader),
            version => Err(reader.invalid(&format_args!("version {version}"))),
        }
    }

    fn whole<T>(
        &mut self,
        get: impl FnOnce(&mut Bytes) -> Result<T, TryGetError>,
    ) -> Result<T, ConsumerProtocolError> {
        get(&mut self.bytes).map_err(|_| ConsumerProtocolError::Truncated {
            message: self.message,
        })
    }

    fn i32(&mut self) -> Result<i32, ConsumerProtocolError> {
        self.whole(Bytes::try_get_i32)
    }

    fn invalid(&self, why: &dyn std::fmt::Display) -> ConsumerProtocolError {
        ConsumerProtocolError::Invalid {
            message: self.message,
            why: why.to_string(),
        }
    }

    /// Checks that `announced` things of at least `each` bytes can follow (D13).
    fn check(&self, announced: i64, each: usize) -> Result<usize, ConsumerProtocolError> {
        let count = usize::try_from(announced).ok();
        count
            .filter(|count| count.saturating_mul(each) <= self.bytes.remaining())
            .ok_or_else(|| ConsumerProtocolError::Length {
                message: self.message,
                announced,
                remaining: self.bytes.remaining(),
            })
    }

    fn array<T>(
        &mut self,
        element_bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, ConsumerProtocolError>,
    ) -> Result<Vec<T>, ConsumerProtocolError> {
        let count = match self.i32()? {
            -1 => 0,
            count => self.check(i64::from(count), element_bytes_min)?,
        };
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(read(self)?);
        }
        Ok(elements)
    }

    fn text(&mut self, length: i16) -> Result<String, ConsumerProtocolError> {
        let length = self.check(i64::from(length), 1)?;
        let bytes = self.bytes.split_to(length);
        let text = std::str::from_utf8(&bytes).map_err(|e| self.invalid(&e))?;
        Ok(text.to_owned())
    }

    fn topic(&mut self) -> Result<TopicName, ConsumerProtocolError> {
        let length = self.whole(Bytes::try_get_i16)?;
        let name = self.text(length)?;
        TopicName::new(&name).map_err(|e| self.invalid(&e))
    }

    fn nullable_string(&mut self) -> Result<Option<String>, ConsumerProtocolError> {
        match self.whole(Bytes::try_get_i16)? {
            -1 => Ok(None),
            length => self.text(length).map(Some),
        }
    }

    fn nullable_bytes(&mut self) -> Result<Option<Bytes>, ConsumerProtocolError> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = self.check(i64::from(length), 1)?;
                Ok(Some(self.bytes.split_to(length)))
            }
        }
    }

    fn partitions(&mut self) -> Result<Vec<TopicPartition>, ConsumerProtocolError> {
        let topics = self.array(6, |reader| {
            let topic = reader.topic()?;
            let indexes = reader.array(4, Self::i32)?;
            Ok((topic, indexes))
        })?;
        let places = topics.into_iter().flat_map(|(topic, indexes)| {
            let place = move |index| TopicPartition::new(topic.clone(), index);
            indexes.into_iter().map(place)
        });
        Ok(places.collect())
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
    use kafka_protocol::protocol::{Decodable, Encodable};
    use proptest::prelude::*;

    use super::*;

    fn place(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(TopicName::new(topic).expect("a name"), partition)
    }

    #[test]
    fn a_subscription_is_the_bytes_that_kafka_writes() {
        let subscription = Subscription {
            topics: vec![TopicName::new("a").expect("a name")],
            user_data: Some(Bytes::from_static(b"u")),
            owned: vec![place("a", 1)],
            generation: 7,
            rack: None,
        };
        let golden = [
            0u8, 3, // version
            0, 0, 0, 1, 0, 1, b'a', // topics
            0, 0, 0, 1, b'u', // user data
            0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 1, // owned
            0, 0, 0, 7, // generation
            255, 255, // rack
        ];
        assert_eq!(&subscription.encode()[..], &golden[..]);
    }

    #[test]
    fn old_versions_lack_fields_and_newer_ones_have_more() {
        let all = Subscription {
            topics: vec![TopicName::new("a").expect("a name")],
            user_data: None,
            owned: vec![place("a", 1)],
            generation: 7,
            rack: Some("r".to_owned()),
        };
        let mut newer = all.encode().to_vec();
        newer[1] = 9;
        newer.extend_from_slice(b"what is not known here");
        assert_eq!(Subscription::decode(&newer.into()), Ok(all));
        let oldest = Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b'a', 255, 255, 255, 255]);
        let oldest = Subscription::decode(&oldest).expect("version 0");
        assert_eq!((oldest.generation, oldest.owned.len()), (-1, 0));
    }

    fn places() -> impl Strategy<Value = Vec<TopicPartition>> {
        let one = (0usize..3, 0i32..9).prop_map(|(t, p)| place(["a", "bb", "c-c"][t], p));
        prop::collection::vec(one, 0..9).prop_map(|mut all| {
            all.sort();
            all.dedup();
            all
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_here_and_by_kafkas_own_schema(owned in places(), generation: i32, data in prop::option::of(prop::collection::vec(any::<u8>(), 0..9))) {
            let subscription = Subscription {
                topics: vec![TopicName::new("a").expect("a name")],
                user_data: data.clone().map(Bytes::from),
                owned: owned.clone(),
                generation,
                rack: None,
            };
            let bytes = subscription.encode();
            prop_assert_eq!(Subscription::decode(&bytes), Ok(subscription));
            let theirs = ConsumerProtocolSubscription::decode(&mut bytes.slice(2..), VERSION).expect("theirs");
            prop_assert_eq!(theirs.generation_id, generation);
            let mut back = Vec::new();
            theirs.encode(&mut back, VERSION).expect("theirs");
            prop_assert_eq!(&back[..], &bytes[2..]);
            let assignment = Assignment { partitions: owned, user_data: data.map(Bytes::from) };
            let bytes = assignment.encode();
            prop_assert_eq!(Assignment::decode(&bytes), Ok(assignment));
            let theirs = ConsumerProtocolAssignment::decode(&mut bytes.slice(2..), VERSION).expect("theirs");
            let mut back = Vec::new();
            theirs.encode(&mut back, VERSION).expect("theirs");
            prop_assert_eq!(&back[..], &bytes[2..]);
        }

        #[test]
        fn hostile_bytes_are_an_error_and_take_no_memory(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            if let Ok(read) = Subscription::decode(&bytes) {
                prop_assert!(read.owned.len() * 4 + read.topics.len() * 2 <= bytes.len());
            }
            let _ = Assignment::decode(&bytes);
        }
    }
}
