//! Variable-length integers as Kafka writes them: seven bits a byte, low bits first; signed ones zigzag.
//!
//! ```text
//! value   0   -1    1   -2   63   -64    64          300
//! bytes  00   01   02   03   7e    7f   80 01       d8 04        (signed, zigzag)
//! ```
//! Readers take only what a writer can have written: a value that goes on past its input, is longer
//! than it must be, or does not fit its type, is `None` and leaves the input where it was.

use bytes::BytesMut;

/// The longest 64-bit varint, in bytes.
pub(crate) const VARLONG_BYTES_MAX: usize = 10;

#[inline]
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Returns the bytes of the unsigned `value`: 1 to 10.
#[inline]
#[must_use]
pub(crate) const fn size_unsigned(value: u64) -> usize {
    // 7 bits a byte; `| 1` gives zero its one byte.
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Returns the bytes of the signed `value`: 1 to 10 (1 to 5 if it fits 32 bits).
#[inline]
#[must_use]
pub(crate) const fn size_signed(value: i64) -> usize {
    size_unsigned(zigzag(value))
}

/// The longest varint that [`encode_in_register`] makes, in bytes.
pub(crate) const REGISTER_BYTES_MAX: usize = 7;
/// The bound of [`encode_in_register`]'s values, either side of zero.
pub(crate) const REGISTER_VALUE_MAX: i64 = 1 << (7 * REGISTER_BYTES_MAX - 1);

/// The signed `value`, which is closer to zero than [`REGISTER_VALUE_MAX`], as a varint in a register: its
/// bytes from the lowest up, and how many there are.
#[inline]
pub(crate) fn encode_in_register(value: i64) -> (u64, usize) {
    let value = zigzag(value);
    if value < 0x80 {
        (value, 1)
    } else if value < 0x4000 {
        ((value & 0x7f | 0x80) | (value >> 7) << 8, 2)
    } else if value < 0x20_0000 {
        let low = (value & 0x7f | 0x80) | (value >> 7 & 0x7f | 0x80) << 8;
        (low | (value >> 14) << 16, 3)
    } else {
        encode_long_in_register(value)
    }
}

#[cold]
fn encode_long_in_register(value: u64) -> (u64, usize) {
    let (mut bytes, mut length, mut rest) = (0, 1, value);
    while rest >= 0x80 {
        bytes |= (rest & 0x7f | 0x80) << (8 * (length - 1));
        rest >>= 7;
        length += 1;
    }
    debug_assert!(length <= REGISTER_BYTES_MAX, "the caller keeps the bound");
    (bytes | rest << (8 * (length - 1)), length)
}

const fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// Appends the unsigned `value` (Kafka's compact lengths and tags).
#[inline]
pub(crate) fn write_unsigned(out: &mut BytesMut, value: u64) {
    let (mut bytes, mut length, mut rest) = ([0; VARLONG_BYTES_MAX], 0, value);
    while rest >= 0x80 {
        bytes[length] = low_byte(rest) | 0x80;
        rest >>= 7;
        length += 1;
    }
    bytes[length] = low_byte(rest);
    out.extend_from_slice(&bytes[..=length]);
}

/// Appends the signed `value` (records' lengths and deltas).
#[inline]
pub(crate) fn write_signed(out: &mut BytesMut, value: i64) {
    write_unsigned(out, zigzag(value));
}

/// Takes a 64-bit unsigned value from the front of `input`.
#[inline]
pub(crate) fn read_u64(input: &mut &[u8]) -> Option<u64> {
    match **input {
        [a, ref rest @ ..] if a < 0x80 => {
            *input = rest;
            Some(u64::from(a))
        }
        [a, b @ 1..0x80, ref rest @ ..] => {
            *input = rest;
            Some(u64::from(a & 0x7f) | u64::from(b) << 7)
        }
        [a, b, c @ 1..0x80, ref rest @ ..] if b >= 0x80 => {
            *input = rest;
            Some(u64::from(a & 0x7f) | u64::from(b & 0x7f) << 7 | u64::from(c) << 14)
        }
        _ => read_long(input),
    }
}

#[cold]
fn read_long(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().take(VARLONG_BYTES_MAX).enumerate() {
        let is_last_possible = i + 1 == VARLONG_BYTES_MAX;
        if is_last_possible && byte > 1 {
            return None; // Past 64 bits.
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            let is_overlong = byte == 0 && i > 0;
            *input = if is_overlong { input } else { &input[i + 1..] };
            return (!is_overlong).then_some(value);
        }
    }
    None
}

/// Takes a 64-bit signed value from the front of `input`.
#[inline]
pub(crate) fn read_i64(input: &mut &[u8]) -> Option<i64> {
    read_u64(input).map(unzigzag)
}

/// Takes a 32-bit signed value from the front of `input`.
#[inline]
pub(crate) fn read_i32(input: &mut &[u8]) -> Option<i32> {
    let mut rest = *input;
    let value = i32::try_from(read_i64(&mut rest)?).ok()?;
    *input = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signed(value: i64) -> Vec<u8> {
        let mut out = BytesMut::new();
        write_signed(&mut out, value);
        out.to_vec()
    }

    #[test]
    fn golden_bytes_of_signed_values() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (300, &[0xd8, 0x04]),
            (-8192, &[0xff, 0x7f]),
            (8192, &[0x80, 0x80, 0x01]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (
                i64::MIN,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ] {
            assert_eq!(signed(value), bytes, "{value}");
            assert_eq!(size_signed(value), bytes.len(), "{value}");
            assert_eq!(read_i64(&mut &bytes[..]), Some(value));
            if value.unsigned_abs() < REGISTER_VALUE_MAX.unsigned_abs() {
                let (register, length) = encode_in_register(value);
                assert_eq!(&register.to_le_bytes()[..length], bytes);
            }
        }
    }

    #[test]
    fn overlong_truncated_and_overflowing_values_are_refused_and_not_consumed() {
        for bytes in [
            &[][..],
            &[0x80],
            &[0x80, 0x80],
            &[0x80, 0x00],
            &[0xff, 0x80, 0x00],
            &[0xff; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        ] {
            let mut input = bytes;
            assert_eq!(read_u64(&mut input), None, "{bytes:x?}");
            assert_eq!(input, bytes);
        }
        assert_eq!(read_i32(&mut &signed(i64::from(i32::MAX) + 1)[..]), None);
    }

    proptest! {
        #[test]
        fn values_survive_the_round_trip(value: i64, shift in 0u32..64, rest: [u8; 2]) {
            let value = value >> shift;
            let mut bytes = signed(value);
            prop_assert_eq!(bytes.len(), size_signed(value));
            if value.unsigned_abs() < REGISTER_VALUE_MAX.unsigned_abs() {
                let (register, length) = encode_in_register(value);
                prop_assert_eq!(&register.to_le_bytes()[..length], &bytes[..]);
            }
            bytes.extend(rest);
            let mut input = &bytes[..];
            prop_assert_eq!(read_i64(&mut input), Some(value));
            prop_assert_eq!(input, &rest[..]);
        }

        #[test]
        fn whatever_is_read_is_written_back_the_same(bytes: [u8; 12]) {
            let mut input = &bytes[..];
            if let Some(value) = read_u64(&mut input) {
                let mut out = BytesMut::new();
                write_unsigned(&mut out, value);
                prop_assert_eq!(&out[..], &bytes[..bytes.len() - input.len()]);
            }
        }
    }
}
