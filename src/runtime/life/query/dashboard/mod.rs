//! The dashboard: a page that shows a running job to browsers.
//!
//! ```text
//! GET  /                    the page, for who accepts HTML; programs get the job and its stores as before
//! GET  /dashboard/NAME      the page's style and scripts
//! GET  /dashboard/events    the view of the job (`Status`) once a second, as server-sent events
//! ```
//! The page is a few files in this folder, without a build step; it asks nobody but its own server, and shows and does nothing that
//! `/status`, the questions over HTTP and `act.rs` do not do for programs. A view is made only when somebody reads it: where nobody looks, nothing is done.
//!
//! The page's files in reading order: `index.html`, `app.js` (what comes, and who shows it), `dom.js` (text becomes elements, never
//! markup), then a file a view.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming as Body};
use hyper::header::{
    ACCEPT, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::http::{HttpConfig, HttpError, HttpServer, Shared};
use super::shown::{Sent, text};
use crate::runtime::life::job::Running;

/// The pause between two views.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The views of one answer; the page asks again. So no answer goes on for ever.
const VIEWS_MAX: u32 = 600;
/// The rules for the page: its own files and its own server, nothing else, and no page around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the page.
pub(super) struct File {
    kind: &'static str,
    content: &'static str,
}

/// The files by name.
const FILES: [(&str, &str, &str); 14] = [
    ("style.css", CSS, include_str!("style.css")),
    ("app.js", JS, include_str!("app.js")),
    ("dom.js", JS, include_str!("dom.js")),
    ("job.js", JS, include_str!("job.js")),
    ("graph.js", JS, include_str!("graph.js")),
    ("commits.js", JS, include_str!("commits.js")),
    ("time.js", JS, include_str!("time.js")),
    ("tables.js", JS, include_str!("tables.js")),
    ("log.js", JS, include_str!("log.js")),
    ("letters.js", JS, include_str!("letters.js")),
    ("records.js", JS, include_str!("records.js")),
    ("bytes.js", JS, include_str!("bytes.js")),
    ("act.js", JS, include_str!("act.js")),
    ("icon.svg", SVG, include_str!("icon.svg")),
];

/// The file that is asked for, if it is one of the page's.
pub(super) fn file(request: &Request<Body>) -> Option<File> {
    if request.method() != Method::GET {
        return None;
    }
    let path = request.uri().path();
    if path == "/" {
        let accepted = request.headers().get(ACCEPT)?.to_str().ok()?;
        return accepted.contains("text/html").then_some(File {
            kind: HTML,
            content: include_str!("index.html"),
        });
    }
    let asked = path.strip_prefix("/dashboard/")?;
    let found = FILES.iter().find(|(name, ..)| *name == asked)?;
    let &(_, kind, content) = found;
    Some(File { kind, content })
}

/// Answers what is asked of the dashboard; `None` where it is something else.
pub(super) fn show(shared: &Arc<Shared>, request: &Request<Body>) -> Option<Response<Sent>> {
    let mut response = match file(request) {
        Some(file) => text(file.kind, Bytes::from_static(file.content.as_bytes())),
        None if is_events(request) => views(shared),
        None => return None,
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(response)
}

fn is_events(request: &Request<Body>) -> bool {
    request.method() == Method::GET && request.uri().path() == "/dashboard/events"
}

/// The views as they come. Each is made when the connection takes it, so that a reader who is slow, or gone, costs nothing.
fn views(shared: &Arc<Shared>) -> Response<Sent> {
    let mut pause = interval(LOOK_EVERY);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begin = (Arc::clone(shared), pause, 0);
    let views = stream::unfold(begin, next_view);
    let mut response = text("text/event-stream", Bytes::new());
    *response.body_mut() = StreamBody::new(views).boxed_unsync();
    response
}

/// Who is looked at, the pause between two looks, and how many there were.
type Looks = (Arc<Shared>, Interval, u32);

async fn next_view(looks: Looks) -> Option<(Result<Frame<Bytes>, Infallible>, Looks)> {
    let (shared, mut pause, count) = looks;
    if count == VIEWS_MAX {
        return None;
    }
    pause.tick().await;
    // JSON has no line breaks of its own: an event is one line.
    let view = shared.look_as_json().await;
    let event = [b"data: ", &view[..], b"\n\n"].concat();
    Some((Ok(Frame::data(event.into())), (shared, pause, count + 1)))
}

impl Running {
    /// Shows the job to browsers at an address of this machine, until the returned value is dropped. Port 0 takes a free one.
    ///
    /// Whoever reaches the page can read the whole state and the topics of the log, and change nothing. For other machines set a token, and for changes
    /// ([`HttpConfig::allow_changes`]) too: `running.query().serve(HttpConfig::on("0.0.0.0:8080")?.token(TOKEN).dashboard())`.
    ///
    /// ```
    /// # fn main() -> anyhow::Result<()> {
    /// # let folder = tempfile::tempdir()?;
    /// # let log = onceflow::runtime::Log::embedded(folder.path().join("data"))?;
    /// use onceflow::client::wait;
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("copy");
    /// job.source(topic::<str>("lines")).sink(topic("copies"));
    /// let running = job.exactly_once(Commit::default()).start(&log)?;
    /// let page = running.dashboard("127.0.0.1:0")?;
    /// println!("look at http://{}/", page.address());
    /// wait(running.stop())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If it is not an address, or one that other machines reach; if it cannot be listened on.
    pub fn dashboard(&self, address: &str) -> Result<HttpServer, HttpError> {
        self.query().serve(HttpConfig::on(address)?.dashboard())
    }
}
