//! `TransactionalWriter`: one transactional id, whole batches, no thread and no per-record work; the runtime's sink.
//!
//! A transaction begins with its first append and ends with [`TransactionalWriter::commit`] or
//! [`TransactionalWriter::abort`]. Its batches are appended at once; the commit makes them durable and
//! visible together (I1). Accumulating, lingering and retrying records is `Producer`'s business.

mod flight;
mod partition;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared as SharedFuture};
use parking_lot::Mutex;

pub use self::partition::PartitionWriter;
use self::partition::{Partitions, settle};
use super::retry::retry;
use super::topics::max_message_bytes;
use super::{ClientError, CommitOutcome, Transport};
use crate::client::transport::Reply;
use crate::protocol::messages::{
    CommittedOffset, EndMoments, EndTxnRequest, EndWatch, GroupMember, InitProducerIdRequest,
    TransactionResult, TransactionState, TxnOffsetCommitRequest,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{GroupId, ProducerIdentity, TopicName, TopicPartition, TransactionalId};

/// Writes whole batches in transactions. Cheap to clone; all clones share one transaction.
#[derive(Clone)]
pub struct TransactionalWriter {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Arc<dyn Transport>,
    id: TransactionalId,
    state: Mutex<State>,
    partitions: Partitions,
}

struct State {
    identity: ProducerIdentity,
    /// Counts transactions, so that a partition knows when its sequence starts at 0 again.
    generation: u64,
    phase: Phase,
    /// Of the transaction that was ended last.
    last_end: EndWatch,
}

enum Phase {
    /// Nothing was written yet: there is nothing to end.
    Idle,
    /// The transaction has effects.
    Open,
    /// Something failed; only an abort is left.
    Failed(ClientError),
    /// EndTxn was handed over. Whoever awaits the answer first, applies it (C17).
    Ending(TransactionResult, Ending),
    /// Fenced, or the outcome is unknown: only a new writer may go on.
    Stopped(ClientError),
}

type Ending = SharedFuture<BoxFuture<'static, Result<Ended, ClientError>>>;

/// End of the transaction, and the next one's identity.
#[derive(Clone, Copy)]
struct Ended {
    next: ProducerIdentity,
    outcome: CommitOutcome,
}

impl TransactionalWriter {
    /// Takes over `id`: fences every earlier holder and aborts the transaction it left open (I4).
    /// A transaction still open after `timeout` is aborted by the coordinator.
    ///
    /// # Errors
    /// If the coordinator refuses the timeout, or cannot be reached.
    pub async fn init(
        transport: Arc<dyn Transport>,
        id: TransactionalId,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let request = InitProducerIdRequest {
            transactional_id: Some(id.clone()),
            transaction_timeout: timeout,
            current: None,
        };
        let ask = || transport.init_producer_id(request.clone());
        let identity = retry(transport.env(), ask).await?;
        Ok(Self::of(transport, id, identity))
    }

    /// Nobody has written with `identity` yet.
    fn of(transport: Arc<dyn Transport>, id: TransactionalId, identity: ProducerIdentity) -> Self {
        Self {
            inner: Arc::new(Inner {
                transport,
                id,
                state: Mutex::new(State {
                    identity,
                    generation: 1,
                    phase: Phase::Idle,
                    last_end: EndWatch::default(),
                }),
                partitions: Partitions::default(),
            }),
        }
    }

    /// A new writer that goes on after the last transaction of this one, under the epoch that its end has told, and
    /// fences nobody. `None` if that end is not certain, or the broker does not say who holds the id:
    /// [`TransactionalWriter::init`] makes it certain.
    ///
    /// # Errors
    /// `ProducerFenced` if somebody else has taken over the id meanwhile (I4).
    pub(crate) async fn resume(&self) -> Result<Option<Self>, ClientError> {
        const ASK: &str = "DescribeTransactions";
        let (transport, id) = (&self.inner.transport, &self.inner.id);
        let identity = match &*self.inner.state.lock() {
            State {
                phase: Phase::Idle,
                identity,
                ..
            } => *identity,
            _ => return Ok(None),
        };
        let ask = || async {
            let described = transport.describe_transaction(id).await?;
            match described.state {
                // Its identity may be that of before the decision.
                TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                    Err(ClientError::refused(ASK, ErrorCode::ConcurrentTransactions))
                }
                _ => Ok(described),
            }
        };
        let described = match retry(transport.env(), ask).await {
            Err(error) if error.kind() == ErrorKind::Fatal => return Ok(None),
            answer => answer?,
        };
        let holder = ProducerIdentity {
            id: described.producer_id,
            epoch: described.producer_epoch,
        };
        match holder == identity {
            true => Ok(Some(Self::of(transport.clone(), id.clone(), identity))),
            false => Err(ClientError::refused(ASK, ErrorCode::ProducerFenced)),
        }
    }

    /// The transactional id.
    #[must_use]
    pub fn transactional_id(&self) -> &TransactionalId {
        &self.inner.id
    }

    /// The producer identity of the current transaction.
    #[must_use]
    pub fn identity(&self) -> ProducerIdentity {
        self.inner.state.lock().identity
    }

    /// When the end of the last transaction was how far, if the broker is in this process.
    pub(crate) fn last_end(&self) -> Option<EndMoments> {
        self.inner.state.lock().last_end.moments()
    }

    /// The writer of one partition, for any thread. All writers of a partition share its sequence.
    #[must_use]
    pub fn partition(&self, partition: &TopicPartition) -> PartitionWriter {
        PartitionWriter::new(Arc::clone(&self.inner), partition.clone())
    }

    /// The largest batch that `topic` takes, in bytes with its header: check records against it
    /// before they are pushed, so that an oversized one never enters the transaction (S15).
    ///
    /// # Errors
    /// If there is no such topic.
    pub async fn max_message_bytes(&self, topic: &TopicName) -> Result<usize, ClientError> {
        max_message_bytes(&*self.inner.transport, topic).await
    }

    /// Makes the positions part of the transaction: they are committed with it, or not at all (I8).
    ///
    /// # Errors
    /// If the group refuses them; the transaction must then be aborted.
    pub async fn send_offsets(
        &self,
        group: GroupId,
        member: GroupMember,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<(), ClientError> {
        let (generation, sent) = self.try_send_offsets(group, member, offsets).await?;
        sent.map_err(|e| self.inner.fail(generation, of_the_member(e)))
    }

    async fn try_send_offsets(
        &self,
        group: GroupId,
        member: GroupMember,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<(u64, Result<(), ClientError>), ClientError> {
        let (producer, generation) = self.inner.enter("send_offsets")?;
        let request = TxnOffsetCommitRequest {
            transactional_id: self.inner.id.clone(),
            producer,
            group,
            member,
            offsets,
        };
        let send = || self.inner.transport.txn_offset_commit(request.clone());
        Ok((generation, retry(self.inner.transport.env(), send).await))
    }

    /// As [`send_offsets`](Self::send_offsets), but a refusal because the group has gone on to another generation leaves the
    /// transaction as it was: whoever is a member of that one sends the positions again as such; else it must be aborted,
    /// for without them it must not be committed.
    ///
    /// # Errors
    /// If the group refuses them for another reason; the transaction must then be aborted.
    pub(crate) async fn offer_offsets(
        &self,
        group: GroupId,
        member: GroupMember,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<Offered, ClientError> {
        let (generation, sent) = self.try_send_offsets(group, member, offsets).await?;
        match sent {
            Ok(()) => Ok(Offered::Taken),
            Err(e) if is_of_another_generation(&e) => Ok(Offered::AnotherGeneration),
            Err(e) => Err(self.inner.fail(generation, of_the_member(e))),
        }
    }

    /// Commits: all effects become visible together. Every append must have returned before; batches that
    /// were handed over and are not answered yet are awaited first. Else the request is handed over by the
    /// call. Dropping the future does not take it back, and a second call waits for the same outcome (C17).
    ///
    /// # Errors
    /// If something of the transaction failed ([`ClientError::MustAbort`]), or the writer was fenced.
    pub fn commit(
        &self,
    ) -> impl Future<Output = Result<CommitOutcome, ClientError>> + Send + use<> {
        self.end(TransactionResult::Commit)
    }

    /// Aborts: no effect ever becomes visible. As [`TransactionalWriter::commit`] otherwise.
    ///
    /// # Errors
    /// If the writer was fenced.
    pub fn abort(&self) -> impl Future<Output = Result<CommitOutcome, ClientError>> + Send + use<> {
        self.end(TransactionResult::Abort)
    }

    fn end(
        &self,
        result: TransactionResult,
    ) -> impl Future<Output = Result<CommitOutcome, ClientError>> + Send + use<> {
        let inner = self.inner.clone();
        let begun = inner.begin_end(result);
        async move {
            match begun? {
                Begun::Nothing => Ok(CommitOutcome::confirmed(result)),
                Begun::Ending(generation, ending) => {
                    let answer = ending.await;
                    inner.settle(generation, answer)
                }
            }
        }
    }
}

/// A member that was replaced may have been so by itself, when it joined anew: that says nothing of who owns the
/// transactional id. Whether somebody else has its place, it hears from the group.
fn of_the_member(error: ClientError) -> ClientError {
    match error.code() {
        Some(ErrorCode::FencedInstanceId) => error.into_must_abort(),
        _ => error,
    }
}

/// Fate of positions that were offered to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// They are pending in the transaction.
    Taken,
    /// The group has left the member's generation behind. Nothing was taken.
    AnotherGeneration,
}

fn is_of_another_generation(error: &ClientError) -> bool {
    let code = error.code();
    matches!(
        code,
        Some(ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress)
    )
}

enum Begun {
    Nothing,
    Ending(u64, Ending),
}

impl Inner {
    /// The identity to write with; from here on the transaction has effects.
    fn enter(&self, call: &'static str) -> Result<(ProducerIdentity, u64), ClientError> {
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Idle => state.phase = Phase::Open,
            Phase::Open => {}
            Phase::Failed(cause) => return Err(cause.clone().into_must_abort()),
            Phase::Ending(..) => {
                return Err(ClientError::WrongState {
                    call,
                    state: "the transaction is being ended; await commit or abort first",
                });
            }
            Phase::Stopped(cause) => return Err(cause.clone()),
        }
        Ok((state.identity, state.generation))
    }

    /// Remembers a failure of transaction `generation`, and hands the error back.
    fn fail(&self, generation: u64, error: ClientError) -> ClientError {
        let mut state = self.state.lock();
        if state.generation == generation && matches!(state.phase, Phase::Open) {
            state.phase = match error.kind() {
                ErrorKind::Fenced => Phase::Stopped(error.clone()),
                _ => Phase::Failed(error.clone()),
            };
        }
        error
    }

    fn begin_end(self: &Arc<Self>, result: TransactionResult) -> Result<Begun, ClientError> {
        let mut state = self.state.lock();
        match (&state.phase, result) {
            (Phase::Idle, _) => {
                state.last_end = EndWatch::default();
                return Ok(Begun::Nothing);
            }
            (Phase::Open, _) | (Phase::Failed(_), TransactionResult::Abort) => {}
            (Phase::Failed(cause), TransactionResult::Commit) => {
                return Err(cause.clone().into_must_abort());
            }
            (Phase::Ending(begun, ending), _) if *begun == result => {
                return Ok(Begun::Ending(state.generation, ending.clone()));
            }
            (Phase::Ending(..), _) => {
                return Err(ClientError::WrongState {
                    call: "commit or abort",
                    state: "the transaction is being ended the other way; await that first",
                });
            }
            (Phase::Stopped(cause), _) => return Err(cause.clone()),
        }
        state.last_end = EndWatch::default();
        let ending = self.hand_over_end(state.identity, result, state.last_end.clone());
        state.phase = Phase::Ending(result, ending.clone());
        Ok(Begun::Ending(state.generation, ending))
    }

    fn hand_over_end(
        self: &Arc<Self>,
        producer: ProducerIdentity,
        result: TransactionResult,
        watch: EndWatch,
    ) -> Ending {
        let request = EndTxnRequest {
            transactional_id: self.id.clone(),
            producer,
            result,
        };
        let inner = Arc::clone(self);
        if !self.partitions.has_unanswered() {
            let first = self.transport.end_txn_watched(request.clone(), watch);
            let ending = async move { end_transaction(&*inner.transport, request, first).await };
            return ending.boxed().shared();
        }
        let ending = async move {
            // D4: every batch is in the log before the decision can be.
            let settled = settle(&inner, inner.partitions.take_flights()).await;
            if result == TransactionResult::Commit {
                settled.map_err(as_abortable)?;
            }
            let first = inner.transport.end_txn_watched(request.clone(), watch);
            end_transaction(&*inner.transport, request, first).await
        };
        ending.boxed().shared()
    }

    /// Applies the answer to EndTxn, once; every waiter gets the same outcome.
    fn settle(
        &self,
        generation: u64,
        answer: Result<Ended, ClientError>,
    ) -> Result<CommitOutcome, ClientError> {
        let mut state = self.state.lock();
        let is_mine = state.generation == generation;
        match answer {
            Ok(ended) => {
                if is_mine {
                    state.identity = ended.next;
                    state.generation += 1;
                    state.phase = Phase::Idle;
                }
                Ok(ended.outcome)
            }
            Err(error) => {
                let is_unknown = error.is_outcome_unknown();
                if is_mine {
                    state.phase = match error.kind() {
                        ErrorKind::Abortable | ErrorKind::Retriable if !is_unknown => {
                            Phase::Failed(error.clone())
                        }
                        _ => Phase::Stopped(error.clone()),
                    };
                }
                match is_unknown {
                    true => Ok(CommitOutcome::Unknown),
                    false => Err(error),
                }
            }
        }
    }
}

/// A batch failed before the end was asked for: the transaction is open, and can only be aborted.
fn as_abortable(error: ClientError) -> ClientError {
    match error.kind() {
        ErrorKind::Fenced => error,
        _ => error.into_must_abort(),
    }
}

/// Ends the transaction. If the coordinator had aborted it, after its timeout or on an operator's word (C22),
/// asking for that very end tells the epoch to go on with.
async fn end_transaction(
    transport: &dyn Transport,
    request: EndTxnRequest,
    first: Reply<ProducerIdentity>,
) -> Result<Ended, ClientError> {
    let result = request.result;
    let (result, answer) = match ask_for_end(transport, &request, first).await {
        Err(error) if error.code() == Some(ErrorCode::TransactionAbortable) => {
            let abort = EndTxnRequest {
                result: TransactionResult::Abort,
                ..request
            };
            let first = transport.end_txn(abort.clone());
            let answer = ask_for_end(transport, &abort, first).await;
            (TransactionResult::Abort, answer)
        }
        answer => (result, answer),
    };
    Ok(Ended {
        next: answer?,
        outcome: CommitOutcome::confirmed(result),
    })
}

/// Retries EndTxn, whose answer stays the same (C16). Once an answer was lost, a refusal no longer
/// says that nothing happened: the lost attempt may have committed before somebody else fenced us (I12).
async fn ask_for_end(
    transport: &dyn Transport,
    request: &EndTxnRequest,
    first: Reply<ProducerIdentity>,
) -> Result<ProducerIdentity, ClientError> {
    let mut first = Some(first);
    let was_lost = AtomicBool::new(false);
    let send = || {
        let reply = first.take();
        let reply = reply.unwrap_or_else(|| transport.end_txn(request.clone()));
        let was_lost = &was_lost;
        async move {
            let answer = reply.await;
            if answer.as_ref().is_err_and(ClientError::is_outcome_unknown) {
                was_lost.store(true, Ordering::Relaxed);
            }
            answer
        }
    };
    let answer = retry(transport.env(), send).await;
    match answer {
        // The one refusal that is about this very transaction.
        Err(error) if error.code() == Some(ErrorCode::TransactionAbortable) => Err(error),
        Err(error) if was_lost.into_inner() => Err(error.into_unanswered("EndTxn")),
        answer => answer,
    }
}

impl std::fmt::Debug for TransactionalWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TransactionalWriter")
            .field(&self.inner.id)
            .finish()
    }
}
