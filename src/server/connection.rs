//! `serve`: one connection, from its handshake to its end.
//!
//! Answers are sent in the order of the requests. Produce requests overlap, so that one sync covers several; any other
//! request is worked on alone. A request that waits costs its own connection only. When the client hangs up, what waits
//! is dropped and what is queued behind it is discarded, so that no late EndTxn acts for a client that has gone; only
//! records sent with `acks=0` are still taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::budget::{Budget, Charge};
use super::config::ServerConfig;
use super::handler::{Answer, Frame, Handler};
use super::login::{Login, LoginStep};
use super::peers::{Peers, Place};
use super::requests::{End, Request, Requests};
use super::security::{Principal, Security};
use super::session::Session;
use super::stopped;
use crate::env::Env;
use crate::net::{Address, Connection, FrameWriter, Incoming, NetError, ServerTls};
use crate::protocol::wire::ApiKey;

/// Answers that are written with one call at most.
const ANSWERS_WRITTEN_MAX: usize = 16;
/// Bytes of answers that do not wait for those of requests that are here already.
const ANSWERS_HELD_BYTES_MAX: usize = 16 << 10;

/// State that a server's connections share.
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) config: ServerConfig,
    pub(super) tls: Option<ServerTls>,
    pub(super) security: Security,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) budget: Arc<Budget>,
    pub(super) peers: Arc<Peers>,
    /// Passwords are hashed by one login at a time: many at once must not take every core.
    pub(super) hashing: Arc<Semaphore>,
    pub(super) last_id: AtomicU64,
    /// Becomes true when the server stops.
    pub(super) stop: watch::Receiver<bool>,
}

/// Serves one connection; it has its `place` until then.
pub(super) async fn serve(shared: Arc<Shared>, incoming: Incoming, place: Place) {
    let peer = incoming.peer();
    let patience = shared.config.limits.login_timeout;
    let login_deadline = Instant::now() + patience;
    match incoming.establish(shared.tls.as_ref(), patience).await {
        Err(error) => tracing::debug!(%peer, %error, "no connection"),
        Ok(connection) => {
            let mut worker = Worker::new(Arc::clone(&shared), connection, login_deadline);
            let end = worker.run().await;
            shared.handler.forget(&worker.session);
            match end {
                Ok(()) => tracing::debug!(%peer, "disconnected"),
                Err(End::Unreadable(error)) => {
                    crate::env::error!(%peer, %error, "hung up on a client: its answer had begun when records could not be read");
                }
                Err(end @ End::NotLoggedIn(_)) => {
                    crate::env::warn!(target: "onceflow::audit", %peer, reason = ?end.to_string(), "login refused");
                }
                Err(end) => {
                    tracing::debug!(%peer, reason = ?end.to_string(), "hung up on a client")
                }
            }
        }
    }
    drop(place);
}

/// A request's answer, and its part of the memory until it is on its way.
type Pending = BoxFuture<'static, (Answer, Charge)>;

/// Event of a connection.
enum Event {
    /// The first request in line is answered.
    Answer((Answer, Charge)),
    /// Another one is here.
    Request(Request),
    /// The client hung up, and everything it sent before has been read.
    Closed,
    /// The client hung up while something is pending or queued.
    ClosedBehind,
    /// The server stops.
    Stop,
}

struct Worker {
    shared: Arc<Shared>,
    session: Arc<Session>,
    login: Login,
    is_logged_in: bool,
    login_deadline: Instant,
    requests: Requests,
    writer: FrameWriter,
    pending: FuturesOrdered<Pending>,
    /// Answers that leave together with those of the requests that have been read already.
    answers: Vec<Frame>,
    /// A request that must wait until nothing is pending.
    held: Option<Request>,
    /// Whether what is pending must be alone.
    is_exclusive: bool,
    stop: watch::Receiver<bool>,
}

impl Worker {
    fn new(shared: Arc<Shared>, connection: Connection, login_deadline: Instant) -> Self {
        let config = &shared.config;
        let subject = connection.peer_subject();
        let is_logged_in =
            config.sasl.is_empty() && (subject.is_some() || !config.requires_authentication());
        let principal = match (&subject, config.sasl.is_empty()) {
            (Some(subject), true) => Principal::user(subject),
            _ => Principal::anonymous(),
        };
        let advertised = config.advertised.clone();
        let session = Session::new(
            shared.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            principal,
            connection.peer(),
            advertised.unwrap_or_else(|| Address::from(connection.local())),
            shared.security.clone(),
            Arc::clone(&shared.budget),
        );
        let limits = &config.limits;
        let request_bytes_max = match is_logged_in {
            true => limits.request_bytes_max,
            false => limits.unauthenticated_bytes_max,
        };
        let (reader, writer) = connection.split(request_bytes_max);
        Self {
            session: Arc::new(session),
            login: Login::new(config.sasl.clone()),
            is_logged_in,
            login_deadline,
            requests: Requests::new(reader, Arc::clone(&shared.budget), limits),
            writer,
            pending: FuturesOrdered::new(),
            answers: Vec::new(),
            held: None,
            is_exclusive: false,
            stop: shared.stop.clone(),
            shared,
        }
    }

