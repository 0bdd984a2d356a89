//! Values as bytes that sort as the values do: the second half of a key in a store whose ranges are read.
//!
//! ```text
//! unsigned integers, bool    big-endian
//! signed integers, times     big-endian, with the sign bit flipped
//! text, bytes                each 0 as 0 255; then 0 0
//! pairs, triples             one behind the other
//! ```
//! No value's bytes begin another's, so bounds of ranges are bytes, too.

use serde::Deserialize;
use serde_json::Value;

use super::json::{bytes_of as bytes_of_json, not_this, to_hex};
use super::{CodecError, TypeIdentity};
use crate::types::Timestamp;

/// A value that has a place in an order, as bytes that sort the same.
#[diagnostic::on_unimplemented(
    message = "a store cannot be sorted by `{Self}`",
    note = "integers, `bool`, `Timestamp`, `String`, `Vec<u8>`, and pairs and triples of them can be sorted by"
)]
pub trait SortKey: Sized {
    /// The name of the type in stored data. It changes when the same bytes come to mean something else.
    fn identity() -> TypeIdentity;

    /// Appends the bytes.
    fn encode_sorted(&self, out: &mut Vec<u8>);

    /// Takes the bytes of one value from the front.
    ///
    /// # Errors
    /// If they are none.
    fn decode_sorted(bytes: &mut &[u8]) -> Result<Self, CodecError>;

    /// The value as JSON: for who has not the type. By default the hexadecimal digits of its bytes.
    fn place_to_json(&self) -> Value {
        let mut bytes = Vec::new();
        self.encode_sorted(&mut bytes);
        to_hex(&bytes).into()
    }

    /// The value that [`place_to_json`](Self::place_to_json) gave.
    ///
    /// # Errors
    /// If it is no value of the type.
    fn place_from_json(json: &Value) -> Result<Self, CodecError> {
        let bytes = bytes_of_json(json)?;
        Self::decode_sorted(&mut &*bytes)
    }
}

/// A value that serde reads from JSON.
fn read<'de, T: Deserialize<'de>>(json: &'de Value) -> Result<T, CodecError> {
    T::deserialize(json).map_err(|e| not_this(json, e))
}

fn refuse(length_bytes: usize) -> CodecError {
    CodecError::Decode {
        codec: "a key to sort by",
        length_bytes,
        why: "it is too short, or does not end".to_owned(),
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (first, rest) = bytes
        .split_first_chunk::<N>()
        .ok_or_else(|| refuse(bytes.len()))?;
    *bytes = rest;
    Ok(*first)
}

/// An integer as JSON: as text where a number of JSON has not its range.
macro_rules! integer_to_json {
    (number, $value:expr) => {
        Value::from($value)
    };
    (text, $value:expr) => {
        Value::from($value.to_string())
    };
}

/// The integer of what [`integer_to_json`] gave.
macro_rules! integer_from_json {
    (number, $json:expr) => {
        read($json)
    };
    (text, $json:expr) => {{
        let text: &str = read($json)?;
        text.parse().map_err(|e| not_this($json, e))
    }};
}

macro_rules! sorted_integers {
    ($($type:ty, $flip:expr, $json:ident;)*) => {$(
        impl SortKey for $type {
            fn identity() -> TypeIdentity {
                TypeIdentity::named(stringify!($type))
            }

            #[inline]
            fn encode_sorted(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&(*self ^ $flip).to_be_bytes());
            }

            #[inline]
            fn decode_sorted(bytes: &mut &[u8]) -> Result<Self, CodecError> {
                Ok(Self::from_be_bytes(take(bytes)?) ^ $flip)
            }

            fn place_to_json(&self) -> Value {
                integer_to_json!($json, *self)
            }

            fn place_from_json(json: &Value) -> Result<Self, CodecError> {
                integer_from_json!($json, json)
            }
        }
    )*};
}

sorted_integers! {
    u8, 0, number;
    u16, 0, number;
    u32, 0, number;
    u64, 0, number;
    u128, 0, text;
    i8, Self::MIN, number;
    i16, Self::MIN, number;
    i32, Self::MIN, number;
    i64, Self::MIN, number;
    i128, Self::MIN, text;
}

impl SortKey for bool {
    fn identity() -> TypeIdentity {
        TypeIdentity::named("bool")
    }

    fn encode_sorted(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode_sorted(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        Ok(take::<1>(bytes)?[0] != 0)
    }

    fn place_to_json(&self) -> Value {
        Value::from(*self)
    }

    fn place_from_json(json: &Value) -> Result<Self, CodecError> {
        read(json)
    }
}

impl SortKey for Timestamp {
    fn identity() -> TypeIdentity {
        TypeIdentity::named("time")
    }

    #[inline]
    fn encode_sorted(&self, out: &mut Vec<u8>) {
        self.0.encode_sorted(out);
    }

    #[inline]
    fn decode_sorted(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        i64::decode_sorted(bytes).map(Self)
    }

    fn place_to_json(&self) -> Value {
        self.0.place_to_json()
    }

    fn place_from_json(json: &Value) -> Result<Self, CodecError> {
        read(json).map(Self)
    }
}

impl SortKey for Vec<u8> {
    fn identity() -> TypeIdentity {
        TypeIdentity::named("bytes")
    }

