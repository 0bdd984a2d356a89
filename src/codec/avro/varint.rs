//! Avro's numbers of variable length: zigzag, seven bits a byte, the lowest first.

/// The most bytes of a long.
const LONG_BYTES_MAX: usize = 10;

/// The bytes of a long, and how many of them there are.
pub(super) fn long_bytes(number: i64) -> ([u8; LONG_BYTES_MAX], usize) {
    let mut bytes = [0; LONG_BYTES_MAX];
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    let mut length = 0;
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        let more = if rest > 0 { 0x80 } else { 0 };
        bytes[length] = (low & 0x7f) | more;
        length += 1;
        if rest == 0 {
            return (bytes, length);
        }
    }
}

/// Appends a long.
pub(super) fn put_long(number: i64, out: &mut Vec<u8>) {
    let (bytes, length) = long_bytes(number);
    out.extend_from_slice(&bytes[..length]);
}

/// Appends a length, which memory bounds.
pub(super) fn put_length(length: usize, out: &mut Vec<u8>) {
    put_long(i64::try_from(length).unwrap_or(i64::MAX), out);
}

/// Takes a long from the front of `input`; `None` if it is torn or has too many bits.
pub(super) fn take_long(input: &mut &[u8]) -> Option<i64> {
    let mut bits = 0u64;
    for place in 0..LONG_BYTES_MAX {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        let part = u64::from(byte & 0x7f);
        if place == LONG_BYTES_MAX - 1 && part > 1 {
            return None;
        }
        bits |= part << (7 * place);
        if byte & 0x80 == 0 {
            return Some((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
        }
    }
    None
}
