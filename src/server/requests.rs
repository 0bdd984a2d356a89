//! `Requests`: the requests of one connection as they come, within the server's memory and patience.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::budget::{Budget, Charge, SMALL_BYTES, TINY_BYTES};
use super::config::Limits;
use crate::net::{FrameReader, NetError};
use crate::protocol::wire::{ApiKey, RequestHeader};

/// End of a connection before its client ended it.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The network's part.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Nothing came for too long.
    #[error("it was idle for {0:?}")]
    Idle(Duration),
    /// A request came too slowly.
    #[error("its request did not arrive in time")]
    SlowRequest,
    /// Answers were not taken.
    #[error("it did not take its answers within {0:?}")]
    SlowReader(Duration),
    /// Records could not be read any more when their answer had begun.
    #[error("its answer had begun when records could not be read: {0}")]
    Unreadable(String),
    /// Login took too long.
    #[error("it did not log in within {0:?}")]
    SlowLogin(Duration),
    /// Login was refused, or a request came before it.
    #[error("{0}")]
    NotLoggedIn(String),
    /// A request that cannot be answered.
    #[error("a request is not valid: {0}")]
    Malformed(String),
}

/// A request, and its part of the memory.
pub(super) struct Request {
    pub(super) frame: Bytes,
    pub(super) charge: Charge,
}

impl Request {
    /// Whether it is a produce request: those overlap with each other.
    pub(super) fn is_produce(&self) -> bool {
        let key = self
            .frame
            .first_chunk::<2>()
            .map(|b| i16::from_be_bytes(*b));
        key == Some(ApiKey::Produce.key())
    }

    /// Whether it is a produce request with `acks=0`, whose sender does not wait to see what becomes of it.
    pub(super) fn is_fire_and_forget(&self) -> bool {
        self.is_produce() && produce_acks(&self.frame) == Some(0)
    }
}

/// The requests of one connection. Dropping a pending [`Requests::next`] loses nothing.
pub(super) struct Requests {
    reader: FrameReader,
    budget: Arc<Budget>,
    receiving: Option<Receiving>,
    idle_timeout: Duration,
    receive_timeout: Duration,
    idle_since: Instant,
}

/// A request whose size is known.
struct Receiving {
    /// There once enough of it has come.
    charge: Option<Charge>,
    deadline: Instant,
}

impl Requests {
    pub(super) fn new(reader: FrameReader, budget: Arc<Budget>, limits: &Limits) -> Self {
        Self {
            reader,
            budget,
            receiving: None,
            idle_timeout: limits.idle_timeout,
            receive_timeout: limits.receive_timeout,
            idle_since: Instant::now(),
        }
    }

    /// From now on requests of up to `max` bytes are taken.
    pub(super) fn set_request_bytes_max(&mut self, max: usize) {
        self.reader.set_frame_bytes_max(max);
    }

    /// The connection was of use just now.
    pub(super) fn touch(&mut self) {
        self.idle_since = Instant::now();
    }

    /// Whether the next request has been read whole.
    pub(super) fn has_next(&self) -> bool {
        self.reader.has_next()
    }

    /// Waits for the next request; `None` if the client closed the connection.
    pub(super) async fn next(&mut self) -> Result<Option<Request>, End> {
        let idle_until = self.idle_since + self.idle_timeout;
        let size_bytes = match timeout_at(idle_until, self.reader.next_size()).await {
            Ok(size) => size?,
            Err(_) => return Err(End::Idle(self.idle_timeout)),
        };
        let Some(size_bytes) = size_bytes else {
            return Ok(None);
        };
        let patience = patience(self.receive_timeout, size_bytes);
        let receiving = self.receiving.get_or_insert_with(|| Receiving {
            charge: None,
            deadline: Instant::now() + patience,
        });
        if receiving.charge.is_none() {
            in_time(receiving.deadline, self.reader.wait_for(TINY_BYTES)).await?;
        }
        let charge = match &mut receiving.charge {
            Some(charge) => charge,
            none => {
                let charge = self.budget.charge(size_bytes).await;
                // Waiting for memory was not the client's fault.
                receiving.deadline = Instant::now() + patience;
                none.insert(charge)
            }
        };
        if size_bytes > SMALL_BYTES && !charge.is_enlarged() {
            in_time(receiving.deadline, self.reader.wait_for(SMALL_BYTES)).await?;
            self.budget.enlarge(charge, size_bytes).await;
            receiving.deadline = Instant::now() + patience;
        }
        let frame = in_time(receiving.deadline, self.reader.next()).await?;
        self.touch();
        let charge = self.receiving.take().and_then(|it| it.charge);
        Ok(frame
            .zip(charge)
            .map(|(frame, charge)| Request { frame, charge }))
    }

    /// Waits until the client closes the connection; requests that come in the meantime stay for later.
    pub(super) async fn closed(&mut self) -> Result<(), End> {
        Ok(self.reader.closed().await?)
    }
}

/// A request has the time `base`, and once more for each MiB of its size.
fn patience(base: Duration, size_bytes: usize) -> Duration {
    let mebibytes = u32::try_from(size_bytes >> 20).unwrap_or(u32::MAX);
    base.saturating_mul(mebibytes.saturating_add(1))
}

async fn in_time<T>(
    deadline: Instant,
    arrival: impl Future<Output = Result<T, NetError>>,
) -> Result<T, End> {
    match timeout_at(deadline, arrival).await {
        Ok(arrived) => Ok(arrived?),
        Err(_) => Err(End::SlowRequest),
    }
}

/// The `acks` of a produce request, which stands behind two short texts: read without decoding the rest.
fn produce_acks(frame: &Bytes) -> Option<i16> {
    let header = RequestHeader::peek(frame).ok()?;
    let version = header.1;
    let mut rest = frame.get(8..)?;
    let text = |rest: &mut &[u8]| -> Option<()> {
        let length = i16::from_be_bytes(*rest.first_chunk::<2>()?);
        // -1 is no text at all.
        let length = usize::try_from(length).unwrap_or(0);
        *rest = rest.get(2 + length..)?;
        Some(())
    };
    text(&mut rest)?;
    if version < ApiKey::Produce.flexible_from() {
        text(&mut rest)?;
    } else {
        // No tagged fields in the header, and an id of less than 127 bytes; else it is not known, which is no 0.
        let [0, length, behind @ ..] = rest else {
            return None;
        };
        let length = usize::from(*length).saturating_sub(1);
        rest = behind.get(length..).filter(|_| length < 127)?;
    }
    Some(i16::from_be_bytes(*rest.first_chunk::<2>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wire::encode_request;
    use crate::protocol::wire::messages::produce::ProduceRequest;

    #[test]
    fn acks_are_found_without_decoding_the_records() {
        for version in [3, 8, 9, 12] {
            for acks in [-1, 0, 1] {
                for transactional_id in [None, Some("an id".to_owned())] {
                    let request = ProduceRequest {
                        transactional_id,
                        acks,
                        ..ProduceRequest::default()
                    };
                    let frame = encode_request(version, 7, Some("client"), &request).unwrap();
                    assert_eq!(produce_acks(&frame.to_bytes()), Some(acks), "{version}");
                }
            }
        }
        assert_eq!(produce_acks(&Bytes::from_static(&[0; 9])), None);
    }
}
