//! One whole batch, and several in a row.

use bytes::Bytes;

use super::control::{self, ControlRecord};
use super::header::checksum;
use super::record::RECORD_BYTES_MIN;
use super::{BatchError, DecompressionLimit, HEADER_BYTES, Header, Records, compression};

/// Exactly one whole batch: its checked header and its bytes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Batch {
    header: Header,
    bytes: Bytes,
}

impl Batch {
    /// Takes `bytes`, which must be exactly one batch. Does not look at the checksum or the records.
    ///
    /// # Errors
    /// As [`Header::parse`]; and if `bytes` are shorter or longer than the header says.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let header = Header::parse(&bytes)?;
        let need_bytes = header.total_bytes();
        match bytes.len().checked_sub(need_bytes) {
            Some(0) => Ok(Self { header, bytes }),
            Some(excess_bytes) => Err(BatchError::TrailingBytes { excess_bytes }),
            None => Err(BatchError::TooShort {
                need_bytes,
                have_bytes: bytes.len(),
            }),
        }
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The whole batch, header included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole batch, header included; as the only holder one may stamp it without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Checks the checksum, which covers all but the first 21 bytes.
    ///
    /// # Errors
    /// [`BatchError::BadCrc`] if it does not fit.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let (expected, found) = (self.header.crc, checksum(&self.bytes));
        match expected == found {
            true => Ok(()),
            false => Err(BatchError::BadCrc { expected, found }),
        }
    }

    /// The records; decompressed within `limit`, if they are compressed, else without a copy.
    /// Does not look at the checksum.
    ///
    /// # Errors
    /// If decompression fails or passes the limit, or there are fewer bytes than that many records need.
    pub fn records(&self, limit: &DecompressionLimit) -> Result<Records, BatchError> {
        let stored = self.bytes.slice(HEADER_BYTES..);
        let bytes = compression::decompress(self.header.compression(), stored, limit)?;
        let is_possible = usize::try_from(self.header.records_count)
            .is_ok_and(|count| count <= bytes.len() / RECORD_BYTES_MIN);
        match is_possible {
            true => Ok(Records::new(self.header, bytes)),
            false => Err(BatchError::BadRecord {
                index: 0,
                why: "the batch is too short for its count of records",
            }),
        }
    }

    /// The marker in this batch; `None` if it is not a control batch, is emptied by compaction, or is a
    /// control batch of another kind (those are skipped).
    ///
    /// # Errors
    /// If it is a control batch that cannot be read.
    pub fn control(&self) -> Result<Option<ControlRecord>, BatchError> {
        if !self.header.is_control() {
            return Ok(None);
        }
        let mut records = self.records(&DecompressionLimit::default())?;
        match records.next() {
            Some(record) => control::decode(&record?),
            None => Ok(None),
        }
    }
}

/// Concatenated batches, as a fetch returns them and a segment stores them.
///
/// A part of a batch at the end is no error, but the end ([`Batches::rest`] tells). After an error there
/// is nothing more.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
    is_failed: bool,
}

impl Batches {
    /// The batches in `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self {
            rest: bytes,
            is_failed: false,
        }
    }

    /// Returns the rest: after the last batch, the partial batch at the end (or nothing); after an error, what begins
    /// with the bad batch.
    #[must_use]
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_failed || self.rest.len() < HEADER_BYTES {
            return None;
        }
        let header = match Header::parse(&self.rest) {
            Ok(header) => header,
            Err(error) => {
                self.is_failed = true;
                return Some(Err(error));
            }
        };
        let total_bytes = header.total_bytes();
        (total_bytes <= self.rest.len()).then(|| {
            let bytes = self.rest.split_to(total_bytes);
            Ok(Batch { header, bytes })
        })
    }
}
