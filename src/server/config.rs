//! `ServerConfig`: where and how a server listens, and its bounds.

use std::time::Duration;

use super::ServerError;
use super::security::Principal;
use crate::net::{Address, ClientAuth, ServerTlsSettings};
use crate::protocol::sasl::Mechanism;

/// Where and how a server listens.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where it listens. Only this machine reaches a loopback address.
    pub listen: Address,
    /// Address that clients are told, if it is not the one that they reached already (behind a proxy, say).
    pub advertised: Option<Address>,
    /// TLS; without it everything is sent in the open.
    pub tls: Option<ServerTlsSettings>,
    /// Mechanisms of login for clients; empty: not by SASL.
    pub sasl: Vec<Mechanism>,
    /// Whether access rules decide what each user may do. What no rule allows is denied then.
    pub are_acls_enforced: bool,
    /// Who may do everything, whatever the rules say.
    pub super_users: Vec<Principal>,
    /// Listens to other machines even without TLS and authentication.
    pub allow_insecure: bool,
    /// Whether a topic that a client asks for is created (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
    /// The partitions of a topic that is created without saying how many (`num.partitions`).
    pub default_partitions: i32,
    /// The server's bounds.
    pub limits: Limits,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: Address {
                host: "127.0.0.1".to_owned(),
                port: 9092,
            },
            advertised: None,
            tls: None,
            sasl: Vec::new(),
            are_acls_enforced: false,
            super_users: Vec::new(),
            allow_insecure: false,
            auto_create_topics: true,
            default_partitions: 1,
            limits: Limits::default(),
        }
    }
}

/// Limits of one server. Each is there so that no client, broken or hostile, costs the others (I10).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections in all (`max.connections`).
    pub connections_max: usize,
    /// Connections from one address (`max.connections.per.ip`).
    pub connections_per_address_max: usize,
    /// The largest request, in bytes (`socket.request.max.bytes`).
    pub request_bytes_max: usize,
    /// The largest request before the client has proved who it is, in bytes.
    pub unauthenticated_bytes_max: usize,
    /// All requests together that are being received or worked on, in bytes (`queued.max.request.bytes`).
    pub requests_bytes_max: usize,
    /// All answers together that wait for their readers, in bytes. Near it fetches are given less.
    pub answers_bytes_max: usize,
    /// Requests of one connection that are worked on at a time. Only produce requests overlap.
    pub requests_in_flight_max: usize,
    /// TLS handshake and login together take at most so long.
    pub login_timeout: Duration,
    /// A connection without a request for so long is closed (`connections.max.idle.ms`).
    pub idle_timeout: Duration,
    /// A request must be here so long after its first byte, and so much later for each MiB of it.
    pub receive_timeout: Duration,
    /// A client must take its answers within so long, and each piece (256 KiB) of one that is read while it is sent.
    pub write_timeout: Duration,
    /// A refused login is answered only after so long; each further one from the same address takes twice as long,
    /// up to 64 times.
    pub refused_login_delay: Duration,
    /// Connections have so long to finish when the server stops.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_address_max: 2_048,
            request_bytes_max: 16 << 20,
            unauthenticated_bytes_max: 64 << 10,
            requests_bytes_max: 128 << 20,
            answers_bytes_max: 128 << 20,
            requests_in_flight_max: 64,
            login_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            receive_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            refused_login_delay: Duration::from_millis(100),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

impl ServerConfig {
    /// The default settings, on `address` (`host:port`).
    ///
    /// # Errors
    /// If it is no address.
    pub fn on(address: &str) -> Result<Self, ServerError> {
        Ok(Self {
            listen: address.parse()?,
            ..Self::default()
        })
    }

    /// Whether clients must prove who they are.
    pub(super) fn requires_authentication(&self) -> bool {
        !self.sasl.is_empty() || self.requires_certificates()
    }

    fn requires_certificates(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.client_auth == ClientAuth::Required)
    }

    /// Refuses what would be open to the world, or cannot work.
    pub(super) fn check(&self) -> Result<(), ServerError> {
        self.check_exposure()?;
        let limits = &self.limits;
        let invalid = |what: &str| {
            Err(ServerError::Invalid {
                what: what.to_owned(),
            })
        };
        if self.default_partitions < 1 {
            return invalid("topics are created with at least one partition");
        }
        if limits.connections_max == 0
            || limits.connections_per_address_max == 0
            || limits.requests_in_flight_max == 0
        {
            return invalid("a limit of connections or requests is 0: nobody could be served");
        }
        if limits.requests_bytes_max / 2 < limits.request_bytes_max
            || limits.unauthenticated_bytes_max > limits.request_bytes_max
            || u32::try_from(limits.requests_bytes_max).is_err()
        {
            return invalid(
                "the limits do not fit each other: unauthenticated request <= request <= half of all requests < 2 GiB",
            );
        }
        Ok(())
    }

    fn check_exposure(&self) -> Result<(), ServerError> {
        if self.listen.is_loopback() || self.allow_insecure {
            return Ok(());
        }
        let lacking = match (&self.tls, self.requires_authentication()) {
            (None, _) => "nothing is encrypted",
            (Some(_), false) => "nobody has to log in",
            (Some(_), true) => return Ok(()),
        };
        Err(ServerError::Insecure {
            address: self.listen.to_string(),
            lacking,
        })
    }
}
