//! `SaslError`: why a login failed.

use crate::protocol::ErrorKind;

/// Failure of a login. No message holds a password, or says whether a user exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaslError {
    /// Not a mechanism that is spoken here.
    #[error(
        "the SASL mechanism `{name}` is not supported: use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )]
    UnknownMechanism {
        /// The name given.
        name: String,
    },
    /// User or password is wrong.
    #[error("the login was refused: user or password is wrong")]
    Refused,
    /// The client's last message does not repeat the server's nonce, or what it said of channel binding.
    #[error(
        "the login was refused: the client's last message does not repeat what both sides said before"
    )]
    NotRepeated,
    /// The client's last message puts its own nonce before the one that it was sent, which begins with it already.
    #[error(
        "the login was refused: the client repeats its nonce twice, as librdkafka does before 2.6.1: use a newer client"
    )]
    NonceTwice,
    /// The server refused, with SCRAM's own word for it.
    #[error("the server refused the login: {reason}")]
    RefusedByServer {
        /// Its word, such as `invalid-proof`.
        reason: String,
    },
    /// The server did not prove that it knows the password.
    #[error(
        "the server did not prove that it knows the password: it may not be the broker that it claims to be"
    )]
    ServerNotProven,
    /// A message breaks the mechanism's rules.
    #[error("a login message is not valid: {what}")]
    Malformed {
        /// The fault in it.
        what: &'static str,
    },
    /// A user name or password has characters that cannot be used.
    #[error("the {what} has a character that SASL forbids or that is not supported: {why}")]
    Prohibited {
        /// Which of both.
        what: &'static str,
        /// Which character.
        why: String,
    },
    /// The server asks for too little or too much work.
    #[error(
        "the server asks for {iterations} iterations; between {} and {} are accepted",
        super::ITERATIONS_MIN,
        super::ITERATIONS_MAX
    )]
    Iterations {
        /// The number.
        iterations: u32,
    },
}

impl SaslError {
    /// Returns what a caller may do: nothing but correct the settings.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Fatal
    }
}
