//! The rows of a store with time, as bytes: see [`timed_store`](super::timed_store).

use std::borrow::Cow;
use std::ops::Range;

use crate::codec::{Codec, CodecError, CodecId};
use crate::protocol::murmur2;
use crate::types::Timestamp;

/// Begins the row of the operator's time, of a key's value, of a value with a time, and of a timer.
pub(super) const OWN_TIME: u8 = 0;
pub(super) const KEY: u8 = 1;
pub(super) const TIMED: u8 = 2;
pub(super) const TIMER_AT: u8 = 3;
/// Begins the value of a row.
const VALUE: u8 = 0;
const TIME: u8 = 1;
const TIMER: u8 = 2;
/// Where the key begins in a row with a time.
pub(super) const TIMED_KEY_START: usize = 1 + 8;
pub(super) const HASH_BYTES: usize = 4;

/// The content of a row of the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row<V> {
    Value(V),
    Time(Timestamp),
    Timer,
}

/// Rows as bytes: a tag, and what belongs to it.
#[derive(Clone, Default)]
pub(crate) struct RowCodec<C>(C);

impl<C> RowCodec<C> {
    /// Rows whose values are written by `codec`.
    pub(crate) fn new(codec: C) -> Self {
        Self(codec)
    }
}

impl<V: Clone, C: Codec<V>> Codec<Row<V>> for RowCodec<C> {
    fn id(&self) -> CodecId {
        self.0.id()
    }

    fn encode(&self, row: &Row<V>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match row {
            Row::Value(value) => {
                out.push(VALUE);
                self.0.encode(value, out)?;
            }
            Row::Time(time) => {
                out.push(TIME);
                out.extend_from_slice(&time.0.to_be_bytes());
            }
            Row::Timer => out.push(TIMER),
        }
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Row<V>>, CodecError> {
        let refuse = || CodecError::Decode {
            codec: "a row of state with time",
            length_bytes: bytes.len(),
            why: "it begins with no known tag".to_owned(),
        };
        let (tag, rest) = bytes.split_first().ok_or_else(refuse)?;
        let row = match (*tag, rest) {
            (VALUE, value) => Row::Value(self.0.decode(value)?.into_owned()),
            (TIME, millis) => Row::Time(Timestamp(i64::from_be_bytes(
                millis.try_into().map_err(|_| refuse())?,
            ))),
            (TIMER, []) => Row::Timer,
            _ => return Err(refuse()),
        };
        Ok(Cow::Owned(row))
    }
}

/// The bytes of the value in a row's; `None` if the row is a time or a timer.
pub(crate) fn value_of_row(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [VALUE, value @ ..] => Some(value),
        _ => None,
    }
}

/// The row of how far the operator has come.
pub(crate) const OWN_ROW: [u8; 1] = [OWN_TIME];

/// The time in a row's value, if it is one.
pub(crate) fn time_of_row(bytes: &[u8]) -> Option<Timestamp> {
    match bytes {
        [TIME, millis @ ..] => Some(Timestamp(i64::from_be_bytes(millis.try_into().ok()?))),
        _ => None,
    }
}

/// Which state partition a row belongs to.
pub(crate) enum TimedPlace<'r> {
    /// Each: how far the operator has come.
    Each,
    /// That of a key with this hash.
    Hash(u32),
    /// That of this key.
    Key(&'r [u8]),
}

/// The place of a row by its key; `None` if it is no row of such a store.
pub(crate) fn place_of_row(row: &[u8]) -> Option<TimedPlace<'_>> {
    match row {
        [OWN_TIME] => Some(TimedPlace::Each),
        [KEY, key @ ..] => Some(TimedPlace::Key(key)),
        [TIMED | TIMER_AT, rest @ ..] => {
            let hash = rest.get(TIMED_KEY_START - 1..)?.last_chunk()?;
            Some(TimedPlace::Hash(u32::from_be_bytes(*hash)))
        }
        _ => None,
    }
}

/// The later of two values of the row that says how far the operator has come (I13).
pub(crate) fn later_of(a: Vec<u8>, b: &[u8]) -> Vec<u8> {
    if time_of_row(b) > time_of_row(&a) {
        b.to_vec()
    } else {
        a
    }
}

/// The number that orders as the time does, as bytes.
pub(super) fn ordered(time: Timestamp) -> [u8; 8] {
    (time.0 ^ i64::MIN).to_be_bytes()
}

pub(super) fn time_of(ordered: [u8; 8]) -> Timestamp {
    Timestamp(i64::from_be_bytes(ordered) ^ i64::MIN)
}

/// Writes the row's key for a key's value without a time.
pub(crate) fn key_row(row: &mut Vec<u8>, key: &[u8]) {
    row.clear();
    row.push(KEY);
    row.extend_from_slice(key);
}

/// Writes the row's key for a key's value at a time.
pub(crate) fn row_at(row: &mut Vec<u8>, key: &[u8], time: Timestamp) {
    timed_row(row, TIMED, key, time, murmur2(key));
}

/// Where the rows of values at these times begin in a state partition, and what is behind them.
pub(crate) fn rows_between(times: &Range<Timestamp>) -> (Vec<u8>, Vec<u8>) {
    let bound = |time| [&[TIMED], &ordered(time)[..]].concat();
    (bound(times.start), bound(times.end))
}

/// The time and the key of a row of a value at a time.
pub(crate) fn time_and_key(row: &[u8]) -> Option<(Timestamp, &[u8])> {
    let waiting = waiting(row)?;
    (!waiting.is_timer).then_some((waiting.time, waiting.key))
}

/// The kind of a row of a store with time, by its key.
pub(crate) enum TimedKey<'r> {
    /// The operator's time.
    OwnTime,
    /// A key's value.
    Value(&'r [u8]),
    /// A key's value at a time, or a timer.
    Waiting(Waiting<'r>),
}

/// A row with a time: a value, or a timer.
pub(crate) struct Waiting<'r> {
    pub(crate) time: Timestamp,
    pub(crate) key: &'r [u8],
    pub(crate) is_timer: bool,
}

/// Reads a row's key; `None` if it is no row of such a store.
pub(crate) fn timed_key(row: &[u8]) -> Option<TimedKey<'_>> {
    match row {
        [OWN_TIME] => Some(TimedKey::OwnTime),
        [KEY, key @ ..] => Some(TimedKey::Value(key)),
        _ => waiting(row).map(TimedKey::Waiting),
    }
}

/// Reads the key of a row that has a time.
pub(crate) fn waiting(row: &[u8]) -> Option<Waiting<'_>> {
    let ([kind @ (TIMED | TIMER_AT), time @ ..], rest) =
        row.split_first_chunk::<TIMED_KEY_START>()?
    else {
        return None;
    };
    let (key, _) = rest.split_last_chunk::<HASH_BYTES>()?;
    Some(Waiting {
        time: time_of(*time),
        key,
        is_timer: *kind == TIMER_AT,
    })
}

/// Writes the row's key for a key and a time.
#[inline]
pub(super) fn timed_row<'s>(
    scratch: &'s mut Vec<u8>,
    kind: u8,
    key: &[u8],
    time: Timestamp,
    hash: u32,
) -> &'s [u8] {
    scratch.clear();
    scratch.push(kind);
    scratch.extend_from_slice(&ordered(time));
    scratch.extend_from_slice(key);
    scratch.extend_from_slice(&hash.to_be_bytes());
    scratch
}
