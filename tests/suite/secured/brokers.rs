//! Secured brokers: ours and Kafka's, with the same doors, users and rules.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, OnceLock};

use onceflow::broker::{Broker, BrokerConfig};
use onceflow::client::transport::KafkaSettings;
use onceflow::internals::protocol::sasl::{Mechanism, ScramCredential, ScramHash};
use onceflow::internals::protocol::wire::messages::create_acls::{AclCreation, CreateAclsRequest};
use onceflow::internals::protocol::wire::{Request, decode_response, encode_request};
use onceflow::server::security::{Principal, Security};
use onceflow::server::{ClientAuth, Pem, ServerTlsSettings};
use onceflow::server::{Server, ServerConfig};
use onceflow::testing::Env;
use onceflow::types::Durability;

use super::certificates::{Authority, Signed};
use crate::support::kafka::{KafkaCluster, KafkaOptions, free_ports};
use crate::support::peers;

/// Users that log in by name; the password of `x` is `x-secret`.
const USERS: [&str; 3] = ["alice", "bob", "rights"];
/// Hash rounds of a password: as few as allowed.
const ITERATIONS: u32 = 4096;
/// Sessions at the door `Brief` last so long.
pub(super) const BRIEF_SESSION_MS: u64 = 2_000;

/// Ways in, each an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Neither encryption nor login; whoever comes in here may do everything.
    Plain,
    /// TLS and a login by PLAIN or SCRAM.
    Secure,
    /// A login by SCRAM-SHA-256, without TLS.
    Login,
    /// TLS with certificates on both sides.
    Mutual,
    /// TLS with a certificate that has expired.
    Expired,
    /// TLS with a certificate for another host.
    Elsewhere,
    /// As `Login`, with short sessions (Kafka only).
    Brief,
}

const DOORS: [Door; 7] = [
    Door::Plain,
    Door::Secure,
    Door::Login,
    Door::Mutual,
    Door::Expired,
    Door::Elsewhere,
    Door::Brief,
];

/// A broker with all doors.
pub(super) struct Secured {
    ports: Vec<u16>,
    ca: Authority,
    /// A client's certificate, of `CN=carol`.
    pub(super) carol: Signed,
    _directory: tempfile::TempDir,
    side: Side,
}

enum Side {
    Ours {
        servers: Vec<Server>,
        _broker: Broker,
    },
    Kafka {
        _cluster: KafkaCluster,
    },
}

/// Certificates of the doors, and the folder where they are kept for Kafka.
struct Certificates {
    ca: Authority,
    good: Signed,
    expired: Signed,
    elsewhere: Signed,
}

impl Certificates {
    fn new() -> Self {
        let ca = Authority::new("ours");
        Self {
            good: ca.sign("127.0.0.1", "broker"),
            expired: ca.sign_expired("127.0.0.1"),
            elsewhere: ca.sign("elsewhere.example", "broker"),
            ca,
        }
    }

    fn of(&self, door: Door) -> &Signed {
        match door {
            Door::Expired => &self.expired,
            Door::Elsewhere => &self.elsewhere,
            _ => &self.good,
        }
    }
}

/// The one of each side that the tests share; `None` if tests with foreign software are left out.
pub(super) fn kafka() -> Option<MutexGuard<'static, Secured>> {
    static KAFKA: OnceLock<Mutex<Secured>> = OnceLock::new();
    peers::are_wanted(&["kafka"]).then(|| hold(KAFKA.get_or_init(|| Mutex::new(Secured::kafka()))))
}

pub(super) fn ours() -> MutexGuard<'static, Secured> {
    static OURS: OnceLock<Mutex<Secured>> = OnceLock::new();
    hold(OURS.get_or_init(|| Mutex::new(Secured::ours())))
}

