//! [`Log`]: the log that a job reads and writes, and the folder of its state.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::lock::log_to_look_at;
use crate::broker::{Broker, BrokerConfig, BrokerError};
use crate::client::consumer::ConsumerConfig;
use crate::client::producer::ProducerConfig;
#[cfg(feature = "kafka")]
use crate::client::transport::{KafkaSettings, KafkaTransport};
use crate::client::{Admin, ClientError, InProcess, Transport};
use crate::env::Env;
use crate::runtime::contract::error::JobError;
use crate::state::RocksFiles;

/// The log that jobs run on. Cheap to clone.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let data = folder.path().join("data");
/// use onceflow::prelude::*;
///
/// let log = Log::embedded(&data)?;
/// log.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    /// `None` on Kafka.
    broker: Option<Broker>,
    transport: Arc<dyn Transport>,
    state_dir: PathBuf,
    state_files: RocksFiles,
    running: Mutex<HashSet<String>>,
}

/// The beginning of the place of a Kafka cluster.
const KAFKA_SCHEME: &str = "kafka://";
/// Where the state of jobs on Kafka is kept unless a setting says otherwise, a folder a cluster.
#[cfg(feature = "kafka")]
const KAFKA_STATE_DIR: &str = "./onceflow-state";

impl Log {
    /// Opens the log at `place`: `kafka://host:port` for a Kafka cluster ([`Log::kafka`]), else a directory ([`Log::embedded`]).
    ///
    /// # Errors
    /// As those two.
    pub fn open(place: &str) -> Result<Self, JobError> {
        match place.strip_prefix(KAFKA_SCHEME) {
            None => Ok(Self::embedded(place)?),
            #[cfg(feature = "kafka")]
            Some(bootstrap) => Ok(Self::kafka(bootstrap.trim_end_matches('/'))?),
            #[cfg(not(feature = "kafka"))]
            Some(_) => Err(JobError::Topology {
                job: place.to_owned(),
                why: "this program was built without the feature `kafka`".to_owned(),
            }),
        }
    }

    /// The Kafka cluster behind the brokers `bootstrap_servers` (`host:port`, with commas), with the other settings from
    /// the environment: `ONCEFLOW_KAFKA_SASL_MECHANISM` is `sasl.mechanism`, `ONCEFLOW_KAFKA_CONFIG` a TOML file of them.
    /// Blocks until a broker has answered.
    ///
    /// # Errors
    /// If a setting is wrong, no broker can be reached, or it does not let us in.
    #[cfg(feature = "kafka")]
    pub fn kafka(bootstrap_servers: &str) -> Result<Self, ClientError> {
        let settings = KafkaSettings::from_environment(&Env::real())?;
        Self::kafka_with(settings.with("bootstrap.servers", bootstrap_servers)?)
    }

    /// A Kafka cluster, with settings of your own; the environment is not looked at.
    ///
    /// # Errors
    /// As [`Log::kafka`].
    #[cfg(feature = "kafka")]
    pub fn kafka_with(settings: KafkaSettings) -> Result<Self, ClientError> {
        if let Some(data) = log_to_look_at() {
            let opened = Self::in_env(Env::real(), &data, BrokerConfig::default());
            return opened.map_err(|e| ClientError::Refused {
                request: "open",
                code: e.code,
                kind: e.kind(),
                message: e.to_string(),
            });
        }
        let env = Env::real();
        let transport = KafkaTransport::connect(env.clone(), settings)?;
        let state_dir = match &transport.settings().state_dir {
            Some(folder) => PathBuf::from(folder),
            None => Path::new(KAFKA_STATE_DIR).join(transport.cluster_id()),
        };
        let (transport, files) = (Arc::new(transport), RocksFiles::Disk);
        Ok(Self::with_parts(env, None, transport, state_dir, files))
    }

