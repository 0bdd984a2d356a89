//! `Password`: a secret that is not printed, and not left in memory.

use std::fmt;

/// A password. Its `Debug` shows nothing; its bytes are overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    bytes: Vec<u8>,
}

impl Password {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        // It was made from a `String`.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self {
            bytes: text.into_bytes(),
        }
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self {
            bytes: text.as_bytes().to_vec(),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // So that the writes, which nobody reads, are not optimised away.
        std::hint::black_box(&self.bytes);
    }
}
