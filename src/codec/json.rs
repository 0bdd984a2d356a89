//! Values as JSON: for people, and for programs that do not have the job's types.
//!
//! A serde type is what its own `Serialize` makes of it. Bytes without a better form are text: `0x`, then hexadecimal digits.

use std::fmt::Write as _;

use serde_json::Value;

use super::CodecError;

/// Stands before the hexadecimal digits of bytes.
const HEX: &str = "0x";

/// Bytes as text: `0x`, then two digits each.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let mut text = HEX.to_owned();
    for byte in bytes {
        // A `String` takes all that is written.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes of a text of [`to_hex`]; `None` if it is none.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(HEX)?.as_bytes();
    let pair = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).ok()?;
        // `from_str_radix` would take a sign.
        let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        are_digits.then(|| u8::from_str_radix(digits, 16).ok())?
    };
    match digits.len() % 2 {
        0 => digits.chunks(2).map(pair).collect(),
        _ => None,
    }
}

/// The bytes of a value that is known by nothing but its bytes.
pub(crate) fn bytes_of(json: &Value) -> Result<Vec<u8>, CodecError> {
    json.as_str().and_then(from_hex).ok_or_else(|| {
        not_this(
            json,
            "bytes: text of 0x and pairs of hexadecimal digits is wanted",
        )
    })
}

/// The error about a piece of JSON that is not what is wanted.
pub(crate) fn not_this(json: &Value, why: impl std::fmt::Display) -> CodecError {
    let mut shown = json.to_string();
    if shown.len() > EXCERPT_BYTES {
        shown.truncate(shown.floor_char_boundary(EXCERPT_BYTES));
        shown.push('…');
    }
    CodecError::Encode {
        codec: "JSON",
        why: format!("{shown} is not {why}"),
    }
}

/// Most bytes of a value in an error.
const EXCERPT_BYTES: usize = 80;

/// The value that a user wrote as plain text: text where the type is one, else JSON. `read` reads JSON as the type.
pub(crate) fn from_text<T>(
    text: &str,
    read: impl Fn(&Value) -> Result<T, CodecError>,
) -> Result<T, CodecError> {
    let as_text = read(&Value::String(text.to_owned()));
    match (as_text, serde_json::from_str(text)) {
        (Err(_), Ok(json)) => read(&json),
        (as_text, _) => as_text,
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;
    use crate::codec::{Datum, SortKey};
    use crate::types::Timestamp;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Colour {
        Red,
        Other { name: String },
    }

    fn shown<T: Datum + ?Sized>(value: &T) -> Value {
        use crate::codec::Codec;
        let mut bytes = Vec::new();
        T::DefaultCodec::default()
            .encode(value, &mut bytes)
            .unwrap();
        let json = T::to_json(&bytes).unwrap();
        assert_eq!(T::from_json(&json).unwrap(), bytes, "{json}");
        json
    }

    #[test]
    fn values_go_to_json_and_back() {
        assert_eq!(shown("tea"), json!("tea"));
        assert_eq!(shown::<[u8]>(&[0, 255]), json!("0x00ff"));
        assert_eq!(shown(&u64::MAX), json!(u64::MAX));
        assert_eq!(shown(&-1i64), json!(-1));
        assert_eq!(shown(&("a".to_owned(), Some(1u8))), json!(["a", 1]));
        assert_eq!(shown(&Colour::Red), json!("Red"));
        let name = "blue".to_owned();
        assert_eq!(
            shown(&Colour::Other { name }),
            json!({"Other": {"name": "blue"}})
        );
    }

    #[test]
    fn what_has_no_json_is_shown_as_its_bytes() {
        // Keys of a map in JSON are text.
        let map = std::collections::BTreeMap::from([((1u8, 2u8), 3u8)]);
        assert_eq!(shown(&map), json!("0x01010203"));
    }

    #[test]
    fn text_is_read_as_the_type_has_it() {
        let read = |text: &str| from_text(text, <u64 as Datum>::from_json);
        assert_eq!(read("5").unwrap(), [5]);
        assert!(read("five").is_err());
        assert_eq!(from_text("5", str::from_json).unwrap(), b"5");
        assert_eq!(from_text("5", String::from_json).unwrap(), [1, b'5']);
        assert_eq!(from_text("Red", Colour::from_json).unwrap(), [0]);
        let error = from_text("[1, 2]", u64::from_json).unwrap_err();
        assert!(error.to_string().contains("[1,2] is not"), "{error}");
    }

    #[test]
    fn places_in_an_order_go_to_json_and_back() {
        fn shown<S: SortKey + PartialEq + std::fmt::Debug>(place: &S) -> Value {
            let json = place.place_to_json();
            assert_eq!(&S::place_from_json(&json).unwrap(), place);
            json
        }
        assert_eq!(shown(&7u32), json!(7));
        assert_eq!(shown(&i128::MIN), json!(i128::MIN.to_string()));
        assert_eq!(shown(&Timestamp(-5)), json!(-5));
        assert_eq!(shown(&(true, "a".to_owned())), json!([true, "a"]));
        assert_eq!(shown(&(1u8, vec![255u8], 2i64)), json!([1, "0xff", 2]));
        assert!(u8::place_from_json(&json!(256)).is_err());
    }

    #[test]
    fn hexadecimal_digits_are_pairs_behind_0x() {
        for wrong in ["ff", "0xf", "0xfg", "0x+1", "0xé"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
        assert_eq!(from_hex("0x"), Some(vec![]));
        assert_eq!(from_hex("0x0aFF"), Some(vec![10, 255]));
    }
}
