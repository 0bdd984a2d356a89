//! `KafkaSettings`: how to reach a Kafka cluster, by Kafka's names: from code, a TOML file or the environment.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::names::meaning;
use crate::client::ClientError;
use crate::client::consumer::ConsumerConfig;
use crate::client::producer::ProducerConfig;
use crate::client::settings::{Setting, Settings, config_error, no_such_setting, settings, shown};
use crate::env::Env;
use crate::net::{Address, Pem};
use crate::protocol::sasl::{Mechanism, Password, ScramHash};

/// Environment variables with this prefix are settings: `ONCEFLOW_KAFKA_SASL_MECHANISM` is `sasl.mechanism`.
const VARIABLE_PREFIX: &str = "ONCEFLOW_KAFKA_";
/// The environment variable that names a TOML file with settings.
const FILE_VARIABLE: &str = "ONCEFLOW_KAFKA_CONFIG";

/// Whether the connection is encrypted, and whether the client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecurityProtocol {
    /// Neither.
    #[default]
    Plaintext,
    /// Encrypted; the client may show a certificate.
    Ssl,
    /// A name and a password, not encrypted.
    SaslPlaintext,
    /// A name and a password, encrypted.
    SaslSsl,
}

impl SecurityProtocol {
    pub(super) fn is_encrypted(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    pub(super) fn is_authenticated(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl Setting for SecurityProtocol {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Ok(Self::Plaintext),
            "SSL" => Ok(Self::Ssl),
            "SASL_PLAINTEXT" => Ok(Self::SaslPlaintext),
            "SASL_SSL" => Ok(Self::SaslSsl),
            _ => Err("PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL is needed".to_owned()),
        }
    }
}

/// Which transaction protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionProtocol {
    /// Transactions v2 (KIP-890): the cluster bumps the producer epoch at each end. A cluster without it is refused.
    #[default]
    V2,
    /// The older one, with the bump asked for after each end. A request delayed on the way may meet a later transaction
    /// of a cluster that does not check epochs as v2 does.
    V1,
}

impl Setting for TransactionProtocol {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "v2" => Ok(Self::V2),
            "v1" => Ok(Self::V1),
            _ => Err("v2 or v1 is needed".to_owned()),
        }
    }
}

impl Setting for Vec<Address> {
    fn parse(text: &str) -> Result<Self, String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let addresses: Result<Self, _> = parts.map(str::parse).collect();
        match addresses {
            Ok(addresses) if addresses.is_empty() => {
                Err("at least one host:port is needed".to_owned())
            }
            Ok(addresses) => Ok(addresses),
            Err(e) => Err(format!(
                "host:port, or several with commas, is needed ({e})"
            )),
        }
    }
}

impl Setting for Mechanism {
    fn parse(text: &str) -> Result<Self, String> {
        text.trim()
            .parse()
            .map_err(|_| "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 is needed".to_owned())
    }
}

impl Setting for Option<Password> {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Some(Password::from(text)))
    }
}

impl Setting for Option<Pem> {
    fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.trim().parse();
        parsed
            .map(Some)
            .map_err(|e| format!("a PEM file or its text is needed ({e})"))
    }
}

impl Setting for i16 {
    fn parse(text: &str) -> Result<Self, String> {
        text.trim()
            .parse()
            .ok()
            .filter(|number| *number == -1 || *number > 0)
            .ok_or_else(|| {
                "a whole number from 1, or -1 for the cluster's own, is needed".to_owned()
            })
    }
}

