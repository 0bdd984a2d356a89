//! Batches on their way into a log, and the proof that one of them came from our own builder.

use bytes::{Bytes, BytesMut};

use super::RecordRules;
use crate::types::Timestamp;

/// One whole batch that a [`BatchBuilder`](super::BatchBuilder) of this process made, so that its header says what its
/// records are. Nothing else makes one, and nothing changes its bytes: the log need not look into it.
#[derive(Debug, Clone)]
pub struct BuiltBatch {
    bytes: Bytes,
    traits: RecordTraits,
}

/// The traits of a batch's records that rules of topics ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordTraits {
    /// The smallest timestamp, [`Timestamp::NONE`] included.
    pub(super) min_timestamp: Timestamp,
    /// The largest timestamp.
    pub(super) max_timestamp: Timestamp,
    /// Whether a record has no key.
    pub(super) has_keyless: bool,
}

impl RecordTraits {
    /// The traits of a batch without records.
    pub(super) fn of_none() -> Self {
        Self {
            min_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
            has_keyless: false,
        }
    }
}

impl BuiltBatch {
    pub(super) fn new(bytes: BytesMut, traits: RecordTraits) -> Self {
        Self {
            bytes: bytes.freeze(),
            traits,
        }
    }

    /// The whole batch, header included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether it is known that every record keeps `rules`; if not, the records must be looked at.
    #[must_use]
    pub fn surely_keeps(&self, rules: &RecordRules) -> bool {
        let has_keys = !(rules.is_key_required && self.traits.has_keyless);
        let is_in_time = rules.timestamps.as_ref().is_none_or(|allowed| {
            allowed.contains(&self.traits.min_timestamp)
                && allowed.contains(&self.traits.max_timestamp)
        });
        has_keys && is_in_time
    }
}

/// Record batches that are to be appended.
#[derive(Debug, Clone)]
pub enum NewRecords {
    /// Whole batches, one behind the other, from anywhere. No field of their headers is believed before the records
    /// were looked at.
    Foreign(Bytes),
    /// A batch that was built in this process.
    Built(BuiltBatch),
}

impl NewRecords {
    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Foreign(bytes) => bytes,
            Self::Built(batch) => batch.bytes(),
        }
    }

    /// All bytes; the only holder of a batch may stamp it without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Foreign(bytes) => bytes,
            Self::Built(batch) => batch.bytes,
        }
    }
}

impl From<Bytes> for NewRecords {
    fn from(bytes: Bytes) -> Self {
        Self::Foreign(bytes)
    }
}

impl From<BuiltBatch> for NewRecords {
    fn from(batch: BuiltBatch) -> Self {
        Self::Built(batch)
    }
}
