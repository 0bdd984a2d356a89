//! `Flight`: one partition's batches that were handed over and are not answered yet, oldest first.
//!
//! At most five are under way at once, so that the log still knows each one if it is sent again (I6). If one
//! fails and may succeed later, the answers to those behind it are awaited, and then it and they are sent again
//! in their order: the log never sees a sequence before the one it follows.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::ready;

use crate::client::ClientError;
use crate::client::transport::Reply;
use crate::client::wait::pause;
use crate::env::Env;
use crate::protocol::batch::BuiltBatch;
use crate::protocol::messages::ProduceResponse;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::Offset;

/// Most batches of a partition under way at once: the log knows the last five again (I6).
pub(super) const BATCHES_MAX: usize = 5;
/// The first pause before batches are sent again; it doubles up to [`PAUSE_MAX`] (`retry.backoff.ms`).
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// No pause is longer (`retry.backoff.max.ms`).
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Attempts that last about two minutes at the longest pause (`delivery.timeout.ms`).
const ATTEMPTS_MAX: u32 = 120;

/// One batch under way.
pub(super) struct InFlight {
    reply: Reply<ProduceResponse>,
    records_count: i32,
    size_bytes: usize,
    /// Batch to send again; `None` where an answer is never lost.
    again: Option<BuiltBatch>,
    /// Whether others were under way before it when it was sent: it may have overtaken them.
    is_behind: bool,
}

impl InFlight {
    pub(super) fn new(
        reply: Reply<ProduceResponse>,
        records_count: i32,
        size_bytes: usize,
        again: Option<BuiltBatch>,
    ) -> Self {
        Self {
            reply,
            records_count,
            size_bytes,
            again,
            is_behind: false,
        }
    }
}

/// The batches of one partition that are under way.
#[derive(Default)]
pub(super) struct Flight {
    batches: VecDeque<InFlight>,
}

/// Result of the oldest batch.
pub(super) struct Landed {
    /// One past its last record.
    pub(super) end_offset: Offset,
    pub(super) size_bytes: usize,
}

impl Flight {
    pub(super) fn push(&mut self, batch: InFlight) {
        let is_behind = !self.batches.is_empty();
        self.batches.push_back(InFlight { is_behind, ..batch });
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.size_bytes).sum()
    }

    /// The oldest batch if it was written by now; its failure is found by [`Flight::land`].
    pub(super) fn land_ready(&mut self) -> Option<Landed> {
        let front = self.batches.front_mut()?;
        let mut context = Context::from_waker(Waker::noop());
        match front.reply.poll_unpin(&mut context) {
            Poll::Pending => None,
            Poll::Ready(Ok(response)) => {
                let landed = landed(&response, front);
                self.batches.pop_front();
                Some(landed)
            }
            Poll::Ready(Err(error)) => {
                front.reply = ready(Err(error)).boxed();
                None
            }
        }
    }

    /// Whether the oldest batch is known to have failed for good, so that nothing else need be written.
    pub(super) fn is_failed(&mut self) -> bool {
        let Some(front) = self.batches.front_mut() else {
            return false;
        };
        let mut context = Context::from_waker(Waker::noop());
        match front.reply.poll_unpin(&mut context) {
            Poll::Pending => false,
            Poll::Ready(answer) => {
                let is_failed = answer
                    .as_ref()
                    .is_err_and(|error| !may_be_sent_again(error, front));
                front.reply = ready(answer).boxed();
                is_failed
            }
        }
    }

    /// Waits for the oldest batch, which is there, and sends it and those behind it again as often as it takes.
    pub(super) async fn land(
        &mut self,
        env: &Env,
        send: impl Fn(BuiltBatch) -> Reply<ProduceResponse>,
    ) -> Result<Option<Landed>, ClientError> {
        let (mut delay, mut attempts) = (PAUSE_MIN, 1);
        loop {
            let Some(front) = self.batches.front_mut() else {
                return Ok(None);
            };
            let error = match (&mut front.reply).await {
                Ok(response) => {
                    let landed = landed(&response, front);
                    self.batches.pop_front();
                    return Ok(Some(landed));
                }
                Err(error) => error,
            };
            front.reply = ready(Err(error.clone())).boxed();
            if attempts >= ATTEMPTS_MAX || !may_be_sent_again(&error, front) {
                return Err(error);
            }
            self.wait_for_all().await;
            pause(env, delay).await?;
            self.send_again(&send);
            (delay, attempts) = ((delay * 2).min(PAUSE_MAX), attempts + 1);
        }
    }

    /// Waits until every batch is answered, whatever the answer.
    pub(super) async fn wait_for_all(&mut self) {
        for batch in &mut self.batches {
            let answer = (&mut batch.reply).await;
            batch.reply = ready(answer).boxed();
        }
    }

    /// Sends what was not written again, in order. Everything is answered.
    fn send_again(&mut self, send: &impl Fn(BuiltBatch) -> Reply<ProduceResponse>) {
        let mut context = Context::from_waker(Waker::noop());
        let mut is_behind = false;
        for batch in &mut self.batches {
            let answer = batch.reply.poll_unpin(&mut context);
            batch.reply = match (answer, &batch.again) {
                (Poll::Ready(Err(_)), Some(again)) => {
                    batch.is_behind = std::mem::replace(&mut is_behind, true);
                    send(again.clone())
                }
                (Poll::Ready(answer), _) => ready(answer).boxed(),
                (Poll::Pending, _) => unreachable!("every answer was awaited"),
            };
        }
    }
}

/// Tells whether the batch is sent again: only one that may be, after an error that is not its own fault. One that
/// overtook those before it on the way was refused for that only.
fn may_be_sent_again(error: &ClientError, batch: &InFlight) -> bool {
    let has_overtaken =
        batch.is_behind && error.code() == Some(ErrorCode::OutOfOrderSequenceNumber);
    (error.kind() == ErrorKind::Retriable || has_overtaken) && batch.again.is_some()
}

fn landed(response: &ProduceResponse, batch: &InFlight) -> Landed {
    Landed {
        end_offset: response.base_offset.plus(i64::from(batch.records_count)),
        size_bytes: batch.size_bytes,
    }
}
