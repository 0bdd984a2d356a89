//! SCRAM's four messages as text (RFC 5802 §7).
//!
//! ```text
//! client first   n,,n=<user>,r=<client nonce>
//! server first   r=<client nonce><server nonce>,s=<salt>,i=<iterations>
//! client final   c=biws,r=<nonce>,p=<proof>
//! server final   v=<signature>      or e=<error>
//! ```
//! Extensions follow the attributes above and are passed over; `m=` (mandatory ones) is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::error::SaslError;
use super::prepare::{TEXT_BYTES_MAX, prepare};
use crate::env::Random;

/// The longest message, in bytes: each may hold two texts of the longest size, escaped.
const MESSAGE_BYTES_MAX: usize = 8 * TEXT_BYTES_MAX;
/// The longest nonce or salt that is accepted, in characters.
const TOKEN_CHARS_MAX: usize = 1024;
/// The random bytes of a nonce.
const NONCE_WORDS: usize = 3;
/// The header of a client without channel binding and without an authorisation identity, in base64.
const NO_BINDING: &str = "biws";

fn malformed<T>(what: &'static str) -> Result<T, SaslError> {
    Err(SaslError::Malformed { what })
}

/// A fresh nonce: printable, without commas.
pub(super) fn nonce(random: &dyn Random) -> String {
    let mut bytes = Vec::with_capacity(NONCE_WORDS * 8);
    for _ in 0..NONCE_WORDS {
        bytes.extend(random.next_u64().to_be_bytes());
    }
    encode(&bytes)
}

pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

fn decode(text: &str) -> Result<Vec<u8>, SaslError> {
    match BASE64.decode(text) {
        Ok(bytes) if text.len() <= TOKEN_CHARS_MAX => Ok(bytes),
        Ok(_) => malformed("a value is too long"),
        Err(_) => malformed("a value is not base64"),
    }
}

/// The text of a message.
pub(super) fn text(message: &[u8]) -> Result<&str, SaslError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return malformed("it is too long");
    }
    match std::str::from_utf8(message) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => malformed("it is not text"),
    }
}

/// `<name>=<value>` at the front, and the rest behind the comma.
fn attribute<'a>(text: &'a str, name: &str) -> Result<(&'a str, &'a str), SaslError> {
    let (first, rest) = text.split_once(',').unwrap_or((text, ""));
    match first.strip_prefix(name).and_then(|v| v.strip_prefix('=')) {
        Some(value) if !value.is_empty() => Ok((value, rest)),
        _ if first.starts_with("m=") => malformed("it has a mandatory extension"),
        _ => malformed("an attribute is missing"),
    }
}

fn checked_nonce(nonce: &str) -> Result<&str, SaslError> {
    let is_sane = nonce.len() <= TOKEN_CHARS_MAX && nonce.bytes().all(|b| b.is_ascii_graphic());
    match is_sane {
        true => Ok(nonce),
        false => malformed("the nonce has characters that it must not have"),
    }
}

/// The client's first message, without its header.
pub(super) struct ClientFirst<'a> {
    pub(super) bare: &'a str,
    pub(super) user: String,
    pub(super) nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn bare(user: &str, nonce: &str) -> String {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        format!("n={user},r={nonce}")
    }

    pub(super) fn with_header(bare: &str) -> Vec<u8> {
        format!("n,,{bare}").into_bytes()
    }

    pub(super) fn parse(message: &'a [u8]) -> Result<Self, SaslError> {
        let text = text(message)?;
        let mut parts = text.splitn(3, ',');
        match (parts.next(), parts.next()) {
            (Some("n" | "y"), Some("")) => {}
            (Some("n" | "y"), Some(identity)) => {
                // Kafka's rule as well: nobody acts in another's name.
                let same = attribute(identity, "a")?.0;
                let user = parts.clone().next().and_then(|bare| bare.split(',').next());
                if user.and_then(|user| user.strip_prefix("n=")) != Some(same) {
                    return malformed("acting in the name of another user is not supported");
                }
            }
            _ => return malformed("it asks for channel binding, which is not supported"),
        }
        let Some(bare) = parts.next() else {
            return malformed("an attribute is missing");
        };
        let (user, rest) = attribute(bare, "n")?;
        let (nonce, _) = attribute(rest, "r")?;
        let user = unescape(user)?;
        prepare(&user, "user name")?;
        Ok(Self {
            bare,
            user,
            nonce: checked_nonce(nonce)?,
        })
    }

    /// The header that the client used, which it must repeat in its final message.
    pub(super) fn header(message: &[u8], bare: &str) -> String {
        encode(&message[..message.len() - bare.len()])
    }
}

fn unescape(user: &str) -> Result<String, SaslError> {
    let mut out = String::with_capacity(user.len());
    let mut parts = user.split('=');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (c, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return malformed("the user name is not escaped as it must be"),
        };
        out.push(c);
        out.push_str(rest);
    }
    Ok(out)
}

/// The server's first message.
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

impl<'a> ServerFirst<'a> {
    pub(super) fn format(nonce: &str, salt: &[u8], iterations: u32) -> String {
        format!("r={nonce},s={},i={iterations}", encode(salt))
    }

    pub(super) fn parse(text: &'a str) -> Result<Self, SaslError> {
        let (nonce, rest) = attribute(text, "r")?;
        let (salt, rest) = attribute(rest, "s")?;
        let (iterations, _) = attribute(rest, "i")?;
        let is_number = iterations.bytes().all(|b| b.is_ascii_digit());
        match iterations.parse() {
            Ok(iterations) if is_number => Ok(Self {
                nonce: checked_nonce(nonce)?,
                salt: decode(salt)?,
                iterations,
            }),
            _ => malformed("the iterations are not a number"),
        }
    }
}

/// The client's final message.
pub(super) struct ClientFinal<'a> {
    pub(super) without_proof: &'a str,
    pub(super) binding: &'a str,
    pub(super) nonce: &'a str,
    pub(super) proof: Vec<u8>,
}

impl<'a> ClientFinal<'a> {
    pub(super) fn without_proof(nonce: &str) -> String {
        format!("c={NO_BINDING},r={nonce}")
    }

    pub(super) fn parse(text: &'a str) -> Result<Self, SaslError> {
        let Some((without_proof, proof)) = text.rsplit_once(",p=") else {
            return malformed("the proof is missing");
        };
        let (binding, rest) = attribute(without_proof, "c")?;
        let (nonce, _) = attribute(rest, "r")?;
        Ok(Self {
            without_proof,
            binding,
            nonce,
            proof: decode(proof)?,
        })
    }
}

/// The server's final message: its signature.
pub(super) fn parse_server_final(text: &str) -> Result<Vec<u8>, SaslError> {
    if let Some(error) = text.strip_prefix("e=") {
        let reason = error.split(',').next().unwrap_or_default();
        return Err(SaslError::RefusedByServer {
            reason: reason
                .chars()
                .filter(|c| !c.is_control())
                .take(64)
                .collect(),
        });
    }
    decode(attribute(text, "v")?.0)
}
