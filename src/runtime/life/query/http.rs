//! Questions over HTTP: on the loopback address unless a token guards it, and read only unless changes are allowed.
//!
//! ```text
//! GET  /                                            the job and its stores
//! GET  /status, /metrics                            the job as a whole: `shown.rs`
//! GET  /stores/NAME?key=…                           a value; several with several keys
//! GET  /stores/NAME?after=…&limit=…                 a page of rows of a store with one value a key
//! GET  /stores/NAME?key=…&place=…  |  from, to      a value or a range of a store in order
//! GET  /stores/NAME?key=…&as_of=…                   the version of a key that was valid at a time
//! GET  /stores/NAME?key=…&time=…   |  from=…&to=…   a value of a store with time, or all at some times
//! GET  /windows/NAME?key=…&from=…&to=…              the windows of a key that are open
//! GET  /processed?topic=…&partition=…&offset=…      waits until that record is processed
//! POST /read                                        several questions, all answered of one epoch
//! GET  /letters, POST /transactions/abort …         letters, and what changes something: `act.rs`
//! GET  /topics, /records/TOPIC …                    the log's topics, and what became of a record: `records.rs`
//! ```
//! What a question means is `question.rs`; here are connections, statuses and who may ask.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming as Body};
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::act::Act;
use super::failed::Failed;
use super::question::{Checked, Question};
use super::records;
use super::shown::{Sent, whole};
use super::{Queries, QueryError};
use crate::client::Transport;
use crate::net::{Address, Incoming, Listener, NetError, OwnRuntime, ServerTls, ServerTlsSettings};
use crate::runtime::task::committed::{Epoch, Kind};
use crate::types::{Offset, TopicName, TopicPartition};

/// Threads that answer: readers do not wait for each other, and the job keeps its cores.
const THREADS: usize = 2;
const CONNECTIONS_MAX: usize = 128;
/// The longest body of a question.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a client may take for its handshake, its headers, or its body.
const SLOW_CLIENT: Duration = Duration::from_secs(10);
/// How long a question waits for an answer where nobody says how long.
const WAIT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(300);
/// The most questions that are answered of one epoch.
const QUESTIONS_MAX: usize = 1_000;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where and to whom questions are answered over HTTP.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    listen: Address,
    token: Option<String>,
    tls: Option<ServerTlsSettings>,
    may_change: bool,
    #[cfg(feature = "dashboard")]
    has_dashboard: bool,
}

/// Questions cannot be answered over HTTP.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The settings do not fit each other.
    #[error("{why}")]
    Invalid {
        /// The mistake, and what to do.
        why: String,
    },
    /// The address cannot be listened on, or a certificate not be read.
    #[error("{why}")]
    Net {
        /// The failure in words.
        why: String,
    },
    /// The system gives no threads.
    #[error("no thread can be started for questions over HTTP")]
    Threads(#[source] std::io::Error),
}

impl From<NetError> for HttpError {
    fn from(error: NetError) -> Self {
        Self::Net {
            why: error.to_string(),
        }
    }
}

impl HttpConfig {
    /// Listens on an address (`127.0.0.1:8090`); port 0 takes a free one. Other addresses than those of the loopback need a
    /// [`token`](Self::token).
    ///
    /// # Errors
    /// If it is not an address.
    pub fn on(address: &str) -> Result<Self, HttpError> {
        Ok(Self {
            listen: address.parse()?,
            token: None,
            tls: None,
            may_change: false,
            #[cfg(feature = "dashboard")]
            has_dashboard: false,
        })
    }

    /// Shows browsers the dashboard, a page of the running job, at `/`. Where there is a token, the page asks for it.
    #[cfg(feature = "dashboard")]
    #[must_use]
    pub fn dashboard(self) -> Self {
        Self {
            has_dashboard: true,
            ..self
        }
    }

    /// Answers only who sends this token, as `Authorization: Bearer TOKEN`.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self
        }
    }

    /// Lets who has the [`token`](Self::token) change something, too: replay letters of the job, and abort transactions before which
    /// readers wait. The dashboard asks once more before it does.
    #[must_use]
    pub fn allow_changes(self) -> Self {
        Self {
            may_change: true,
            ..self
        }
    }

    /// Encrypts what is sent.
    #[must_use]
    pub fn tls(self, settings: ServerTlsSettings) -> Self {
        Self {
            tls: Some(settings),
            ..self
        }
    }

    fn check(&self) -> Result<(), HttpError> {
        let why = match &self.token {
            Some(token) if token.len() < 16 => {
                "the token has less than 16 characters, and could be guessed: give a longer one"
                    .to_owned()
            }
            None if self.may_change => {
                "without a token every program of this machine could change something: set one"
                    .to_owned()
            }
            None if !self.listen.is_loopback() => format!(
                "{} can be reached from other machines, and whoever reaches it could read the job's state: set a token, or listen on \
                 127.0.0.1",
                self.listen
            ),
            _ => return Ok(()),
        };
        Err(HttpError::Invalid { why })
    }
}

