//! Protobuf, by `prost`, and the place of a message in its file, which a registry's framing has in front of a value.

mod outline;

use std::borrow::Cow;
use std::sync::Arc;

use prost::Message;

use super::{Codec, CodecError, CodecId};
use outline::{Outline, encode_path};

/// Protobuf's name in errors.
const NAME: &str = "Protobuf";

/// Protobuf without a schema registry: the bytes of the message. Fields that the reader does not know are dropped, those that are absent
/// have their default: this is how Protobuf's schemas change. With a registry, use [`ProtobufSchema`] and the feature `registry`.
///
/// The type is one that `prost` generated. To be a value of a job it needs serde, too, which is a line of the build script:
/// `config.type_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")`.
///
/// ```
/// use onceflow::codec::{Codec, Protobuf};
///
/// #[derive(Clone, PartialEq, prost::Message, serde::Serialize, serde::Deserialize)]
/// struct Order {
///     #[prost(uint64, tag = "1")]
///     id: u64,
///     #[prost(string, tag = "2")]
///     customer: String,
/// }
///
/// let mut bytes = Vec::new();
/// Protobuf.encode(&Order { id: 7, customer: "Ada".to_owned() }, &mut bytes)?;
/// assert_eq!(bytes, [8, 7, 18, 3, b'A', b'd', b'a']);
/// # Ok::<(), onceflow::codec::CodecError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Protobuf;

fn decode<T: Message + Default>(bytes: &[u8]) -> Result<T, CodecError> {
    T::decode(bytes).map_err(|e| refuse(bytes, e.to_string()))
}

fn refuse(bytes: &[u8], why: String) -> CodecError {
    CodecError::Decode {
        codec: NAME,
        length_bytes: bytes.len(),
        why,
    }
}

fn encode<T: Message>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    value.encode(out).map_err(|e| CodecError::Encode {
        codec: NAME,
        why: e.to_string(),
    })
}

impl<T: Message + Default + Clone> Codec<T> for Protobuf {
    fn id(&self) -> CodecId {
        CodecId(8)
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        encode(value, out)
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        decode(bytes).map(Cow::Owned)
    }
}

/// A message of a `.proto` file, for values that are framed as a schema registry wants it.
#[derive(Debug, Clone)]
pub struct ProtobufSchema {
    text: Arc<str>,
    message: Arc<str>,
    /// The message's place in the file, as it is written.
    path: Arc<[u8]>,
}

/// The way in which values of a writer's file are read.
#[derive(Debug, Clone)]
pub struct ProtobufReading {
    /// The message's place in the writer's file. The shortest form is what is written; the other one some writers have.
    path: Vec<u8>,
    long_path: Vec<u8>,
    /// The names of the messages at their places, for errors.
    outline: Outline,
    message: Arc<str>,
}

impl ProtobufSchema {
    /// The message with this full name, such as `shop.Order`, of a `.proto` file with this text.
    ///
    /// # Errors
    /// [`CodecError::Schema`] if the file has no such message.
    pub fn new(text: &str, message: &str) -> Result<Self, CodecError> {
        let path = path_of(&Outline::of(text), message)?;
        Ok(Self {
            text: text.into(),
            message: message.into(),
            path: encode_path(&path).into(),
        })
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The way to read values that were written with the file `writer`.
    ///
    /// # Errors
    /// [`CodecError::Schema`] if it has no message of this name.
    pub(crate) fn reading_of(&self, writer: &str) -> Result<ProtobufReading, CodecError> {
        let outline = Outline::of(writer);
        let path = path_of(&outline, &self.message)?;
        let short = encode_path(&path);
        let long_path = match short.as_slice() {
            [0] => vec![2, 0],
            _ => short.clone(),
        };
        Ok(ProtobufReading {
            path: short,
            long_path,
            outline,
            message: Arc::clone(&self.message),
        })
    }

    /// Appends the message's place and the message.
    pub(crate) fn encode<T: Message>(
        &self,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        out.extend_from_slice(&self.path);
        encode(value, out)
    }

    /// Reads a place and a message.
    #[allow(clippy::unused_self, reason = "as the other formats have it")]
    pub(crate) fn decode<T: Message + Default>(
        &self,
        reading: &ProtobufReading,
        bytes: &[u8],
    ) -> Result<T, CodecError> {
        let path = [&reading.path, &reading.long_path];
        let message = path
            .into_iter()
            .find_map(|path| bytes.strip_prefix(path.as_slice()));
        match message {
            Some(message) => decode(message),
            None => Err(refuse(bytes, reading.another(bytes))),
        }
    }
}

impl ProtobufReading {
    /// Says which message the bytes have instead.
    fn another(&self, bytes: &[u8]) -> String {
        let wanted = &self.message;
        match self.outline.named_at(bytes) {
            Some(other) => format!(
                "it is the message {other}, and {wanted} is read: a topic with several messages needs a source for each, or `oneof`"
            ),
            None => format!("its file has no message at the place that it names; {wanted} is read"),
        }
    }
}

fn path_of(outline: &Outline, message: &str) -> Result<Vec<usize>, CodecError> {
    let path = outline.path_of(message);
    path.map(<[usize]>::to_vec)
        .ok_or_else(|| CodecError::Schema {
            format: NAME,
            why: format!(
                "the file has no message {message}; it has {}",
                outline.names()
            ),
        })
}

#[cfg(test)]
mod tests;
