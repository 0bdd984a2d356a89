//! Formats of a record's bytes: as text, hexadecimal, JSON, or decoded by one of the crate's codecs.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::de::DeserializeOwned;

use super::output;
use crate::codec::{Bincode, Codec};

/// Format of a key or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ByteFormat {
    /// UTF-8 text; bytes that are not become U+FFFD
    Text,
    /// Two hexadecimal digits a byte
    Hex,
    /// JSON, on one line
    Json,
    /// A `String` as jobs write it by default
    BincodeString,
    /// An unsigned integer as jobs write it by default
    BincodeU64,
    /// A signed integer as jobs write it by default
    BincodeI64,
    /// A floating-point number as jobs write it by default
    BincodeF64,
}

/// Text of a missing key or value unless told otherwise: no byte of a record is ever shown like that.
pub(super) const NULL: &str = r"\N";

/// Shows bytes as text.
pub(super) struct Formatter<'a> {
    /// Whether control characters are escaped, because a terminal is listening.
    pub(super) is_terminal: bool,
    /// The text that stands for `None`: no key, or a deletion.
    pub(super) null: &'a str,
}

impl Formatter<'_> {
    /// `bytes` in the format asked for; where they are not of that format, in hexadecimal with a note. Bytes that look like
    /// a missing value get a backslash in front.
    pub(super) fn show(&self, bytes: Option<&[u8]>, format: ByteFormat) -> String {
        let text = match bytes {
            Some(bytes) => {
                let shown = decode(bytes, format);
                let text = shown
                    .unwrap_or_else(|| format!("(not {}) {}", format_name(format), hex(bytes)));
                escape(text, self.null)
            }
            None => self.null.to_owned(),
        };
        match self.is_terminal {
            true => output::printable(&text).into_owned(),
            false => text,
        }
    }
}

/// `text`, distinguished from `null`. [`unescape`] is the way back.
fn escape(text: String, null: &str) -> String {
    match is_escaped(text.as_bytes(), null.as_bytes()) {
        true => format!("\\{text}"),
        false => text,
    }
}

/// The meaning of `field` where `null` stands for no value.
pub(super) fn unescape<'a>(field: &'a [u8], null: &str) -> Option<&'a [u8]> {
    if field == null.as_bytes() {
        return None;
    }
    match field.strip_prefix(b"\\") {
        Some(rest) if is_escaped(rest, null.as_bytes()) => Some(rest),
        _ => Some(field),
    }
}

/// Whether `rest` is `null`, or that with backslashes in front.
fn is_escaped(rest: &[u8], null: &[u8]) -> bool {
    let before = rest.strip_suffix(null);
    before.is_some_and(|before| before.iter().all(|byte| *byte == b'\\'))
}

/// `bytes` in JSON: text in the format asked for, `null`, or, where the bytes are not of that format, an object with their
/// hexadecimal digits.
pub(super) fn json(bytes: Option<&[u8]>, format: ByteFormat) -> serde_json::Value {
    let Some(bytes) = bytes else {
        return serde_json::Value::Null;
    };
    let shown = match format {
        ByteFormat::Text => std::str::from_utf8(bytes).ok().map(str::to_owned),
        format => decode(bytes, format),
    };
    match shown {
        Some(text) => text.into(),
        None => serde_json::json!({ "hex": hex(bytes) }),
    }
}

fn format_name(format: ByteFormat) -> String {
    format
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

fn decode(bytes: &[u8], format: ByteFormat) -> Option<String> {
    match format {
        ByteFormat::Text => Some(String::from_utf8_lossy(bytes).into_owned()),
        ByteFormat::Hex => Some(hex(bytes)),
        ByteFormat::Json => serde_json::from_slice::<serde_json::Value>(bytes)
            .ok()
            .map(|value| value.to_string()),
        ByteFormat::BincodeString => bincode::<String>(bytes),
        ByteFormat::BincodeU64 => bincode::<u64>(bytes),
        ByteFormat::BincodeI64 => bincode::<i64>(bytes),
        ByteFormat::BincodeF64 => bincode::<f64>(bytes),
    }
}

fn bincode<T: DeserializeOwned + serde::Serialize + Clone + ToString>(
    bytes: &[u8],
) -> Option<String> {
    let value: std::borrow::Cow<'_, T> = Bincode.decode(bytes).ok()?;
    Some(value.to_string())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatter(is_terminal: bool) -> Formatter<'static> {
        Formatter {
            is_terminal,
            null: NULL,
        }
    }

    fn show(bytes: &[u8], format: ByteFormat) -> String {
        formatter(false).show(Some(bytes), format)
    }

    #[test]
    fn bytes_are_shown_in_the_format_asked_for() {
        assert_eq!(show(b"tea", ByteFormat::Text), "tea");
        assert_eq!(show(b"tea", ByteFormat::Hex), "746561");
        assert_eq!(show(b"{ \"n\": 1 }", ByteFormat::Json), "{\"n\":1}");
        assert_eq!(show(b"\x03tea", ByteFormat::BincodeString), "tea");
        assert_eq!(show(&[251, 0x39, 0x05], ByteFormat::BincodeU64), "1337");
    }

    #[test]
    fn bytes_of_another_format_are_shown_and_said_to_be() {
        assert_eq!(show(b"tea", ByteFormat::Json), "(not json) 746561");
        assert_eq!(
            show(b"tea", ByteFormat::BincodeU64),
            "(not bincode-u64) 746561"
        );
        assert_eq!(show(b"\xff", ByteFormat::Text), "\u{fffd}");
    }

    #[test]
    fn control_characters_are_escaped_on_a_terminal() {
        assert_eq!(
            formatter(true).show(Some(b"\x1b[2J"), ByteFormat::Text),
            "\\u{1b}[2J"
        );
        assert_eq!(show(b"\x1b[2J", ByteFormat::Text), "\x1b[2J");
    }

    #[test]
    fn x19_nothing_but_null_is_shown_as_null_and_all_texts_come_back() {
        for null in [NULL, "null", "", r"\", r"\\N", "NULL"] {
            let formatter = Formatter {
                is_terminal: false,
                null,
            };
            let shown = formatter.show(None, ByteFormat::Text);
            assert_eq!(unescape(shown.as_bytes(), null), None, "{null:?}");
            for text in [
                "", "N", "null", r"\N", r"\\N", r"\\\N", r"\null", r"\", r"\\", "tea", r"\tea",
            ] {
                let shown = formatter.show(Some(text.as_bytes()), ByteFormat::Text);
                let meant = unescape(shown.as_bytes(), null);
                assert_eq!(meant, Some(text.as_bytes()), "{text:?} with {null:?}");
            }
        }
        assert_eq!(formatter(false).show(None, ByteFormat::Text), r"\N");
        assert_eq!(show(b"null", ByteFormat::Text), "null");
        assert_eq!(show(b"null", ByteFormat::Json), "null");
    }

    #[test]
    fn x19_bytes_that_are_not_text_stay_apart_in_json() {
        let text = |bytes| json(Some(bytes), ByteFormat::Text).to_string();
        assert_eq!(text(b"\xfe"), r#"{"hex":"fe"}"#);
        assert_eq!(text(b"\xff"), r#"{"hex":"ff"}"#);
        assert_eq!(text(b"tea"), r#""tea""#);
        assert_eq!(json(None, ByteFormat::Text).to_string(), "null");
        let number = json(Some(b"tea"), ByteFormat::BincodeU64);
        assert_eq!(number.to_string(), r#"{"hex":"746561"}"#);
    }
}