    async fn run(&mut self) -> Result<(), End> {
        let end = self.serve().await;
        if !matches!(
            end,
            Err(End::Net(_) | End::SlowReader(_) | End::Unreadable(_))
        ) {
            self.write_answers().await?;
        }
        end
    }

    async fn serve(&mut self) -> Result<(), End> {
        loop {
            if !self.may_read() || !self.requests.has_next() {
                self.write_answers().await?;
            }
            match self.next_event().await? {
                Event::Answer(answer) => self.finish(answer).await?,
                Event::Request(request) => self.take(request).await?,
                Event::ClosedBehind => return self.end().await,
                Event::Closed => return Ok(()),
                Event::Stop => return self.drain().await,
            }
        }
    }

    async fn next_event(&mut self) -> Result<Event, End> {
        let is_idle = self.pending.is_empty();
        let may_read = self.may_read();
        let requests = &mut self.requests;
        let arrival = async move {
            match may_read {
                true => Ok(requests.next().await?.map_or(Event::Closed, Event::Request)),
                false => requests.closed().await.map(|()| Event::ClosedBehind),
            }
        };
        tokio::select! {
            biased;
            Some(answer) = self.pending.next(), if !is_idle => Ok(Event::Answer(answer)),
            event = arrival => event,
            () = sleep_until(self.login_deadline), if !self.is_logged_in => {
                Err(End::SlowLogin(self.shared.config.limits.login_timeout))
            }
            () = stopped(&mut self.stop) => Ok(Event::Stop),
        }
    }

    fn may_read(&self) -> bool {
        let in_flight_max = self.shared.config.limits.requests_in_flight_max;
        !self.is_exclusive && self.held.is_none() && self.pending.len() < in_flight_max
    }

    /// Starts a request, or holds it back until those before it are answered.
    async fn take(&mut self, request: Request) -> Result<(), End> {
        if !self.pending.is_empty() && !request.is_produce() {
            self.held = Some(request);
            return Ok(());
        }
        self.start(request).await
    }

    async fn start(&mut self, request: Request) -> Result<(), End> {
        if !self.is_logged_in || self.login.takes(&request.frame) {
            let key = request
                .frame
                .first_chunk::<2>()
                .map(|b| i16::from_be_bytes(*b));
            if self.login.takes(&request.frame) {
                return self.log_in(request.frame).await;
            }
            if key != Some(ApiKey::ApiVersions.key()) {
                let why = "a request came before the login".to_owned();
                return Err(End::NotLoggedIn(why));
            }
        }
        self.is_exclusive = !request.is_produce();
        let handler = Arc::clone(&self.shared.handler);
        let Request { frame, charge } = request;
        let mut answer = handler.handle(Arc::clone(&self.session), frame);
        // The first poll is where records are appended: it happens here, in the order of the requests.
        match futures::poll!(&mut answer) {
            std::task::Poll::Ready(answer) if self.pending.is_empty() => {
                self.finish((answer, charge)).await
            }
            std::task::Poll::Ready(answer) => {
                let ready = std::future::ready((answer, charge));
                self.pending.push_back(ready.boxed());
                Ok(())
            }
            std::task::Poll::Pending => {
                self.write_answers().await?;
                let answer = async move { (answer.await, charge) };
                self.pending.push_back(answer.boxed());
                Ok(())
            }
        }
    }

    /// Takes an answer, and with it those behind it that are there already, to be sent before anything is waited for.
    async fn finish(&mut self, first: (Answer, Charge)) -> Result<(), End> {
        let mut next = Some(first);
        while let Some((answer, charge)) = next {
            let answer = answer.map_err(|malformed| End::Malformed(malformed.to_string()))?;
            self.answers.extend(answer);
            if self.is_write_due() {
                self.write_answers().await?;
            }
            drop(charge);
            if self.pending.is_empty() {
                break;
            }
            next = self.pending.next().now_or_never().flatten();
        }
        self.requests.touch();
        if self.pending.is_empty() {
            self.is_exclusive = false;
            if let Some(held) = self.held.take() {
                return Box::pin(self.start(held)).await;
            }
        }
        Ok(())
    }

    fn is_write_due(&self) -> bool {
        let bytes: usize = self.answers.iter().map(Frame::length_bytes).sum();
        self.answers.len() >= ANSWERS_WRITTEN_MAX || bytes > ANSWERS_HELD_BYTES_MAX
    }

    async fn write_answers(&mut self) -> Result<(), End> {
        let answers = std::mem::take(&mut self.answers);
        self.write(answers).await
    }

    async fn write(&mut self, frames: Vec<Frame>) -> Result<(), End> {
        if frames.is_empty() {
            return Ok(());
        }
        let bytes = frames.iter().map(Frame::held_bytes).sum();
        let _charge = self.shared.budget.charge_answer(bytes);
        let patience = self.shared.config.limits.write_timeout;
        write_frames(&mut self.writer, frames, patience).await
    }

