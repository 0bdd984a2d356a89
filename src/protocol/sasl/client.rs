//! `SaslClient`: the client's side of a login.

use super::credential::{client_proof, is_equal, salted_password};
use super::error::SaslError;
use super::mechanism::{Mechanism, ScramHash};
use super::message::{
    ClientFinal, ClientFirst, ServerFirst, encode, nonce, parse_server_final, text,
};
use super::password::Password;
use super::prepare::prepare;
use crate::env::Random;

/// Next step of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientStep {
    /// It sends these bytes and waits for the answer.
    Send(Vec<u8>),
    /// It is logged in; with SCRAM the server has proved itself.
    Done,
}

/// One login of a client. Each server message is given to [`SaslClient::answer`], until [`ClientStep::Done`].
pub struct SaslClient {
    username: String,
    password: Password,
    state: State,
}

enum State {
    /// PLAIN: everything is in the first message.
    Plain,
    ScramFirst {
        hash: ScramHash,
        nonce: String,
    },
    ScramFinal {
        signature: Vec<u8>,
    },
    Over,
}

impl SaslClient {
    /// Begins a login.
    ///
    /// # Errors
    /// [`SaslError::Prohibited`] if user name or password has characters that SASL forbids.
    pub fn new(
        mechanism: Mechanism,
        username: &str,
        password: &Password,
        random: &dyn Random,
    ) -> Result<Self, SaslError> {
        Self::with_nonce(mechanism, username, password, nonce(random))
    }

    pub(super) fn with_nonce(
        mechanism: Mechanism,
        username: &str,
        password: &Password,
        nonce: String,
    ) -> Result<Self, SaslError> {
        prepare(username, "user name")?;
        prepare(password.expose(), "password")?;
        Ok(Self {
            username: username.to_owned(),
            password: password.clone(),
            state: match mechanism {
                Mechanism::Plain => State::Plain,
                Mechanism::Scram(hash) => State::ScramFirst { hash, nonce },
            },
        })
    }

    /// The message that opens the login.
    #[must_use]
    pub fn first_message(&self) -> Vec<u8> {
        match &self.state {
            State::ScramFirst { nonce, .. } => {
                ClientFirst::with_header(&ClientFirst::bare(&self.username, nonce))
            }
            _ => format!("\0{}\0{}", self.username, self.password.expose()).into_bytes(),
        }
    }

    /// Takes the server's message. After an error the login is over.
    ///
    /// # Errors
    /// [`SaslError`]: refused, not valid, or a server that cannot prove itself.
    pub fn answer(&mut self, challenge: &[u8]) -> Result<ClientStep, SaslError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Plain => Ok(ClientStep::Done),
            State::ScramFirst { hash, nonce } => self.prove(hash, &nonce, text(challenge)?),
            State::ScramFinal { signature } => {
                match is_equal(&parse_server_final(text(challenge)?)?, &signature) {
                    true => Ok(ClientStep::Done),
                    false => Err(SaslError::ServerNotProven),
                }
            }
            State::Over => Err(SaslError::Malformed {
                what: "the login is over, and the server goes on",
            }),
        }
    }

    fn prove(
        &mut self,
        hash: ScramHash,
        nonce: &str,
        challenge: &str,
    ) -> Result<ClientStep, SaslError> {
        if challenge.starts_with("e=") {
            parse_server_final(challenge)?;
        }
        let first = ServerFirst::parse(challenge)?;
        // RFC 5802 §5: the server adds to our nonce; one that does not may replay what it heard.
        if !first.nonce.starts_with(nonce) || first.nonce.len() == nonce.len() {
            return Err(SaslError::Malformed {
                what: "the server's nonce does not go on from ours",
            });
        }
        let salted = salted_password(hash, &self.password, &first.salt, first.iterations)?;
        let without_proof = ClientFinal::without_proof(first.nonce);
        let bare = ClientFirst::bare(&self.username, nonce);
        let auth = format!("{bare},{challenge},{without_proof}");
        let (proof, signature) = client_proof(hash, &salted, auth.as_bytes());
        self.state = State::ScramFinal { signature };
        let message = format!("{without_proof},p={}", encode(&proof));
        Ok(ClientStep::Send(message.into_bytes()))
    }
}

impl std::fmt::Debug for SaslClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaslClient")
    }
}
