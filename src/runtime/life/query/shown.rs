//! The job as a whole over HTTP: as JSON and as metrics.
//!
//! ```text
//! GET  /status                        the view of the job (`Status`) as JSON
//! GET  /metrics                       the same for Prometheus (feature `metrics`)
//! GET  /dashboard/…                   the dashboard (feature `dashboard`): `dashboard/mod.rs`
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
#[cfg(feature = "metrics")]
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming as Body};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use tokio::time::timeout;

use super::Queries;
use super::failed::Failed;
use super::http::Shared;
use super::subject::Subject;
use crate::runtime::life::status::Status;

/// Longest wait for the log to say where partitions end, before the view goes without.
const LOG_WAIT: Duration = Duration::from_secs(3);

/// The body of an answer: whole, or as it comes.
pub(super) type Sent = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is known as a whole.
pub(super) fn whole(body: impl Into<Bytes>) -> Sent {
    Full::new(body.into()).boxed_unsync()
}

impl Shared {
    /// Whether a file of the dashboard is asked for.
    #[cfg(feature = "dashboard")]
    pub(super) fn has_file(&self, request: &Request<Body>) -> bool {
        self.has_dashboard && super::dashboard::file(request).is_some()
    }

    /// Whether a file of the dashboard is asked for: there is none.
    #[cfg(not(feature = "dashboard"))]
    pub(super) fn has_file(&self, _: &Request<Body>) -> bool {
        false
    }

    /// Answers what is asked of the job as a whole; `None` where it is something else.
    pub(super) async fn show(
        self: &Arc<Self>,
        request: &Request<Body>,
    ) -> Option<Result<Response<Sent>, Failed>> {
        #[cfg(feature = "dashboard")]
        if self.has_dashboard
            && let Some(shown) = super::dashboard::show(self, request)
        {
            return Some(Ok(shown));
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/status") => {
                let body = self.look_as_json().await;
                Some(Ok(text("application/json", body)))
            }
            #[cfg(feature = "metrics")]
            (&Method::GET, "/metrics") => {
                let status = match self.queries() {
                    Ok(queries) => look(queries).await,
                    Err(failed) => return Some(Err(failed)),
                };
                let written = super::metrics::text_of(status);
                let written = written.map_err(|_| {
                    let why = "the metrics could not be written";
                    Failed::new(StatusCode::INTERNAL_SERVER_ERROR, why)
                });
                Some(written.map(|body| text(super::metrics::CONTENT_TYPE, body.into())))
            }
            _ => None,
        }
    }

    /// The view of the job, or of the log, as JSON.
    pub(super) async fn look_as_json(&self) -> Bytes {
        match &self.subject {
            Subject::Job(queries) => look(queries).await.json().into(),
            #[cfg(feature = "cli")]
            Subject::Log(log) => Bytes::copy_from_slice(log.json().await.as_bytes()),
        }
    }
}

/// The view of the job, without what the log says if it does not answer in time.
async fn look(queries: &Queries) -> Arc<Status> {
    let watcher = queries.watcher();
    let looked = timeout(LOG_WAIT, watcher.look_with_others()).await;
    looked.unwrap_or_else(|_| watcher.look_here())
}

/// An answer of this type, which nobody is to keep.
pub(super) fn text(kind: &'static str, body: Bytes) -> Response<Sent> {
    let mut response = Response::new(whole(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
