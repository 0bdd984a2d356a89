//! The framing of a schema registry: which schema a value was written with stands in front of it.
//!
//! ```text
//! byte 0      0, the magic byte
//! bytes 1–4   the id of the schema, big endian
//! Protobuf:   the place of the message in its file: how many numbers, then the numbers, each as a zigzag varint; `0` alone is the first
//! rest        the value
//! ```

use super::CodecError;

/// The bytes of the frame without Protobuf's numbers.
pub(crate) const FRAME_BYTES: usize = 5;

/// The frame of a value whose schema has this id.
pub(crate) fn frame(id: u32) -> [u8; FRAME_BYTES] {
    let [a, b, c, d] = id.to_be_bytes();
    [0, a, b, c, d]
}

/// The id of a value's schema, and what is behind the frame.
///
/// # Errors
/// If the bytes have no frame.
pub(crate) fn unframe(bytes: &[u8]) -> Result<(u32, &[u8]), CodecError> {
    match bytes {
        [0, a, b, c, d, value @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), value)),
        _ => Err(CodecError::Decode {
            codec: "a value with a schema's id",
            length_bytes: bytes.len(),
            why: match bytes.first() {
                None => "it is empty".to_owned(),
                Some(0) => "it ends within the id".to_owned(),
                Some(first) => format!(
                    "it begins with {first:#04x} instead of 0x00 and an id: its writer does not use a schema registry"
                ),
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_zero_and_the_id() {
        assert_eq!(frame(0x0102_0304), [0, 1, 2, 3, 4]);
        assert_eq!(unframe(&[0, 1, 2, 3, 4, 9]), Ok((0x0102_0304, &[9][..])));
        for (torn, why) in [
            (&[][..], "empty"),
            (&[0, 1, 2, 3], "within the id"),
            (&[b'{', 1, 2, 3, 4, 5], "0x7b"),
        ] {
            let refused = unframe(torn).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
