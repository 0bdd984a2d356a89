//! Bytes of a record for people: as they are, and what they seem to say.

use serde_json::{Value, json};

use crate::codec::json::to_hex;

/// Most bytes shown of a key or a value.
const SHOWN_BYTES_MAX: usize = 4096;

/// Bytes as they are, the first 4 KiB of them; as text if they are text; and, where they are shown whole, what they seem to be:
/// `format` and `decoded`. Which codec wrote them, only the job knows.
pub(crate) fn json(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else {
        return Value::Null;
    };
    let begin = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    // A character that is cut in two is left out.
    let text = match std::str::from_utf8(begin) {
        Ok(text) => Some(text),
        Err(e) if e.error_len().is_none() && begin.len() < bytes.len() => {
            std::str::from_utf8(&begin[..e.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let guessed = match begin.len() == bytes.len() {
        true => guess(bytes),
        false => text.map(|text| ("text", text.to_owned())),
    };
    let (format, decoded) = guessed.unzip();
    json!({ "bytes": bytes.len(), "hex": to_hex(begin), "text": text, "format": format, "decoded": decoded })
}

/// The format that whole bytes seem to be in, and their text.
fn guess(bytes: &[u8]) -> Option<(&'static str, String)> {
    if bytes.is_empty() {
        return Some(("empty", String::new()));
    }
    let text = std::str::from_utf8(bytes).ok();
    if let Some(text) = text
        && text.trim_start().starts_with(['{', '['])
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    {
        return Some(("JSON", text.to_owned()));
    }
    let head = packed(bytes);
    if let Some((length, taken)) = head
        && length > 0
        && usize::try_from(length).is_ok_and(|length| length == bytes.len() - taken)
        && let Some(text) = printable(&bytes[taken..])
    {
        return Some(("text behind its length", text.to_owned()));
    }
    if let Some(text) = printable(bytes) {
        return Some(("text", text.to_owned()));
    }
    let (number, taken) = head?;
    (taken == bytes.len()).then(|| ("packed number", number.to_string()))
}

fn printable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_shown = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    text.chars().all(is_shown).then_some(text)
}

/// A number as jobs write it by default, and the bytes that it takes.
fn packed(bytes: &[u8]) -> Option<(u64, usize)> {
    let (first, rest) = bytes.split_first()?;
    let width = match first {
        0..=250 => return Some((u64::from(*first), 1)),
        251 => 2,
        252 => 4,
        253 => 8,
        _ => return None,
    };
    let mut number = [0; 8];
    number[..width].copy_from_slice(rest.get(..width)?);
    Some((u64::from_le_bytes(number), 1 + width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Bincode, Codec};

    #[test]
    fn bytes_are_shown_up_to_a_bound() {
        assert_eq!(json(None), Value::Null);
        assert_eq!(json(Some(b"tea"))["text"], "tea");
        assert_eq!(json(Some(b"\xff"))["text"], Value::Null);
        let long = "ä".repeat(SHOWN_BYTES_MAX);
        let shown = json(Some(&[b"x", long.as_bytes()].concat()));
        let text = shown["text"].as_str().map(str::len);
        assert_eq!(text, Some(SHOWN_BYTES_MAX - 1));
        assert_eq!(shown["bytes"], 2 * SHOWN_BYTES_MAX + 1);
        assert_eq!(shown["format"], "text");
    }

    fn guessed(bytes: &[u8]) -> (Value, Value) {
        let shown = json(Some(bytes));
        (shown["format"].clone(), shown["decoded"].clone())
    }

    #[test]
    fn what_jobs_write_by_default_is_seen_for_what_it_is() {
        fn packed<T: serde::Serialize + serde::de::DeserializeOwned + Clone>(value: &T) -> Vec<u8> {
            let mut bytes = Vec::new();
            Codec::<T>::encode(&Bincode, value, &mut bytes).unwrap();
            bytes
        }
        for number in [0u64, 250, 251, 65_536, u64::MAX] {
            let (format, decoded) = guessed(&packed(&number));
            assert_eq!(format, "packed number", "{number}");
            assert_eq!(decoded, number.to_string());
        }
        let text = "tea ☕".to_owned();
        let (format, decoded) = guessed(&packed(&text));
        assert_eq!(
            (format, decoded),
            ("text behind its length".into(), text.into())
        );
        assert_eq!(guessed(b"tea"), ("text".into(), "tea".into()));
        assert_eq!(guessed(b"{\"n\": 1}"), ("JSON".into(), "{\"n\": 1}".into()));
        assert_eq!(guessed(b"{\"n\": 1"), ("text".into(), "{\"n\": 1".into()));
        assert_eq!(guessed(b""), ("empty".into(), "".into()));
        assert_eq!(guessed(&[254, 1]), (Value::Null, Value::Null));
        assert_eq!(guessed(&[253, 1]), (Value::Null, Value::Null));
    }
}
