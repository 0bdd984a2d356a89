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
//! The meaning of questions is in `question.rs`, access and answers are in `answers.rs`; here are settings and connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::Queries;
use super::subject::Subject;
use crate::env::Env;
use crate::net::{Address, Incoming, Listener, NetError, OwnRuntime, ServerTls, ServerTlsSettings};

/// Threads that answer: readers do not wait for each other, and the job keeps its cores.
const THREADS: usize = 2;
const CONNECTIONS_MAX: usize = 128;
/// Longest wait for a client's handshake, its headers, or its body.
pub(super) const SLOW_CLIENT: Duration = Duration::from_secs(10);
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
        start(&self.declared.env, config, Subject::Job(self.clone()))
    }
}

/// Answers for a subject until the returned value is dropped.
pub(super) fn start(
    env: &Env,
    config: HttpConfig,
    subject: Subject,
) -> Result<HttpServer, HttpError> {
    config.check()?;
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
        subject,
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

pub(super) struct Shared {
    pub(super) subject: Subject,
    /// The token's SHA-256: how long a comparison takes says nothing.
    pub(super) token: Option<ring::digest::Digest>,
    pub(super) is_loopback: bool,
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
