//! `Channel`: one connection to one broker. Requests leave in the order in which they are handed over, without waiting
//! for each other, and answers come back in the same order.
//!
//! A request that never left had no effect; one that left and was not answered may have had one. The two are told
//! apart to the frame (I12). A broker that asks for a pause (`throttle_time_ms`) gets it: nothing leaves before it is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::versions::Versions;
use crate::client::ClientError;
use crate::net::{FrameReader, FrameWriter};
use crate::protocol::ErrorKind;
use crate::protocol::wire::{EncodedFrame, Request, WireError, decode_response, encode_request};

/// Most frames of one write: enough to fill it, few enough to keep the list short.
const FRAMES_A_WRITE_MAX: usize = 64;

/// Reason for no answer.
#[derive(Debug, Clone)]
pub(super) enum Broken {
    /// The request never left: it has no effect.
    NotSent(String),
    /// The request left: it may have had its effect.
    Lost(String),
}

type Answer = oneshot::Sender<Result<Bytes, Broken>>;

/// A frame on its way to the socket.
struct Outgoing {
    frame: EncodedFrame,
    correlation_id: i32,
    /// `None` if nothing is answered (`acks=0`).
    answer: Option<Answer>,
}

/// State of both directions.
struct State {
    in_flight: Mutex<VecDeque<(i32, Answer)>>,
    /// Reason for the end, once there is one.
    end: watch::Sender<Option<String>>,
    muted_until: Mutex<Option<Instant>>,
    has_answered: AtomicBool,
}

/// Until when a connection is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetime {
    /// The broker ends the session soon after; another connection takes over.
    pub(super) retires: Option<Instant>,
    /// The broker closes a connection that nobody uses: one that was idle for so long is not trusted any more.
    pub(super) idle_max: Duration,
    /// Likely cause if the broker ends it before it has answered anything.
    pub(super) if_never_answered: &'static str,
}

/// A connection that was logged in on.
pub(super) struct Channel {
    peer: String,
    versions: Versions,
    queue: mpsc::UnboundedSender<Outgoing>,
    state: Arc<State>,
    next_correlation_id: AtomicI32,
    client_id: String,
    lifetime: Lifetime,
    last_used: Mutex<Instant>,
}

/// An answer on its way.
pub(super) struct Pending {
    reply: oneshot::Receiver<Result<Bytes, Broken>>,
    version: i16,
}

