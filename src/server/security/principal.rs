//! `Principal`: in whose name a connection acts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::server::ServerError;

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 1024;

/// In whose name a connection acts, as Kafka writes it: `User:alice`, `User:CN=alice,O=example`, `User:ANONYMOUS`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Principal {
    name: String,
}

impl Principal {
    /// Whoever did not say who they are.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::user("ANONYMOUS")
    }

    /// The user called `name`.
    #[must_use]
    pub fn user(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    /// The user's name, without `User:`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User:{}", self.name)
    }
}

impl FromStr for Principal {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let is_sane = |name: &&str| {
            !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
        };
        match text.strip_prefix("User:").filter(is_sane) {
            Some(name) => Ok(Self::user(name)),
            None => Err(ServerError::Invalid {
                what: format!(
                    "{:?} is not a principal: write User:<name>",
                    text.chars().take(100).collect::<String>()
                ),
            }),
        }
    }
}

impl TryFrom<String> for Principal {
    type Error = ServerError;

    fn try_from(text: String) -> Result<Self, ServerError> {
        text.parse()
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.to_string()
    }
}
