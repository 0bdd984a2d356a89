//! `login`: connects to a broker, learns what it speaks, and says who we are.

use std::io::ErrorKind as ErrorKindIo;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::channel::{Channel, Lifetime};
use super::settings::KafkaSettings;
use super::versions::Versions;
use crate::client::ClientError;
use crate::env::Env;
use crate::net::{
    Address, ClientTls, ConnectTimeouts, FrameReader, FrameWriter, NetError, connect,
};
use crate::protocol::sasl::{ClientStep, SaslClient};
use crate::protocol::wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::wire::messages::sasl_authenticate::{
    SaslAuthenticateRequest, SaslAuthenticateResponse,
};
use crate::protocol::wire::messages::sasl_handshake::SaslHandshakeRequest;
use crate::protocol::wire::{ApiKey, Request, WireError, decode_response, encode_request};
use crate::protocol::{ErrorCode, ErrorKind};

/// The largest answer that is taken, in bytes: far above any that we ask for (a fetch asks for 50 MiB at most, and one batch).
const FRAME_BYTES_MAX: usize = 256 << 20;
/// The largest answer before the broker has shown that it speaks Kafka's protocol, in bytes.
const LOGIN_FRAME_BYTES_MAX: usize = 1 << 20;
/// Messages of a SASL conversation; SCRAM has three.
const SASL_STEPS_MAX: usize = 8;
/// A session is given up after so many hundredths of its life, so that what is under way then still ends within it.
const SESSION_USED_PERCENT: u32 = 85;

/// Who is connected to, and how.
pub(super) struct Login<'a> {
    pub(super) env: &'a Env,
    pub(super) settings: &'a KafkaSettings,
    pub(super) tls: Option<&'a ClientTls>,
    pub(super) address: &'a Address,
}

/// The two halves of a connection that only the login uses yet.
struct Conversation {
    reader: FrameReader,
    writer: FrameWriter,
    client_id: String,
    next_correlation_id: i32,
}

/// End of a conversation.
enum Trouble {
    Net(NetError),
    Wire(WireError),
    Refused(String),
    /// The broker hung up, which it may do for good reasons as well.
    HungUp(String),
}

impl From<NetError> for Trouble {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}

