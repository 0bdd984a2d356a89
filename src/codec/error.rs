//! Errors of a value's encoding or decoding.

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
        /// The way to read such records.
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
    /// A schema cannot be used, or does not go with another one.
    #[error("the {format} schema cannot be used: {why}")]
    Schema {
        /// The format's name.
        format: &'static str,
        /// Where, and why.
        why: String,
    },
    /// The schema registry of a topic cannot be asked at the moment.
    #[error("the schema registry {registry} does not answer: {why}")]
    RegistryUnavailable {
        /// Its URL.
        registry: String,
        /// The last failure, and what to do.
        why: String,
    },
    /// The schema registry of a topic refuses, or has not what is wanted.
    #[error("the schema registry {registry} refuses: {why}")]
    RegistryRefused {
        /// Its URL.
        registry: String,
        /// Its words, and what to do.
        why: String,
    },
    /// The schema of the value is on its way from the registry: a source reads the record again in a moment.
    #[error("the schema {id} is being asked for at the registry: read the value again in a moment")]
    Awaited {
        /// The schema's id.
        id: u32,
    },
    /// The bytes are not a value of the type.
    #[error("cannot decode {length_bytes} bytes as {codec}: {why}")]
    Decode {
        /// The codec's name.
        codec: &'static str,
        /// Number of bytes.
        length_bytes: usize,
        /// Its own words.
        why: String,
    },
}
