//! `Reply`: an answer that is there already, or that one of the broker's threads will give.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::oneshot;

use super::BrokerError;
use crate::protocol::ErrorCode;

/// The answer to a request. It needs no runtime: the broker's own threads complete it.
/// Dropping it does not take the request back (C17).
#[must_use = "a request is carried out either way, but only the reply says how it went"]
pub struct Reply<T>(State<T>);

enum State<T> {
    Ready(Option<Result<T, BrokerError>>),
    Waiting(oneshot::Receiver<Result<T, BrokerError>>),
}

impl<T> Reply<T> {
    /// An answer that is known already.
    pub fn ready(result: Result<T, BrokerError>) -> Self {
        Self(State::Ready(Some(result)))
    }

    /// An answer to come through the returned sender.
    pub(super) fn waiting() -> (oneshot::Sender<Result<T, BrokerError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(State::Waiting(receiver)))
    }

    /// The answer, if it is there now; else the reply itself, to be awaited.
    ///
    /// # Errors
    /// The reply itself, when the answer is not there yet.
    pub fn now(mut self) -> Result<Result<T, BrokerError>, Self> {
        match &mut self.0 {
            State::Ready(result) => match result.take() {
                Some(result) => Ok(result),
                None => Ok(Err(abandoned())),
            },
            State::Waiting(receiver) => match receiver.try_recv() {
                Ok(Some(result)) => Ok(result),
                Ok(None) => Err(self),
                Err(oneshot::Canceled) => Ok(Err(abandoned())),
            },
        }
    }
}

impl<T> Unpin for Reply<T> {}

impl<T> Future for Reply<T> {
    type Output = Result<T, BrokerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(result) => Poll::Ready(result.take().unwrap_or_else(|| Err(abandoned()))),
            State::Waiting(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|result| result.unwrap_or_else(|oneshot::Canceled| Err(abandoned()))),
        }
    }
}

impl<T> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

fn abandoned() -> BrokerError {
    BrokerError::fatal(
        ErrorCode::KafkaStorageError,
        "the broker was closed before it answered: the outcome is known after it is opened again",
    )
}
