//! Letters: records that were put aside, dead or late, and the headers that say so. A replayed one is a record of its job again.

use super::error::JobError;
use super::record::Key;
use super::source::Pace;
use crate::codec::CodecError;

/// Reason for the dead letter.
pub(crate) const ERROR: &str = "onceflow.error";
/// The job that wrote the letter.
pub(crate) const JOB: &str = "onceflow.job";
/// The topic through which the job takes the letter back, where its source does.
pub(crate) const REPLAY: &str = "onceflow.replay";
/// The split that the record was in, such as `clicks-3`, and its offset there.
pub(crate) const SOURCE: &str = "onceflow.source";
pub(crate) const OFFSET: &str = "onceflow.offset";
/// The record's time, in milliseconds since 1970.
pub(crate) const TIMESTAMP: &str = "onceflow.timestamp";
/// The tries of the record: 1 in the first letter of it, one more in each that a replay of it makes.
pub(crate) const ATTEMPTS: &str = "onceflow.attempts";
/// Reason why a record is late, and the watermark that it came behind.
pub(crate) const LATE: &str = "onceflow.late";
pub(crate) const WATERMARK: &str = "onceflow.watermark";
/// Reason of a call's or an effect's failure for good, and the idempotency key of the effect.
pub(crate) const FAILED: &str = "onceflow.failed";
pub(crate) const EFFECT: &str = "onceflow.effect";
/// Of a record that is to be replayed: the letter that it is, as `topic-partition@offset`.
pub(crate) const LETTER: &str = "onceflow.letter";
/// Of such a record: the time that it has instead of its own, in milliseconds since 1970.
pub(crate) const REPLAY_TIME: &str = "onceflow.replay-time";

/// The headers that are the letter's, and not the record's.
const OF_A_LETTER: [&str; 13] = [
    ERROR,
    JOB,
    REPLAY,
    SOURCE,
    OFFSET,
    TIMESTAMP,
    ATTEMPTS,
    LATE,
    WATERMARK,
    FAILED,
    EFFECT,
    LETTER,
    REPLAY_TIME,
];

/// Whether a header is the letter's, and not the record's.
pub(crate) fn is_of_a_letter(name: &[u8]) -> bool {
    OF_A_LETTER.iter().any(|own| own.as_bytes() == name)
}

/// Takes a record that was decoded, or why it cannot be.
pub type TakeRecord<'t, K, V> =
    dyn for<'r> FnMut(Result<(Key<'r, K>, &'r V), CodecError>) -> Result<Pace, JobError> + 't;

/// The way back for letters of a source: how their bytes become its records again.
pub trait ReadLetter<K: ?Sized, V: ?Sized>: Send + Sync {
    /// Decodes the bytes of a record as the source does, and gives it to `take`: once, or not at all where the source passes such
    /// records over.
    ///
    /// # Errors
    /// Those of `take`.
    fn read(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        take: &mut TakeRecord<'_, K, V>,
    ) -> Result<Pace, JobError>;
}
