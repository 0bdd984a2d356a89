//! [`Log`]: the log that a job reads and writes, and the folder of its state.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::JobError;
use crate::broker::{Broker, BrokerConfig, BrokerError};
use crate::client::{Admin, InProcess, Transport};
use crate::env::Env;

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
    broker: Broker,
    transport: Arc<dyn Transport>,
    state_dir: PathBuf,
    running: Mutex<HashSet<String>>,
}

impl Log {
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
        Self::in_env(Env::real(), data.as_ref(), config)
    }

    /// As [`Log::embedded_with`], in a world of your own (for tests).
    ///
    /// # Errors
    /// As [`Log::embedded`].
    pub fn in_env(env: Env, data: &Path, config: BrokerConfig) -> Result<Self, BrokerError> {
        let broker = Broker::open(env.clone(), data, config)?;
        let transport: Arc<dyn Transport> = Arc::new(InProcess::new(env.clone(), broker.clone()));
        let state_dir = data.join("state");
        Ok(Self {
            inner: Arc::new(Inner {
                env,
                broker,
                transport,
                state_dir,
                running: Mutex::default(),
            }),
        })
    }

    /// Closes all files cleanly. Jobs must have ended.
    ///
    /// # Errors
    /// If a file cannot be written or synced.
    pub fn close(&self) -> Result<(), BrokerError> {
        self.inner.broker.close()
    }

    /// The way to the log for producers and consumers of your own.
    #[must_use]
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.inner.transport)
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
