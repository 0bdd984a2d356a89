//! The headers of a record: borrowed from its batch, or put together in a list.
//!
//! ```text
//! varint   bytes          varint   bytes
//! +--------+--------------+--------+-------+
//! | name's | name (UTF-8) | value's| value | next header …
//! | length |              | length |       |
//! +--------+--------------+--------+-------+
//! ```
//! A length of −1 is a null value. A list has the same bytes as a record in a batch, so that headers are copied whole.

use std::borrow::Cow;
use std::fmt;

use bytes::BytesMut;

use super::record::take_field;
use crate::protocol::varint;

/// The smallest header: two lengths.
const HEADER_BYTES_MIN: usize = 2;

/// A record's headers in order; a name may occur more than once. Copying it is cheap, and starts anew.
///
/// Kafka's brokers take names that are not UTF-8, and so does our log: what is not is read as U+FFFD, as in Java.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a> {
    /// One behind the other; checked when the record was read. Their number is not kept: every record on its way through a job
    /// carries this, and nearly none has headers.
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// No headers.
    pub const NONE: Self = Self { bytes: &[] };

    pub(super) fn parse(count: i32, mut bytes: &'a [u8]) -> Result<Self, &'static str> {
        let count = usize::try_from(count).map_err(|_| "it has a negative count of headers")?;
        if count > bytes.len() / HEADER_BYTES_MIN {
            return Err("it has more headers than bytes for them");
        }
        let headers = Self { bytes };
        for _ in 0..count {
            parse_header(&mut bytes).ok_or("one of its headers is not valid")?;
        }
        match bytes {
            [] => Ok(headers),
            _ => Err("bytes follow its last header"),
        }
    }

    /// The names and values as they are stored.
    #[must_use]
    pub fn raw(self) -> RawHeaders<'a> {
        RawHeaders(self)
    }

    /// The value of the last header called `name`, if there is one; the value may be null.
    #[must_use]
    pub fn last(self, name: &str) -> Option<Option<&'a [u8]>> {
        let own = self.raw().filter(|header| header.0 == name.as_bytes());
        own.last().map(|header| header.1)
    }

    /// The headers as they are stored, one behind the other.
    #[inline]
    pub(crate) fn stored(self) -> &'a [u8] {
        self.bytes
    }

    /// Headers of which [`stored`](Self::stored) gave these bytes.
    #[inline]
    pub(crate) fn of_stored(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The headers in front of the last one, and the value of that, if it is called `name`.
    pub(crate) fn split_last(self, name: &[u8]) -> Option<(Self, Option<&'a [u8]>)> {
        let (mut rest, mut last) = (self.bytes, None);
        loop {
            let before = self.bytes.len() - rest.len();
            let Some(header) = parse_header(&mut rest) else {
                break;
            };
            last = Some((before, header));
        }
        let (before, (its_name, value)) = last?;
        let front = Self {
            bytes: &self.bytes[..before],
        };
        (its_name == name).then_some((front, value))
    }

    /// Counts them, one by one.
    #[must_use]
    pub fn len(&self) -> usize {
        let mut rest = self.bytes;
        std::iter::from_fn(|| parse_header(&mut rest)).count()
    }

    /// Whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (Cow<'a, str>, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = parse_header(&mut self.bytes)?;
        Some((String::from_utf8_lossy(name), value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// A record's headers as they are stored.
#[derive(Debug, Clone)]
pub struct RawHeaders<'a>(Headers<'a>);

impl<'a> Iterator for RawHeaders<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        parse_header(&mut self.0.bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for RawHeaders<'_> {}

fn parse_header<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let name = take_field(bytes)??;
    Some((name, take_field(bytes)?))
}

impl PartialEq for Headers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.raw().eq(other.raw())
    }
}

impl Eq for Headers<'_> {}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// Headers in the making.
///
/// ```
/// use onceflow::internals::protocol::batch::HeaderList;
///
/// let mut list = HeaderList::default();
/// list.add("trace", Some(b"7"));
/// assert_eq!(list.headers().last("trace"), Some(Some(&b"7"[..])));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderList {
    bytes: BytesMut,
}

impl HeaderList {
    /// Adds a header behind the others; `None` is a null value. A name may occur more than once.
    pub fn add(&mut self, name: &str, value: Option<&[u8]>) {
        self.add_raw(name.as_bytes(), value);
    }

    pub(crate) fn add_raw(&mut self, name: &[u8], value: Option<&[u8]>) {
        let length = |bytes: &[u8]| i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        varint::write_signed(&mut self.bytes, length(name));
        self.bytes.extend_from_slice(name);
        varint::write_signed(&mut self.bytes, value.map_or(-1, length));
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    /// Adds headers behind the others.
    #[inline]
    pub fn add_all(&mut self, headers: Headers<'_>) {
        self.bytes.extend_from_slice(headers.bytes);
    }

    /// Removes all headers, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The headers.
    #[must_use]
    #[inline]
    pub fn headers(&self) -> Headers<'_> {
        Headers { bytes: &self.bytes }
    }
}

/// As the bytes that a batch stores: each header's name and value with their lengths before them.
impl serde::Serialize for HeaderList {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> serde::Deserialize<'de> for HeaderList {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored: Vec<u8> = serde::Deserialize::deserialize(deserializer)?;
        let mut rest = &stored[..];
        while !rest.is_empty() {
            parse_header(&mut rest)
                .ok_or_else(|| serde::de::Error::custom("these bytes are no headers"))?;
        }
        Ok(Self {
            bytes: BytesMut::from(&stored[..]),
        })
    }
}

impl From<Headers<'_>> for HeaderList {
    #[inline]
    fn from(headers: Headers<'_>) -> Self {
        Self {
            bytes: BytesMut::from(headers.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_headers_has_the_bytes_of_a_record() {
        let mut list = HeaderList::default();
        list.add("a", Some(b"x"));
        list.add("a", None);
        assert_eq!(list.bytes[..], [2, b'a', 2, b'x', 2, b'a', 1]);
        let parsed = Headers::parse(2, &list.bytes).unwrap();
        assert_eq!((parsed.len(), Headers::NONE.len()), (2, 0));
        assert_eq!(parsed, list.headers());
        assert_eq!(parsed.last("a"), Some(None));
        assert_eq!(parsed.last("b"), None);
        let (front, last) = parsed.split_last(b"a").unwrap();
        assert_eq!((front.len(), last), (1, None));
        assert_eq!(
            front.split_last(b"a"),
            Some((Headers::NONE, Some(&b"x"[..])))
        );
        assert_eq!(parsed.split_last(b"b"), None);
        assert_eq!(Headers::NONE.split_last(b"a"), None);
        let mut copied = HeaderList::from(parsed);
        assert_eq!(copied, list);
        copied.add_all(Headers::NONE);
        copied.clear();
        assert_eq!(copied.headers(), Headers::NONE);
    }
}