/// A test that failed has broken nothing that the others use.
fn hold(secured: &'static Mutex<Secured>) -> MutexGuard<'static, Secured> {
    secured
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Secured {
    fn ours() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let env = Env::real();
        let config = BrokerConfig {
            durability: Durability::Process,
            ..BrokerConfig::default()
        };
        let broker = Broker::open(env.clone(), &data, config).unwrap();
        let security = Security::open(&env, &data, true, Vec::new()).unwrap();
        let credential = |user: &str, hash| {
            let password = format!("{user}-secret").as_str().into();
            ScramCredential::new(hash, &password, ITERATIONS, &*env.random).unwrap()
        };
        for user in USERS {
            let both = [ScramHash::Sha256, ScramHash::Sha512]
                .map(|hash| (user.to_owned(), credential(user, hash)));
            security.set_credentials(&both).unwrap();
        }
        let certificates = Certificates::new();
        let servers: Vec<Server> = DOORS[..6]
            .iter()
            .map(|door| {
                let config = server_config(*door, &certificates);
                Server::start(&env, &broker, &data, config).unwrap()
            })
            .collect();
        let ports = servers.iter().map(|server| server.address().port).collect();
        let side = Side::Ours {
            servers,
            _broker: broker,
        };
        Self::with(ports, certificates, directory, side)
    }

    fn kafka() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::new();
        let mut ports = free_ports(6);
        let listeners = DOORS[1..].iter().zip(&ports);
        let listeners = listeners.map(|(door, port)| format!("{}://127.0.0.1:{port}", name(*door)));
        let options = KafkaOptions {
            brokers: 1,
            listeners: listeners.collect(),
            settings: kafka_settings(directory.path(), &certificates),
            scram_users: scram_users(),
            ..KafkaOptions::default()
        };
        let cluster = KafkaCluster::start_with(&options);
        let plain = cluster.address(1);
        ports.insert(0, plain.rsplit(':').next().unwrap().parse().unwrap());
        let side = Side::Kafka { _cluster: cluster };
        Self::with(ports, certificates, directory, side)
    }

    fn with(
        ports: Vec<u16>,
        certificates: Certificates,
        directory: tempfile::TempDir,
        side: Side,
    ) -> Self {
        let secured = Self {
            ports,
            carol: certificates.ca.sign("carol.example", "carol"),
            ca: certificates.ca,
            _directory: directory,
            side,
        };
        for user in ["alice", "bob", "CN=carol"] {
            for (resource, name) in [(TOPIC, "t-"), (GROUP, "t-"), (TRANSACTIONAL_ID, "t-")] {
                secured.allow(user, resource, name, Prefixed::Yes, &[ALL]);
            }
        }
        secured
    }

    pub(super) fn port(&self, door: Door) -> u16 {
        let at = DOORS.iter().position(|known| *known == door).unwrap();
        self.ports[at]
    }

    pub(super) fn address(&self, door: Door) -> String {
        format!("127.0.0.1:{}", self.port(door))
    }

    /// Settings that lead to a door, and trust the authority; security is left to the caller.
    pub(super) fn settings(&self, door: Door, settings: &[(&str, &str)]) -> KafkaSettings {
        let base = KafkaSettings::new(&self.address(door)).unwrap();
        let base = base.with("ssl.truststore.certificates", &self.ca.pem);
        settings.iter().fold(base.unwrap(), |all, (name, value)| {
            all.with(name, value).unwrap()
        })
    }

    /// Lets a user do something.
    pub(super) fn allow(
        &self,
        user: &str,
        resource: i8,
        name: &str,
        prefixed: Prefixed,
        operations: &[i8],
    ) {
        let rule = |operation: &i8| AclCreation {
            resource_type: resource,
            resource_name: name.to_owned(),
            resource_pattern_type: match prefixed {
                Prefixed::No => 3,
                Prefixed::Yes => 4,
            },
            principal: format!("User:{user}"),
            host: "*".to_owned(),
            operation: *operation,
            permission_type: 3,
        };
        let request = CreateAclsRequest {
            creations: operations.iter().map(rule).collect(),
        };
        let answer = ask(&self.address(Door::Plain), 3, &request);
        for result in answer.results {
            assert_eq!(result.error_code, 0, "{:?}", result.error_message);
        }
        if let Side::Ours { servers, .. } = &self.side {
            // Each server of ours looks for others' changes once a second; they need not wait here.
            for server in servers {
                server.security().refresh().unwrap();
            }
        }
    }
}

/// Kafka's numbers of what rules are about, and of operations.
pub(super) const TOPIC: i8 = 2;
pub(super) const GROUP: i8 = 3;
pub(super) const TRANSACTIONAL_ID: i8 = 5;
pub(super) const ALL: i8 = 2;