/// Answers questions over HTTP until it is dropped. Made by [`Queries::serve`].
pub struct HttpServer {
    /// Its drop ends what serves.
    _runtime: OwnRuntime,
    local: SocketAddr,
}

impl HttpServer {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.local
    }
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpServer")
            .field("address", &self.local)
            .finish_non_exhaustive()
    }
}

impl Queries {
    /// Answers questions over HTTP, as JSON, until the returned value is dropped: `docs/queries.md` has the paths. Whoever asks can read
    /// the whole state, and change nothing unless that is [allowed](HttpConfig::allow_changes).
    ///
    /// ```
    /// # fn ask(running: &onceflow::runtime::Running) -> anyhow::Result<()> {
    /// use onceflow::runtime::HttpConfig;
    ///
    /// let server = running.query().serve(HttpConfig::on("127.0.0.1:0")?)?;
    /// println!("curl 'http://{}/stores/counts?key=tea'", server.address());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the address could be reached from other machines and there is no token; if it cannot be listened on, or a certificate cannot be
    /// read.
    pub fn serve(&self, config: HttpConfig) -> Result<HttpServer, HttpError> {
        config.check()?;
        let env = &self.declared.env;
        let tls = match &config.tls {
            Some(settings) => Some(ServerTls::new(env, settings)?),
            None => None,
        };
        // The network's own threads: tokio's, since nothing that decides runs on them (design D8, D12).
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("of-queries")
            .enable_all()
            .build()
            .map_err(HttpError::Threads)?;
        let runtime = OwnRuntime::from(runtime);
        let listener = {
            let _context = runtime.enter();
            Listener::bind(&config.listen)?
        };
        let local = listener.local()?;
        let shared = Arc::new(Shared {
            queries: self.clone(),
            token: config.token.map(|token| digest(&SHA256, token.as_bytes())),
            is_loopback: config.listen.is_loopback(),
            tls,
            may_change: config.may_change,
            acting: Arc::new(Semaphore::new(1)),
            #[cfg(feature = "dashboard")]
            has_dashboard: config.has_dashboard,
        });
        runtime.spawn(accept(listener, shared));
        tracing::info!(%local, "answers questions over HTTP");
        Ok(HttpServer {
            _runtime: runtime,
            local,
        })
    }
}

pub(super) struct Shared {
    pub(super) queries: Queries,
    /// The token's SHA-256: how long a comparison takes says nothing.
    token: Option<ring::digest::Digest>,
    is_loopback: bool,
    tls: Option<ServerTls>,
    pub(super) may_change: bool,
    /// Who has it looks into letters, or changes something.
    pub(super) acting: Arc<Semaphore>,
    #[cfg(feature = "dashboard")]
    pub(super) has_dashboard: bool,
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok(incoming) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = serve(incoming, shared).await {
                        tracing::debug!(%error, "a connection with questions ended");
                    }
                });
            }
            Err(error) => {
                crate::env::warn!(%error, "cannot accept a connection with questions");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(incoming: Incoming, shared: Arc<Shared>) -> anyhow::Result<()> {
    let connection = incoming.establish(shared.tls.as_ref(), SLOW_CLIENT).await?;
    let io = TokioIo::new(connection.into_bytes());
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(shared.respond(request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SLOW_CLIENT)
        .serve_connection(io, service)
        .await?;
    Ok(())
}

/// The parameters of a URL that belong to no question.
struct Terms {
    at_least: Epoch,
    wait: Duration,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
}

/// Takes the parameters of a URL apart.
fn read_parameters(text: &str) -> Result<(Question, Terms), Failed> {
    let mut question = Question::default();
    let mut terms = Terms {
        at_least: Epoch::default(),
        wait: WAIT,
        topic: None,
        partition: None,
        offset: None,
    };
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let not = |what: &str| Failed::bad(format!("{name}={value} is not {what}"));
        match &*name {
            "at_least" => terms.at_least = value.parse().map_err(|_| not("an epoch"))?,
            "wait" => {
                let seconds = value.parse::<f64>().ok();
                let wait = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
                let wait = wait.filter(|wait| *wait <= WAIT_MAX);
                terms.wait = wait.ok_or_else(|| not("a number of seconds from 0 to 300"))?;
            }
            "topic" => terms.topic = Some(value.into_owned()),
            "partition" => {
                terms.partition = Some(value.parse().map_err(|_| not("a partition"))?);
            }
            "offset" => terms.offset = Some(value.parse().map_err(|_| not("an offset"))?),
            _ => match question.take(&name, &value) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(Failed::bad(format!(
                        "there is no parameter {name:?}: there are key, place, time, from, to, after, limit, reverse, at_least and wait"
                    )));
                }
                Err(refused) => return Err(Failed::bad(refused.0)),
            },
        }
    }
    Ok((question, terms))
}

