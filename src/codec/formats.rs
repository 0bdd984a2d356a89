//! The five codecs that come with the crate.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError, CodecId};

/// bincode 2, standard configuration: compact, integers of variable length. The default.
///
/// ```
/// # use onceflow::codec::{Bincode, Codec};
/// let mut bytes = Vec::new();
/// Bincode.encode(&("tea".to_owned(), 3u64), &mut bytes)?;
/// assert_eq!(bytes, [3, b't', b'e', b'a', 3]);
/// # Ok::<(), onceflow::codec::CodecError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Bincode;

/// Postcard 1: compact, with a written specification.
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

/// JSON.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

/// UTF-8 text: `str` as it is, other types as they print and parse.
#[derive(Debug, Clone, Copy, Default)]
pub struct Text;

/// Bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

const BINCODE: bincode::config::Configuration = bincode::config::standard();

fn encode_error(codec: &'static str) -> impl Fn(&dyn Display) -> CodecError {
    move |why| CodecError::Encode {
        codec,
        why: why.to_string(),
    }
}

fn decode_error(codec: &'static str, bytes: &[u8], why: impl Display) -> CodecError {
    CodecError::Decode {
        codec,
        length_bytes: bytes.len(),
        why: why.to_string(),
    }
}

impl<T: Serialize + DeserializeOwned + Clone> Codec<T> for Bincode {
    fn id(&self) -> CodecId {
        CodecId(1)
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        bincode::serde::encode_into_std_write(value, out, BINCODE)
            .map_err(|e| encode_error("bincode")(&e))?;
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        let (value, used) = bincode_front(bytes)?;
        whole("bincode", bytes, bytes.len() - used)?;
        Ok(Cow::Owned(value))
    }
}

/// The value at the front of bytes that [`Bincode`] wrote, and how many of them are its own.
pub(super) fn bincode_front<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    bincode::serde::decode_from_slice(bytes, BINCODE).map_err(|e| {
        decode_error(
            "bincode",
            bytes,
            format_args!("{e}; plain text is read with `str` or the codec `Text`"),
        )
    })
}

impl<T: Serialize + DeserializeOwned + Clone> Codec<T> for Postcard {
    fn id(&self) -> CodecId {
        CodecId(2)
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        postcard::to_io(value, out).map_err(|e| encode_error("postcard")(&e))?;
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        let (value, rest) =
            postcard::take_from_bytes(bytes).map_err(|e| decode_error("postcard", bytes, e))?;
        whole("postcard", bytes, rest.len())?;
        Ok(Cow::Owned(value))
    }
}

impl<T: Serialize + DeserializeOwned + Clone> Codec<T> for Json {
    fn id(&self) -> CodecId {
        CodecId(3)
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        serde_json::to_writer(out, value).map_err(|e| encode_error("JSON")(&e))
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        serde_json::from_slice(bytes)
            .map(Cow::Owned)
            .map_err(|e| decode_error("JSON", bytes, e))
    }
}

impl Codec<str> for Text {
    fn id(&self) -> CodecId {
        CodecId(4)
    }

    fn encode(&self, value: &str, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn as_encoded<'a>(&self, value: &'a str) -> Option<&'a [u8]> {
        Some(value.as_bytes())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, str>, CodecError> {
        std::str::from_utf8(bytes)
            .map(Cow::Borrowed)
            .map_err(|e| decode_error("UTF-8 text", bytes, e))
    }
}

impl<T: Display + FromStr<Err: Display> + Clone> Codec<T> for Text {
    fn id(&self) -> CodecId {
        CodecId(4)
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let mut text = String::new();
        write!(text, "{value}").map_err(|e| encode_error("text")(&e))?;
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        let text = std::str::from_utf8(bytes).map_err(|e| decode_error("UTF-8 text", bytes, e))?;
        text.parse()
            .map(Cow::Owned)
            .map_err(|e| decode_error("text", bytes, e))
    }
}

impl Codec<[u8]> for Raw {
    fn id(&self) -> CodecId {
        CodecId(5)
    }

    fn encode(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn as_encoded<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        Some(value)
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, CodecError> {
        Ok(Cow::Borrowed(bytes))
    }
}

impl Codec<Vec<u8>> for Raw {
    fn id(&self) -> CodecId {
        CodecId(5)
    }

    fn encode(&self, value: &Vec<u8>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn as_encoded<'a>(&self, value: &'a Vec<u8>) -> Option<&'a [u8]> {
        Some(value)
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Vec<u8>>, CodecError> {
        Ok(Cow::Owned(bytes.to_vec()))
    }
}

/// A value must take up all of its bytes: a rest means another type, or damage.
fn whole(codec: &'static str, bytes: &[u8], rest_bytes: usize) -> Result<(), CodecError> {
    match rest_bytes {
        0 => Ok(()),
        _ => Err(decode_error(
            codec,
            bytes,
            format_args!("{rest_bytes} bytes are left over"),
        )),
    }
}
