//! `onceflow broker`: the embedded log as a server for any Kafka client.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use super::session::DataOption;
use super::{UsageError, output};
use crate::broker::{Broker, BrokerConfig};
use crate::client::InProcess;
use crate::env::Env;
use crate::net::{Address, ClientAuth, Pem, ServerTlsSettings};
use crate::protocol::sasl::Mechanism;
use crate::runtime::{HttpConfig, serve_log};
use crate::server::security::Principal;
use crate::server::{Server, ServerConfig, settings};
use crate::types::Durability;

const EXAMPLES: &str = "\
Examples:
  onceflow broker --data ./data                            for programs on this machine, at 127.0.0.1:9092
  onceflow user add alice --data ./data                    a user; asks for the password
  onceflow broker --data ./data --listen 0.0.0.0:9093 --tls-cert cert.pem --tls-key key.pem --sasl SCRAM-SHA-512
  … --acls --super-user User:admin                         rules decide what each user may do (onceflow acl)
  … --dashboard 127.0.0.1:8080                             and a page for browsers: topics, groups, transactions, records

It prints the address once it listens, and closes cleanly on SIGTERM and Ctrl-C. The page knows no users and no access rules: where
the broker has either, it needs a token.";

/// No token is longer, in bytes.
const TOKEN_BYTES_MAX: u64 = 4096;
/// No topic has more partitions.
const PARTITIONS_MAX: i64 = 100_000;

