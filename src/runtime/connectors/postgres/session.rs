//! A connection with a small runtime of its own, so that a worker can wait for it; and what its errors mean for the job.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Connection, Error, NoTls, Socket};

use super::tls::Tls;
use crate::env::Env;
use crate::net::{ClientTls, ClientTlsSettings, OwnRuntime, Pem};
use crate::runtime::JobError;

/// A server that does not answer for so long, though it should, is taken for lost.
const TCP_PATIENCE: Duration = Duration::from_secs(30);
/// A server that is not reached in this time is tried again.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The settings of every session. A commit that the server has answered must be on its disk, or its frontier could go back behind the
/// job's. A process that vanished must not keep its locks.
const SETTINGS: &str = "SET idle_in_transaction_session_timeout = '60s'; SET lock_timeout = '10s'; \
     SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// The place of a server, as the user said it.
#[derive(Clone)]
pub(super) struct Server {
    settings: String,
    tls: Option<Option<Pem>>,
}

impl Server {
    pub(super) fn new(settings: &str) -> Self {
        Self {
            settings: settings.to_owned(),
            tls: None,
        }
    }

    pub(super) fn use_tls(&mut self, authorities: Option<Pem>) {
        self.tls = Some(authorities);
    }

    fn config(&self) -> Result<Config, Problem> {
        let config = self.settings.parse::<Config>();
        // The settings may hold a password, so they are not repeated.
        let mut config = config.map_err(|e| {
            let why = e.source().map_or_else(|| e.to_string(), ToString::to_string);
            Problem::refused(format!(
                "the connection string cannot be read: {why}; write `host=… user=… dbname=…` or `postgresql://user@host/database`"
            ))
        })?;
        config.tcp_user_timeout(TCP_PATIENCE);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_PATIENCE);
        }
        Ok(config)
    }
}

/// The reason why the database did not do something.
#[derive(Debug)]
pub(super) enum Problem {
    /// It may do it later: it is away, starts up, has no place, or another transaction was in the way.
    Passing(String),
    /// It will not: the table, the rows or the settings must change first.
    Refused(String),
    /// Another instance of the job writes.
    Fenced(String),
}

impl Problem {
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Passing(_))
    }

    pub(super) fn into_error(self, sink: &str, job: &str) -> JobError {
        let sink = sink.to_owned();
        match self {
            Self::Passing(why) => JobError::SinkUnavailable { sink, why },
            Self::Refused(why) => JobError::Sink { sink, why },
            Self::Fenced(why) => JobError::Fenced {
                job: job.to_owned(),
                why,
            },
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passing(why) | Self::Refused(why) | Self::Fenced(why) => f.write_str(why),
        }
    }
}

/// Classes of SQLSTATE (and single codes) that pass: connections, resources, operators, conflicts, locks, the system; a server that is
/// read-only, because it is not the primary at the moment; a session that was idle for too long.
const PASSING: [&str; 8] = ["08", "53", "57", "40", "55", "58", "25006", "25P03"];

/// Whether what the database said with this code may be otherwise later.
pub(super) fn is_passing_code(code: &str) -> bool {
    PASSING.iter().any(|class| code.starts_with(class))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        if let Some(said) = error.as_db_error() {
            let code = said.code().code();
            let mut why = format!("{} (SQLSTATE {code})", said.message());
            if let Some(detail) = said.detail() {
                why = format!("{why}: {detail}");
            }
            if let Some(advice) = said.hint() {
                why = format!("{why}; {advice}");
            }
            return match is_passing_code(code) {
                true => Self::Passing(why),
                false => Self::Refused(why),
            };
        }
        let why = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let broken = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>());
        // A certificate that is not accepted comes as invalid data.
        let is_broken = broken.is_some_and(|e| e.kind() != io::ErrorKind::InvalidData);
        match error.is_closed() || is_broken {
            true => Self::Passing(why),
            false => Self::Refused(why),
        }
    }
}

/// A connection to the database. Its runtime moves only while somebody waits.
pub(super) struct Session {
    runtime: OwnRuntime,
    pub(super) client: Client,
}

impl Session {
    pub(super) fn connect(server: &Server, env: &Env, job: &str) -> Result<Self, Problem> {
        let mut config = server.config()?;
        if config.get_application_name().is_none() {
            config.application_name(format!("onceflow {job}"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Problem::Passing(e.to_string()))?;
        let is_secured = server.tls.is_some() || config.get_ssl_mode() == SslMode::Require;
        let client = runtime.block_on(async {
            if !is_secured {
                config.ssl_mode(SslMode::Disable);
                let (client, connection) = config.connect(NoTls).await?;
                keep(connection);
                return Ok(client);
            }
            config.ssl_mode(SslMode::Require);
            let settings = ClientTlsSettings {
                ca: server.tls.clone().flatten(),
                ..ClientTlsSettings::default()
            };
            let tls = ClientTls::new(env, &settings);
            let tls = tls.map_err(|e| Problem::refused(e.to_string()))?;
            let (client, connection) = config.connect(Tls(tls)).await?;
            keep(connection);
            Ok::<_, Problem>(client)
        })?;
        let session = Self {
            runtime: runtime.into(),
            client,
        };
        session.wait(session.client.batch_execute(SETTINGS))?;
        Ok(session)
    }

    /// Waits on the calling thread.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// Keeps a connection going; its end shows in the next request.
fn keep<T>(connection: Connection<Socket, T>)
where
    T: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(error = %e, "a connection to PostgreSQL ended");
        }
    });
}
