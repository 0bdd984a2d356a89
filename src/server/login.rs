//! `Login`: how a connection proves who it is, by Kafka's SaslHandshake and SaslAuthenticate. Pure but for the clock.
//!
//! ```text
//! Closed ──handshake──► Chosen ──messages──► logged in ──handshake──► Chosen …   (a login may be renewed)
//! ```
//! After a handshake of version 0 the messages come without Kafka's headers, as old clients send them.

use std::sync::Arc;

use bytes::Bytes;

use super::security::{Principal, Snapshot};
use crate::env::Random;
use crate::protocol::sasl::{Mechanism, SaslError, SaslServer, ServerStep};
use crate::protocol::wire::messages::sasl_authenticate::{
    SaslAuthenticateRequest, SaslAuthenticateResponse,
};
use crate::protocol::wire::messages::sasl_handshake::{
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use crate::protocol::wire::{
    ApiKey, Reader, RequestHeader, WireError, decode_request, encode_response,
};

/// Kafka's error codes of a login.
const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const ILLEGAL_SASL_STATE: i16 = 34;
const SASL_AUTHENTICATION_FAILED: i16 = 58;

/// Next step of a connection's login.
pub(super) enum LoginStep {
    /// It goes on; the client is sent this.
    Answer(Vec<Bytes>),
    /// The client is who it says, and is sent this.
    LoggedIn(Principal, Vec<Bytes>),
    /// The client is refused: after a while it is sent this, and the connection closed.
    Refused(Vec<Bytes>, String),
}

/// One connection's login.
pub(super) struct Login {
    mechanisms: Vec<Mechanism>,
    state: State,
}

enum State {
    Idle,
    Chosen { server: SaslServer, is_raw: bool },
}

impl Login {
    pub(super) fn new(mechanisms: Vec<Mechanism>) -> Self {
        Self {
            mechanisms,
            state: State::Idle,
        }
    }

    /// Whether the next frame belongs to the login: by its API, or because a bare message is due.
    pub(super) fn takes(&self, frame: &Bytes) -> bool {
        let is_raw = matches!(self.state, State::Chosen { is_raw: true, .. });
        let key = frame.first_chunk::<2>().map(|b| i16::from_be_bytes(*b));
        is_raw
            || key == Some(ApiKey::SaslHandshake.key())
            || key == Some(ApiKey::SaslAuthenticate.key())
    }

    /// Takes a frame of the login.
    ///
    /// # Errors
    /// If it is no request, or of a version that is not served.
    pub(super) fn answer(
        &mut self,
        frame: Bytes,
        users: &Arc<Snapshot>,
        random: &dyn Random,
    ) -> Result<LoginStep, WireError> {
        if let State::Chosen {
            is_raw: true,
            server,
        } = &mut self.state
        {
            return Ok(match server.answer(&frame, &**users) {
                Ok(ServerStep::Send(message)) => LoginStep::Answer(vec![message.into()]),
                Ok(ServerStep::Done { username, message }) => {
                    self.state = State::Idle;
                    LoginStep::LoggedIn(Principal::user(&username), vec![message.into()])
                }
                Err(error) => LoginStep::Refused(Vec::new(), cause(server, &error)),
            });
        }
        let mut reader = Reader::new(frame);
        let header = RequestHeader::decode(&mut reader)?;
        let answered = Answered {
            version: header.version,
            correlation_id: header.correlation_id,
        };
        if header.api_key == ApiKey::SaslHandshake.key() {
            let request = decode_request(reader, header.version)?;
            return self.handshake(&request, &answered, random);
        }
        let request = decode_request(reader, header.version)?;
        self.authenticate(&request, &answered, users)
    }

    fn handshake(
        &mut self,
        request: &SaslHandshakeRequest,
        answered: &Answered,
        random: &dyn Random,
    ) -> Result<LoginStep, WireError> {
        let chosen = request.mechanism.parse::<Mechanism>().ok();
        let chosen = chosen.filter(|mechanism| self.mechanisms.contains(mechanism));
        let offered = self.mechanisms.iter().map(ToString::to_string);
        let response = SaslHandshakeResponse {
            error_code: match chosen {
                Some(_) => 0,
                None => UNSUPPORTED_SASL_MECHANISM,
            },
            mechanisms: offered.collect(),
        };
        let frame = encode_response::<SaslHandshakeRequest>(
            answered.version,
            answered.correlation_id,
            &response,
        )?;
        let Some(mechanism) = chosen else {
            let why = format!("the mechanism {:?} is not offered", request.mechanism);
            return Ok(LoginStep::Refused(frame.chunks, why));
        };
        self.state = State::Chosen {
            server: SaslServer::new(mechanism, random),
            is_raw: answered.version == 0,
        };
        Ok(LoginStep::Answer(frame.chunks))
    }

    fn authenticate(
        &mut self,
        request: &SaslAuthenticateRequest,
        answered: &Answered,
        users: &Arc<Snapshot>,
    ) -> Result<LoginStep, WireError> {
        let State::Chosen { server, .. } = &mut self.state else {
            let why = "a login message came before its handshake";
            let frame = answered.error(ILLEGAL_SASL_STATE, why)?;
            return Ok(LoginStep::Refused(frame, why.to_owned()));
        };
        match server.answer(&request.auth_bytes, &**users) {
            Ok(ServerStep::Send(message)) => Ok(LoginStep::Answer(answered.message(message)?)),
            Ok(ServerStep::Done { username, message }) => {
                self.state = State::Idle;
                let frame = answered.message(message)?;
                Ok(LoginStep::LoggedIn(Principal::user(&username), frame))
            }
            Err(error) => {
                let why = cause(server, &error);
                let frame = answered.error(SASL_AUTHENTICATION_FAILED, &error.to_string())?;
                Ok(LoginStep::Refused(frame, why))
            }
        }
    }
}

/// Finds why a login was refused, for the operator's log: the client may be told less.
fn cause(server: &SaslServer, error: &SaslError) -> String {
    server
        .cause()
        .map_or_else(|| error.to_string(), str::to_owned)
}

/// Which request is answered.
struct Answered {
    version: i16,
    correlation_id: i32,
}

impl Answered {
    fn message(&self, message: Vec<u8>) -> Result<Vec<Bytes>, WireError> {
        self.encode(&SaslAuthenticateResponse {
            auth_bytes: message.into(),
            ..SaslAuthenticateResponse::default()
        })
    }

    fn error(&self, error_code: i16, message: &str) -> Result<Vec<Bytes>, WireError> {
        self.encode(&SaslAuthenticateResponse {
            error_code,
            error_message: Some(message.to_owned()),
            ..SaslAuthenticateResponse::default()
        })
    }

    fn encode(&self, response: &SaslAuthenticateResponse) -> Result<Vec<Bytes>, WireError> {
        let frame = encode_response::<SaslAuthenticateRequest>(
            self.version,
            self.correlation_id,
            response,
        )?;
        Ok(frame.chunks)
    }
}