    fn with_parts(
        env: Env,
        broker: Option<Broker>,
        transport: Arc<dyn Transport>,
        state_dir: PathBuf,
        state_files: RocksFiles,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                env,
                broker,
                transport,
                state_dir,
                state_files,
                running: Mutex::default(),
            }),
        }
    }

    /// Opens the log in the directory `data`, which is created if it is absent (its parent must exist).
    ///
    /// # Errors
    /// If the directory is in use by another process, of a newer format, not writable, or damaged.
    pub fn embedded(data: impl AsRef<Path>) -> Result<Self, BrokerError> {
        Self::embedded_with(data, BrokerConfig::default())
    }

    /// As [`Log::embedded`], with settings of your own.
    ///
    /// # Errors
    /// As [`Log::embedded`].
    pub fn embedded_with(
        data: impl AsRef<Path>,
        config: BrokerConfig,
    ) -> Result<Self, BrokerError> {
        match log_to_look_at() {
            Some(data) => Self::in_env(Env::real(), &data, config),
            None => Self::in_env(Env::real(), data.as_ref(), config),
        }
    }

    /// As [`Log::embedded_with`], in a world of your own (for tests).
    ///
    /// # Errors
    /// As [`Log::embedded`].
    pub fn in_env(env: Env, data: &Path, config: BrokerConfig) -> Result<Self, BrokerError> {
        Self::with_state_files(env, data, config, RocksFiles::Disk)
    }

    /// As [`Log::in_env`], with RocksDB's files where `state_files` says.
    pub(crate) fn with_state_files(
        env: Env,
        data: &Path,
        config: BrokerConfig,
        state_files: RocksFiles,
    ) -> Result<Self, BrokerError> {
        let broker = Broker::open(env.clone(), data, config)?;
        let transport: Arc<dyn Transport> = Arc::new(InProcess::new(env.clone(), broker.clone()));
        let state_dir = data.join("state");
        let broker = Some(broker);
        Ok(Self::with_parts(
            env,
            broker,
            transport,
            state_dir,
            state_files,
        ))
    }

    /// The same log as another process sees it, whose state is in files of its own.
    pub(crate) fn beside(&self, state_files: RocksFiles) -> Self {
        Self::with_parts(
            self.inner.env.clone(),
            self.inner.broker.clone(),
            self.transport(),
            self.inner.state_dir.clone(),
            state_files,
        )
    }

    /// The same log, with another way to it.
    pub(crate) fn over(&self, way: impl FnOnce(Arc<dyn Transport>) -> Arc<dyn Transport>) -> Self {
        Self::with_parts(
            self.inner.env.clone(),
            self.inner.broker.clone(),
            way(self.transport()),
            self.inner.state_dir.clone(),
            self.inner.state_files.clone(),
        )
    }

    /// Closes all files cleanly; on Kafka there is nothing to close. Jobs must have ended.
    ///
    /// # Errors
    /// If a file cannot be written or synced.
    pub fn close(&self) -> Result<(), BrokerError> {
        self.inner.broker.as_ref().map_or(Ok(()), Broker::close)
    }

    /// The broker of an embedded log; `None` on Kafka.
    #[must_use]
    pub fn broker(&self) -> Option<&Broker> {
        self.inner.broker.as_ref()
    }

    /// The way to the log for producers and consumers of your own.
    #[must_use]
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.inner.transport)
    }

    /// Returns the settings of producers on this log by default: those of a Kafka cluster's settings, else Kafka's.
    ///
    /// # Errors
    /// If the settings contradict each other.
    pub fn producer_config(&self) -> Result<ProducerConfig, ClientError> {
        self.inner.transport.producer_config()
    }

    /// Returns the settings of consumers on this log by default.
    ///
    /// # Errors
    /// If the settings contradict each other.
    pub fn consumer_config(&self) -> Result<ConsumerConfig, ClientError> {
        self.inner.transport.consumer_config()
    }

    /// Topics, groups and transactions.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.transport())
    }

    /// The world that the log lives in.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Where the state of the jobs is kept, a folder a job.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.inner.state_dir
    }

    /// Where RocksDB keeps its files.
    pub(crate) fn state_files(&self) -> &RocksFiles {
        &self.inner.state_files
    }

    /// Marks the job as running here, until the guard is dropped.
    pub(crate) fn claim(&self, job: &str) -> Result<Claim, JobError> {
        match self.inner.running.lock().insert(job.to_owned()) {
            true => Ok(Claim { log: self.clone(), job: job.to_owned() }),
            false => Err(JobError::Fenced {
                job: job.to_owned(),
                why: "this process runs it already; stop that one first, or give this one another name".to_owned(),
            }),
        }
    }
}

/// A job's name, taken in this process.
pub(crate) struct Claim {
    log: Log,
    job: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.log.inner.running.lock().remove(&self.job);
    }
}
