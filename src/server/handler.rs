//! `Handler`: what answers the requests of connections.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::session::Session;

/// A request that cannot be answered, only hung up on: its bytes are no request, or of a version never offered.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

/// What a request is answered with: the chunks of a frame, or nothing (`acks=0`).
pub(super) type Answer = Result<Option<Vec<Bytes>>, Malformed>;

/// Answers requests.
///
/// The connection polls the future as soon as the request is read: what a produce request appends, it appends in that
/// first poll, so that the order of one connection's requests is the order of their records.
pub(super) trait Handler: Send + Sync + 'static {
    /// Answers one request: a frame without its size. Dropping the future gives up waiting, not what was done.
    fn handle(self: Arc<Self>, session: Arc<Session>, frame: Bytes) -> BoxFuture<'static, Answer>;

    /// The connection is gone: forget what belonged to it.
    fn forget(&self, session: &Session);
}