/// Serve a data directory to Kafka clients.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BrokerArguments {
    #[command(flatten)]
    data: DataOption,
    /// Where to listen; only this machine reaches 127.0.0.1; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    listen: Address,
    /// Address that clients are to use, if it is not what they reached
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<Address>,
    /// The server's certificate and its chain, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The authorities that sign clients' certificates, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Whether clients are asked for certificates; without SASL, the certificate's subject is the user
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "none",
        requires = "tls_client_ca"
    )]
    tls_client_auth: ClientCertificates,
    /// Login mechanisms: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, with commas between
    #[arg(long, value_name = "MECHANISMS", value_delimiter = ',')]
    sasl: Vec<Mechanism>,
    /// Let access rules decide; what no rule allows is denied
    #[arg(long)]
    acls: bool,
    /// Who may do everything, whatever the rules say; can be given several times
    #[arg(long, value_name = "User:NAME")]
    super_user: Vec<Principal>,
    /// Listen to other machines even without TLS and logins
    #[arg(long)]
    allow_insecure: bool,
    /// Don't create topics that clients ask for
    #[arg(long)]
    no_auto_create: bool,
    /// The partitions of topics created without saying how many
    #[arg(long, value_name = "COUNT", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(1..=PARTITIONS_MAX))]
    partitions: i32,
    /// A setting by Kafka's name, such as max.connections=100 or log.retention.ms=3600000; can be given several times
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Show the log to browsers; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT")]
    dashboard: Option<String>,
    /// The file that holds the page's token: whoever has it may look
    #[arg(long, value_name = "FILE", requires = "dashboard")]
    dashboard_token: Option<PathBuf>,
    /// Let whoever has the token abort transactions on the page
    #[arg(long, requires = "dashboard_token")]
    dashboard_changes: bool,
    /// Durability of an acknowledged write
    #[arg(long, value_name = "WHAT", default_value = "fsync")]
    durability: DurabilityName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ClientCertificates {
    /// They are not asked
    None,
    /// They are asked, and let in without one
    Requested,
    /// They must have one
    Required,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DurabilityName {
    /// Power loss
    Fsync,
    /// The death of the process only
    Process,
}

/// Runs `onceflow broker` until a signal ends it.
pub(super) fn run(env: &Env, arguments: BrokerArguments) -> anyhow::Result<()> {
    let data = arguments.data.directory()?;
    let durability = match arguments.durability {
        DurabilityName::Fsync => Durability::Fsync,
        DurabilityName::Process => Durability::Process,
    };
    let mut broker_config = BrokerConfig {
        durability,
        ..BrokerConfig::default()
    };
    let page = page(env, &arguments)?;
    let settings = arguments.settings.clone();
    let mut config = config(arguments)?;
    for setting in &settings {
        let Some((name, value)) = setting.split_once('=') else {
            let message = format!("--set {setting:?} is not NAME=VALUE");
            return Err(UsageError(message).into());
        };
        settings::set(&mut config, &mut broker_config, name.trim(), value)
            .map_err(|error| UsageError(error.to_string()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let broker = Broker::open(env.clone(), &data, broker_config)
        .with_context(|| format!("cannot open the data directory {}", data.display()))?;
    let served = runtime.block_on(serve(env, &broker, &data, config, page));
    let closed = broker.close();
    served?;
    closed.context("cannot close the data directory cleanly")
}

async fn serve(
    env: &Env,
    broker: &Broker,
    data: &std::path::Path,
    config: ServerConfig,
    page: Option<HttpConfig>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Server::start(env, broker, data, config)?;
    let page = page.map(|config| {
        let transport = Arc::new(InProcess::new(env.clone(), broker.clone()));
        serve_log(transport, data.display().to_string(), config)
    });
    let page = page.transpose().context("cannot show the dashboard")?;
    {
        let mut out = output::stdout();
        writeln!(out, "listening on {}", server.address())?;
        if let Some(page) = &page {
            writeln!(out, "dashboard on http://{}/", page.address())?;
        }
        out.flush()?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(page);
    server.stop().await;
    Ok(())
}

/// The page that is asked for.
fn page(env: &Env, arguments: &BrokerArguments) -> anyhow::Result<Option<HttpConfig>> {
    let Some(address) = &arguments.dashboard else {
        return Ok(None);
    };
    let is_guarded = arguments.acls || !arguments.sasl.is_empty() || arguments.tls_cert.is_some();
    if is_guarded && arguments.dashboard_token.is_none() {
        let message = "the dashboard knows no users and no access rules, and would show everything to every program of this machine: \
                       give it a token, with --dashboard-token FILE";
        return Err(UsageError(message.to_owned()).into());
    }
    let mut config = HttpConfig::on(address)?.dashboard();
    if let Some(path) = &arguments.dashboard_token {
        let bytes = env.files.read(path, TOKEN_BYTES_MAX);
        let bytes =
            bytes.with_context(|| format!("cannot read the token in {}", path.display()))?;
        let token = String::from_utf8(bytes).ok();
        let token = token
            .as_deref()
            .map(str::trim)
            .filter(|token| !token.is_empty());
        let token = token.with_context(|| {
            format!(
                "{} holds no token: write one line of text into it",
                path.display()
            )
        })?;
        config = config.token(token);
    }
    Ok(Some(match arguments.dashboard_changes {
        true => config.allow_changes(),
        false => config,
    }))
}

fn config(arguments: BrokerArguments) -> anyhow::Result<ServerConfig> {
    let client_auth = match arguments.tls_client_auth {
        ClientCertificates::None => ClientAuth::None,
        ClientCertificates::Requested => ClientAuth::Requested,
        ClientCertificates::Required => ClientAuth::Required,
    };
    let tls = match (arguments.tls_cert, arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(ServerTlsSettings {
            certificate: Pem::File(certificate),
            key: Pem::File(key),
            client_ca: arguments.tls_client_ca.map(Pem::File),
            client_auth,
        }),
        _ => None,
    };
    Ok(ServerConfig {
        listen: arguments.listen,
        advertised: arguments.advertise,
        tls,
        sasl: arguments.sasl,
        are_acls_enforced: arguments.acls,
        super_users: arguments.super_user,
        allow_insecure: arguments.allow_insecure,
        auto_create_topics: !arguments.no_auto_create,
        default_partitions: arguments.partitions,
        ..ServerConfig::default()
    })
}
