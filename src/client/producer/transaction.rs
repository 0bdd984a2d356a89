//! `Transaction`: which transactional call may come when, and the calls themselves as jobs of the sender.
//!
//! ```text
//! Uninitialized ─init─► Ready ─begin─► Open ─commit / abort─► Ending ─► Ready
//!                                       │ a record or offset fails          │ fenced, or outcome unknown
//!                                       ▼                                   ▼
//!                                     Failed ─abort─► Ending             Stopped
//! ```

use std::sync::Arc;

use super::accumulator::Fate;
use super::delivery::Completion;
use super::sender::{Core, Outcome, Shared};
use crate::client::{ClientError, CommitOutcome};
use crate::protocol::messages::{
    CommittedOffset, EndTxnRequest, GroupMember, TransactionResult, TxnOffsetCommitRequest,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{GroupId, ProducerIdentity, TopicPartition};

enum Phase {
    /// The producer has no transactional id.
    None,
    Uninitialized,
    Initializing(Outcome<()>),
    Ready,
    Open,
    /// Only an abort is left.
    Failed(ClientError),
    Ending(TransactionResult, Outcome<CommitOutcome>),
    Stopped(ClientError),
}

/// The state of a producer's transaction.
pub(super) struct Transaction {
    phase: Phase,
    /// Something was written, or may have been: the coordinator must be told the end.
    has_effects: bool,
    /// Failure during the transaction's commit.
    failure: Option<ClientError>,
    /// Positions on their way; a commit waits for them.
    offsets: Vec<Outcome<()>>,
}

impl Transaction {
    pub(super) fn new(is_transactional: bool) -> Self {
        Self {
            phase: match is_transactional {
                true => Phase::Uninitialized,
                false => Phase::None,
            },
            has_effects: false,
            failure: None,
            offsets: Vec::new(),
        }
    }

    /// Whether a record may be sent now.
    pub(super) fn check_send(&self) -> Result<(), ClientError> {
        match &self.phase {
            Phase::None | Phase::Open => Ok(()),
            _ => self.check_open("send"),
        }
    }

    pub(super) fn note_effect(&mut self) {
        self.has_effects = true;
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Failed(_))
    }

    fn check_open(&self, call: &'static str) -> Result<(), ClientError> {
        let state = match &self.phase {
            Phase::Open => return Ok(()),
            Phase::Failed(cause) => return Err(cause.clone().into_must_abort()),
            Phase::Stopped(cause) => return Err(cause.clone()),
            Phase::None => "the producer has no transactional.id; set one",
            Phase::Uninitialized => "call init_transactions first",
            Phase::Initializing(_) => "await init_transactions first",
            Phase::Ready => "no transaction is open; call begin_transaction first",
            Phase::Ending(..) => "the transaction is being ended; await commit or abort first",
        };
        Err(ClientError::WrongState { call, state })
    }

    /// Notes a failure; whether that leaves the transaction with nothing but an abort.
    pub(super) fn fail(&mut self, error: ClientError) -> bool {
        match &self.phase {
            Phase::Open => {
                self.phase = match error.kind() {
                    ErrorKind::Fenced => Phase::Stopped(error),
                    _ => Phase::Failed(error),
                };
                true
            }
            Phase::Ending(TransactionResult::Commit, _) if self.failure.is_none() => {
                self.failure = Some(error);
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self) -> Result<(), ClientError> {
        match &self.phase {
            Phase::Ready => {
                self.phase = Phase::Open;
                self.has_effects = false;
                self.failure = None;
                self.offsets.clear();
                Ok(())
            }
            Phase::Open | Phase::Failed(_) => Err(ClientError::WrongState {
                call: "begin_transaction",
                state: "a transaction is open; commit or abort it first",
            }),
            _ => self.check_open("begin_transaction"),
        }
    }
}

impl Shared {
    pub(super) fn begin_transaction(&self) -> Result<(), ClientError> {
        self.core.lock().transaction.begin()
    }

    /// Takes over the transactional id; also settles an outcome that was unknown.
    pub(super) fn init_transactions(self: &Arc<Self>) -> Result<Outcome<()>, ClientError> {
        let mut core = self.core.lock();
        match &core.transaction.phase {
            Phase::Initializing(outcome) => return Ok(outcome.clone()),
            Phase::Uninitialized => {}
            Phase::Stopped(cause) if is_taken_over(cause) => return Err(cause.clone()),
            Phase::Stopped(_) => {}
            Phase::None => core.transaction.check_open("init_transactions")?,
            _ => {
                return Err(ClientError::WrongState {
                    call: "init_transactions",
                    state: "the producer is initialised already",
                });
            }
        }
        let shared = self.clone();
        let outcome = self.spawn(async move { shared.run_init().await });
        core.transaction.phase = Phase::Initializing(outcome.clone());
        Ok(outcome)
    }

    async fn run_init(&self) -> Result<(), ClientError> {
        let answer = self.init_producer_id().await;
        let mut core = self.core.lock();
        match answer {
            Ok(identity) => {
                core.accumulator.set_identity(identity);
                core.transaction.phase = Phase::Ready;
                Ok(())
            }
            Err(error) => {
                core.transaction.phase = Phase::Uninitialized;
                Err(error)
            }
        }
    }

    pub(super) fn send_offsets(
        self: &Arc<Self>,
        group: GroupId,
        member: GroupMember,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<Outcome<()>, ClientError> {
        let mut core = self.core.lock();
        core.transaction.check_open("send_offsets")?;
        let (transactional_id, producer) = self.transactional(&core)?;
        core.transaction.note_effect();
        let request = TxnOffsetCommitRequest {
            transactional_id,
            producer,
            group,
            member,
            offsets,
        };
        let shared = self.clone();
        let outcome = self.spawn(async move { shared.run_send_offsets(request).await });
        core.transaction.offsets.push(outcome.clone());
        Ok(outcome)
    }

    async fn run_send_offsets(&self, request: TxnOffsetCommitRequest) -> Result<(), ClientError> {
        let ask = || self.transport.txn_offset_commit(request.clone());
        let (answer, _) = self.persist("TxnOffsetCommit", ask).await;
        if let Err(error) = &answer {
            let mut core = self.core.lock();
            core.transaction.fail(error.clone());
        }
        answer
    }

    /// The transactional id and the identity of the open transaction.
    fn transactional(
        &self,
        core: &Core,
    ) -> Result<(crate::types::TransactionalId, ProducerIdentity), ClientError> {
        let id = self.config.transactional_id.clone();
        let identity = core.accumulator.identity();
        id.zip(identity)
            .map(|(id, identity)| (id, identity.producer))
            .ok_or(ClientError::WrongState {
                call: "the transaction",
                state: "call init_transactions first",
            })
    }

    /// Begins to end the transaction; a second call for the same end gets the same outcome (C17).
    pub(super) fn end_transaction(
        self: &Arc<Self>,
        result: TransactionResult,
    ) -> Result<Outcome<CommitOutcome>, ClientError> {
        let mut core = self.core.lock();
        match (&core.transaction.phase, result) {
            (Phase::Ending(begun, outcome), _) if *begun == result => return Ok(outcome.clone()),
            (Phase::Failed(_), TransactionResult::Abort) => {}
            _ => core.transaction.check_open("commit or abort")?,
        }
        let shared = self.clone();
        let outcome = self.spawn(async move {
            match result {
                TransactionResult::Commit => shared.run_commit().await,
                TransactionResult::Abort => shared.run_abort().await,
            }
        });
        core.transaction.phase = Phase::Ending(result, outcome.clone());
        Ok(outcome)
    }

    async fn run_commit(&self) -> Result<CommitOutcome, ClientError> {
        let (completions, offsets) = {
            let mut core = self.core.lock();
            let completions = core.accumulator.flush();
            (completions, std::mem::take(&mut core.transaction.offsets))
        };
        self.wake();
        settle(completions, offsets).await;
        {
            let mut core = self.core.lock();
            if let Some(failure) = core.transaction.failure.take() {
                core.transaction.phase = Phase::Failed(failure.clone());
                return Err(failure.into_must_abort());
            }
        }
        self.run_end(TransactionResult::Commit).await
    }

    async fn run_abort(&self) -> Result<CommitOutcome, ClientError> {
        let error = ClientError::NotSent {
            why: "its transaction was aborted".to_owned(),
        };
        let (fates, offsets) = {
            let mut core = self.core.lock();
            let fates = core.accumulator.abandon(&error);
            (fates, std::mem::take(&mut core.transaction.offsets))
        };
        fates.into_iter().for_each(Fate::tell);
        // What is in flight is waited for, so that no batch of this transaction is under way any more.
        let completions = self.core.lock().accumulator.completions();
        settle(completions, offsets).await;
        self.run_end(TransactionResult::Abort).await
    }

    async fn run_end(&self, result: TransactionResult) -> Result<CommitOutcome, ClientError> {
        let request = {
            let mut core = self.core.lock();
            if !core.transaction.has_effects {
                core.accumulator.set_abandoned(false);
                core.transaction.phase = Phase::Ready;
                return Ok(CommitOutcome::confirmed(result));
            }
            let (transactional_id, producer) = self.transactional(&core)?;
            EndTxnRequest {
                transactional_id,
                producer,
                result,
            }
        };
        let (answer, was_lost) = self.ask_for_end(&request).await;
        // C22: the coordinator had aborted it, after its timeout or on an operator's word. Asking for that very
        // end tells the epoch to go on with.
        let (result, answer, was_lost) = match &answer {
            Err(error) if error.code() == Some(ErrorCode::TransactionAbortable) => {
                let abort = EndTxnRequest {
                    result: TransactionResult::Abort,
                    ..request
                };
                let (answer, was_lost) = self.ask_for_end(&abort).await;
                (TransactionResult::Abort, answer, was_lost)
            }
            _ => (result, answer, was_lost),
        };
        self.take_end(result, answer, was_lost)
    }

    /// C16: the request is the same each time, and the coordinator gives the same answer.
    async fn ask_for_end(
        &self,
        request: &EndTxnRequest,
    ) -> (Result<ProducerIdentity, ClientError>, bool) {
        let ask = || self.transport.end_txn(request.clone());
        self.persist("EndTxn", ask).await
    }

    fn take_end(
        &self,
        result: TransactionResult,
        answer: Result<ProducerIdentity, ClientError>,
        was_lost: bool,
    ) -> Result<CommitOutcome, ClientError> {
        let mut core = self.core.lock();
        match answer {
            Ok(identity) => {
                core.accumulator.set_identity(identity);
                core.transaction.phase = Phase::Ready;
                Ok(CommitOutcome::confirmed(result))
            }
            // I12: a refusal after a lost answer does not say that the lost attempt had no effect.
            Err(error) if was_lost => {
                core.transaction.phase = Phase::Stopped(error.into_unanswered("EndTxn"));
                Ok(CommitOutcome::Unknown)
            }
            Err(error) => {
                core.transaction.phase = match error.kind() {
                    ErrorKind::Abortable | ErrorKind::Retriable => Phase::Failed(error.clone()),
                    _ => Phase::Stopped(error.clone()),
                };
                Err(error)
            }
        }
    }
}

/// I4: whether somebody else has the transactional id, also where this was learned from an end whose outcome is unknown.
fn is_taken_over(cause: &ClientError) -> bool {
    let is_of_unknown_outcome = cause.is_outcome_unknown() && cause.kind() == ErrorKind::Fenced;
    is_of_unknown_outcome || cause.code() == Some(ErrorCode::ProducerFenced)
}

/// Waits for everything that is under way, whatever becomes of it.
async fn settle(completions: Vec<Arc<Completion>>, offsets: Vec<Outcome<()>>) {
    for completion in completions {
        completion.done().await;
    }
    for offset in offsets {
        // A failure was noted by the job itself.
        let _ = offset.await;
    }
}
