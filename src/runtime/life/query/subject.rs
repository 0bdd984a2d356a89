//! `Subject`: who answers over HTTP: a job, or a log without one.

use std::sync::Arc;

use super::Queries;
use super::failed::Failed;
use super::http::Shared;
#[cfg(feature = "cli")]
use super::http::{HttpConfig, HttpError, HttpServer, start};
#[cfg(feature = "cli")]
use super::log_status::LogWatcher;
use crate::client::Transport;

/// Who answers.
pub(super) enum Subject {
    Job(Queries),
    #[cfg(feature = "cli")]
    Log(LogWatcher),
}

impl Shared {
    /// The job that is asked.
    #[allow(
        clippy::unnecessary_wraps,
        reason = "without the command there is always a job"
    )]
    pub(super) fn queries(&self) -> Result<&Queries, Failed> {
        match &self.subject {
            Subject::Job(queries) => Ok(queries),
            #[cfg(feature = "cli")]
            Subject::Log(_) => Err(Failed::new(
                hyper::StatusCode::NOT_FOUND,
                "this is the page of a log, not of a job: state, letters and what is processed are asked of the job's own page",
            )),
        }
    }

    /// The way to the log.
    pub(super) fn transport(&self) -> &Arc<dyn Transport> {
        match &self.subject {
            Subject::Job(queries) => queries.watcher().transport(),
            #[cfg(feature = "cli")]
            Subject::Log(log) => log.transport(),
        }
    }

    /// The name of the job that answers.
    pub(super) fn job_name(&self) -> Option<&str> {
        self.queries().ok().map(Queries::job)
    }
}

/// Shows a log to browsers, and answers programs, until the returned value is dropped. `name` says where the log is.
///
/// # Errors
/// As [`Queries::serve`].
#[cfg(feature = "cli")]
pub(crate) fn serve_log(
    transport: Arc<dyn Transport>,
    name: String,
    config: HttpConfig,
) -> Result<HttpServer, HttpError> {
    let env = transport.env().clone();
    start(&env, config, Subject::Log(LogWatcher::new(transport, name)))
}