    fn encode_sorted(&self, out: &mut Vec<u8>) {
        encode_bytes(self, out);
    }

    fn decode_sorted(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let mut value = Vec::new();
        let mut rest = *bytes;
        loop {
            match rest {
                [0, 0, behind @ ..] => {
                    *bytes = behind;
                    return Ok(value);
                }
                [0, u8::MAX, behind @ ..] => {
                    value.push(0);
                    rest = behind;
                }
                [0, ..] | [] => return Err(refuse(bytes.len())),
                [byte, behind @ ..] => {
                    value.push(*byte);
                    rest = behind;
                }
            }
        }
    }

    fn place_to_json(&self) -> Value {
        to_hex(self).into()
    }

    fn place_from_json(json: &Value) -> Result<Self, CodecError> {
        bytes_of_json(json)
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(u8::MAX);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

impl SortKey for String {
    fn identity() -> TypeIdentity {
        TypeIdentity::named("text")
    }

    fn encode_sorted(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }

    fn decode_sorted(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let length_bytes = bytes.len();
        Self::from_utf8(Vec::decode_sorted(bytes)?).map_err(|e| CodecError::Decode {
            codec: "a key to sort by",
            length_bytes,
            why: e.to_string(),
        })
    }

    fn place_to_json(&self) -> Value {
        Value::from(self.as_str())
    }

    fn place_from_json(json: &Value) -> Result<Self, CodecError> {
        read(json)
    }
}

impl<A: SortKey, B: SortKey> SortKey for (A, B) {
    fn identity() -> TypeIdentity {
        TypeIdentity::named(&format!("({},{})", A::identity(), B::identity()))
    }

    #[inline]
    fn encode_sorted(&self, out: &mut Vec<u8>) {
        self.0.encode_sorted(out);
        self.1.encode_sorted(out);
    }

    #[inline]
    fn decode_sorted(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        Ok((A::decode_sorted(bytes)?, B::decode_sorted(bytes)?))
    }

    fn place_to_json(&self) -> Value {
        Value::from([self.0.place_to_json(), self.1.place_to_json()])
    }

    fn place_from_json(json: &Value) -> Result<Self, CodecError> {
        match json.as_array().map(Vec::as_slice) {
            Some([a, b]) => Ok((A::place_from_json(a)?, B::place_from_json(b)?)),
            _ => Err(not_this(json, "a list of two")),
        }
    }
}

impl<A: SortKey, B: SortKey, C: SortKey> SortKey for (A, B, C) {
    fn identity() -> TypeIdentity {
        let (a, b, c) = (A::identity(), B::identity(), C::identity());
        TypeIdentity::named(&format!("({a},{b},{c})"))
    }

    #[inline]
    fn encode_sorted(&self, out: &mut Vec<u8>) {
        self.0.encode_sorted(out);
        self.1.encode_sorted(out);
        self.2.encode_sorted(out);
    }

    #[inline]
    fn decode_sorted(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let (a, b) = (A::decode_sorted(bytes)?, B::decode_sorted(bytes)?);
        Ok((a, b, C::decode_sorted(bytes)?))
    }

    fn place_to_json(&self) -> Value {
        Value::from([
            self.0.place_to_json(),
            self.1.place_to_json(),
            self.2.place_to_json(),
        ])
    }

    fn place_from_json(json: &Value) -> Result<Self, CodecError> {
        match json.as_array().map(Vec::as_slice) {
            Some([a, b, c]) => Ok((
                A::place_from_json(a)?,
                B::place_from_json(b)?,
                C::place_from_json(c)?,
            )),
            _ => Err(not_this(json, "a list of three")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of<S: SortKey>(value: &S) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.encode_sorted(&mut bytes);
        bytes
    }

    #[test]
    fn sorted_values_have_these_bytes() {
        assert_eq!(bytes_of(&258u16), [1, 2]);
        assert_eq!(bytes_of(&-2i16), [0x7f, 0xfe]);
        assert_eq!(bytes_of(&Timestamp(0)), [0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes_of(&"a\0b".to_owned()), [b'a', 0, 255, b'b', 0, 0]);
        assert_eq!(bytes_of(&(true, 7u8)), [1, 7]);
        for bad in [&[][..], &[1], &[1, 0], &[0, 7, 0, 0]] {
            assert!(Vec::<u8>::decode_sorted(&mut &*bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn bytes_sort_as_the_values_do_and_give_them_back(
            a in any::<(i64, String, bool)>(),
            b in any::<(i64, String, bool)>(),
            near in any::<(Vec<u8>, Vec<u8>)>(),
        ) {
            let values = [a.clone(), b, (a.0, format!("{}\0", a.1), !a.2)];
            for x in &values {
                let bytes = bytes_of(x);
                let mut rest = &*bytes;
                prop_assert_eq!(&<(i64, String, bool)>::decode_sorted(&mut rest).unwrap(), x);
                prop_assert!(rest.is_empty());
                for y in &values {
                    prop_assert_eq!(bytes_of(x).cmp(&bytes_of(y)), x.cmp(y));
                }
            }
            prop_assert_eq!(bytes_of(&near.0).cmp(&bytes_of(&near.1)), near.0.cmp(&near.1));
        }
    }
}
