//! The end of a producer: what is buffered is written, an open transaction aborted, the thread stopped.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};

use super::accumulator::Fate;
use super::sender::{Outcome, Shared, closed};
use crate::client::ClientError;
use crate::protocol::messages::TransactionResult;

impl Shared {
    /// Refuses records from now on and ends the thread when nothing is left to do.
    pub(super) fn stop_when_idle(&self) {
        {
            let mut core = self.core.lock();
            core.is_closed = true;
            core.is_stopping = true;
        }
        self.wake();
    }

    pub(super) fn close(self: &Arc<Self>, timeout: Duration) -> Result<Outcome<()>, ClientError> {
        {
            let mut core = self.core.lock();
            if core.is_stopping {
                return Err(closed());
            }
            core.is_closed = true;
        }
        self.memory.refuse_all(&closed());
        let shared = self.clone();
        Ok(self.spawn(async move { shared.run_close(timeout).await }))
    }

    async fn run_close(self: Arc<Self>, timeout: Duration) -> Result<(), ClientError> {
        let rest = Box::pin(self.finish());
        let finished = match select(rest, self.timers.sleep(timeout)).await {
            Either::Left((finished, _)) => finished,
            Either::Right(_) => {
                let fates = self.core.lock().accumulator.abandon(&closed());
                fates.into_iter().for_each(Fate::tell);
                Ok(())
            }
        };
        self.stop_when_idle();
        finished
    }

    async fn finish(self: &Arc<Self>) -> Result<(), ClientError> {
        let is_open = self.core.lock().transaction.is_open();
        if is_open {
            // Aborted, or unknown and then never committed: either way nothing becomes visible.
            let _ = self.end_transaction(TransactionResult::Abort)?.await?;
        }
        let completions = self.core.lock().accumulator.flush();
        self.wake();
        for completion in completions {
            completion.done().await;
        }
        Ok(())
    }
}
