//! The registry's answers, and its paths.

use std::fmt::Write as _;

use serde::Deserialize;

/// A schema as the registry has it.
#[derive(Debug, Deserialize)]
pub(super) struct SchemaAnswer {
    pub(super) schema: String,
    #[serde(rename = "schemaType")]
    pub(super) schema_type: Option<String>,
    pub(super) id: Option<u32>,
    pub(super) version: Option<u32>,
    #[serde(default)]
    pub(super) references: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(super) struct IdAnswer {
    pub(super) id: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct CompatibilityAnswer {
    pub(super) is_compatible: bool,
    #[serde(default)]
    pub(super) messages: Vec<String>,
    pub(super) reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ErrorAnswer {
    pub(super) message: String,
}

/// A subject as a part of a path.
pub(super) fn escape(subject: &str) -> String {
    let mut escaped = String::new();
    for byte in subject.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(byte.into());
            }
            other => {
                // A `String` takes all that is written.
                let _ = write!(escaped, "%{other:02X}");
            }
        }
    }
    escaped
}