settings! {
    /// Settings for a Kafka cluster. The names are Kafka's, where Kafka has the setting.
    ///
    /// ```
    /// use onceflow::client::transport::KafkaSettings;
    ///
    /// let settings = KafkaSettings::parse_toml(
    ///     r#"
    ///     bootstrap.servers = "broker-1:9093,broker-2:9093"
    ///     security.protocol = "SASL_SSL"
    ///     sasl.mechanism = "SCRAM-SHA-512"
    ///     sasl.username = "word-count"
    ///     sasl.password = "secret"
    ///     "#,
    /// )?;
    /// assert!(!format!("{settings:?}").contains("secret"));
    /// let refused = KafkaSettings::parse_toml("sasl.mechanisms = \"PLAIN\"").unwrap_err();
    /// assert!(refused.to_string().contains("did you mean sasl.mechanism?"));
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    pub struct KafkaSettings {
        /// Brokers to begin with, `host:port` with commas; the others are learnt from them.
        bootstrap_servers: Vec<Address> = Vec::new(), "bootstrap.servers";
        /// Name of the client in the brokers' logs and quotas.
        client_id: String = "onceflow".to_owned(), "client.id";
        /// Encryption and authentication.
        security_protocol: SecurityProtocol = SecurityProtocol::Plaintext, "security.protocol";
        /// Proof of the client's identity.
        sasl_mechanism: Mechanism = Mechanism::Scram(ScramHash::Sha512), "sasl.mechanism";
        /// The user's name.
        sasl_username: Option<String> = None, "sasl.username";
        /// The user's password; never shown.
        sasl_password: Option<Password> = None, "sasl.password";
        /// Who signed the brokers' certificates, as a PEM file or text; else the system's authorities.
        ssl_ca: Option<Pem> = None, "ssl.truststore.location";
        /// The client's own certificate, as a PEM file or text.
        ssl_certificate: Option<Pem> = None, "ssl.keystore.certificate.chain";
        /// The key of the client's certificate, as a PEM file or text.
        ssl_key: Option<Pem> = None, "ssl.keystore.key";
        /// Whether the broker's name must stand in its certificate; `https` or `none`.
        ssl_verify_hostname: EndpointCheck = EndpointCheck::Https, "ssl.endpoint.identification.algorithm";
        /// Longest wait for a connection and its handshakes.
        connection_setup_timeout: Duration = Duration::from_secs(10), "socket.connection.setup.timeout.ms";
        /// A connection that nobody used for so long is not used again: brokers close theirs after ten minutes.
        connections_max_idle: Duration = Duration::from_secs(540), "connections.max.idle.ms";
        /// A request without an answer after so long counts as lost, and its connection is closed.
        request_timeout: Duration = Duration::from_secs(30), "request.timeout.ms";
        /// Longest time to repeat a request where that is safe: leaders move, coordinators load, brokers restart.
        default_api_timeout: Duration = Duration::from_secs(60), "default.api.timeout.ms";
        /// The first pause before a request is repeated.
        retry_backoff: Duration = Duration::from_millis(100), "retry.backoff.ms";
        /// The longest pause before a request is repeated.
        retry_backoff_max: Duration = Duration::from_secs(1), "retry.backoff.max.ms";
        /// The first pause before a broker is connected to again.
        reconnect_backoff: Duration = Duration::from_millis(50), "reconnect.backoff.ms";
        /// The longest pause before a broker is connected to again.
        reconnect_backoff_max: Duration = Duration::from_secs(1), "reconnect.backoff.max.ms";
        /// Age at which a topic's metadata is asked for again.
        metadata_max_age: Duration = Duration::from_secs(300), "metadata.max.age.ms";
        /// Copies of a topic that we create; −1 for the cluster's default.
        replication_factor: i16 = -1, "replication.factor";
        /// The protocol of transactions, `v2` or `v1`.
        transaction_protocol: TransactionProtocol = TransactionProtocol::V2, "transaction.protocol";
        /// Where jobs keep their state; else `./onceflow-state/<cluster id>`.
        state_dir: Option<String> = None, "state.dir";
        + /// Settings of the producers and consumers on this cluster, checked when they were given.
        clients: BTreeMap<String, String>;
    }
}

/// Whether the broker's name must stand in its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointCheck {
    /// It must.
    #[default]
    Https,
    /// It need not: whoever has any certificate of a trusted authority can stand in for the broker.
    None,
}

impl Setting for EndpointCheck {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "https" => Ok(Self::Https),
            "none" | "" => Ok(Self::None),
            _ => Err("https or none is needed".to_owned()),
        }
    }
}

impl KafkaSettings {
    /// Settings for the cluster behind `bootstrap_servers`, else Kafka's defaults.
    ///
    /// # Errors
    /// If it is not `host:port`, or several with commas.
    pub fn new(bootstrap_servers: &str) -> Result<Self, ClientError> {
        Self::default().with("bootstrap.servers", bootstrap_servers)
    }

