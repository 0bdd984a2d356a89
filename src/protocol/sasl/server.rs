//! `SaslServer`: the server's side of a login.

use super::credential::{ITERATIONS_DEFAULT, ScramCredential, mac};
use super::error::SaslError;
use super::mechanism::{Mechanism, ScramHash};
use super::message::{ClientFinal, ClientFirst, ServerFirst, encode, nonce, text};
use super::password::Password;
use super::prepare::prepare;
use crate::env::Random;

/// Where a server finds its users.
pub trait Credentials {
    /// The credential of `user` for `hash`; `None` if there is none.
    fn credential(&self, user: &str, hash: ScramHash) -> Option<ScramCredential>;

    /// A secret of this server, the same at every call: unknown users get a salt from it, always the same one.
    fn secret(&self) -> &[u8];
}

/// What the server does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerStep {
    /// It sends these bytes and waits for the client.
    Send(Vec<u8>),
    /// The client is logged in as `username`, and is sent `message`.
    Done {
        /// Who it is.
        username: String,
        /// The last message, maybe empty.
        message: Vec<u8>,
    },
}

/// One login at a server. Each client message is given to [`SaslServer::answer`], until [`ServerStep::Done`] or an error.
pub struct SaslServer {
    state: State,
}

enum State {
    Plain,
    ScramFirst { hash: ScramHash, nonce: String },
    ScramFinal(Box<Conversation>),
    Over,
}

/// A SCRAM login after its first two messages.
struct Conversation {
    user: String,
    /// Of the user; of nobody if there is no such user.
    credential: ScramCredential,
    is_known: bool,
    nonce: String,
    /// What the final message's `c=` must repeat.
    binding: String,
    /// Both first messages, and a comma: the beginning of what is signed.
    auth: String,
}

impl SaslServer {
    /// Begins a login by `mechanism`.
    #[must_use]
    pub fn new(mechanism: Mechanism, random: &dyn Random) -> Self {
        Self::with_nonce(mechanism, nonce(random))
    }

    pub(super) fn with_nonce(mechanism: Mechanism, nonce: String) -> Self {
        Self {
            state: match mechanism {
                Mechanism::Plain => State::Plain,
                Mechanism::Scram(hash) => State::ScramFirst { hash, nonce },
            },
        }
    }

    /// Takes the client's message. After an error the login is over.
    ///
    /// # Errors
    /// [`SaslError::Refused`], [`SaslError::Malformed`], [`SaslError::Prohibited`].
    pub fn answer(
        &mut self,
        message: &[u8],
        credentials: &dyn Credentials,
    ) -> Result<ServerStep, SaslError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Plain => plain(message, credentials),
            State::ScramFirst { hash, nonce } => self.challenge(hash, &nonce, message, credentials),
            State::ScramFinal(conversation) => conversation.verify(text(message)?),
            State::Over => Err(SaslError::Malformed {
                what: "the login is over",
            }),
        }
    }

    fn challenge(
        &mut self,
        hash: ScramHash,
        nonce: &str,
        message: &[u8],
        credentials: &dyn Credentials,
    ) -> Result<ServerStep, SaslError> {
        let first = ClientFirst::parse(message)?;
        let found = credentials.credential(&first.user, hash);
        let is_known = found.is_some();
        let credential = found.unwrap_or_else(|| nobody(&first.user, hash, credentials.secret()));
        let nonce = format!("{}{nonce}", first.nonce);
        let answer = ServerFirst::format(&nonce, &credential.salt, credential.iterations);
        self.state = State::ScramFinal(Box::new(Conversation {
            auth: format!("{},{answer},", first.bare),
            binding: ClientFirst::header(message, first.bare),
            user: first.user,
            credential,
            is_known,
            nonce,
        }));
        Ok(ServerStep::Send(answer.into_bytes()))
    }
}

impl Conversation {
    fn verify(&self, message: &str) -> Result<ServerStep, SaslError> {
        let last = ClientFinal::parse(message)?;
        // The whole nonce must come back: this is what makes a replayed conversation worthless (CVE-2024-56128).
        if last.nonce != self.nonce || last.binding != self.binding {
            return Err(SaslError::Refused);
        }
        let auth = format!("{}{}", self.auth, last.without_proof);
        // Also for nobody, so that an unknown user costs what a wrong password does.
        let is_proven = self.credential.is_proven(auth.as_bytes(), &last.proof);
        if !(is_proven && self.is_known) {
            return Err(SaslError::Refused);
        }
        let signature = self.credential.server_signature(auth.as_bytes());
        Ok(ServerStep::Done {
            username: self.user.clone(),
            message: format!("v={}", encode(&signature)).into_bytes(),
        })
    }
}

/// The credential of a user that does not exist: the same at every try, so that trying does not tell.
fn nobody(user: &str, hash: ScramHash, secret: &[u8]) -> ScramCredential {
    let mut salt = mac(hash, secret, user.as_bytes());
    salt.truncate(16);
    ScramCredential {
        hash,
        salt,
        iterations: ITERATIONS_DEFAULT,
        stored_key: mac(hash, secret, b"stored"),
        server_key: mac(hash, secret, b"server"),
    }
}

/// PLAIN (RFC 4616): `[identity] NUL user NUL password`.
fn plain(message: &[u8], credentials: &dyn Credentials) -> Result<ServerStep, SaslError> {
    let malformed = SaslError::Malformed {
        what: "it is not `NUL user NUL password`",
    };
    let text = std::str::from_utf8(message).map_err(|_| malformed.clone())?;
    let parts: Vec<&str> = text.splitn(4, '\0').collect();
    let [identity, user, password] = parts[..] else {
        return Err(malformed);
    };
    prepare(user, "user name")?;
    prepare(password, "password")?;
    let password = Password::from(password);
    let found = [ScramHash::Sha512, ScramHash::Sha256]
        .into_iter()
        .find_map(|hash| credentials.credential(user, hash));
    let is_known = found.is_some();
    let credential = found.unwrap_or_else(|| nobody(user, ScramHash::Sha512, credentials.secret()));
    let is_right = credential.is_password(&password);
    let is_own_name = identity.is_empty() || identity == user;
    match is_right && is_known && is_own_name {
        true => Ok(ServerStep::Done {
            username: user.to_owned(),
            message: Vec::new(),
        }),
        false => Err(SaslError::Refused),
    }
}

impl std::fmt::Debug for SaslServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaslServer")
    }
}
