//! The bytes that the rows of one key begin with in a store in order: RocksDB's filters know it, so that a range of a key that has no rows costs
//! no search.
//!
//! ```text
//! a row's key     length of the key (1 byte, or 255 and 4 bytes big-endian), key, place
//! as stored       state partition (2 bytes, big-endian), and that
//! ```

use rocksdb::SliceTransform;

/// Stands before the types of places and keys in the schema of a store in order.
pub(crate) const ORDERED_KEY: &str = "in the order of ";

/// Stands before the length of a key that does not fit in a byte.
const LONG: u8 = u8::MAX;
/// Bytes of the state partition.
const PARTITION_BYTES: usize = size_of::<u16>();

/// Appends what all rows of a key begin with, and those of no other key.
pub(crate) fn put_prefix(key: &[u8], row: &mut Vec<u8>) {
    match u8::try_from(key.len()) {
        Ok(length) if length < LONG => row.push(length),
        _ => {
            row.push(LONG);
            let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
            row.extend_from_slice(&length.to_be_bytes());
        }
    }
    row.extend_from_slice(key);
}

/// The key that a row begins with; `None` if it is no row.
pub(crate) fn key_of_row(row: &[u8]) -> Option<&[u8]> {
    let (length, rest) = row.split_first()?;
    if *length < LONG {
        return rest.get(..usize::from(*length));
    }
    let (length, rest) = rest.split_first_chunk()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// The beginning of a stored key of a store in order: the state partition and the key; `None` if it is shorter.
fn prefix_of(stored: &[u8]) -> Option<&[u8]> {
    let row = stored.get(PARTITION_BYTES..)?;
    stored.get(..PARTITION_BYTES + prefix_of_row(row)?.len())
}

/// The beginning of a row of a store in order: what all rows of its key begin with; `None` if it is shorter.
#[inline]
pub(super) fn prefix_of_row(row: &[u8]) -> Option<&[u8]> {
    let (&length, rest) = row.split_first()?;
    let (header_bytes, length) = match length {
        LONG => (1 + 4, u32::from_be_bytes(*rest.first_chunk()?) as usize),
        _ => (1, usize::from(length)),
    };
    row.get(..header_bytes + length)
}

/// Whether a range of stored keys is one of the rows of a key.
pub(super) fn is_of_one_key(from: &[u8], to: &[u8]) -> bool {
    let prefix = prefix_of(from);
    prefix.is_some() && prefix == prefix_of(to)
}

/// The part that RocksDB's filters have of each stored key of a store in order. Its name changes with the format.
pub(super) fn extractor() -> SliceTransform {
    SliceTransform::create("onceflow.key-1", transform, Some(is_in_domain))
}

fn is_in_domain(stored: &[u8]) -> bool {
    prefix_of(stored).is_some()
}

fn transform(stored: &[u8]) -> &[u8] {
    prefix_of(stored).unwrap_or(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_key_have_one_prefix_and_those_of_others_another() {
        let stored = |key: &[u8], place: &[u8]| {
            let mut stored = vec![0, 7];
            put_prefix(key, &mut stored);
            let prefix_bytes = stored.len();
            stored.extend_from_slice(place);
            (stored, prefix_bytes)
        };
        for key in [&b""[..], b"a", b"ab", &[9; 254], &[9; 255], &[9; 1_000]] {
            let (row, prefix_bytes) = stored(key, b"place");
            assert_eq!(prefix_of(&row), Some(&row[..prefix_bytes]));
            let (begin, _) = stored(key, b"");
            assert!(is_of_one_key(&begin, &row));
            assert!(!is_of_one_key(&row, &stored(b"other", b"place").0));
            assert_eq!(prefix_of(&begin[..prefix_bytes - 1]), None);
        }
    }
}
