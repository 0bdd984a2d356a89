//! `RecordBytes`: the record batches of a fetch's answer, in memory or still to be read.

use bytes::Bytes;

use super::field::{Field, LengthSize, encode_length};
use super::schema::Version;
use super::{Reader, WireError, Writer};

/// Record batches in a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordBytes {
    /// The batches. What is read from a frame is always this.
    Here(Bytes),
    /// Number of bytes of batches, which who sends the frame puts into its gap.
    Later(usize),
}

impl RecordBytes {
    /// Returns the batches' bytes.
    #[must_use]
    pub fn length_bytes(&self) -> usize {
        match self {
            Self::Here(batches) => batches.len(),
            Self::Later(length_bytes) => *length_bytes,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length_bytes() == 0
    }

    /// The batches; none of those that are still to be read.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Here(batches) => batches,
            Self::Later(_) => Bytes::new(),
        }
    }
}

impl Default for RecordBytes {
    fn default() -> Self {
        Self::Here(Bytes::new())
    }
}

impl From<Bytes> for RecordBytes {
    fn from(batches: Bytes) -> Self {
        Self::Here(batches)
    }
}

impl Field for RecordBytes {
    fn decode_field(reader: &mut Reader, version: Version) -> Result<Self, WireError> {
        Bytes::decode_field(reader, version).map(Self::Here)
    }

    fn encode_field(&self, writer: &mut Writer, version: Version) -> Result<(), WireError> {
        match self {
            Self::Here(batches) => batches.encode_field(writer, version),
            Self::Later(length_bytes) => {
                encode_length(writer, version, LengthSize::Four, *length_bytes)?;
                writer.gap(*length_bytes);
                Ok(())
            }
        }
    }
}
