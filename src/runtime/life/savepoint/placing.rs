//! The state partition of a stored row where state is cut into another number of parts: it follows from the row's key.

use crate::protocol::murmur2;
use crate::runtime::contract::window::WINDOW_BYTES;
use crate::runtime::task::ordered_store::ordered_key_type;
use crate::runtime::task::timed_row::{TimedPlace, place_of_row};
use crate::runtime::task::timed_store::timed_key_type;
use crate::state::key_of_row;

/// Where a row belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// To the state partition of a key with this hash.
    Hash(u32),
    /// To each state partition: how far an operator has come.
    Each,
}

/// The place of a row of a store whose keys are of the type `key_type`; `None` if its bytes are no such row.
pub(super) fn place(key_type: &str, row: &[u8]) -> Option<Place> {
    if let Some(key_type) = timed_key_type(key_type) {
        return Some(match place_of_row(row)? {
            TimedPlace::Each => Place::Each,
            TimedPlace::Hash(hash) => Place::Hash(hash),
            TimedPlace::Key(key) => Place::Hash(hash_of(key_type, key)?),
        });
    }
    match ordered_key_type(key_type) {
        Some(key_type) => Some(Place::Hash(hash_of(key_type, key_of_row(row)?)?)),
        None => Some(Place::Hash(hash_of(key_type, row)?)),
    }
}

/// A key in a window is where the key is.
fn hash_of(mut key_type: &str, mut key: &[u8]) -> Option<u32> {
    while let Some(inner) = key_type.strip_prefix("window of ") {
        key_type = inner;
        key = key.get(..key.len().checked_sub(WINDOW_BYTES)?)?;
    }
    Some(murmur2(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::task::timed_row::{key_row, row_at};
    use crate::state::put_prefix;
    use crate::types::Timestamp;

    #[test]
    fn u6_a_row_of_each_kind_of_store_is_placed_by_its_key() {
        let expected = Some(Place::Hash(murmur2(b"tea")));
        assert_eq!(place("text", b"tea"), expected);
        let windowed = [&b"tea"[..], &[7; 16]].concat();
        assert_eq!(place("window of text", &windowed), expected);
        assert_eq!(place("window of text", b"tea"), None);
        let mut row = Vec::new();
        key_row(&mut row, b"tea");
        assert_eq!(place("with time: text", &row), expected);
        row_at(&mut row, b"tea", Timestamp(5));
        assert_eq!(place("with time: text", &row), expected);
        assert_eq!(place("with time: text", &[0]), Some(Place::Each));
        assert_eq!(place("with time: text", &[9]), None);
        for length in [3, 300] {
            let (key, mut row) = (vec![b'x'; length], Vec::new());
            put_prefix(&key, &mut row);
            row.extend_from_slice(&[1, 2]);
            let hash = murmur2(&key);
            let found = place("in the order of (i64,i64): text", &row);
            assert_eq!(found, Some(Place::Hash(hash)));
        }
        assert_eq!(place("in the order of u64: text", &[200, 1]), None);
    }
}