#[cfg(feature = "metrics")]
const METRICS: &str = "GET /metrics, ";
#[cfg(not(feature = "metrics"))]
const METRICS: &str = "";

/// What may be asked for.
fn paths() -> String {
    format!(
        "GET /, GET /status, {METRICS}GET /stores/NAME, GET /windows/NAME, GET /processed, POST /read, GET /letters, \
         GET /letters/TOPIC, POST /letters/TOPIC/replay, POST /transactions/abort, GET /topics, GET /records/TOPIC, \
         GET /records/TOPIC/follow"
    )
}

impl Shared {
    /// The way to the log.
    pub(super) fn transport(&self) -> &Arc<dyn Transport> {
        self.queries.watcher().transport()
    }

    /// The job that answers.
    pub(super) fn job_name(&self) -> Option<&str> {
        Some(self.queries.job())
    }

    async fn respond(self: &Arc<Self>, request: Request<Body>) -> Response<Sent> {
        let answered = match self.admit(&request) {
            Ok(()) => match self.show(&request).await {
                Some(Ok(shown)) => return shown,
                Some(Err(failed)) => Err(failed),
                None if Act::is_at(request.uri().path()) => self.act(request).await,
                None if records::is_at(request.uri().path()) => {
                    let (uri, query) = (request.uri(), request.uri().query());
                    self.records(request.method(), uri.path(), query.unwrap_or_default())
                        .await
                }
                None => self.answer(request).await,
            },
            Err(failed) => Err(failed),
        };
        let (status, told) = match answered {
            Ok(told) => (StatusCode::OK, told),
            Err(Failed { status, told }) => (status, told),
        };
        let mut text = Value::Object(told).to_string();
        text.push('\n');
        let mut response = Response::new(whole(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let fixed = hyper::header::HeaderValue::from_static;
        headers.insert(CONTENT_TYPE, fixed("application/json"));
        headers.insert(CACHE_CONTROL, fixed("no-store"));
        match status {
            StatusCode::UNAUTHORIZED => drop(headers.insert(WWW_AUTHENTICATE, fixed("Bearer"))),
            StatusCode::METHOD_NOT_ALLOWED => drop(headers.insert(ALLOW, fixed("GET, POST"))),
            _ => {}
        }
        response
    }

    async fn answer(&self, request: Request<Body>) -> Result<Map<String, Value>, Failed> {
        let (question, terms) = read_parameters(request.uri().query().unwrap_or_default())?;
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let wait = terms.wait;
        let answer = async {
            match (&method, &*path, path.split_at(path.len().min(1)).1) {
                (&Method::GET, "/", _) => Ok(self.about()),
                (&Method::GET, "/processed", _) => self.processed(&terms).await,
                (&Method::GET, _, rest) => {
                    let mut question = question;
                    match rest.split_once('/') {
                        Some(("stores", name)) => question.store = name.to_owned(),
                        Some(("windows", name)) => {
                            question.store = name.to_owned();
                            question.windows = true;
                        }
                        _ => return Err(no_path(&path)),
                    }
                    let mut answers = self.read(&terms, &[question]).await?;
                    let mut answer = answers.1.pop().unwrap_or_default();
                    answer.insert("epoch".to_owned(), answers.0.0.into());
                    Ok(answer)
                }
                (&Method::POST, "/read", _) => {
                    let questions = read_body(request.into_body()).await?;
                    let (epoch, answers) = self.read(&terms, &questions).await?;
                    let answers: Value = answers.into_iter().map(Value::Object).collect();
                    let told = [("epoch", epoch.0.into()), ("answers", answers)];
                    Ok(told
                        .map(|(name, value)| (name.to_owned(), value))
                        .into_iter()
                        .collect())
                }
                (&Method::POST, ..) => Err(no_path(&path)),
                _ => Err(Failed::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("there is no such request: {}", paths()),
                )),
            }
        };
        timeout(wait, answer).await.unwrap_or_else(|_| {
            Err(Failed::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "there was no answer within {} s: the job starts, or the epoch or the record that is waited for is not committed; ask \
                     again, with a longer `wait`",
                    wait.as_secs_f64()
                ),
            ))
        })
    }

    /// Whether somebody may ask.
    fn admit(&self, request: &Request<Body>) -> Result<(), Failed> {
        let Some(token) = &self.token else {
            // A web page of elsewhere, whose name leads here, cannot name this machine.
            let host = request.headers().get(HOST);
            let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
            return match !self.is_loopback || names_loopback(host) {
                true => Ok(()),
                false => Err(Failed::new(
                    StatusCode::FORBIDDEN,
                    "without a token only those are answered who ask 127.0.0.1 or localhost",
                )),
            };
        };
        // The files of the page say nothing of the job; they ask for the token.
        if self.has_file(request) {
            return Ok(());
        }
        let given = request.headers().get(AUTHORIZATION);
        let given = given.and_then(|given| given.as_bytes().strip_prefix(b"Bearer "));
        match given.map(|given| digest(&SHA256, given)) {
            Some(given) if given.as_ref() == token.as_ref() => Ok(()),
            _ => Err(Failed::new(
                StatusCode::UNAUTHORIZED,
                "send the token, as `Authorization: Bearer TOKEN`",
            )),
        }
    }

    /// The job and its stores.
    fn about(&self) -> Map<String, Value> {
        let declared = &self.queries.declared;
        let stores = declared.stores.iter().map(|(name, schema)| {
            let face = declared.faces.get(name);
            let kind = face.map(|face| match face.kind {
                Kind::Values => "values",
                Kind::Timed => "with time",
                Kind::Ordered(_) => "in order",
            });
            json!({
                "name": name,
                "kind": kind,
                "key": schema.key.as_str(),
                "value": schema.value.as_str(),
                "has_windows": face.is_some_and(|face| face.windows.is_some()),
            })
        });
        let told = [
            ("job", declared.job.as_str().into()),
            ("stores", stores.collect()),
            ("paths", paths().split(", ").collect()),
            ("may_change", self.may_change.into()),
        ];
        told.map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect()
    }

    async fn processed(&self, terms: &Terms) -> Result<Map<String, Value>, Failed> {
        let (Some(topic), Some(partition), Some(offset)) =
            (&terms.topic, terms.partition, terms.offset)
        else {
            return Err(Failed::bad(
                "say which record: topic=NAME&partition=NUMBER&offset=NUMBER",
            ));
        };
        let topic = TopicName::new(topic).map_err(|e| Failed::bad(e.to_string()))?;
        let place = TopicPartition::new(topic, partition);
        let epoch = self.queries.processed(&place, Offset(offset)).await?;
        Ok(Map::from_iter([("epoch".to_owned(), epoch.0.into())]))
    }

    /// Answers questions, all of one epoch.
    async fn read(
        &self,
        terms: &Terms,
        questions: &[Question],
    ) -> Result<(Epoch, Vec<Map<String, Value>>), Failed> {
        let queries = self.queries.at_least(terms.at_least);
        let checked = questions.iter().map(|question| queries.check(question));
        let checked: Vec<Checked<'_>> = checked.collect::<Result<_, QueryError>>()?;
        let answered = queries.read(|view| {
            let answers = checked.iter().map(|question| question.answer(view));
            answers.collect()
        });
        let answer = answered.await?;
        Ok((answer.epoch, answer.value))
    }
}

