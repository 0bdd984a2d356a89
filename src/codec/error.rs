//! Why a value could not be encoded or decoded.

/// A value or its bytes did not fit the codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value has no form in the codec.
    #[error("cannot encode as {codec}: {why}")]
    Encode {
        /// The codec's name.
        codec: &'static str,
        /// Its own words.
        why: String,
    },
    /// There are no bytes: the record's key or value is null, which is not the same as empty.
    #[error("the record has no {part}: null is not an empty {part}; {advice}")]
    Absent {
        /// Which part of the record is missing.
        part: &'static str,
        /// How to read such records.
        advice: &'static str,
    },
    /// The bytes are not a value of the type.
    #[error("cannot decode {length_bytes} bytes as {codec}: {why}")]
    Decode {
        /// The codec's name.
        codec: &'static str,
        /// How many bytes there were.
        length_bytes: usize,
        /// Its own words.
        why: String,
    },
}
