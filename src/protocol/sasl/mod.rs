//! SASL PLAIN and SCRAM-SHA-256/512, both ends, as pure state machines (RFC 4616, 5802, 7677).
//!
//! Guarantees: a client accepts a SCRAM server only after it has proved that it knows the password, and never works
//! longer for it than [`ITERATIONS_MAX`] allows; a server compares in constant time, and refuses an unknown user with the
//! same messages and the same work as a wrong password. No channel binding.
//! Does not carry the messages, nor store users: the connection and the server's security do.
//!
//! Reading order: `mechanism.rs`, `password.rs`, `prepare.rs`, `credential.rs`, `message.rs`, `client.rs`, `server.rs`.

mod client;
mod credential;
mod error;
mod mechanism;
mod message;
mod password;
mod prepare;
mod server;
#[cfg(test)]
mod tests;

pub use client::{ClientStep, SaslClient};
pub use credential::{ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, ScramCredential};
pub use error::SaslError;
pub use mechanism::{Mechanism, ScramHash};
pub use password::Password;
pub use prepare::check_user_name;
pub use server::{Credentials, SaslServer, ServerStep};
