//! A data directory in use by one command: opened, worked on, closed again, also when the work failed.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use futures::Future;

use super::UsageError;
use crate::broker::{Broker, BrokerConfig};
use crate::client::{Admin, InProcess, Transport};
use crate::env::Env;
use crate::types::Durability;

/// The environment variable that names the data directory.
const DATA_VARIABLE: &str = "ONCEFLOW_DATA";

/// Which data directory a command works on.
#[derive(Debug, Args)]
pub(super) struct DataOption {
    /// The data directory; else the environment variable ONCEFLOW_DATA says
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What happens if there is no data directory yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// It is made.
    Create,
    /// The command fails: it needs what is in it.
    Refuse,
}

impl DataOption {
    /// The directory, wherever it was named.
    pub(super) fn path(&self) -> anyhow::Result<PathBuf> {
        let named = self.data.clone();
        let path = named.or_else(|| std::env::var_os(DATA_VARIABLE).map(PathBuf::from));
        match path {
            Some(path) if !path.as_os_str().is_empty() => Ok(path),
            _ => Err(UsageError(format!(
                "no data directory is named: give --data DIR, or set {DATA_VARIABLE}"
            ))
            .into()),
        }
    }
}

/// An open data directory.
pub(super) struct Session {
    broker: Broker,
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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let broker = Broker::open(env.clone(), path, config)
            .with_context(|| format!("cannot open the data directory {}", path.display()))?;
        let transport = Arc::new(InProcess::new(env.clone(), broker.clone()));
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
        self.broker
            .close()
            .context("cannot close the data directory cleanly")
    }
}

/// Does `work` on the data directory, and closes it whatever happened. The first error is the one told.
pub(super) fn with_session<T>(
    env: &Env,
    data: &DataOption,
    absent: Absent,
    work: impl FnOnce(&Session) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let path = data.path()?;
    if absent == Absent::Refuse && !env.files.exists(&path)? {
        bail!(
            "there is no data directory {}: check --data, or make one with `onceflow topic create`",
            path.display()
        );
    }
    let config = BrokerConfig {
        durability: Durability::Fsync,
        ..BrokerConfig::default()
    };
    let session = Session::open(env, &path, config)?;
    let result = work(&session);
    let closed = session.close();
    let value = result?;
    closed?;
    Ok(value)
}
