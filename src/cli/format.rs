//! How bytes of a record are shown: as text, hexadecimal, JSON, or decoded by one of the crate's codecs.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::de::DeserializeOwned;

use super::output;
use crate::codec::{Bincode, Codec};

/// How to show a key or a value.
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

/// Shows bytes; `None` (no key, or a deletion) is `null`.
pub(super) struct Formatter {
    /// Whether control characters are escaped, because a terminal is listening.
    pub(super) is_terminal: bool,
}

impl Formatter {
    /// `bytes` in the format asked for; where they are not of that format, in hexadecimal with a note.
    pub(super) fn show(&self, bytes: Option<&[u8]>, format: ByteFormat) -> String {
        let Some(bytes) = bytes else {
            return "null".to_owned();
        };
        let shown = decode(bytes, format);
        let text = shown.unwrap_or_else(|| format!("(not {}) {}", format_name(format), hex(bytes)));
        match self.is_terminal {
            true => output::printable(&text).into_owned(),
            false => text,
        }
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

    fn show(bytes: &[u8], format: ByteFormat) -> String {
        Formatter { is_terminal: false }.show(Some(bytes), format)
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
    fn an_absent_value_is_null_and_control_characters_are_escaped_on_a_terminal() {
        let terminal = Formatter { is_terminal: true };
        assert_eq!(terminal.show(None, ByteFormat::Text), "null");
        assert_eq!(
            terminal.show(Some(b"\x1b[2J"), ByteFormat::Text),
            "\\u{1b}[2J"
        );
        assert_eq!(show(b"\x1b[2J", ByteFormat::Text), "\x1b[2J");
    }
}