pub(super) fn no_path(path: &str) -> Failed {
    let why = format!("there is nothing at {path}: {}", paths());
    Failed::new(StatusCode::NOT_FOUND, why)
}

/// Whether a `Host` header names this machine from within.
fn names_loopback(host: &str) -> bool {
    let address: Option<Address> = host.parse().ok();
    let name = address.map_or_else(|| host.to_owned(), |address| address.host);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The whole body of a request.
pub(super) async fn whole_body(body: Body) -> Result<Bytes, Failed> {
    let whole = timeout(SLOW_CLIENT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match whole {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        _ => Err(Failed::bad(
            "the body did not come whole within 10 s, or has more than 1 MiB",
        )),
    }
}

async fn read_body(body: Body) -> Result<Vec<Question>, Failed> {
    let questions: Vec<Question> = serde_json::from_slice(&whole_body(body).await?).map_err(|e| {
        Failed::bad(format!(
            "the body is not a list of questions, as [{{\"store\": \"counts\", \"key\": \"tea\"}}]: {e}"
        ))
    })?;
    match questions.len() {
        1..=QUESTIONS_MAX => Ok(questions),
        count => Err(Failed::bad(format!(
            "{count} questions were asked at once: ask 1 to {QUESTIONS_MAX}"
        ))),
    }
}