    /// Sets one by Kafka's name.
    ///
    /// # Errors
    /// If there is no such setting, or the value does not parse.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, ClientError> {
        self.put(name, value)?;
        Ok(self)
    }

    /// Reads settings from a map with Kafka's names. Settings of producers and consumers are taken as well
    /// ([`KafkaSettings::producer`], [`KafkaSettings::consumer`]).
    ///
    /// # Errors
    /// If there is no such setting, or a value does not parse.
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Self, ClientError> {
        let mut settings = Self::default();
        map.iter().try_for_each(|(n, v)| settings.put(n, v))?;
        Ok(settings)
    }

    /// Reads settings from TOML with Kafka's names; `sasl.mechanism = "PLAIN"` and `[sasl] mechanism = "PLAIN"` are the same.
    ///
    /// # Errors
    /// If it is not TOML, there is no such setting, or a value does not parse.
    pub fn parse_toml(text: &str) -> Result<Self, ClientError> {
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| config_error("the TOML file", "", e.message()))?;
        let mut map = BTreeMap::new();
        flatten("", &table, &mut map)?;
        Self::from_map(&map)
    }

    /// Sets what the environment says: `ONCEFLOW_KAFKA_SASL_MECHANISM` is `sasl.mechanism`. `variables` are all of
    /// the process's; others are passed over. `ONCEFLOW_KAFKA_CONFIG` is not a setting, but names a file of them.
    ///
    /// # Errors
    /// If a variable with the prefix is no setting, or its value does not parse.
    pub fn with_environment(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ClientError> {
        for (variable, value) in variables {
            let Some(rest) = variable.strip_prefix(VARIABLE_PREFIX) else {
                continue;
            };
            if variable == FILE_VARIABLE {
                continue;
            }
            let name = rest.to_ascii_lowercase().replace('_', ".");
            self.put(&name, &value)?;
        }
        Ok(self)
    }

    /// Reads the process's environment, and the TOML file that it names; a variable beats the file.
    ///
    /// # Errors
    /// If the file cannot be read, there is no such setting, or a value does not parse.
    pub fn from_environment(env: &Env) -> Result<Self, ClientError> {
        let texts = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let variables: BTreeMap<_, _> = std::env::vars_os().filter_map(texts).collect();
        let settings = match variables.get(FILE_VARIABLE) {
            Some(path) => Self::parse_toml(&read_text(env, path)?)?,
            None => Self::default(),
        };
        settings.with_environment(variables)
    }

    fn put(&mut self, name: &str, value: &str) -> Result<(), ClientError> {
        let outcome = match meaning(name, value) {
            Some(Ok(pairs)) => pairs.into_iter().try_for_each(|(name, value)| {
                self.set(name, &value)
                    .unwrap_or_else(|| Err(Self::no_such_setting(name)))
            }),
            Some(Err(why)) => Err(why),
            None => self.put_known(name, value),
        };
        outcome.map_err(|why| config_error(name, shown(name, value), why))
    }

    /// Sets the one of that name, here and for the producers and consumers that have it.
    fn put_known(&mut self, name: &str, value: &str) -> Result<(), String> {
        let ours = self.set(name, value);
        let mut outcomes = [
            ours.clone(),
            ProducerConfig::default().set(name, value),
            ConsumerConfig::default().set(name, value),
        ]
        .into_iter()
        .flatten();
        let Some(first) = outcomes.next() else {
            let known = [Self::NAMES, ProducerConfig::NAMES, ConsumerConfig::NAMES].concat();
            return Err(no_such_setting(name, &known));
        };
        first.and_then(|()| outcomes.collect::<Result<(), _>>())?;
        if ProducerConfig::NAMES.contains(&name) || ConsumerConfig::NAMES.contains(&name) {
            self.clients.insert(name.to_owned(), value.to_owned());
        }
        Ok(())
    }

    /// Returns the producers' settings, else their defaults.
    ///
    /// # Errors
    /// If the settings contradict each other.
    pub fn producer(&self) -> Result<ProducerConfig, ClientError> {
        ProducerConfig::from_map(&self.clients_of(ProducerConfig::NAMES))
    }

    /// Returns the consumers' settings, else their defaults.
    ///
    /// # Errors
    /// If a value does not parse; it was checked when it was given.
    pub fn consumer(&self) -> Result<ConsumerConfig, ClientError> {
        ConsumerConfig::from_map(&self.clients_of(ConsumerConfig::NAMES))
    }

    fn clients_of(&self, names: &[&str]) -> Vec<(&str, &str)> {
        let given = self.clients.iter();
        let given = given.filter(|(name, _)| names.contains(&name.as_str()));
        given.map(|(n, v)| (n.as_str(), v.as_str())).collect()
    }

    /// Checks what only all settings together can tell.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        if self.bootstrap_servers.is_empty() {
            let why = "name at least one broker, host:port";
            return Err(config_error("bootstrap.servers", "", why));
        }
        if !self.security_protocol.is_authenticated() {
            return Ok(());
        }
        for (name, is_given) in [
            ("sasl.username", self.sasl_username.is_some()),
            ("sasl.password", self.sasl_password.is_some()),
        ] {
            if !is_given {
                let why = "security.protocol asks for SASL, which needs it";
                return Err(config_error(name, "", why));
            }
        }
        Ok(())
    }
}

/// The longest file of settings, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn read_text(env: &Env, path: &str) -> Result<String, ClientError> {
    let unreadable = |why: String| config_error(FILE_VARIABLE, path, why);
    let bytes = env.files.read(Path::new(path), FILE_BYTES_MAX);
    let bytes = bytes.map_err(|e| unreadable(e.to_string()))?;
    String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".to_owned()))
}

fn flatten(
    prefix: &str,
    table: &toml::Table,
    map: &mut BTreeMap<String, String>,
) -> Result<(), ClientError> {
    for (key, value) in table {
        let name = match prefix {
            "" => key.clone(),
            _ => format!("{prefix}.{key}"),
        };
        let text = match value {
            toml::Value::Table(inner) => {
                flatten(&name, inner, map)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            other => {
                let why = "a text, a whole number or true or false is needed";
                return Err(config_error(&name, other.type_str(), why));
            }
        };
        map.insert(name, text);
    }
    Ok(())
}
