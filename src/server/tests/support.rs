//! A server whose answers are scripted, and clients that speak in raw frames.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::env::Env;
use crate::net::{ConnectTimeouts, FrameReader, FrameWriter, connect};
use crate::protocol::wire::ApiKey;
use crate::server::handler::{Answer, Frame, Handler, Malformed};
use crate::server::session::Session;
use crate::server::{Limits, Server, ServerConfig};

/// A request of this correlation id is not answered before [`Script::release`].
pub(super) const SLOW: i32 = 1_000_000;
/// A request of this correlation id panics.
pub(super) const PANIC: i32 = 2_000_000;
/// A request of this correlation id has no answer.
pub(super) const SILENT: i32 = 3_000_000;
/// A request of this correlation id is answered with so many bytes.
pub(super) const HUGE: i32 = 4_000_000;
pub(super) const HUGE_BYTES: usize = 64 << 20;
/// Nothing here takes so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Answers with the correlation id, and the principal's name.
pub(super) struct Script {
    gate: Semaphore,
    /// The correlation ids of the requests that were begun, in their order.
    pub(super) begun: Mutex<Vec<i32>>,
}

impl Script {
    /// Lets `count` slow requests be answered.
    pub(super) fn release(&self, count: usize) {
        self.gate.add_permits(count);
    }

    /// Waits until the requests `expected` have begun.
    pub(super) async fn wait_for(&self, expected: &[i32]) {
        wait(|| *self.begun.lock() == expected).await;
    }

    async fn answer(&self, id: i32, name: &str) -> Answer {
        if (SLOW..PANIC).contains(&id) {
            let permit = self.gate.acquire().await;
            permit
                .map_err(|error| Malformed(error.to_string()))?
                .forget();
        }
        assert_ne!(id, PANIC, "as it was told");
        match id {
            SILENT => Ok(None),
            HUGE => Ok(Some(Frame::from(vec![
                Bytes::copy_from_slice(&id.to_be_bytes()),
                vec![0; HUGE_BYTES].into(),
            ]))),
            _ => Ok(Some(Frame::from(vec![
                Bytes::copy_from_slice(&id.to_be_bytes()),
                Bytes::copy_from_slice(name.as_bytes()),
            ]))),
        }
    }
}

impl Handler for Script {
    fn handle(self: Arc<Self>, session: Arc<Session>, frame: Bytes) -> BoxFuture<'static, Answer> {
        let id = i32::from_be_bytes(*frame[4..].first_chunk::<4>().unwrap());
        self.begun.lock().push(id);
        async move { self.answer(id, session.principal().name()).await }.boxed()
    }

    fn forget(&self, _session: &Session) {}
}

/// Waits for a condition.
pub(super) async fn wait(is_so: impl Fn() -> bool) {
    let begin = tokio::time::Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "it did not come to be");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A server, its script, and its data directory.
pub(super) struct Scripted {
    pub(super) server: Server,
    pub(super) script: Arc<Script>,
    _data: TempDir,
}

impl Scripted {
    pub(super) fn start(limits: Limits) -> Self {
        Self::start_with(ServerConfig {
            limits,
            ..ServerConfig::default()
        })
    }

    pub(super) fn start_with(mut config: ServerConfig) -> Self {
        let data = tempfile::tempdir().unwrap();
        config.listen.port = 0;
        config.check().unwrap();
        let script = Arc::new(Script {
            gate: Semaphore::new(0),
            begun: Mutex::default(),
        });
        let handler = Arc::clone(&script) as Arc<dyn Handler>;
        let server = Server::start_with(&Env::real(), data.path(), config, handler).unwrap();
        Self {
            server,
            script,
            _data: data,
        }
    }

    pub(super) async fn client(&self) -> Client {
        let address = self.server.address();
        let connection = connect(&address, None, ConnectTimeouts::default()).await;
        let (reader, writer) = connection.unwrap().split(HUGE_BYTES + 1024);
        Client { reader, writer }
    }
}

/// A client in raw frames.
pub(super) struct Client {
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
}

impl Client {
    pub(super) async fn send(&mut self, api: ApiKey, version: i16, id: i32) {
        self.send_with(api, version, id, &[]).await;
    }

    /// Sends a header without a client id, and `body`.
    pub(super) async fn send_with(&mut self, api: ApiKey, version: i16, id: i32, body: &[u8]) {
        let mut head = Vec::new();
        head.extend(api.key().to_be_bytes());
        head.extend(version.to_be_bytes());
        head.extend(id.to_be_bytes());
        head.extend((-1i16).to_be_bytes());
        let frame = [head.into(), Bytes::copy_from_slice(body)];
        self.writer.write(&frame).await.unwrap();
    }

    /// The next answer's correlation id; `None` once the server has hung up.
    pub(super) async fn receive(&mut self) -> Option<i32> {
        let frame = self.receive_frame().await?;
        Some(i32::from_be_bytes(*frame.first_chunk::<4>().unwrap()))
    }

    pub(super) async fn receive_frame(&mut self) -> Option<Bytes> {
        let answer = tokio::time::timeout(PATIENCE, self.reader.next()).await;
        answer.expect("no answer came").ok().flatten()
    }
}
