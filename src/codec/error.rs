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
    /// The value is of a version that this build of the job does not read.
    #[error(
        "the value is of version {found}, and this build of the job writes version {current} and cannot read that one: run the build that \
         wrote it, or say how it is converted with `.migrate_from({found}, …)` behind the step"
    )]
    Version {
        /// The version of the value.
        found: u8,
        /// The version that this build writes.
        current: u8,
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