impl From<WireError> for Trouble {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl Login<'_> {
    /// Connects and logs in, within `socket.connection.setup.timeout.ms`.
    pub(super) async fn run(&self) -> Result<Arc<Channel>, ClientError> {
        let limit = self.settings.connection_setup_timeout;
        match tokio::time::timeout(limit, self.connect()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(trouble)) => Err(self.failed(trouble)),
            Err(_) => Err(self.error(
                format!("it did not answer within {limit:?}"),
                ErrorKind::Retriable,
            )),
        }
    }

    async fn connect(&self) -> Result<Arc<Channel>, Trouble> {
        let limit = self.settings.connection_setup_timeout;
        let timeouts = ConnectTimeouts {
            connect: limit,
            handshake: limit,
        };
        let connection = connect(self.address, self.tls, timeouts).await?;
        let (reader, writer) = connection.split(LOGIN_FRAME_BYTES_MAX);
        let mut conversation = Conversation {
            reader,
            writer,
            client_id: self.settings.client_id.clone(),
            next_correlation_id: 0,
        };
        let versions = conversation.api_versions().await;
        let versions = Versions::new(&versions.map_err(|trouble| self.at_first_word(trouble))?);
        let session = match self.settings.security_protocol.is_authenticated() {
            true => self.authenticate(&mut conversation, &versions).await?,
            false => None,
        };
        conversation.reader.set_frame_bytes_max(FRAME_BYTES_MAX);
        Ok(Channel::start(
            self.address.to_string(),
            conversation.client_id,
            versions,
            self.lifetime(session),
            (conversation.reader, conversation.writer),
        ))
    }

    /// Until when the connection is used, and what its early end may mean.
    fn lifetime(&self, session: Option<Duration>) -> Lifetime {
        let is_open = !self.settings.security_protocol.is_authenticated();
        Lifetime {
            retires: session.map(|life| Instant::now() + life * SESSION_USED_PERCENT / 100),
            idle_max: self.settings.connections_max_idle,
            if_never_answered: match is_open {
                true => {
                    "it may ask for a login there: set security.protocol to SASL_SSL or SASL_PLAINTEXT"
                }
                false => "it may not let this user do anything",
            },
        }
    }

    /// Explains the trouble of a broker that was addressed in another way than it expects, before its first answer.
    fn at_first_word(&self, trouble: Trouble) -> Trouble {
        let is_encrypted = self.settings.security_protocol.is_encrypted();
        match trouble {
            // What looks like a size are the first bytes of a TLS alert.
            Trouble::Net(NetError::FrameTooLarge { .. }) if !is_encrypted => Trouble::Refused(
                "it does not answer in Kafka's protocol; if it expects TLS there, set security.protocol to SSL or SASL_SSL"
                    .to_owned(),
            ),
            Trouble::Net(NetError::Io(e)) if is_encrypted && e.kind() == ErrorKindIo::InvalidData => {
                Trouble::Refused(format!(
                    "it ended TLS ({e}): if it asks for certificates, set ssl.keystore.certificate.chain and ssl.keystore.key to one that it trusts"
                ))
            }
            Trouble::Net(NetError::Closed | NetError::Io(_)) => Trouble::HungUp(match is_encrypted {
                true => "it hung up before it answered: if it asks for certificates, set ssl.keystore.certificate.chain and ssl.keystore.key".to_owned(),
                false => "it hung up before it answered: if it expects TLS there, set security.protocol to SSL or SASL_SSL".to_owned(),
            }),
            other => other,
        }
    }

    /// The SASL conversation; how long the session lasts, if the broker limits it.
    async fn authenticate(
        &self,
        conversation: &mut Conversation,
        versions: &Versions,
    ) -> Result<Option<Duration>, Trouble> {
        let mechanism = self.settings.sasl_mechanism;
        let handshake = SaslHandshakeRequest {
            mechanism: mechanism.to_string(),
        };
        let answer = conversation.ask(1, &handshake).await?;
        if answer.error_code != 0 {
            return Err(Trouble::Refused(match answer.mechanisms.is_empty() {
                true => "nobody logs in at this port: use the port of a SASL listener, or set security.protocol to PLAINTEXT or SSL".to_owned(),
                false => format!(
                    "it does not take sasl.mechanism {mechanism}, it takes {}",
                    answer.mechanisms.join(", ")
                ),
            }));
        }
        let username = self.settings.sasl_username.as_deref().unwrap_or_default();
        let password = self
            .settings
            .sasl_password
            .clone()
            .unwrap_or_else(|| "".into());
        let refused = |e: crate::protocol::sasl::SaslError| Trouble::Refused(e.to_string());
        let mut sasl =
            SaslClient::new(mechanism, username, &password, &*self.env.random).map_err(refused)?;
        let version = versions.choose(ApiKey::SaslAuthenticate).unwrap_or(0);
        let mut message = sasl.first_message();
        for _ in 0..SASL_STEPS_MAX {
            let request = SaslAuthenticateRequest {
                auth_bytes: Bytes::from(message),
            };
            let answer: SaslAuthenticateResponse = conversation.ask(version, &request).await?;
            if answer.error_code != 0 {
                let words = answer
                    .error_message
                    .unwrap_or_else(|| "authentication failed".to_owned());
                return Err(Trouble::Refused(format!(
                    "{words}; check sasl.username and sasl.password"
                )));
            }
            match sasl.answer(&answer.auth_bytes).map_err(refused)? {
                ClientStep::Send(next) => message = next,
                ClientStep::Done => {
                    let life = u64::try_from(answer.session_lifetime_ms).unwrap_or(0);
                    return Ok((life > 0).then(|| Duration::from_millis(life)));
                }
            }
        }
        Err(Trouble::Refused(
            "the SASL conversation does not end".to_owned(),
        ))
    }

    fn failed(&self, trouble: Trouble) -> ClientError {
        match trouble {
            Trouble::Net(e) => self.error(e.to_string(), e.kind()),
            Trouble::Wire(e) => self.error(e.to_string(), ErrorKind::Fatal),
            Trouble::Refused(why) => self.error(why, ErrorKind::Fatal),
            Trouble::HungUp(why) => self.error(why, ErrorKind::Retriable),
        }
    }

    fn error(&self, why: String, kind: ErrorKind) -> ClientError {
        ClientError::Connect {
            address: self.address.to_string(),
            why,
            kind,
        }
    }
}

impl Conversation {
    /// Asks for its APIs. A broker that does not know our newest version of the question says so in the oldest one.
    async fn api_versions(&mut self) -> Result<ApiVersionsResponse, Trouble> {
        let request = ApiVersionsRequest {
            client_software_name: "onceflow".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut version = *ApiKey::ApiVersions.spoken().end();
        loop {
            let frame = self.exchange(version, &request).await?;
            let code = frame.get(4..6).and_then(|bytes| bytes.first_chunk());
            let code = code.map_or(0, |bytes| i16::from_be_bytes(*bytes));
            if code == ErrorCode::UnsupportedVersion.code() && version > 0 {
                let (_, answer) = decode_response::<ApiVersionsRequest>(0, frame)?;
                let offered = answer
                    .api_keys
                    .iter()
                    .find(|api| api.api_key == ApiKey::ApiVersions.key());
                version = offered
                    .map_or(0, |api| api.max_version)
                    .clamp(0, version - 1);
                continue;
            }
            let (_, answer) = decode_response::<ApiVersionsRequest>(version, frame)?;
            return match answer.error_code {
                0 => Ok(answer),
                code => Err(Trouble::Refused(format!(
                    "it refused ApiVersions with error {code}"
                ))),
            };
        }
    }

    async fn ask<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, Trouble> {
        let frame = self.exchange(version, request).await?;
        Ok(decode_response::<R>(version, frame)?.1)
    }

    async fn exchange<R: Request>(&mut self, version: i16, request: &R) -> Result<Bytes, Trouble> {
        self.next_correlation_id += 1;
        let frame = encode_request(
            version,
            self.next_correlation_id,
            Some(&self.client_id),
            request,
        )?;
        self.writer.write(&frame.chunks).await?;
        match self.reader.next().await? {
            Some(frame) => Ok(frame),
            None => Err(Trouble::Net(NetError::Closed)),
        }
    }
}
