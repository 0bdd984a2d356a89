//! The records of a batch, read in place.
//!
//! ```text
//! varint   i8           varint           varint         varint  bytes  varint  bytes  varint
//! +--------+------------+-----------------+--------------+-------+-----+--------+-------+---------+
//! | length | attributes | timestamp delta | offset delta | key's | key | value's| value | headers'| headers …
//! |        | = 0        |                 |              | length|     | length |       | count   |
//! +--------+------------+-----------------+--------------+-------+-----+--------+-------+---------+
//! header:  key's length varint | key (UTF-8) | value's length varint | value
//! ```
//! A length of −1 is an absent key or value. `length` counts what follows it.

use bytes::Bytes;

use super::{BatchError, Header, Headers};
use crate::protocol::varint;
use crate::types::{Offset, Timestamp, TimestampType};

/// The smallest record: seven fields of one byte.
pub(super) const RECORD_BYTES_MIN: usize = 7;

/// One record, borrowing from its batch.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its number in the partition.
    pub offset: Offset,
    /// Its time: the producer's, or the log's under log append time.
    pub timestamp: Timestamp,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; without one it is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// Takes a length and as many bytes: `Some(None)` for the length −1, `None` if there is no such field.
#[inline]
pub(super) fn take_field<'a>(input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::read_i32(input)?;
    match usize::try_from(length) {
        Ok(length) => input.split_off(..length).map(Some),
        Err(_) => (length == -1).then_some(None),
    }
}

/// A record as stored: relative to its batch.
pub(super) struct RawRecord<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Headers<'a>,
}

impl<'a> RawRecord<'a> {
    #[inline]
    fn take(input: &mut &'a [u8]) -> Result<Self, &'static str> {
        let body = take_field(input)
            .flatten()
            .ok_or("its length is not valid, or past the end")?;
        Self::parse(body)
    }

    #[inline]
    fn parse(mut body: &'a [u8]) -> Result<Self, &'static str> {
        body.split_off_first().ok_or("it has no attributes")?;
        let timestamp_delta = varint::read_i64(&mut body).ok_or("its timestamp is not valid")?;
        let offset_delta = varint::read_i32(&mut body).ok_or("its offset is not valid")?;
        let key = take_field(&mut body).ok_or("its key's length is not valid")?;
        let value = take_field(&mut body).ok_or("its value's length is not valid")?;
        let headers_count = varint::read_i32(&mut body).ok_or("its headers' count is not valid")?;
        let headers = match (headers_count, body) {
            (0, []) => Headers::NONE,
            _ => Headers::parse(headers_count, body)?,
        };
        Ok(Self {
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
        })
    }
}

/// The part of a record that rules for all records of a batch ask for.
pub(super) struct Glance {
    pub(super) timestamp: Timestamp,
    pub(super) has_key: bool,
}

/// Shows `keep` each record of a batch without gaps, until it returns `false`. Returns whether it never did and every record
/// is sound; who wants to know why not reads them one by one.
pub(super) fn are_sound(
    header: &Header,
    bytes: &[u8],
    mut keep: impl FnMut(Glance) -> bool,
) -> bool {
    let mut rest = bytes;
    for offset_delta in 0..header.records_count {
        let glance = glance(&mut rest, offset_delta, header.base_timestamp);
        if !glance.is_some_and(&mut keep) {
            return false;
        }
    }
    rest.is_empty()
}

#[inline]
fn glance(rest: &mut &[u8], expected: i32, base_timestamp: Timestamp) -> Option<Glance> {
    let mut body = take_field(rest).flatten()?;
    body.split_off_first()?;
    let timestamp_delta = varint::read_i64(&mut body)?;
    let offset_delta = varint::read_i32(&mut body)?;
    let key = take_field(&mut body)?;
    take_field(&mut body)?;
    let headers_count = varint::read_i32(&mut body)?;
    if headers_count != 0 || !body.is_empty() {
        Headers::parse(headers_count, body).ok()?;
    }
    (offset_delta == expected).then_some(Glance {
        timestamp: Timestamp(base_timestamp.0.wrapping_add(timestamp_delta)),
        has_key: key.is_some(),
    })
}

/// Where in a batch's records a reader stands.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    position: usize,
    /// Number of records read.
    index: i32,
    /// The offset delta of the record before.
    previous_delta: i32,
    is_finished: bool,
}

impl Cursor {
    const START: Self = Self {
        position: 0,
        index: 0,
        previous_delta: -1,
        is_finished: false,
    };

    #[inline]
    fn next<'a>(
        &mut self,
        header: &Header,
        bytes: &'a [u8],
    ) -> Option<Result<Record<'a>, BatchError>> {
        if self.is_finished {
            return None;
        }
        let mut input = bytes.get(self.position..).unwrap_or_default();
        if self.index == header.records_count {
            self.is_finished = true;
            let excess = (!input.is_empty()).then_some("bytes follow the last record");
            return excess.map(|why| Err(self.error(why)));
        }
        let record = self.step(header, &mut input);
        self.position = bytes.len() - input.len();
        self.is_finished = record.is_err();
        Some(record)
    }

    #[inline]
    fn step<'a>(
        &mut self,
        header: &Header,
        input: &mut &'a [u8],
    ) -> Result<Record<'a>, BatchError> {
        let raw = RawRecord::take(input).map_err(|why| self.error(why))?;
        if raw.offset_delta <= self.previous_delta || raw.offset_delta > header.last_offset_delta {
            return Err(self.error("its offset is out of order"));
        }
        self.previous_delta = raw.offset_delta;
        self.index += 1;
        let timestamp = match header.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            // Wraps as the Java client's does: any two times have a delta.
            TimestampType::CreateTime => {
                Timestamp(header.base_timestamp.0.wrapping_add(raw.timestamp_delta))
            }
        };
        Ok(Record {
            offset: header.base_offset.plus(i64::from(raw.offset_delta)),
            timestamp,
            key: raw.key,
            value: raw.value,
            headers: raw.headers,
        })
    }

    #[cold]
    fn error(&self, why: &'static str) -> BatchError {
        BatchError::BadRecord {
            index: self.index,
            why,
        }
    }
}

/// The records of one batch with the (decompressed) bytes that they borrow from.
///
/// [`Records::next`] reads one at a time. [`Records::iter`] borrows instead, for more than one at once.
/// To keep a part beyond the batch's life without a copy, clone [`Records::bytes`] and `slice_ref` it.
#[derive(Debug, Clone)]
pub struct Records {
    header: Header,
    bytes: Bytes,
    cursor: Cursor,
}

impl Records {
    pub(super) fn new(header: Header, bytes: Bytes) -> Self {
        Self {
            header,
            bytes,
            cursor: Cursor::START,
        }
    }

    /// The next record; `None` behind the last one. After an error there is nothing more.
    ///
    /// # Errors
    /// If a record is malformed, out of order, or missing, or bytes follow the last one.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "it lends from itself, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<Result<Record<'_>, BatchError>> {
        self.cursor.next(&self.header, &self.bytes)
    }

    /// All records, from the first one.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter {
            header: &self.header,
            bytes: &self.bytes,
            cursor: Cursor::START,
        }
    }

    /// The header of their batch.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The (decompressed) bytes that all keys, values and headers are parts of.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<Record<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// An iterator over the records of one batch. After an error there is nothing more.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    header: &'a Header,
    bytes: &'a [u8],
    cursor: Cursor,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.next(self.header, self.bytes)
    }
}