/// Whether a rule is about all names that begin so.
#[derive(Debug, Clone, Copy)]
pub(super) enum Prefixed {
    No,
    Yes,
}

fn ask<R: Request>(address: &str, version: i16, request: &R) -> R::Response {
    let frame = encode_request(version, 1, Some("administrator"), request).unwrap();
    let body = frame.to_bytes();
    let size = i32::try_from(body.len()).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(&[&size.to_be_bytes(), &body[..]].concat())
        .unwrap();
    let mut size = [0; 4];
    stream.read_exact(&mut size).unwrap();
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
    stream.read_exact(&mut answer).unwrap();
    decode_response::<R>(version, answer.into()).unwrap().1
}

fn server_config(door: Door, certificates: &Certificates) -> ServerConfig {
    let signed = certificates.of(door);
    let is_mutual = door == Door::Mutual;
    let tls = ServerTlsSettings {
        certificate: Pem::Text(signed.certificate.clone()),
        key: Pem::Text(signed.key.clone()),
        client_ca: is_mutual.then(|| Pem::Text(certificates.ca.pem.clone())),
        client_auth: match is_mutual {
            true => ClientAuth::Required,
            false => ClientAuth::None,
        },
    };
    let scram_256 = Mechanism::Scram(ScramHash::Sha256);
    ServerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: (!matches!(door, Door::Plain | Door::Login)).then_some(tls),
        sasl: match door {
            Door::Secure => vec![
                Mechanism::Plain,
                scram_256,
                Mechanism::Scram(ScramHash::Sha512),
            ],
            Door::Login => vec![scram_256],
            _ => Vec::new(),
        },
        are_acls_enforced: true,
        super_users: vec![Principal::anonymous()],
        ..ServerConfig::default()
    }
}

fn name(door: Door) -> String {
    format!("{door:?}").to_uppercase()
}

fn scram_users() -> Vec<String> {
    let of = |user: &&str| {
        [256, 512].map(|bits| {
            format!("SCRAM-SHA-{bits}=[name={user},iterations={ITERATIONS},password={user}-secret]")
        })
    };
    USERS.iter().flat_map(of).collect()
}

/// Lists a secured Kafka's settings besides the usual. The doors' certificates are PEM files.
fn kafka_settings(folder: &std::path::Path, certificates: &Certificates) -> Vec<(String, String)> {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let mut settings = vec![
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,LOGIN:SASL_PLAINTEXT,MUTUAL:SSL,\
             EXPIRED:SSL,ELSEWHERE:SSL,BRIEF:SASL_PLAINTEXT"
                .to_owned(),
        ),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        ("super.users", "User:ANONYMOUS".to_owned()),
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.truststore.type", "PEM".to_owned()),
        ("ssl.keystore.location", file("broker.pem", &certificates.good.whole())),
        ("ssl.truststore.location", file("ca.pem", &certificates.ca.pem)),
        ("listener.name.expired.ssl.keystore.location", file("expired.pem", &certificates.expired.whole())),
        ("listener.name.elsewhere.ssl.keystore.location", file("elsewhere.pem", &certificates.elsewhere.whole())),
        ("listener.name.mutual.ssl.client.auth", "required".to_owned()),
        ("listener.name.secure.sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned()),
        ("listener.name.login.sasl.enabled.mechanisms", "SCRAM-SHA-256".to_owned()),
        ("listener.name.brief.sasl.enabled.mechanisms", "SCRAM-SHA-256".to_owned()),
        ("listener.name.brief.connections.max.reauth.ms", BRIEF_SESSION_MS.to_string()),
        (
            "listener.name.secure.plain.sasl.jaas.config",
            USERS.iter().fold(
                "org.apache.kafka.common.security.plain.PlainLoginModule required".to_owned(),
                |all, user| format!("{all} user_{user}=\"{user}-secret\""),
            ) + ";",
        ),
    ];
    for place in [
        "listener.name.secure.scram-sha-256.sasl.jaas.config",
        "listener.name.secure.scram-sha-512.sasl.jaas.config",
        "listener.name.login.scram-sha-256.sasl.jaas.config",
        "listener.name.brief.scram-sha-256.sasl.jaas.config",
    ] {
        let module = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        settings.push((place, module.to_owned()));
    }
    let settings = settings.into_iter();
    settings
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
