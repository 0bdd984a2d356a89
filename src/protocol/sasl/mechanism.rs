//! `Mechanism`: how a client proves who it is.

use std::fmt;
use std::str::FromStr;

use ring::digest;
use ring::hmac;
use ring::pbkdf2;

use super::error::SaslError;

/// The hash of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScramHash {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl ScramHash {
    /// The size of its digests, in bytes.
    #[must_use]
    pub fn digest_bytes(self) -> usize {
        self.digest().output_len()
    }

    pub(super) fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    pub(super) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    pub(super) fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// Proof of a client's identity, by Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// `PLAIN`: the password itself, so over TLS only.
    Plain,
    /// `SCRAM-SHA-256` or `SCRAM-SHA-512`: a proof, and the server proves itself too.
    Scram(ScramHash),
}

impl Mechanism {
    /// All of them, the strongest first.
    pub const ALL: [Self; 3] = [
        Self::Scram(ScramHash::Sha512),
        Self::Scram(ScramHash::Sha256),
        Self::Plain,
    ];

    /// Kafka's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(ScramHash::Sha256) => "SCRAM-SHA-256",
            Self::Scram(ScramHash::Sha512) => "SCRAM-SHA-512",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mechanism {
    type Err = SaslError;

    fn from_str(text: &str) -> Result<Self, SaslError> {
        let known = Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name() == text);
        known.ok_or_else(|| SaslError::UnknownMechanism {
            name: text.chars().filter(|c| !c.is_control()).take(32).collect(),
        })
    }
}