    /// One message of a login.
    async fn log_in(&mut self, frame: Bytes) -> Result<(), End> {
        self.write_answers().await?;
        let step = self.hash(frame).await?;
        let from = self.session.peer().ip();
        match step {
            LoginStep::Answer(answer) => self.write(vec![answer.into()]).await,
            LoginStep::LoggedIn(principal, answer) => {
                if self.is_logged_in && principal != *self.session.principal() {
                    let why = format!("{} tried to become {principal}", self.session.principal());
                    return Err(End::NotLoggedIn(why));
                }
                self.shared.peers.logged_in(from);
                self.session = Arc::new(self.session.logged_in(principal));
                self.is_logged_in = true;
                let limit = self.shared.config.limits.request_bytes_max;
                self.requests.set_request_bytes_max(limit);
                self.write(vec![answer.into()]).await
            }
            LoginStep::Refused(answer, why) => {
                let delay = self.shared.peers.refused_login(from, Instant::now());
                let mut stop = self.stop.clone();
                tokio::select! {
                    () = sleep(delay) => {}
                    () = stopped(&mut stop) => {}
                }
                if !answer.is_empty() {
                    self.write(vec![answer.into()]).await?;
                }
                Err(End::NotLoggedIn(why))
            }
        }
    }

    /// Works on a login's message, where hashing a password holds up nobody's requests.
    async fn hash(&mut self, frame: Bytes) -> Result<LoginStep, End> {
        let gone = |error: &dyn std::fmt::Display| End::NotLoggedIn(error.to_string());
        let hashing = Arc::clone(&self.shared.hashing).acquire_owned();
        let permit = hashing.await.map_err(|error| gone(&error))?;
        let users = self.shared.security.snapshot();
        let random = Arc::clone(&self.shared.env.random);
        let mut login = std::mem::replace(&mut self.login, Login::new(Vec::new()));
        let work = tokio::task::spawn_blocking(move || {
            let step = login.answer(frame, &users, &*random);
            drop(permit);
            (login, step)
        });
        let (login, step) = work.await.map_err(|error| gone(&error))?;
        self.login = login;
        step.map_err(|error| End::Malformed(error.to_string()))
    }

    /// The client has hung up: nobody is left to answer, but what was sent without wanting an answer still counts.
    async fn end(&mut self) -> Result<(), End> {
        self.pending = FuturesOrdered::new();
        let mut next = self.held.take();
        loop {
            if let Some(request) = next.filter(Request::is_fire_and_forget)
                && self.is_logged_in
            {
                let handler = Arc::clone(&self.shared.handler);
                let answer = handler.handle(Arc::clone(&self.session), request.frame);
                answer.await.map_err(|e| End::Malformed(e.to_string()))?;
            }
            next = self.requests.next().await?;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// The server stops: what is being worked on is finished, nothing more is begun.
    async fn drain(&mut self) -> Result<(), End> {
        self.held = None;
        while let Some(answer) = self.pending.next().await {
            self.finish(answer).await?;
        }
        self.write_answers().await?;
        Ok(self.writer.shutdown().await?)
    }
}

/// Writes whole answers: those that are in memory with as few system calls as they need, the others as they are read.
async fn write_frames(
    writer: &mut FrameWriter,
    frames: Vec<Frame>,
    patience: Duration,
) -> Result<(), End> {
    if frames.iter().all(|frame| frame.streams.is_empty()) {
        return taken(patience, writer.write_frames(&frames)).await;
    }
    for frame in frames {
        write_frame(writer, frame, patience).await?;
    }
    Ok(())
}

/// Writes a frame piece by piece. A client has `patience` for each of them: what it has not taken yet holds no memory.
async fn write_frame(
    writer: &mut FrameWriter,
    frame: Frame,
    patience: Duration,
) -> Result<(), End> {
    let mut parts = writer.begin(frame.length_bytes())?;
    let mut streams = frame.streams.into_iter().peekable();
    // What stands before a piece leaves with it.
    let mut ready = Vec::new();
    for index in 0..=frame.chunks.len() {
        while let Some((_, mut stream)) = streams.next_if(|(place, _)| *place == index) {
            while let Some(piece) = stream.next_piece().map_err(unreadable)? {
                ready.push(piece);
                taken(patience, parts.write(&ready)).await?;
                ready.clear();
            }
        }
        ready.extend(frame.chunks.get(index).cloned());
    }
    taken(patience, parts.write(&ready)).await?;
    taken(patience, parts.end()).await
}

/// Waits until the client has taken what is written to it.
async fn taken(
    patience: Duration,
    written: impl Future<Output = Result<(), NetError>>,
) -> Result<(), End> {
    match timeout(patience, written).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(End::SlowReader(patience)),
    }
}

fn unreadable(error: impl std::fmt::Display) -> End {
    End::Unreadable(error.to_string())
}
