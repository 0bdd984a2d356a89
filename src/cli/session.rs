//! A log in use by one command: a data directory, opened and closed again also when the work failed, or a Kafka cluster.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use futures::Future;

use super::UsageError;
use crate::broker::{Broker, BrokerConfig};
use crate::client::transport::{KafkaSettings, KafkaTransport};
use crate::client::{Admin, InProcess, Transport};
use crate::env::Env;
use crate::runtime::Log;
use crate::types::Durability;

/// The environment variable that names the data directory.
const DATA_VARIABLE: &str = "ONCEFLOW_DATA";
/// Beginning of the place of a Kafka cluster.
const KAFKA_SCHEME: &str = "kafka://";

/// Which log a command works on.
#[derive(Debug, Args)]
pub(super) struct DataOption {
    /// The data directory; else the environment variable ONCEFLOW_DATA says
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A Kafka cluster, kafka://host:port, instead of a data directory
    #[arg(long, global = true, value_name = "URL", conflicts_with = "data")]
    log: Option<String>,
}

/// Where a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Directory(PathBuf),
    /// The brokers to begin with.
    Kafka(String),
}

/// Effect of a missing data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// It is made.
    Create,
    /// The command fails: it needs what is in it.
    Refuse,
}

impl DataOption {
    /// The data directory, for what a Kafka cluster has no part in.
    pub(super) fn directory(&self) -> anyhow::Result<PathBuf> {
        match self.place()? {
            Place::Directory(path) => Ok(path),
            Place::Kafka(_) => Err(UsageError(
                "this is about a data directory, not a Kafka cluster: give --data DIR".to_owned(),
            )
            .into()),
        }
    }

    /// The log as jobs have it; a data directory must be there.
    pub(super) fn open_log(&self, env: &Env) -> anyhow::Result<Log> {
        match self.place()? {
            Place::Directory(path) => {
                require_directory(env, &path)?;
                let opened = Log::in_env(env.clone(), &path, BrokerConfig::default());
                opened.with_context(|| format!("cannot open the data directory {}", path.display()))
            }
            Place::Kafka(bootstrap) => Ok(Log::kafka(&bootstrap)?),
        }
    }

    /// The log that is named.
    pub(super) fn place(&self) -> anyhow::Result<Place> {
        let named = self
            .log
            .as_ref()
            .map(PathBuf::from)
            .or_else(|| self.data.clone());
        let path = named.or_else(|| std::env::var_os(DATA_VARIABLE).map(PathBuf::from));
        let path = path.filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
            UsageError(format!(
                "no log is named: give --data DIR or --log kafka://HOST:PORT, or set {DATA_VARIABLE}"
            ))
        })?;
        let brokers = path
            .to_str()
            .and_then(|text| text.strip_prefix(KAFKA_SCHEME));
        match brokers {
            Some(brokers) => Ok(Place::Kafka(brokers.trim_end_matches('/').to_owned())),
            None if self.log.is_some() => Err(UsageError(format!(
                "--log {} is no Kafka cluster: it is kafka://HOST:PORT; a directory is given with --data",
                path.display()
            ))
            .into()),
            None => Ok(Place::Directory(path)),
        }
    }
}

/// An open log.
pub(super) struct Session {
    /// `None` on Kafka.
    broker: Option<Broker>,
    transport: Arc<dyn Transport>,
    runtime: tokio::runtime::Runtime,
}

impl Session {
    /// Opens the directory at `path`.
    pub(super) fn open(
        env: &Env,
        path: &std::path::Path,
        config: BrokerConfig,
    ) -> anyhow::Result<Self> {
        let broker = Broker::open(env.clone(), path, config)
            .with_context(|| format!("cannot open the data directory {}", path.display()))?;
        let transport = Arc::new(InProcess::new(env.clone(), broker.clone()));
        Self::new(Some(broker), transport)
    }

    /// Connects to the Kafka cluster behind the brokers `bootstrap`; the environment says the rest.
    pub(super) fn connect(env: &Env, bootstrap: &str) -> anyhow::Result<Self> {
        let settings = KafkaSettings::from_environment(env)?;
        let settings = settings.with("bootstrap.servers", bootstrap)?;
        let transport = KafkaTransport::connect(env.clone(), settings)?;
        Self::new(None, Arc::new(transport))
    }

    fn new(broker: Option<Broker>, transport: Arc<dyn Transport>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        Ok(Self {
            broker,
            transport,
            runtime,
        })
    }

    /// The way to the log.
    pub(super) fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport)
    }

    /// The log's administration.
    pub(super) fn admin(&self) -> Admin {
        Admin::new(self.transport())
    }

    /// Waits for an answer.
    pub(super) fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime.block_on(answer)
    }

    /// Waits for an answer or for Ctrl-C, which gives `None`.
    pub(super) fn wait_or_interrupt<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async {
            tokio::select! {
                value = answer => Some(value),
                _ = tokio::signal::ctrl_c() => None,
            }
        })
    }

    /// Closes the files cleanly.
    pub(super) fn close(self) -> anyhow::Result<()> {
        let closed = self.broker.map_or(Ok(()), |broker| broker.close());
        closed.context("cannot close the data directory cleanly")
    }
}

/// Does `work` on the log, and closes it whatever happened. The first error is the one told.
pub(super) fn with_session<T>(
    env: &Env,
    data: &DataOption,
    absent: Absent,
    work: impl FnOnce(&Session) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let session = match data.place()? {
        Place::Kafka(bootstrap) => Session::connect(env, &bootstrap)?,
        Place::Directory(path) => open_directory(env, &path, absent)?,
    };
    let result = work(&session);
    let closed = session.close();
    let value = result?;
    closed?;
    Ok(value)
}

fn require_directory(env: &Env, path: &std::path::Path) -> anyhow::Result<()> {
    if !env.files.exists(path)? {
        bail!(
            "there is no data directory {}: check --data, or make one with `onceflow topic create`",
            path.display()
        );
    }
    Ok(())
}

fn open_directory(env: &Env, path: &std::path::Path, absent: Absent) -> anyhow::Result<Session> {
    if absent == Absent::Refuse {
        require_directory(env, path)?;
    }
    let config = BrokerConfig {
        durability: Durability::Fsync,
        ..BrokerConfig::default()
    };
    Session::open(env, path, config)
}
