//! `Handler`: what answers the requests of connections, and `Frame`: an answer.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::session::Session;
use crate::broker::RecordStream;
use crate::protocol::wire::EncodedFrame;

/// A request that cannot be answered, only hung up on: its bytes are no request, or of a version never offered.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

/// Answer to a request: a frame, or nothing (`acks=0`).
pub(super) type Answer = Result<Option<Frame>, Malformed>;

/// A response without its size: chunks, and between them streams of records that are read while it is sent.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) chunks: Vec<Bytes>,
    /// Each stands before the chunk of its index, or behind the last one.
    pub(super) streams: Vec<(usize, RecordStream)>,
}

impl Frame {
    /// Frames `encoded`, with `streams` in its gaps, in order.
    pub(super) fn new(encoded: EncodedFrame, streams: Vec<RecordStream>) -> Self {
        let lengths = streams.iter().map(RecordStream::left_bytes);
        let gaps = encoded.gaps.iter().map(|gap| gap.length_bytes);
        assert!(
            gaps.eq(lengths),
            "every stream has the gap that was made for it"
        );
        let places = encoded.gaps.iter().map(|gap| gap.before_chunk);
        Self {
            chunks: encoded.chunks,
            streams: places.zip(streams).collect(),
        }
    }

    /// Returns its bytes.
    pub(super) fn length_bytes(&self) -> usize {
        let streams = self.streams.iter().map(|(_, stream)| stream.left_bytes());
        self.chunks.iter().map(Bytes::len).chain(streams).sum()
    }

    /// Returns the bytes in memory until it is sent.
    pub(super) fn held_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(Bytes::len).sum();
        match self.streams.is_empty() {
            true => chunks,
            false => chunks + RecordStream::HELD_BYTES,
        }
    }
}

impl From<Vec<Bytes>> for Frame {
    fn from(chunks: Vec<Bytes>) -> Self {
        Self {
            chunks,
            streams: Vec::new(),
        }
    }
}

impl AsRef<[Bytes]> for Frame {
    fn as_ref(&self) -> &[Bytes] {
        &self.chunks
    }
}

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
