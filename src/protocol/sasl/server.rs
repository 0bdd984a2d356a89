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

/// Next step of the server.
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
    cause: Option<String>,
}

/// A refusal, with what only the server's operator is told.
struct Refusal {
    error: SaslError,
    cause: Option<String>,
}

impl Refusal {
    fn because(cause: String) -> Self {
        Self {
            error: SaslError::Refused,
            cause: Some(cause),
        }
    }
}

impl From<SaslError> for Refusal {
    fn from(error: SaslError) -> Self {
        Self { error, cause: None }
    }
}

/// The server's knowledge of who logs in.
#[derive(Clone, Copy)]
enum Knowledge {
    Credential,
    /// The user can log in by another mechanism only.
    OtherMechanism,
    Nothing,
}

impl Knowledge {
    /// Asks for both credentials whatever the first answer is, so that the work does not tell who exists.
    fn of(user: &str, hash: ScramHash, credentials: &dyn Credentials) -> Self {
        let has = |hash| credentials.credential(user, hash).is_some();
        match [ScramHash::Sha256, ScramHash::Sha512].map(|it| (it == hash, has(it))) {
            all if all.contains(&(true, true)) => Self::Credential,
            all if all.contains(&(false, true)) => Self::OtherMechanism,
            _ => Self::Nothing,
        }
    }

    /// Tells why `user` is refused. The name is told only if it is a user's: others may be passwords in the wrong field.
    fn cause(self, user: &str, mechanism: Mechanism) -> String {
        match self {
            Self::Credential => format!("the password of {user:?} is wrong"),
            Self::OtherMechanism => format!("{user:?} has no credential for {mechanism}"),
            Self::Nothing => "there is no such user".to_owned(),
        }
    }
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
    mechanism: Mechanism,
    knowledge: Knowledge,
    /// The client's part of the nonce.
    client_nonce: String,
    /// Of the user; of nobody if there is no such user.
    credential: ScramCredential,
    nonce: String,
    /// Text for the final message's `c=` to repeat.
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
            cause: None,
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
        let step = match std::mem::replace(&mut self.state, State::Over) {
            State::Plain => plain(message, credentials),
            State::ScramFirst { hash, nonce } => self.challenge(hash, &nonce, message, credentials),
            State::ScramFinal(conversation) => conversation.verify(text(message)?),
            State::Over => Err(Refusal::from(SaslError::Malformed {
                what: "the login is over",
            })),
        };
        step.map_err(|refusal| {
            self.cause = refusal.cause;
            refusal.error
        })
    }

    /// Explains a refused login where the client is not to know: for the operator's log.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    fn challenge(
        &mut self,
        hash: ScramHash,
        nonce: &str,
        message: &[u8],
        credentials: &dyn Credentials,
    ) -> Result<ServerStep, Refusal> {
        let first = ClientFirst::parse(message)?;
        let knowledge = Knowledge::of(&first.user, hash, credentials);
        let found = credentials.credential(&first.user, hash);
        let credential = found.unwrap_or_else(|| nobody(&first.user, hash, credentials.secret()));
        let nonce = format!("{}{nonce}", first.nonce);
        let answer = ServerFirst::format(&nonce, &credential.salt, credential.iterations);
        self.state = State::ScramFinal(Box::new(Conversation {
            auth: format!("{},{answer},", first.bare),
            binding: ClientFirst::header(message, first.bare),
            user: first.user,
            mechanism: Mechanism::Scram(hash),
            knowledge,
            client_nonce: first.nonce.to_owned(),
            credential,
            nonce,
        }));
        Ok(ServerStep::Send(answer.into_bytes()))
    }
}

impl Conversation {
    fn verify(&self, message: &str) -> Result<ServerStep, Refusal> {
        let last = ClientFinal::parse(message)?;
        // The whole nonce must come back: this is what makes a replayed conversation worthless (CVE-2024-56128).
        if last.nonce.strip_prefix(&self.client_nonce) == Some(&self.nonce) {
            return Err(SaslError::NonceTwice.into());
        }
        if last.nonce != self.nonce || last.binding != self.binding {
            return Err(SaslError::NotRepeated.into());
        }
        let auth = format!("{}{}", self.auth, last.without_proof);
        // Also for nobody, so that an unknown user costs what a wrong password does.
        let is_proven = self.credential.is_proven(auth.as_bytes(), &last.proof);
        if !(is_proven && matches!(self.knowledge, Knowledge::Credential)) {
            let cause = self.knowledge.cause(&self.user, self.mechanism);
            return Err(Refusal::because(cause));
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
fn plain(message: &[u8], credentials: &dyn Credentials) -> Result<ServerStep, Refusal> {
    let malformed = SaslError::Malformed {
        what: "it is not `NUL user NUL password`",
    };
    let text = std::str::from_utf8(message).map_err(|_| malformed.clone())?;
    let parts: Vec<&str> = text.splitn(4, '\0').collect();
    let [identity, user, password] = parts[..] else {
        return Err(malformed.into());
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
        false if is_right && is_known => Err(Refusal::because(format!(
            "{user:?} asked to act in the name of another user"
        ))),
        false => {
            let knowledge = match is_known {
                true => Knowledge::Credential,
                false => Knowledge::Nothing,
            };
            Err(Refusal::because(knowledge.cause(user, Mechanism::Plain)))
        }
    }
}

impl std::fmt::Debug for SaslServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaslServer")
    }
}
