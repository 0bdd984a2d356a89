//! `ScramCredential`: what a server keeps of a password, and the arithmetic of SCRAM (RFC 5802 §3).
//!
//! ```text
//! salted     = PBKDF2(HMAC, password, salt, iterations)
//! client_key = HMAC(salted, "Client Key")      stored_key = H(client_key)
//! server_key = HMAC(salted, "Server Key")
//! proof      = client_key XOR HMAC(stored_key, auth)      signature = HMAC(server_key, auth)
//! ```

use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};

use super::error::SaslError;
use super::mechanism::ScramHash;
use super::password::Password;
use super::prepare::prepare;
use crate::env::Random;

/// The fewest iterations that are accepted (RFC 7677 §4): fewer make stolen credentials cheap to guess.
pub const ITERATIONS_MIN: u32 = 4_096;
/// The most iterations that are accepted: about a second of one core, so that a hostile server cannot ask for hours.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// The iterations of new credentials.
pub const ITERATIONS_DEFAULT: u32 = 8_192;

/// The salt of new credentials, in bytes.
const SALT_BYTES: usize = 16;

/// Credential of a user on the server. A thief of it can pretend to be the server, and must guess the password to be the user.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    /// The hash.
    pub hash: ScramHash,
    /// Random bytes.
    pub salt: Vec<u8>,
    /// Hash iterations of the password.
    pub iterations: u32,
    /// The hash of the client's key.
    pub stored_key: Vec<u8>,
    /// The key that the server proves itself with.
    pub server_key: Vec<u8>,
}

impl ScramCredential {
    /// A new credential for `password`, with a salt from `random`.
    ///
    /// # Errors
    /// [`SaslError::Prohibited`], [`SaslError::Iterations`].
    pub fn new(
        hash: ScramHash,
        password: &Password,
        iterations: u32,
        random: &dyn Random,
    ) -> Result<Self, SaslError> {
        let mut salt = Vec::with_capacity(SALT_BYTES);
        for _ in 0..SALT_BYTES / 8 {
            salt.extend(random.next_u64().to_be_bytes());
        }
        Self::with_salt(hash, password, salt, iterations)
    }

    /// A credential for `password` with a given salt.
    ///
    /// # Errors
    /// As [`ScramCredential::new`].
    pub fn with_salt(
        hash: ScramHash,
        password: &Password,
        salt: Vec<u8>,
        iterations: u32,
    ) -> Result<Self, SaslError> {
        prepare(password.expose(), "password")?;
        let salted = salted_password(hash, password, &salt, iterations)?;
        Ok(Self::of_salted(hash, &salted, salt, iterations))
    }

    /// A credential from a salted password, which a remote administrator sends instead of the password.
    #[must_use]
    pub fn of_salted(hash: ScramHash, salted: &[u8], salt: Vec<u8>, iterations: u32) -> Self {
        Self {
            hash,
            salt,
            iterations,
            stored_key: hashed(hash, &mac(hash, salted, b"Client Key")),
            server_key: mac(hash, salted, b"Server Key"),
        }
    }

    /// Whether `password` is the one, in constant time but for the hashing that its own iterations ask for.
    #[must_use]
    pub fn is_password(&self, password: &Password) -> bool {
        let salt = self.salt.clone();
        match Self::with_salt(self.hash, password, salt, self.iterations) {
            Ok(given) => is_equal(&given.stored_key, &self.stored_key),
            Err(_) => false,
        }
    }

    /// Whether `proof` proves knowledge of the password for this conversation.
    pub(super) fn is_proven(&self, auth: &[u8], proof: &[u8]) -> bool {
        let signature = mac(self.hash, &self.stored_key, auth);
        if proof.len() != signature.len() {
            return false;
        }
        let client_key = xor(proof, &signature);
        is_equal(&hashed(self.hash, &client_key), &self.stored_key)
    }

    /// The server's own proof for this conversation.
    pub(super) fn server_signature(&self, auth: &[u8]) -> Vec<u8> {
        mac(self.hash, &self.server_key, auth)
    }
}

impl std::fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ScramCredential({:?}, {} iterations, ***)",
            self.hash, self.iterations
        )
    }
}

/// The password, hashed `iterations` times.
pub(super) fn salted_password(
    hash: ScramHash,
    password: &Password,
    salt: &[u8],
    iterations: u32,
) -> Result<Vec<u8>, SaslError> {
    let count = NonZeroU32::new(iterations)
        .filter(|count| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&count.get()))
        .ok_or(SaslError::Iterations { iterations })?;
    let mut salted = vec![0; hash.digest_bytes()];
    let secret = password.expose().as_bytes();
    pbkdf2::derive(hash.pbkdf2(), count, salt, secret, &mut salted);
    Ok(salted)
}

/// The client's proof, and the signature that it expects of the server.
pub(super) fn client_proof(hash: ScramHash, salted: &[u8], auth: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let client_key = mac(hash, salted, b"Client Key");
    let stored_key = hashed(hash, &client_key);
    let proof = xor(&client_key, &mac(hash, &stored_key, auth));
    let server_key = mac(hash, salted, b"Server Key");
    (proof, mac(hash, &server_key, auth))
}

/// Compares in a time that depends on the lengths only.
pub(super) fn is_equal(a: &[u8], b: &[u8]) -> bool {
    // HMAC under one key: equal if and only if the inputs are (but for collisions of SHA-256); `ring` compares tags in constant time.
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    let tag = hmac::sign(&key, a);
    hmac::verify(&key, b, tag.as_ref()).is_ok()
}

pub(super) fn mac(hash: ScramHash, key: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hash.hmac(), key);
    hmac::sign(&key, message).as_ref().to_vec()
}

fn hashed(hash: ScramHash, bytes: &[u8]) -> Vec<u8> {
    digest::digest(hash.digest(), bytes).as_ref().to_vec()
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}
