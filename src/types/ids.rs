//! Names that users choose, checked once, when they enter.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest topic name, in bytes: it must fit a file name with its partition's suffix (Kafka's `Topic.MAX_NAME_LENGTH`).
const TOPIC_NAME_BYTES_MAX: usize = 249;
/// The longest transactional id or group id, in bytes.
const ID_BYTES_MAX: usize = 32_767;

/// Refusal of a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("a {what} must not be empty: give it a name")]
    Empty {
        /// The thing to name.
        what: &'static str,
    },
    /// The name is too long.
    #[error(
        "the {what} is {length_bytes} bytes long; at most {max_bytes} are allowed: choose a shorter one"
    )]
    TooLong {
        /// The thing to name.
        what: &'static str,
        /// The length of the name.
        length_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The name holds a character that could mean something to a file system, or is `.` or `..`.
    #[error(
        "the {what} {name:?} is not allowed: use only letters, digits, '.', '_' and '-', and not '.' or '..' alone"
    )]
    Forbidden {
        /// The thing to name.
        what: &'static str,
        /// The name, escaped when displayed.
        name: String,
    },
}

/// A valid topic name: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..` (Kafka's rule). Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks `name`.
    ///
    /// # Errors
    /// If it is empty, too long, or holds a character outside `[a-zA-Z0-9._-]`.
    pub fn new(name: &str) -> Result<Self, NameError> {
        const WHAT: &str = "topic name";
        check_length(WHAT, name, TOPIC_NAME_BYTES_MAX)?;
        let is_legal = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !is_legal || name == "." || name == ".." {
            return Err(NameError::Forbidden {
                what: WHAT,
                name: name.to_owned(),
            });
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is one of the coordinators' own topics, which clients may not write.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        matches!(self.as_str(), "__transaction_state" | "__consumer_offsets")
    }
}

fn check_length(what: &'static str, name: &str, max_bytes: usize) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty { what }),
        length_bytes if length_bytes > max_bytes => Err(NameError::TooLong {
            what,
            length_bytes,
            max_bytes,
        }),
        _ => Ok(()),
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

macro_rules! free_text_id {
    ($name:ident, $what:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `id`.
            ///
            /// # Errors
            /// If it is empty or longer than 32,767 bytes.
            pub fn new(id: &str) -> Result<Self, NameError> {
                check_length($what, id, ID_BYTES_MAX)?;
                Ok(Self(id.into()))
            }

            /// The id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// Control characters are escaped: an id may come from a stranger and end in a terminal.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.chars().try_for_each(|c| match c.is_control() {
                    true => write!(f, "{}", c.escape_default()),
                    false => fmt::Write::write_char(f, c),
                })
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

free_text_id!(
    TransactionalId,
    "transactional id",
    "The stable name of a transactional producer; whoever initialises it last, owns it. It never becomes a file name."
);
free_text_id!(
    GroupId,
    "group id",
    "The name under which positions are committed. It never becomes a file name."
);

macro_rules! uuid_id {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(
            Debug,
            Clone,
            Copy,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            Default,
            serde::Serialize,
            serde::Deserialize,
        )]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            /// 22 characters of URL-safe base 64 without padding, as Kafka prints its UUIDs.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                const ALPHABET: &[u8; 64] =
                    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                (0..22u32).try_for_each(|i| {
                    // 22 groups of 6 bits are 132: the last group holds the low 2 bits, shifted up by 4.
                    let group = match i {
                        21 => (self.0 & 0x3) << 4,
                        _ => self.0 >> (122 - 6 * i) & 0x3f,
                    };
                    fmt::Write::write_char(f, char::from(ALPHABET[group as usize]))
                })
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let refuse = || NameError::Forbidden {
                    what: stringify!($name),
                    name: text.to_owned(),
                };
                if text.len() != 22 {
                    return Err(refuse());
                }
                let mut value = 0u128;
                for (i, byte) in text.bytes().enumerate() {
                    let group = match byte {
                        b'A'..=b'Z' => byte - b'A',
                        b'a'..=b'z' => byte - b'a' + 26,
                        b'0'..=b'9' => byte - b'0' + 52,
                        b'-' => 62,
                        b'_' => 63,
                        _ => return Err(refuse()),
                    };
                    value = match i {
                        21 if group & 0xf == 0 => value << 2 | u128::from(group >> 4),
                        21 => return Err(refuse()),
                        _ => value << 6 | u128::from(group),
                    };
                }
                Ok(Self(value))
            }
        }
    };
}

uuid_id!(
    TopicId,
    "The identity of one incarnation of a topic: a topic deleted and created again has a new one."
);
uuid_id!(
    ClusterId,
    "The identity of a data directory (Kafka's cluster id)."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_that_could_escape_the_directory_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\0b",
            "a b",
            "ü",
            &"x".repeat(250),
        ] {
            assert!(TopicName::new(name).is_err(), "{name:?} was accepted");
        }
        for name in ["a", "a.b_c-D9", "...", &"x".repeat(249)] {
            assert!(TopicName::new(name).is_ok(), "{name:?} was refused");
        }
    }

    #[test]
    fn uuids_print_and_parse_as_kafka_does() {
        for value in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            let text = TopicId(value).to_string();
            assert_eq!(text.len(), 22);
            assert_eq!(text.parse(), Ok(TopicId(value)));
        }
        // Kafka's Uuid.METADATA_TOPIC_ID, new Uuid(0L, 1L).
        assert_eq!(TopicId(1).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert!("AAAAAAAAAAAAAAAAAAAAAR".parse::<TopicId>().is_err());
    }
}
