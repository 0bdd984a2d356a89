//! Kafka's primitive types in journal records: big-endian numbers, strings, compact arrays, tagged fields.

use bytes::{BufMut, BytesMut};

use super::CoordinatorError;

/// Reads a record front to back; every length is checked against what is there.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    journal: &'static str,
}

macro_rules! read_number {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&mut self) -> Result<$type, CoordinatorError> {
            let (head, rest) = self
                .rest
                .split_first_chunk()
                .ok_or_else(|| self.corrupt("it ends too early"))?;
            self.rest = rest;
            Ok(<$type>::from_be_bytes(*head))
        }
    };
}

impl<'a> Reader<'a> {
    pub(super) fn new(journal: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            journal,
        }
    }

    read_number!(int8, i8);
    read_number!(uint8, u8);
    read_number!(int16, i16);
    read_number!(int32, i32);
    read_number!(int64, i64);
    read_number!(uuid, u128);

    pub(super) fn corrupt(&self, why: &'static str) -> CoordinatorError {
        CoordinatorError::CorruptRecord {
            journal: self.journal,
            why,
        }
    }

    pub(super) fn newer(&self, version: i16, newest: i16) -> CoordinatorError {
        CoordinatorError::NewerVersion {
            journal: self.journal,
            version,
            newest,
        }
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], CoordinatorError> {
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| self.corrupt("a length reaches past its end"))?;
        self.rest = rest;
        Ok(head)
    }

    fn text(&mut self, count: usize) -> Result<&'a str, CoordinatorError> {
        let bytes = self.bytes(count)?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt("a string is not UTF-8"))
    }

    /// An unsigned varint of at most 32 bits.
    pub(super) fn varint(&mut self) -> Result<u32, CoordinatorError> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.uint8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| self.corrupt("a varint is too large"));
            }
        }
        Err(self.corrupt("a varint does not end"))
    }

    /// A string with a 16-bit length.
    pub(super) fn string(&mut self) -> Result<&'a str, CoordinatorError> {
        let length = self.int16()?;
        let length = usize::try_from(length).map_err(|_| self.corrupt("a string is null"))?;
        self.text(length)
    }

    /// A string with a 16-bit length, which is negative if there is none.
    pub(super) fn nullable_string(&mut self) -> Result<Option<&'a str>, CoordinatorError> {
        match usize::try_from(self.int16()?) {
            Ok(length) => self.text(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Bytes with a 32-bit length; none if it is negative.
    pub(super) fn bytes32(&mut self) -> Result<&'a [u8], CoordinatorError> {
        let length = self.int32()?;
        self.bytes(usize::try_from(length).unwrap_or(0))
    }

    /// The number of elements of an array, none if it is null. At least `element_bytes_min` bytes follow for each.
    pub(super) fn array(&mut self, element_bytes_min: usize) -> Result<usize, CoordinatorError> {
        let count = usize::try_from(self.int32()?).unwrap_or(0);
        self.check_count(count, element_bytes_min)
    }

    fn check_count(
        &self,
        count: usize,
        element_bytes_min: usize,
    ) -> Result<usize, CoordinatorError> {
        match count <= self.rest.len() / element_bytes_min {
            true => Ok(count),
            false => Err(self.corrupt("an array is longer than the record")),
        }
    }

    /// A string whose length plus one is a varint.
    pub(super) fn compact_string(&mut self) -> Result<&'a str, CoordinatorError> {
        match self.varint()? {
            0 => Err(self.corrupt("a string is null")),
            length => self.text(length as usize - 1),
        }
    }

    /// A string whose length plus one is a varint, 0 if there is none.
    pub(super) fn nullable_compact_string(&mut self) -> Result<Option<&'a str>, CoordinatorError> {
        match self.varint()? {
            0 => Ok(None),
            length => self.text(length as usize - 1).map(Some),
        }
    }

    /// The number of elements of a compact array, none if it is null. At least `element_bytes_min` bytes follow for each.
    pub(super) fn compact_array(
        &mut self,
        element_bytes_min: usize,
    ) -> Result<usize, CoordinatorError> {
        let count = (self.varint()? as usize).saturating_sub(1);
        self.check_count(count, element_bytes_min)
    }

    /// Calls `field` with the number and the content of each tagged field; those that it does not know, it ignores.
    pub(super) fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, &mut Reader<'a>) -> Result<(), CoordinatorError>,
    ) -> Result<(), CoordinatorError> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let mut content = Reader::new(self.journal, self.bytes(size)?);
            field(tag, &mut content)?;
        }
        Ok(())
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<(), CoordinatorError> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(self.corrupt("it is longer than its fields")),
        }
    }
}

/// Appends `value` as an unsigned varint.
pub(super) fn put_varint(to: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        to.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8((value & 0x7f) as u8);
}

/// Appends `count` plus one, as compact arrays and strings begin.
///
/// # Panics
/// If `count` does not fit 32 bits; callers hold names of at most 32 KiB and partitions of one transaction.
pub(super) fn put_compact_count(to: &mut BytesMut, count: usize) {
    let count = u32::try_from(count + 1).unwrap_or(u32::MAX);
    assert!(
        count < u32::MAX,
        "a journal record has no room for {count} elements"
    );
    put_varint(to, count);
}

/// Appends a compact string.
pub(super) fn put_compact_string(to: &mut BytesMut, text: &str) {
    put_compact_count(to, text.len());
    to.put_slice(text.as_bytes());
}

/// Appends a compact string, or 0 if there is none.
pub(super) fn put_nullable_compact_string(to: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_compact_string(to, text),
        None => put_varint(to, 0),
    }
}

/// Appends a string with a 16-bit length.
///
/// # Panics
/// If it is longer than 32,767 bytes; callers check before.
pub(super) fn put_string(to: &mut BytesMut, text: &str) {
    let length = i16::try_from(text.len()).unwrap_or(-1);
    assert!(
        length >= 0,
        "a string of {} bytes has no room in a journal record",
        text.len()
    );
    to.put_i16(length);
    to.put_slice(text.as_bytes());
}

/// Appends a string with a 16-bit length, or −1 if there is none.
///
/// # Panics
/// As [`put_string`].
pub(super) fn put_nullable_string(to: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(to, text),
        None => to.put_i16(-1),
    }
}

/// Appends bytes with a 32-bit length.
///
/// # Panics
/// If they are longer than 2 GiB; callers check before.
pub(super) fn put_bytes(to: &mut BytesMut, bytes: &[u8]) {
    let length = i32::try_from(bytes.len()).unwrap_or(-1);
    assert!(
        length >= 0,
        "{} bytes have no room in a journal record",
        bytes.len()
    );
    to.put_i32(length);
    to.put_slice(bytes);
}

/// Appends one tagged field; the caller keeps tags ascending.
pub(super) fn put_tagged(to: &mut BytesMut, tag: u32, content: &[u8]) {
    put_varint(to, tag);
    put_varint(to, u32::try_from(content.len()).unwrap_or(u32::MAX));
    to.put_slice(content);
}