impl Channel {
    /// Takes over a connection that was logged in on. Its queue is bounded by what hands requests over: producers'
    /// memory, writers' batches in flight, and one request at a time of everybody else.
    pub(super) fn start(
        peer: String,
        client_id: String,
        versions: Versions,
        lifetime: Lifetime,
        (reader, writer): (FrameReader, FrameWriter),
    ) -> Arc<Self> {
        let (queue, frames) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            in_flight: Mutex::default(),
            end: watch::Sender::new(None),
            muted_until: Mutex::default(),
            has_answered: AtomicBool::new(false),
        });
        tokio::spawn(write(writer, frames, Arc::clone(&state)));
        tokio::spawn(read(reader, Arc::clone(&state)));
        Arc::new(Self {
            peer,
            versions,
            queue,
            state,
            next_correlation_id: AtomicI32::new(1),
            client_id,
            lifetime,
            last_used: Mutex::new(Instant::now()),
        })
    }

    pub(super) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Whether new requests may be handed over.
    pub(super) fn is_usable(&self) -> bool {
        let now = Instant::now();
        let is_fresh = *self.last_used.lock() + self.lifetime.idle_max > now;
        let is_in_session = self.lifetime.retires.is_none_or(|at| now < at);
        self.state.end.borrow().is_none() && is_fresh && is_in_session
    }

    /// Ends the connection; whatever is unanswered is lost.
    pub(super) fn close(&self, why: &str) {
        self.state.close(why);
    }

    /// Nothing leaves before `pause` is over.
    pub(super) fn mute(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut muted = self.state.muted_until.lock();
        *muted = Some(muted.map_or(until, |earlier| earlier.max(until)));
    }

    /// Hands a request over, at once and in order; its answer is awaited later.
    pub(super) fn send<R: Request>(&self, version: i16, request: &R) -> Result<Pending, WireError> {
        let correlation_id = self.next_correlation_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let frame = encode_request(version, correlation_id, Some(&self.client_id), request)?;
        let (answer, reply) = oneshot::channel();
        self.enqueue(frame, correlation_id, Some(answer));
        Ok(Pending { reply, version })
    }

    /// Hands over a request that is not answered.
    pub(super) fn send_unanswered<R: Request>(
        &self,
        version: i16,
        request: &R,
    ) -> Result<(), WireError> {
        let frame = encode_request(version, 0, Some(&self.client_id), request)?;
        self.enqueue(frame, 0, None);
        Ok(())
    }

    fn enqueue(&self, frame: EncodedFrame, correlation_id: i32, answer: Option<Answer>) {
        *self.last_used.lock() = Instant::now();
        let outgoing = Outgoing {
            frame,
            correlation_id,
            answer,
        };
        if let Err(mpsc::error::SendError(outgoing)) = self.queue.send(outgoing) {
            outgoing.refuse(&self.state.reason());
        }
    }

    /// Waits for the answer. If none comes within `limit` the connection is closed: answers come in order, so that
    /// none can come behind a missing one.
    pub(super) async fn receive<R: Request>(
        &self,
        pending: Pending,
        limit: Duration,
    ) -> Result<R::Response, ClientError> {
        let answer = match tokio::time::timeout(limit, pending.reply).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Broken::Lost("the client was closed".to_owned())),
            Err(_) => {
                self.close(&format!("no answer to {} within {limit:?}", R::API));
                Err(Broken::Lost(format!("no answer within {limit:?}")))
            }
        };
        let frame = answer.map_err(|broken| self.broken(R::API.name(), broken))?;
        let decoded = decode_response::<R>(pending.version, frame);
        match decoded {
            Ok((_, response)) => Ok(response),
            Err(e) => {
                self.close(&format!("the answer to {} makes no sense: {e}", R::API));
                Err(unanswered(
                    R::API.name(),
                    format!("{} sent an answer that makes no sense: {e}", self.peer),
                    ErrorKind::Fatal,
                ))
            }
        }
    }

    fn broken(&self, request: &'static str, broken: Broken) -> ClientError {
        match broken {
            Broken::NotSent(why) => ClientError::Connect {
                address: self.peer.clone(),
                why,
                kind: ErrorKind::Retriable,
            },
            Broken::Lost(why) => {
                let hint = match self.state.has_answered.load(Ordering::Relaxed) {
                    true => String::new(),
                    false => format!("; {}", self.lifetime.if_never_answered),
                };
                let why = format!("{}: {why}{hint}", self.peer);
                unanswered(request, why, ErrorKind::Retriable)
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.state.close("nobody uses it any more");
    }
}

fn unanswered(request: &'static str, why: String, kind: ErrorKind) -> ClientError {
    ClientError::Unanswered { request, why, kind }
}

impl Outgoing {
    fn refuse(self, why: &str) {
        if let Some(answer) = self.answer {
            // Nobody listens if the caller is gone.
            let _ = answer.send(Err(Broken::NotSent(why.to_owned())));
        }
    }
}

impl State {
    fn close(&self, why: &str) {
        self.end.send_if_modified(|end| {
            let is_first = end.is_none();
            if is_first {
                *end = Some(why.to_owned());
            }
            is_first
        });
        // After the mark, under the lock that the writer takes before it looks at the mark: nothing is left behind.
        for (_, answer) in self.in_flight.lock().drain(..) {
            let _ = answer.send(Err(Broken::Lost(why.to_owned())));
        }
    }

    fn reason(&self) -> String {
        let end = self.end.borrow();
        end.clone()
            .unwrap_or_else(|| "the connection is closed".to_owned())
    }

    /// Notes that the frames' answers are expected; gives them back if the connection is over.
    fn expect(&self, frames: Vec<Outgoing>) -> Result<Vec<EncodedFrame>, Vec<Outgoing>> {
        let mut in_flight = self.in_flight.lock();
        if self.end.borrow().is_some() {
            return Err(frames);
        }
        let frames = frames.into_iter().map(|outgoing| {
            if let Some(answer) = outgoing.answer {
                in_flight.push_back((outgoing.correlation_id, answer));
            }
            outgoing.frame
        });
        Ok(frames.collect())
    }

    /// Gives a response to whoever waits for it; `false` if it is not the one that is next.
    fn answer(&self, frame: Bytes) -> bool {
        let Some(correlation_id) = frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
        else {
            return false;
        };
        self.has_answered.store(true, Ordering::Relaxed);
        let mut in_flight = self.in_flight.lock();
        match in_flight.front() {
            Some((expected, _)) if *expected == correlation_id => {}
            _ => return false,
        }
        if let Some((_, answer)) = in_flight.pop_front() {
            let _ = answer.send(Ok(frame));
        }
        true
    }

    async fn wait_until_unmuted(&self) {
        while let Some(until) = self.next_pause() {
            tokio::time::sleep_until(until).await;
        }
    }

    fn next_pause(&self) -> Option<Instant> {
        let mut muted = self.muted_until.lock();
        *muted = muted.filter(|until| *until > Instant::now());
        *muted
    }
}

/// Writes what is handed over until the connection ends; what then still waits never left.
async fn write(
    mut writer: FrameWriter,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
    state: Arc<State>,
) {
    let mut end = state.end.subscribe();
    tokio::select! {
        () = write_frames(&mut writer, &mut queue, &state) => {}
        _ = end.wait_for(Option::is_some) => {}
    }
    queue.close();
    let why = state.reason();
    while let Ok(outgoing) = queue.try_recv() {
        outgoing.refuse(&why);
    }
}

async fn write_frames(
    writer: &mut FrameWriter,
    queue: &mut mpsc::UnboundedReceiver<Outgoing>,
    state: &State,
) {
    let mut outgoing = Vec::new();
    while queue.recv_many(&mut outgoing, FRAMES_A_WRITE_MAX).await > 0 {
        state.wait_until_unmuted().await;
        let frames = match state.expect(std::mem::take(&mut outgoing)) {
            Ok(frames) => frames,
            Err(refused) => {
                let why = state.reason();
                refused
                    .into_iter()
                    .for_each(|outgoing| outgoing.refuse(&why));
                return;
            }
        };
        let frames: Vec<Vec<Bytes>> = frames.into_iter().map(|frame| frame.chunks).collect();
        if let Err(e) = writer.write_frames(&frames).await {
            state.close(&e.to_string());
            return;
        }
    }
}

async fn read(mut reader: FrameReader, state: Arc<State>) {
    let mut end = state.end.subscribe();
    let why = tokio::select! {
        why = read_frames(&mut reader, &state) => why,
        _ = end.wait_for(Option::is_some) => state.reason(),
    };
    state.close(&why);
}

async fn read_frames(reader: &mut FrameReader, state: &State) -> String {
    loop {
        match reader.next().await {
            Ok(Some(frame)) if state.answer(frame.clone()) => {}
            Ok(Some(_)) => {
                return "the broker answered something else than what was asked next".to_owned();
            }
            Ok(None) => return "the broker closed the connection".to_owned(),
            Err(e) => return e.to_string(),
        }
    }
}
